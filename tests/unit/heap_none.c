/*
 * heap/heap_none: every way in leads to pool_none, whose list is empty; and nobody writes to any of it,
 * whatever threads without a heap do.
 */
#include "heap/heap.h"

#include "heap/thread.h"
#include "tarn/tarn.h"
#include "unit.h"

#include <pthread.h>
#include <string.h>

static void every_way_leads_to_pool_none(void **state)
{
    (void)state;
    for (size_t i = 0; i < DIRECT_ENTRIES; i++)
        assert_ptr_equal(heap_none.direct[i], &pool_none);
    for (uint32_t class = 0; class < CLASS_COUNT; class ++) {
        assert_ptr_equal(heap_none.bins[class].current, &pool_none);
        assert_ptr_equal(heap_none.bins[class].own, &pool_none);
        assert_null(heap_none.bins[class].first);
    }
    assert_ptr_equal(pool_none.free, &pool_end);
    /* One test in malloc finds an empty list: the end's canary is no pool. */
    assert_null(pool_end.canary);
    assert_ptr_not_equal(pool_end.canary, &pool_none);
    assert_null(pool_end.next);
    assert_int_equal(heap_none.budget_bytes, 0);
    assert_non_null(heap_none.reader);
}

/* No allocation is served by the hot path of heap_none: each ends in the slow one, in the thread's own heap.
 */
static void a_new_thread_is_served(void *context, unsigned index)
{
    (void)context;
    void *blocks[64];
    for (unsigned i = 0; i < 64; i++) {
        blocks[i] = tarn_malloc(((size_t)index + 1) * 37 * (i + 1));
        must(blocks[i] != NULL && heap_self != &heap_none);
    }
    for (unsigned i = 0; i < 64; i++)
        tarn_free(blocks[i]);
}

/* A free may be a new thread's first call, too. */
static void a_new_thread_frees(void *context, unsigned index)
{
    void **blocks = context;
    tarn_free(blocks[index]);
}

static pthread_key_t late_key;

/* Runs after the library's own destructor, whose key is older: the thread has no heap any more. */
static void work_late(void *value)
{
    must(heap_self == &heap_none);
    tarn_free(value);
    void *blocks[40];
    for (size_t i = 0; i < 40; i++)
        must((blocks[i] = tarn_malloc(i * i * 50)) != NULL);
    for (size_t i = 0; i < 40; i++)
        tarn_free(blocks[i]);
    must(heap_self == &heap_none);
}

static void set_late_value(void *context, unsigned index)
{
    (void)context;
    void *block = tarn_malloc(1000 * (index + 1));
    must(block != NULL && pthread_setspecific(late_key, block) == 0);
}

static struct heap heap_before;
static struct pool pool_before;
static struct block end_before;

static void nobody_writes_to_it(void **state)
{
    (void)state;
    void *blocks[4];
    memcpy(&heap_before, &heap_none, sizeof heap_none);
    memcpy(&pool_before, &pool_none, sizeof pool_none);
    memcpy(&end_before, &pool_end, sizeof pool_end);
    for (size_t i = 0; i < 4; i++)
        assert_non_null(blocks[i] = tarn_malloc((size_t)10 << (4 * i)));
    assert_int_equal(pthread_key_create(&late_key, work_late), 0);
    threads_run(4, a_new_thread_is_served, NULL);
    threads_run(4, a_new_thread_frees, blocks);
    threads_run(4, set_late_value, NULL);
    assert_int_equal(tarn_malloc_trim(0) & ~1, 0);
    assert_memory_equal(&heap_none, &heap_before, sizeof heap_none);
    assert_memory_equal(&pool_none, &pool_before, sizeof pool_none);
    assert_memory_equal(&pool_end, &end_before, sizeof pool_end);
    pthread_key_delete(late_key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_way_leads_to_pool_none),
        cmocka_unit_test(nobody_writes_to_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
