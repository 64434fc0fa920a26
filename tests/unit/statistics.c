/*
 * observe/statistics: the numbers follow a known pattern of allocations, their sums agree, and they may be
 * read while other threads go on.
 *
 * Where cmocka runs on Tarn its own few blocks are counted too: what is compared exactly are classes, runs
 * and raw blocks that it does not use.
 */
#include "observe/statistics.h"

#include "heap/thread.h"
#include "heap/tick.h"
#include "housekeeping.h"
#include "tarn/tarn.h"
#include "unit.h"

#include <pthread.h>

static struct statistics before;
static struct statistics after;

/* All that must hold whenever nobody else is running. */
static void collect(struct statistics *statistics)
{
    statistics_collect(statistics);
    size_t pool_slots = 0;
    size_t used_bytes = 0;
    for (uint32_t class = 0; class < CLASS_COUNT; class ++) {
        const struct class_statistics *one = &statistics->classes[class];
        assert_true(one->blocks_used <= one->blocks_capacity);
        assert_int_equal(one->blocks_capacity, one->pools * class_pool_blocks(class));
        pool_slots += one->pools * class_pool_slots(class);
        used_bytes += one->blocks_used * class_bytes(class);
    }
    assert_int_equal(statistics->pool_slots, pool_slots);
    assert_int_equal(statistics->block_bytes_used, used_bytes);
    assert_int_equal(statistics->arena_bytes, statistics->arenas * 4 * MIB);
    assert_int_equal(statistics->header_slots, statistics->arenas * 2);
    assert_int_equal(statistics->header_slots + statistics->pool_slots + statistics->run_slots +
                         statistics->free_slots + statistics->kept_slots,
                     statistics->arenas * 256);
    assert_true(statistics->dirty_slots <= statistics->free_slots);
    assert_true(statistics->heaps_parked <= statistics->heaps);
    assert_int_equal(thread_heap()->reader->sections % 2, 0); /* it does not stay inside */
}

/* Nothing kept back, so that the next numbers are those of the pattern alone. */
static int begin(void **state)
{
    (void)state;
    (void)tarn_malloc_trim(0);
    collect(&before);
    return 0;
}

#define BLOCKS 3000U

static void *blocks[BLOCKS];

static void take_blocks(size_t bytes, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        assert_non_null(blocks[i] = tarn_malloc(bytes));
}

static void free_blocks(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        tarn_free(blocks[i]);
}

static void blocks_are_counted_by_class(void **state)
{
    (void)state;
    static const size_t sizes[] = {176, 3500, 14000};
    static const unsigned counts[] = {3000, 500, 70};
    for (unsigned i = 0; i < 3; i++) {
        uint32_t class = class_of_size(sizes[i]);
        take_blocks(sizes[i], counts[i]);
        collect(&after);
        const struct class_statistics *then = &before.classes[class];
        const struct class_statistics *now = &after.classes[class];
        assert_int_equal(now->blocks_used - then->blocks_used, counts[i]);
        assert_int_equal(after.block_bytes_used - before.block_bytes_used,
                         (size_t)counts[i] * class_bytes(class));
        size_t pools =
            (then->blocks_used + counts[i] + class_pool_blocks(class) - 1) / class_pool_blocks(class);
        assert_true(now->pools == pools || now->pools == pools + then->pools);
        for (unsigned k = 0; k < counts[i]; k += 2)
            tarn_free(blocks[k]);
        collect(&after);
        assert_int_equal(now->blocks_used - then->blocks_used, counts[i] / 2);
        for (unsigned k = 1; k < counts[i]; k += 2)
            tarn_free(blocks[k]);
        collect(&after);
        assert_int_equal(now->blocks_used, then->blocks_used);
        assert_int_equal(after.block_bytes_used, before.block_bytes_used);
    }
}

static void runs_are_counted(void **state)
{
    (void)state;
    void *short_run = tarn_malloc(40000);
    void *long_run = tarn_malloc(500000);
    collect(&after);
    assert_int_equal(after.runs - before.runs, 2);
    assert_int_equal(after.run_slots - before.run_slots, 3 + 31);
    tarn_free(long_run);
    collect(&after);
    assert_int_equal(after.runs - before.runs, 1);
    assert_int_equal(after.run_slots - before.run_slots, 3);
    assert_true(after.kept_slots >= before.kept_slots + 31);
    tarn_free(short_run);
    collect(&after);
    assert_int_equal(after.runs, before.runs);
    assert_int_equal(tarn_malloc_trim(0), 1);
    collect(&after);
    assert_int_equal(after.dirty_slots, dirty_beside_used());
    assert_int_equal(after.raw.cached_bytes, 0);
    assert_true(after.housekeeper.purged_bytes >=
                before.housekeeper.purged_bytes + (34 - after.dirty_slots) * 16 * KIB);
}

