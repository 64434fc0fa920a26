/*
 * os/clock: milliseconds of the monotonic clock, at most some ticks of the kernel behind it.
 */
#include "os/clock.h"

#include "unit.h"

#include <time.h>

/* The coarse clock moves with the kernel's tick, 100 to 1000 times a second. */
#define STEP_MS_MOST 20

static void it_tells_milliseconds(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        uint64_t before_ms = now_ns() / 1000000;
        uint64_t coarse_ms = clock_now_ms();
        uint64_t after_ms = now_ns() / 1000000;
        assert_true(coarse_ms + STEP_MS_MOST >= before_ms);
        assert_true(coarse_ms <= after_ms);
    }
}

static void it_goes_on_while_one_sleeps(void **state)
{
    (void)state;
    uint64_t start_ms = clock_now_ms();
    sleep_ms(100);
    uint64_t slept_ms = clock_now_ms() - start_ms;
    assert_true(slept_ms + STEP_MS_MOST >= 100);
    assert_true(slept_ms < 30000);
}

static void watch(void *context, unsigned index)
{
    (void)context;
    (void)index;
    uint64_t end_ns = now_ns() + 50000000;
    uint64_t last_ms = 0;
    while (now_ns() < end_ns) {
        uint64_t now_ms = clock_now_ms();
        must(now_ms >= last_ms);
        last_ms = now_ms;
    }
}

static void it_never_goes_back(void **state)
{
    (void)state;
    threads_run(4, watch, NULL);
}

/* Across threads: what one has read before it hands over, another does not fall behind. */
static _Atomic uint64_t latest_ms;

static void hand_over(void *context, unsigned index)
{
    (void)context;
    (void)index;
    for (unsigned i = 0; i < 20000; i++) {
        uint64_t seen_ms = latest_ms;
        uint64_t now_ms = clock_now_ms();
        must(now_ms >= seen_ms);
        latest_ms = now_ms;
    }
}

static void threads_agree(void **state)
{
    (void)state;
    threads_run(4, hand_over, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_tells_milliseconds),
        cmocka_unit_test(it_goes_on_while_one_sleeps),
        cmocka_unit_test(it_never_goes_back),
        cmocka_unit_test(threads_agree),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
