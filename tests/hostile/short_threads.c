/*
 * Hostile use: 100,000 threads that live for a few calls each, some at a time, and free what the ones before
 * them left. Memory depends on how many live at once, not on how many there were.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "../interface.h"

enum { AT_ONCE = 8, BLOCKS = 4 };

#ifndef THREADS
#define THREADS 100000
#endif

static const size_t sizes[BLOCKS] = {40, 700, 5000, 40 * KIB};
static void *_Atomic left[AT_ONCE * BLOCKS];

static void *live_shortly(void *argument)
{
    size_t place = (size_t)(uintptr_t)argument * BLOCKS;

    for (size_t i = 0; i < BLOCKS; i++) {
        size_t size = sizes[i] + place;
        void *block = malloc(opaque_size(size)), *before;

        must(block != NULL);
        pattern_write(block, 40, place);
        before = atomic_exchange(&left[place + i], block);
        if (before != NULL)
            must(pattern_holds(before, 40, place));
        free(before);
    }
    return NULL;
}

static void run(unsigned count)
{
    for (unsigned begun = 0; begun < count; begun += AT_ONCE) {
        pthread_t threads[AT_ONCE];

        for (size_t i = 0; i < AT_ONCE; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, live_shortly, (void *)(uintptr_t)i), 0);
        for (size_t i = 0; i < AT_ONCE; i++)
            assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
}

static void memory_does_not_grow_with_threads_that_were(void **state)
{
    size_t early, early_addresses;

    (void)state;
    run(THREADS / 20);
    early = resident_bytes();
    early_addresses = address_space_bytes();
    run(THREADS - THREADS / 20);
    printf("# %zu KiB of memory, %zu MiB of addresses after %d threads; after a twentieth %zu, %zu\n",
           resident_bytes() / KIB, address_space_bytes() / MIB, THREADS, early / KIB, early_addresses / MIB);
    assert_true(resident_bytes() < early + 8 * MIB);
    assert_true(address_space_bytes() < early_addresses + 64 * MIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(memory_does_not_grow_with_threads_that_were)};

    return cmocka_run_group_tests_name("short_threads", tests, NULL, NULL);
}
