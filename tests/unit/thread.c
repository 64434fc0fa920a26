/*
 * heap/thread: a heap for each running thread, parked when it ends and taken up by the next; late threads
 * share one, under a lock.
 */
#include "heap/thread.h"

#include "arena/arena_list.h"
#include "heap/park.h"
#include "tarn/tarn.h"
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>

#define THREADS 8U

/* ---- running ---- */

static struct heap *heaps[THREADS];
static pthread_barrier_t all_have_one;

static void get_a_heap(void *context, unsigned index)
{
    (void)context;
    errno = EDOM;
    struct heap *heap = thread_heap();
    must(heap != NULL && heap == heap_self && heap != &heap_none);
    must(errno == EDOM);
    must(thread_heap() == heap);
    must(!park_is_parked(heap->number) && park_heap(heap->number) == heap);
    heaps[index] = heap;
    pthread_barrier_wait(&all_have_one);
    must(thread_heap() == heap);
}

static void each_thread_has_a_heap_of_its_own(void **state)
{
    (void)state;
    struct heap *first[THREADS] = {NULL};
    assert_int_equal(pthread_barrier_init(&all_have_one, NULL, THREADS), 0);
    assert_non_null(thread_heap());
    for (unsigned round = 0; round < 3; round++) {
        threads_run(THREADS, get_a_heap, NULL);
        for (unsigned i = 0; i < THREADS; i++) {
            assert_ptr_not_equal(heaps[i], thread_heap());
            assert_true(park_is_parked(heaps[i]->number));
            for (unsigned k = 0; k < i; k++)
                assert_ptr_not_equal(heaps[i], heaps[k]);
        }
        if (round == 0) {
            memcpy(first, heaps, sizeof heaps);
            continue;
        }
        for (unsigned i = 0; i < THREADS; i++) { /* the same heaps again, whoever has which */
            bool known = false;
            for (unsigned k = 0; k < THREADS; k++)
                known |= heaps[i] == first[k];
            assert_true(known);
        }
    }
    pthread_barrier_destroy(&all_have_one);
}

static void take_and_leave_blocks(void *context, unsigned index)
{
    void **blocks = context;
    for (size_t i = 0; i < 100; i++) {
        blocks[index * 100 + i] = tarn_malloc(100 + i);
        must(blocks[index * 100 + i] != NULL);
        pattern_write(blocks[index * 100 + i], 100, i);
    }
}

static void free_blocks_of_others(void *context, unsigned index)
{
    void **blocks = context;
    for (size_t i = 0; i < 100; i++) {
        void *block = blocks[(index * 37 + i * 3) % THREADS * 100 + i];
        must(pattern_holds(block, 100, i));
        tarn_free(block);
    }
}

/* Blocks outlive the thread that allocated them. */
static void blocks_outlive_their_thread(void **state)
{
    (void)state;
    static void *blocks[THREADS * 100];
    threads_run(THREADS, take_and_leave_blocks, blocks);
    for (size_t i = 0; i < THREADS * 100; i++)
        assert_true(pattern_holds(blocks[i], 100, i % 100));
    threads_run(THREADS, free_blocks_of_others, blocks);
}

/* ---- late ---- */

static pthread_key_t late_key;
static struct heap *_Atomic own_heap;
static struct heap *_Atomic late_heap;
static unsigned inside; /* under the late heap's lock */
static unsigned late_rounds;

static void work_late(void *value)
{
    must(heap_self == &heap_none);
    must(thread_heap() == NULL && thread_begin() == NULL);
    for (size_t i = 0; i < 200; i++) {
        struct heap *late = thread_late_heap();
        must(late != NULL && heap_self == &heap_none);
        must(inside++ == 0);
        if (i % 16 == 0)
            sched_yield();
        struct heap *before = atomic_exchange(&late_heap, late);
        must(before == NULL || before == late); /* always the same */
        must(!park_is_parked(late->number));
        late_rounds++;
        must(inside-- == 1);
        thread_late_done();
        void *block = tarn_malloc(i * 33);
        must(block != NULL);
        memset(block, 'l', i * 33);
        tarn_free(block);
    }
    tarn_free(value);
    must(thread_heap() == NULL);
}

