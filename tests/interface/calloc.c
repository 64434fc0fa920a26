/*
 * calloc gives zeroes, also where the memory was used and freed before: by the same thread, by another one,
 * by a thread that has ended, through a run, through the cache of raw blocks, and after a trim.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <pthread.h>
#include <string.h>

#include "../interface.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define LIVE         64

static const size_t sizes[] = {
    1,
    7,
    16,
    33,
    100,
    128,
    200,
    512,
    600,
    1000,
    4096,
    10000,
    16384,
    32 * KIB,
    33 * KIB,
    100 * KIB,
    256 * KIB,
    512 * KIB,
    513 * KIB,
    MIB,
    3 * MIB,
    4 * MIB,
    4 * MIB + 4096,
    7 * MIB,
};

static size_t live_count(size_t size)
{
    return size <= 32 * KIB ? LIVE : size <= 512 * KIB ? 16 : 4;
}

static void make_dirty(void *blocks[], size_t size)
{
    for (size_t i = 0; i < live_count(size); i++) {
        blocks[i] = malloc(opaque_size(size));
        must(blocks[i] != NULL);
        memset(blocks[i], 0xa5, malloc_usable_size(blocks[i]));
    }
}

static void free_all(void *blocks[], size_t size)
{
    for (size_t i = 0; i < live_count(size); i++)
        free(blocks[i]);
}

/* The bytes asked for are zero. Written over afterwards, so that the next round finds them dirty. */
static void must_be_zero(size_t size)
{
    void *blocks[LIVE];

    for (size_t i = 0; i < live_count(size); i++) {
        blocks[i] = i % 2 == 0 ? calloc(1, opaque_size(size)) : calloc(opaque_size(size), 1);
        must(blocks[i] != NULL);
        must(all_zero(blocks[i], size));
        memset(blocks[i], 0x5a, size);
    }
    free_all(blocks, size);
}

static void after_the_same_thread(void **state)
{
    void *blocks[LIVE];

    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (size_t round = 0; round < 3; round++) {
            make_dirty(blocks, sizes[i]);
            free_all(blocks, sizes[i]);
            must_be_zero(sizes[i]);
        }
}

/* Dirty memory of one size served as another. */
static void after_other_sizes(void **state)
{
    void *blocks[LIVE];

    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        size_t other = sizes[(i * 11 + 5) % COUNT(sizes)];

        make_dirty(blocks, sizes[i]);
        free_all(blocks, sizes[i]);
        must_be_zero(other);
        must_be_zero(sizes[i]);
    }
}

struct handed_over {
    void *blocks[LIVE];
    size_t size;
};

static void *dirty_and_free(void *argument)
{
    struct handed_over *handed = argument;

    make_dirty(handed->blocks, handed->size);
    free_all(handed->blocks, handed->size);
    return NULL;
}

static void *free_in_another_thread(void *argument)
{
    struct handed_over *handed = argument;

    free_all(handed->blocks, handed->size);
    return NULL;
}

static void run_thread(void *(*body)(void *), void *argument)
{
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, body, argument), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void after_a_thread_that_ended(void **state)
{
    struct handed_over handed;

    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        handed.size = sizes[i];
        run_thread(dirty_and_free, &handed);
        must_be_zero(sizes[i]);
    }
}

static void after_a_free_by_another_thread(void **state)
{
    struct handed_over handed;

    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        handed.size = sizes[i];
        make_dirty(handed.blocks, handed.size);
        run_thread(free_in_another_thread, &handed);
        must_be_zero(sizes[i]);
    }
}

static void after_a_trim(void **state)
{
    void *blocks[LIVE];

    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        make_dirty(blocks, sizes[i]);
        free_all(blocks, sizes[i]);
        (void)malloc_trim(0);
        must_be_zero(sizes[i]);
    }
}

/* A block of calloc that was shrunk or grown in place before it was freed. */
static void after_realloc(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        char *block = calloc(1, opaque_size(sizes[i]));

        assert_non_null(block);
        assert_true(all_zero(block, sizes[i]));
        block = realloc(block, opaque_size(sizes[i] * 2));
        assert_non_null(block);
        memset(block, 0x77, sizes[i] * 2);
        block = realloc(block, opaque_size(sizes[i]));
        assert_non_null(block);
        free(block);
        must_be_zero(sizes[i]);
        must_be_zero(sizes[i] * 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(after_the_same_thread),
        cmocka_unit_test(after_other_sizes),
        cmocka_unit_test(after_a_thread_that_ended),
        cmocka_unit_test(after_a_free_by_another_thread),
        cmocka_unit_test(after_a_trim),
        cmocka_unit_test(after_realloc),
    };

    return cmocka_run_group_tests_name("calloc", tests, NULL, NULL);
}
