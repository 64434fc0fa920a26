/*
 * Contents over every change of size: each pair of sizes of a list that has several members in every range
 * (small classes of the same and of different pools, runs, raw blocks), walks up and down through all of
 * them, and blocks of several threads resized by others.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <pthread.h>
#include <string.h>

#include "../interface.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const size_t sizes[] = {
    1,           8,         16,        24,          100,           512,          513,
    1024,        4000,      4096,      10000,       32 * KIB,      32 * KIB + 1, 40 * KIB,
    64 * KIB,    200 * KIB, 500 * KIB, 512 * KIB,   512 * KIB + 1, 600 * KIB,    MIB,
    2 * MIB - 1, 3 * MIB,   4 * MIB,   4 * MIB + 1, 9 * MIB,
};

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void *resized(void *block, size_t from, size_t to, uint64_t tag)
{
    void *moved = opaque(realloc(block, opaque_size(to)));

    assert_non_null(moved);
    assert_true((uintptr_t)moved % 16 == 0);
    assert_true(malloc_usable_size(moved) >= to);
    assert_true(pattern_holds(moved, smaller(from, to), tag));
    return moved;
}

/* From every size to every other and back, with a neighbour on each side that must not change. */
static void from_every_size_to_every_size(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++)
        for (size_t k = 0; k < COUNT(sizes); k++) {
            size_t neighbour_size = smaller(sizes[i], 64 * KIB);
            void *before = malloc(opaque_size(neighbour_size));
            void *block = malloc(opaque_size(sizes[i]));
            void *after = malloc(opaque_size(neighbour_size));

            assert_non_null(before);
            assert_non_null(block);
            assert_non_null(after);
            pattern_write(before, neighbour_size, 1);
            pattern_write(block, sizes[i], 2);
            pattern_write(after, neighbour_size, 3);
            block = resized(block, sizes[i], sizes[k], 2);
            pattern_write(block, sizes[k], 4);
            block = resized(block, sizes[k], sizes[i], 4);
            pattern_write(block, sizes[i], 5);
            assert_true(pattern_holds(before, neighbour_size, 1));
            assert_true(pattern_holds(after, neighbour_size, 3));
            free(before);
            free(block);
            free(after);
        }
}

/* One block up through all sizes and down again, several times; steps of one size and of three. */
static void up_and_down(void **state)
{
    (void)state;
    for (size_t step = 1; step <= 3; step += 2)
        for (size_t round = 0; round < 3; round++) {
            size_t size = 1;
            void *block = malloc(opaque_size(size));

            assert_non_null(block);
            pattern_write(block, size, round);
            for (size_t i = 0; i < COUNT(sizes); i += step) {
                block = resized(block, size, sizes[i], round);
                size = sizes[i];
                pattern_write(block, size, round);
            }
            for (size_t i = COUNT(sizes); i-- > 0;) {
                block = resized(block, size, sizes[i], round);
                size = sizes[i];
                pattern_write(block, size, round);
            }
            free(block);
        }
}

/* Byte by byte through the first sizes, and in small steps across the limits of the ranges. */
static void small_steps(void **state)
{
    static const struct {
        size_t from, to, step;
    } walks[] = {
        {1, 2100, 1},
        {30 * KIB, 36 * KIB, 64},
        {500 * KIB, 530 * KIB, 1000},
        {4 * MIB - 20 * KIB, 4 * MIB + 20 * KIB, 4096},
    };

    (void)state;
    for (size_t w = 0; w < COUNT(walks); w++) {
        size_t size = walks[w].from;
        void *block = malloc(opaque_size(size));

        assert_non_null(block);
        pattern_write(block, size, w);
        for (; size < walks[w].to; size += walks[w].step) {
            block = resized(block, size, size + walks[w].step, w);
            pattern_write(block, size + walks[w].step, w);
        }
        for (; size > walks[w].from; size -= walks[w].step)
            block = resized(block, size, size - walks[w].step, w);
        free(block);
    }
}

/* What a growing string or vector does: a raw block that grows by halves to 100 MiB and shrinks again. */
static void a_large_block_grows_and_shrinks(void **state)
{
    size_t size = 600 * KIB;
    void *block = malloc(opaque_size(size));

    (void)state;
    assert_non_null(block);
    pattern_write(block, size, 9);
    while (size < 100 * MIB) {
        block = resized(block, size, size + size / 2, 9);
        size += size / 2;
        pattern_write(block, size, 9);
    }
    while (size > 1000) {
        block = resized(block, size, size / 3, 9);
        size /= 3;
    }
    free(block);
}

static void reallocarray_keeps_contents(void **state)
{
    void *block = NULL;
    size_t size = 0;

    (void)state;
    for (size_t count = 1; count < 300000; count += count / 2 + 1) {
        block = opaque(reallocarray(block, opaque_size(count), opaque_size(24)));
        assert_non_null(block);
        assert_true(pattern_holds(block, size, 11));
        size = count * 24;
        pattern_write(block, size, 11);
    }
    free(block);
}

struct handed_over {
    void *blocks[COUNT(sizes)];
    uint64_t tag;
};

/* Resizes blocks that another thread allocated; leaves the results to it. */
static void *resize_in_another_thread(void *argument)
{
    struct handed_over *handed = argument;

    for (size_t i = 0; i < COUNT(sizes); i++) {
        size_t to = sizes[(i * 7 + 3) % COUNT(sizes)];

        handed->blocks[i] = realloc(handed->blocks[i], opaque_size(to));
        must(handed->blocks[i] != NULL);
        must(pattern_holds(handed->blocks[i], smaller(sizes[i], to), handed->tag));
        pattern_write(handed->blocks[i], to, handed->tag + 1);
    }
    return NULL;
}

static void blocks_resized_by_another_thread(void **state)
{
    struct handed_over handed;

    (void)state;
    for (uint64_t round = 0; round < 10; round++) {
        pthread_t thread;

        handed.tag = round * 2;
        for (size_t i = 0; i < COUNT(sizes); i++) {
            handed.blocks[i] = malloc(opaque_size(sizes[i]));
            assert_non_null(handed.blocks[i]);
            pattern_write(handed.blocks[i], sizes[i], handed.tag);
        }
        assert_int_equal(pthread_create(&thread, NULL, resize_in_another_thread, &handed), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        for (size_t i = 0; i < COUNT(sizes); i++) {
            assert_true(pattern_holds(handed.blocks[i], sizes[(i * 7 + 3) % COUNT(sizes)], handed.tag + 1));
            free(handed.blocks[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(from_every_size_to_every_size),
        cmocka_unit_test(up_and_down),
        cmocka_unit_test(small_steps),
        cmocka_unit_test(a_large_block_grows_and_shrinks),
        cmocka_unit_test(reallocarray_keeps_contents),
        cmocka_unit_test(blocks_resized_by_another_thread),
    };

    return cmocka_run_group_tests_name("realloc", tests, NULL, NULL);
}