static void become_late(void *context, unsigned index)
{
    (void)context;
    void *block = tarn_malloc(index + 100);
    must(pthread_setspecific(late_key, block) == 0);
    own_heap = thread_heap();
}

/* The library's key is older than this one, so its destructor has run when this one's runs. */
static void late_threads_share_a_heap(void **state)
{
    (void)state;
    assert_int_equal(pthread_key_create(&late_key, work_late), 0);
    threads_run(1, become_late, NULL);
    assert_true(park_is_parked(atomic_load(&own_heap)->number) || own_heap == late_heap);
    uint32_t bound = park_bound();
    threads_run(THREADS, become_late, NULL);
    assert_int_equal(late_rounds, 200 * (THREADS + 1));
    assert_true(park_bound() <= bound + THREADS);
    assert_false(park_is_parked(atomic_load(&late_heap)->number));
    assert_true(heap_is_valid(late_heap));
    pthread_key_delete(late_key);
}

/* ---- fork, and no memory ---- */

static void use_the_late_heap(void *context)
{
    struct heap *late = context;
    must(thread_late_heap() == late);
    thread_late_done();
}

static void the_late_lock_is_free_in_a_child(void **state)
{
    (void)state;
    struct heap *late = thread_late_heap();
    assert_non_null(late);
    thread_late_done();
    thread_before_fork();
    thread_after_fork();
    child_must_succeed(use_the_late_heap, late);
    assert_ptr_equal(thread_late_heap(), late);
    thread_late_done();
}

static pthread_barrier_t limited;
static pthread_barrier_t lifted;

static void *begin_without_memory(void *run)
{
    pthread_barrier_wait(&limited);
    must(thread_heap() == NULL && heap_self == &heap_none);
    errno = EDOM;
    must(tarn_malloc(100) == NULL && errno == ENOMEM);
    uint32_t held_slots = arena_list_ledger().held_slots;
    tarn_free(run);
    must(arena_list_ledger().held_slots == held_slots - 7);
    pthread_barrier_wait(&lifted);
    void *block = tarn_malloc(100); /* it asks again */
    must(block != NULL && heap_self != &heap_none && thread_heap() == heap_self);
    tarn_free(block);
    return NULL;
}

static void start_a_thread_without_memory(void *context)
{
    (void)context;
    pthread_t thread;
    must(pthread_barrier_init(&limited, NULL, 2) == 0 && pthread_barrier_init(&lifted, NULL, 2) == 0);
    must(pthread_create(&thread, NULL, begin_without_memory, tarn_malloc(7 * 16 * KIB)) == 0);
    limit_address_space(0);
    while (park_take() != NULL) /* all there are, and all that fit */
        continue;
    pthread_barrier_wait(&limited);
    sleep_ms(50);
    lift_limit();
    pthread_barrier_wait(&lifted);
    must(pthread_join(thread, NULL) == 0);
}

/* Before there is a late heap. */
static void without_memory_for_a_heap(void **state)
{
    (void)state;
    if (UNIT_SANITIZED)
        not_here("the sanitizer needs memory for a thread itself");
    child_must_succeed(start_a_thread_without_memory, NULL);
}

static void initialising_again_changes_nothing(void **state)
{
    (void)state;
    struct heap *heap = thread_heap();
    for (unsigned i = 0; i < 2000; i++) /* keys are few: it takes one only */
        thread_initialise();
    pthread_key_t key;
    assert_int_equal(pthread_key_create(&key, NULL), 0);
    pthread_key_delete(key);
    assert_ptr_equal(thread_heap(), heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_thread_has_a_heap_of_its_own),
        cmocka_unit_test(blocks_outlive_their_thread),
        cmocka_unit_test(without_memory_for_a_heap),
        cmocka_unit_test(late_threads_share_a_heap),
        cmocka_unit_test(the_late_lock_is_free_in_a_child),
        cmocka_unit_test(initialising_again_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
