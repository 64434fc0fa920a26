/*
 * Trap: every key for thread-specific data is taken before a thread allocates for the first time. Here all
 * that are left are taken in a constructor of the program, which runs after those of its libraries. Threads
 * then allocate, free each other's blocks and end, and what they leave does not pile up.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "../interface.h"

/* With KEYS_BEFORE_ALL they are taken before the constructors of all libraries, but for one, which liburcu
 * gets (it ends the process when there is none): the allocator itself has no key, no thread a heap of its
 * own. */
enum { BLOCKS = 2000 };

static unsigned keys_taken;
static pthread_key_t last_key;
static int last_error;

#ifndef KEYS_BEFORE_ALL
__attribute__((constructor(101)))
#endif
static void
take_all_keys(void)
{
    pthread_key_t key;

    while ((last_error = pthread_key_create(&key, NULL)) == 0) {
        last_key = key;
        keys_taken++;
    }
}

#ifdef KEYS_BEFORE_ALL
static void take_all_keys_but_one(void)
{
    take_all_keys();
    must(pthread_key_delete(last_key) == 0);
}

__attribute__((section(".preinit_array"), used)) static void (*const preinit)(void) = take_all_keys_but_one;
#endif

static void no_key_is_left(void **state)
{
    pthread_key_t key;

    (void)state;
    assert_int_equal(last_error, EAGAIN);
    assert_true(keys_taken > 900);
    assert_int_equal(pthread_key_create(&key, NULL), EAGAIN);
}

/* Frees what the previous thread left in the array and leaves new blocks to the next. */
static void *exchange(void *argument)
{
    void **blocks = argument;

    for (size_t i = 0; i < BLOCKS; i++) {
        size_t size = 10 + i * 3;

        if (blocks[i] != NULL)
            must(pattern_holds(blocks[i], size, i));
        free(blocks[i]);
        blocks[i] = malloc(opaque_size(size));
        must(blocks[i] != NULL);
        pattern_write(blocks[i], size, i);
    }
    return NULL;
}

static void threads_allocate_without_keys(void **state)
{
    static void *blocks[BLOCKS];
    size_t early = 0;

    (void)state;
    for (unsigned i = 0; i < 300; i++) {
        pthread_t thread;

        assert_int_equal(pthread_create(&thread, NULL, exchange, blocks), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        if (i == 50)
            early = resident_bytes();
    }
    assert_true(resident_bytes() < early + 64 * MIB);
    for (size_t i = 0; i < BLOCKS; i++)
        free(blocks[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_key_is_left),
        cmocka_unit_test(threads_allocate_without_keys),
    };

    return cmocka_run_group_tests_name("key_exhaustion", tests, NULL, NULL);
}
