/*
 * heap/slow: served with a heap and without one, with a budget and without memory.
 */
#include "heap/heap.h"

#include "heap/park.h"
#include "heap/thread.h"
#include "heap/tick.h"
#include "os/clock.h"
#include "unit.h"

#include <errno.h>
#include <pthread.h>

static struct heap *heap;

static int take_heap(void **state)
{
    (void)state;
    heap = park_take();
    return heap != NULL ? 0 : -1;
}

static int leave_heap(void **state)
{
    (void)state;
    park_leave(heap);
    return 0;
}

static uint64_t word_of(const void *block)
{
    return atomic_load(&arena_of(block)->slot_map[arena_slot_of(block)]);
}

static struct pool *pool_of(const void *block)
{
    return pool_of_word(block, word_of(block));
}

static void every_size_gets_its_class(void **state)
{
    (void)state;
    errno = EDOM;
    for (size_t bytes = 0; bytes <= CLASS_BYTES_MOST; bytes += bytes < 1100 ? 1 : 101) {
        heap->budget_bytes = INT64_MAX;
        struct block *block = heap_malloc_slow(heap, bytes);
        assert_non_null(block);
        assert_int_equal(pool_class(pool_of(block)), class_of_size(bytes == 0 ? 1 : bytes));
        assert_ptr_equal(pool_word_heap(word_of(block)), heap);
        assert_null(block->canary);
        heap_free_own(pool_of(block), block);
    }
    struct block *largest = heap_malloc_slow(heap, CLASS_BYTES_MOST);
    assert_int_equal(pool_class(pool_of(largest)), CLASS_COUNT - 1);
    heap_free_own(pool_of(largest), largest);
    assert_int_equal(errno, EDOM);
}

static void a_used_up_budget_is_renewed(void **state)
{
    (void)state;
    heap->budget_bytes = -1;
    heap->heartbeat_ms = 0;
    struct block *block = heap_malloc_slow(heap, 100);
    assert_true(heap->budget_bytes > 0 && heap->heartbeat_ms > 0);
    heap_free_own(pool_of(block), block);
    /* With budget left there is no heartbeat. */
    heap->budget_bytes = 5;
    heap->heartbeat_ms = 0;
    block = heap_malloc_slow(heap, 100);
    assert_int_equal(heap->heartbeat_ms, 0);
    heap_free_own(pool_of(block), block);
}

static void what_pools_did_not_serve_is_spent_too(void **state)
{
    (void)state;
    heap->budget_bytes = 10000;
    heap->heartbeat_ms = 0;
    tick_spend(heap, 64 * KIB);
    assert_true(heap->budget_bytes < 10000 && heap->budget_bytes > 0);
    assert_int_equal(heap->heartbeat_ms, 0);
    for (unsigned i = 0; i < 100 && heap->heartbeat_ms == 0; i++)
        tick_spend(heap, 512 * KIB);
    assert_true(heap->heartbeat_ms > 0 && heap->budget_bytes > 0);
    heap->heartbeat_ms = 0;
    tick_spend(heap, PTRDIFF_MAX);
    assert_true(heap->heartbeat_ms > 0 && heap->budget_bytes > 0);
}

/* A thread's first call: through heap_none, whatever it asks for. */
static void first_call(void *context, unsigned index)
{
    (void)context;
    must(heap_self == &heap_none || index == 99);
    struct block *block = heap_malloc_slow(&heap_none, index * 1000);
    must(block != NULL && heap_self != &heap_none);
    must(pool_word_heap(word_of(block)) == heap_self);
    must(heap_malloc_slow(&heap_none, 48) != NULL); /* again, by who has one by now */
    must(thread_heap() == heap_self);
    heap_free_own(pool_of(block), block);
}

static void a_thread_without_a_heap_gets_one(void **state)
{
    (void)state;
    threads_run(4, first_call, NULL);
}

static pthread_key_t late_key;
static _Atomic unsigned late_calls;

static void call_late(void *value)
{
    (void)value;
    must(heap_self == &heap_none && thread_heap() == NULL);
    errno = EDOM;
    struct block *block = heap_malloc_slow(&heap_none, 5000);
    must(block != NULL && errno == EDOM && heap_self == &heap_none);
    struct heap *late = thread_late_heap();
    must(late != NULL && pool_word_heap(word_of(block)) == late);
    heap_free_own(pool_of(block), block);
    late->budget_bytes = 1000; /* counts down, and is renewed */
    late->heartbeat_ms = 0;
    thread_late_done();
    block = heap_malloc_slow(&heap_none, 900);
    must(thread_late_heap() == late && late->budget_bytes < 1000);
    heap_free_own(pool_of(block), block);
    thread_late_done();
    block = heap_malloc_slow(&heap_none, 900);
    must(thread_late_heap() == late && late->heartbeat_ms > 0);
    heap_free_own(pool_of(block), block);
    thread_late_done();
    late_calls++;
}

static void set_late(void *context, unsigned index)
{
    (void)context;
    must(heap_malloc_slow(&heap_none, index) != NULL);
    must(pthread_setspecific(late_key, &late_key) == 0);
}

static void a_late_thread_is_served_by_the_late_heap(void **state)
{
    (void)state;
    assert_int_equal(pthread_key_create(&late_key, call_late), 0);
    threads_run(1, set_late, NULL);
    threads_run(1, set_late, NULL);
    assert_int_equal(late_calls, 2);
    pthread_key_delete(late_key);
}

static void without_memory_body(void *context)
{
    (void)context;
    limit_address_space(0);
    errno = EDOM;
    while (heap_malloc_slow(heap, 30000) != NULL)
        must(errno == EDOM);
    must(errno == ENOMEM);
    errno = EDOM;
    must(heap_malloc_slow(heap, 30000) == NULL && errno == ENOMEM);
    must(heap_is_valid(heap));
}

static void without_memory(void **state)
{
    (void)state;
    child_must_succeed(without_memory_body, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, take_heap, leave_heap)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_size_gets_its_class),
        TEST(a_used_up_budget_is_renewed),
        TEST(what_pools_did_not_serve_is_spent_too),
        TEST(a_thread_without_a_heap_gets_one),
        TEST(a_late_thread_is_served_by_the_late_heap),
        TEST(without_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
