/*
 * Trap: frees and allocations in the destructors of thread-specific data, before and after the allocator's
 * own destructor ran, in every round that POSIX grants, with blocks of this and of other threads; and memory
 * that the C library frees even later (the thread's dlerror text, its dynamic thread-local storage).
 *
 * Keys are made both before anything else (.preinit_array, so that their destructors run first in a round)
 * and after the allocator is in use (run last). More than 32 keys are in use, so that pthread_setspecific
 * itself allocates.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "../interface.h"

enum { KEYS_BEFORE = 40, KEYS_AFTER = 40, KEYS = KEYS_BEFORE + KEYS_AFTER, HELD = 6 };

static const size_t sizes[HELD] = {24, 700, 9000, 30 * KIB, 150 * KIB, 700 * KIB};

static pthread_key_t keys[KEYS];
static atomic_ulong destructor_calls;

/* What a key holds: blocks of its thread, and how often its destructor has run. */
struct holding {
    size_t key;
    unsigned round;
    void *blocks[HELD];
};

static struct holding *hold(size_t key, unsigned round)
{
    struct holding *holding = malloc(sizeof *holding);

    must(holding != NULL);
    holding->key = key;
    holding->round = round;
    for (size_t i = 0; i < HELD; i++) {
        /* Large ones for some keys only: 80 keys hold them at once. */
        size_t size = key % 8 == 0 ? sizes[i] : 24 + key;

        holding->blocks[i] = malloc(opaque_size(size));
        must(holding->blocks[i] != NULL);
        memset(holding->blocks[i], (int)key, size < 4096 ? size : 4096);
    }
    return holding;
}

static void release(struct holding *holding)
{
    for (size_t i = 0; i < HELD; i++) {
        must(*(unsigned char *)holding->blocks[i] == (unsigned char)holding->key);
        free(holding->blocks[i]);
    }
    free(holding);
}

/* Frees what the last round left and, but for the last round, leaves new blocks to the next. */
static void destructor(void *value)
{
    struct holding *holding = value;
    size_t key = holding->key;
    unsigned round = holding->round + 1;

    release(holding);
    atomic_fetch_add(&destructor_calls, 1);
    if (round < PTHREAD_DESTRUCTOR_ITERATIONS)
        must(pthread_setspecific(keys[key], hold(key, round)) == 0);
}

static void make_keys(size_t first, size_t count)
{
    for (size_t i = first; i < first + count; i++)
        must(pthread_key_create(&keys[i], destructor) == 0);
}

static void before_all_constructors(void)
{
    make_keys(0, KEYS_BEFORE);
}

__attribute__((section(".preinit_array"), used)) static void (*const preinit)(void) = before_all_constructors;

static void *use_all_keys(void *argument)
{
    void *probe;

    (void)argument;
    for (size_t i = 0; i < KEYS; i++)
        must(pthread_setspecific(keys[i], hold(i, 0)) == 0);
    /* The C library keeps a text for this thread and frees it after all destructors. */
    probe = dlsym(RTLD_DEFAULT, "no_such_symbol_anywhere_in_this_process");
    must(probe == NULL && dlerror() != NULL);
    must(dlsym(RTLD_DEFAULT, "nor_this_one") == NULL);
    return NULL;
}

/* Uses the allocator in its destructors alone: the thread's first allocation is in a destructor. */
static pthread_key_t late_key;

static void first_allocation_in_a_destructor(void *value)
{
    struct holding *holding = hold(0, 0);

    (void)value;
    release(holding);
    atomic_fetch_add(&destructor_calls, 1);
}

static void *allocate_nothing(void *argument)
{
    must(pthread_setspecific(late_key, argument) == 0);
    return NULL;
}

static void run_threads(void *(*body)(void *), unsigned count)
{
    enum { AT_ONCE = 4 };

    for (unsigned i = 0; i < count; i += AT_ONCE) {
        pthread_t threads[AT_ONCE];

        for (size_t t = 0; t < AT_ONCE; t++)
            assert_int_equal(pthread_create(&threads[t], NULL, body, &late_key), 0);
        for (size_t t = 0; t < AT_ONCE; t++)
            assert_int_equal(pthread_join(threads[t], NULL), 0);
    }
}

static void every_destructor_runs_in_every_round(void **state)
{
    (void)state;
    atomic_store(&destructor_calls, 0);
    run_threads(use_all_keys, 8);
    assert_int_equal(atomic_load(&destructor_calls), 8 * KEYS * PTHREAD_DESTRUCTOR_ITERATIONS);
}

/* What threads leave behind does not pile up: late frees arrive, and heaps are taken over by new threads. */
static void memory_of_many_threads_comes_back(void **state)
{
    size_t early, late;

    (void)state;
    run_threads(use_all_keys, 40);
    early = resident_bytes();
    run_threads(use_all_keys, 200);
    late = resident_bytes();
    if (late > early + 16 * MIB)
        fail_msg("%.1f MiB more after 200 threads", (double)(late - early) / (double)MIB);
}

static void a_first_allocation_in_a_destructor(void **state)
{
    (void)state;
    assert_int_equal(pthread_key_create(&late_key, first_allocation_in_a_destructor), 0);
    atomic_store(&destructor_calls, 0);
    run_threads(allocate_nothing, 40);
    assert_int_equal(atomic_load(&destructor_calls), 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_destructor_runs_in_every_round),
        cmocka_unit_test(memory_of_many_threads_comes_back),
        cmocka_unit_test(a_first_allocation_in_a_destructor),
    };

    free(malloc(opaque_size(100)));
    make_keys(KEYS_BEFORE, KEYS_AFTER);
    return cmocka_run_group_tests_name("tls_destructors", tests, NULL, NULL);
}
