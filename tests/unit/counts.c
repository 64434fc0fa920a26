/*
 * heap/counts: what is estimated from the budget is near what was done, whatever the sizes.
 */
#include "heap/counts.h"

#include "heap/heap.h"
#include "heap/thread.h"
#include "tarn/tarn.h"

#include "unit.h"

#define CALLS TURNS(400000)

static struct kind_counts before[COUNTED_KINDS];

static void begin(void)
{
    struct heap *heap = thread_heap();
    for (uint32_t kind = 0; kind < COUNTED_KINDS; kind++) {
        owned_set(&before[kind].calls, owned_total_read(&heap->counts.kinds[kind].calls));
        owned_set(&before[kind].bytes, owned_total_read(&heap->counts.kinds[kind].bytes));
    }
}

static uint64_t calls_of(uint32_t kind)
{
    return owned_total_read(&heap_self->counts.kinds[kind].calls) - owned_total_read(&before[kind].calls);
}

static uint64_t bytes_of(uint32_t kind)
{
    return owned_total_read(&heap_self->counts.kinds[kind].bytes) - owned_total_read(&before[kind].bytes);
}

static void allocate(size_t bytes)
{
    void *block = tarn_malloc(bytes);
    must(block != NULL);
    tarn_free(block);
}

static void check_near(uint64_t estimated, uint64_t true_number, uint64_t percent)
{
    assert_in_range(estimated * 100, true_number * (100 - percent), true_number * (100 + percent));
}

static void one_size(void **state)
{
    (void)state;
    begin();
    for (size_t i = 0; i < CALLS; i++)
        allocate(50);
    check_near(calls_of(class_of_size(50)), CALLS, 3);
    check_near(bytes_of(class_of_size(50)), CALLS * 50, 3);
}

/* Their sum divides every power of two: with budgets of one length only one would ever be met. */
static void two_sizes_in_turns(void **state)
{
    (void)state;
    begin();
    for (size_t i = 0; i < CALLS; i++) {
        allocate(48);
        allocate(208);
    }
    check_near(calls_of(class_of_size(48)), CALLS, 15);
    check_near(calls_of(class_of_size(208)), CALLS, 15);
}

static void every_path(void **state)
{
    (void)state;
    begin();
    for (size_t i = 0; i < CALLS; i++) {
        allocate(100);
        allocate(5000);
        if (i % 20 == 0)
            allocate(100000);
        if (i % 400 == 0)
            allocate(2000000);
    }
    check_near(calls_of(class_of_size(100)), CALLS, 15);
    check_near(calls_of(class_of_size(5000)), CALLS, 15);
    check_near(bytes_of(class_of_size(5000)), CALLS * 5000, 15);
    check_near(calls_of(COUNTED_RUN), CALLS / 20, 15);
    check_near(calls_of(COUNTED_RAW), CALLS / 400, 15);
}

/* Those that find their list empty are counted one by one. */
static void blocks_that_stay(void **state)
{
    static void *blocks[50000];
    (void)state;
    begin();
    for (size_t i = 0; i < CALLS / 8; i++)
        blocks[i] = tarn_malloc(3000);
    for (size_t i = 0; i < CALLS / 8; i++)
        tarn_free(blocks[i]);
    check_near(calls_of(class_of_size(3000)), CALLS / 8, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_size),
        cmocka_unit_test(two_sizes_in_turns),
        cmocka_unit_test(every_path),
        cmocka_unit_test(blocks_that_stay),
    };
    return cmocka_run_group_tests_name("counts", tests, NULL, NULL);
}
