/*
 * heap/sample: one in N, whatever the sizes; each of them for N = 1; none when off.
 */
#include "heap/sample.h"

#include "guard/guard.h"
#include "heap/thread.h"
#include "os/settings.h"
#include "unit.h"

/* Takes and frees as malloc and free do; counts the guarded. */
static size_t guarded_of(size_t count, size_t bytes)
{
    size_t guarded = 0;
    for (size_t i = 0; i < count; i++) {
        void *block = bytes <= DIRECT_BYTES_MOST ? heap_malloc_small(heap_self, bytes)
                                                 : heap_malloc_medium(heap_self, bytes);
        must(block != NULL);
        size_t asked;
        if (guard_nearest(block) != NULL && guard_is_live(block, &asked)) {
            must(asked == bytes);
            guard_free(block);
            guarded++;
        } else {
            struct arena *arena = arena_of(block);
            heap_free_own(pool_of_word(block, atomic_load(&arena->slot_map[arena_slot_of(block)])), block);
        }
    }
    return guarded;
}

static void begin(uint64_t interval)
{
    settings.guard_interval = interval;
    sample_begin(thread_heap());
}

static void every_allocation_with_1(void **state)
{
    (void)state;
    begin(1);
    assert_int_equal(guarded_of(500, 16), 500);
    assert_int_equal(guarded_of(100, 0), 100);
    assert_int_equal(guarded_of(100, 30000), 100);
}

/* Six standard deviations either side, and more. */
static void one_in_n_on_average(void **state)
{
    (void)state;
    static const uint64_t intervals[] = {10, 64, 65, 500};
    static const size_t sizes[] = {8, 16, 100, 1000, 5000};
    for (size_t i = 0; i < sizeof intervals / sizeof intervals[0]; i++) {
        for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
            begin(intervals[i]);
            size_t expected = 1000;
            size_t guarded = guarded_of(expected * intervals[i], sizes[k]);
            if (guarded < 700 || guarded > 1300)
                fail_msg("1/%zu of %zu bytes: %zu instead of about %zu", (size_t)intervals[i], sizes[k],
                         guarded, expected);
        }
    }
}

static void none_when_off(void **state)
{
    (void)state;
    settings.guard_interval = 0;
    thread_heap()->budget_bytes = 0;
    assert_int_equal(guarded_of(100000, 48), 0);
}

int main(void)
{
    must(thread_heap() != NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_with_1),
        cmocka_unit_test(one_in_n_on_average),
        cmocka_unit_test(none_when_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