static void raw_blocks_are_counted(void **state)
{
    (void)state;
    void *block = tarn_malloc(3 * MIB);
    collect(&after);
    assert_int_equal(after.raw.live_blocks - before.raw.live_blocks, 1);
    assert_int_equal(after.raw.live_bytes - before.raw.live_bytes, 3 * MIB);
    assert_int_equal(after.block_bytes_used, before.block_bytes_used);
    tarn_free(block);
    collect(&after);
    assert_int_equal(after.raw.live_bytes, before.raw.live_bytes);
    assert_int_equal(after.raw.cached_bytes - before.raw.cached_bytes, 3 * MIB);
    assert_int_equal(after.raw.cached_blocks - before.raw.cached_blocks, 1);
}

static void free_all(void *context, unsigned index)
{
    (void)index;
    free_blocks(*(const unsigned *)context);
    /* Here, and not yet at home: still used. */
    struct statistics *now = &after;
    statistics_collect(now);
}

static void a_block_on_its_way_is_used(void **state)
{
    (void)state;
    unsigned count = 40;
    uint32_t class = class_of_size(1900);
    take_blocks(1900, count);
    threads_run(1, free_all, &count);
    assert_int_equal(after.classes[class].blocks_used - before.classes[class].blocks_used, count);
    tick_reclaim(thread_heap()); /* takes in what was posted when the thread ended */
    collect(&after);
    assert_int_equal(after.classes[class].blocks_used, before.classes[class].blocks_used);
}

static pthread_barrier_t up;
static pthread_barrier_t down;

static void stay_a_while(void *context, unsigned index)
{
    (void)index;
    void **block = context;
    *block = tarn_malloc(100);
    pthread_barrier_wait(&up);
    pthread_barrier_wait(&down);
    tarn_free(*block);
}

static void *run_stay_a_while(void *argument)
{
    stay_a_while(argument, 0);
    return NULL;
}

static void heaps_are_counted(void **state)
{
    (void)state;
    pthread_t threads[4];
    void *held[4];
    assert_int_equal(pthread_barrier_init(&up, NULL, 5), 0);
    assert_int_equal(pthread_barrier_init(&down, NULL, 5), 0);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_stay_a_while, &held[i]), 0);
    pthread_barrier_wait(&up);
    collect(&after);
    assert_true(after.heaps >= 5);
    size_t parked = after.heaps_parked;
    assert_int_equal(after.heaps - parked, before.heaps - before.heaps_parked + 4);
    pthread_barrier_wait(&down);
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    collect(&after);
    assert_int_equal(after.heaps_parked, parked + 4);
}

/* ---- while others go on ---- */

static _Atomic bool finished;

static void churn(void)
{
    struct random random = {3};
    void *held[200] = {NULL};
    while (!finished) {
        for (unsigned k = 0; k < 1000; k++) {
            unsigned i = (unsigned)random_below(&random, 200);
            tarn_free(held[i]);
            held[i] = tarn_malloc(random_below(&random, k % 50 == 0 ? MIB : 3000));
            must(held[i] != NULL);
        }
    }
    for (unsigned i = 0; i < 200; i++)
        tarn_free(held[i]);
}

static void collect_meanwhile(void)
{
    static struct statistics now;
    for (unsigned i = 0; i < 2000; i++) {
        statistics_collect(&now);
        for (uint32_t class = 0; class < CLASS_COUNT; class ++)
            must(now.classes[class].blocks_used <= now.classes[class].blocks_capacity);
        must(now.free_slots + now.header_slots <= now.arenas * 256 && now.arenas < 1000);
        must(now.block_bytes_used <= now.pool_slots * 16 * KIB);
        if (i % 200 == 0)
            (void)tarn_malloc_trim(0);
    }
    finished = true;
}

static void churn_or_collect(void *context, unsigned index)
{
    (void)context;
    if (index == 0)
        collect_meanwhile();
    else
        churn();
}

static void collected_while_others_go_on(void **state)
{
    (void)state;
    threads_run(4, churn_or_collect, NULL);
    (void)tarn_malloc_trim(0);
    collect(&after);
    assert_int_equal(after.runs, before.runs);
    assert_int_equal(after.raw.live_blocks, before.raw.live_blocks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(blocks_are_counted_by_class, begin),
        cmocka_unit_test_setup(runs_are_counted, begin),
        cmocka_unit_test_setup(raw_blocks_are_counted, begin),
        cmocka_unit_test_setup(a_block_on_its_way_is_used, begin),
        cmocka_unit_test_setup(heaps_are_counted, begin),
        cmocka_unit_test_setup(collected_while_others_go_on, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
