/*
 * api/resize: contents through every change of path, what stays where it is, sizes that are no sizes, and
 * failure that leaves the block as it was.
 */
#include "api/classify.h"
#include "os/settings.h"
#include "tarn/tarn.h"
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const size_t sizes[] = {1,      16,     17,     100,     128,     129,         512,    1000,   1024,
                               1025,   4000,   16384,  16385,   32768,   32769,       65536,  200000, 524287,
                               524288, 524289, 600000, 2 * MIB, 4 * MIB, 4 * MIB + 1, 9 * MIB};
#define SIZES (sizeof sizes / sizeof sizes[0])

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void contents_survive_every_change(void **state)
{
    (void)state;
    struct tarn_mallinfo2_result before = tarn_mallinfo2();
    for (size_t from = 0; from < SIZES; from++) {
        for (size_t to = 0; to < SIZES; to++) {
            char *block = tarn_malloc(sizes[from]);
            assert_non_null(block);
            pattern_write(block, sizes[from], from * 100 + to);
            errno = EDOM;
            char *resized = tarn_realloc(block, sizes[to]);
            assert_non_null(resized);
            assert_int_equal(errno, EDOM);
            assert_true(tarn_malloc_usable_size(resized) >= sizes[to]);
            assert_true(pattern_holds(resized, smaller(sizes[from], sizes[to]), from * 100 + to));
            memset(resized, 'r', sizes[to]);
            tarn_free(resized);
        }
    }
    assert_int_equal(tarn_mallinfo2().uordblks, before.uordblks); /* no old block was forgotten */
    assert_int_equal(tarn_mallinfo2().hblks, before.hblks);
}

/* Step by step up and down, as a vector does. */
static void a_growing_block_keeps_its_contents(void **state)
{
    (void)state;
    char *block = NULL;
    size_t bytes = 0;
    for (size_t next = 1; next < 12 * MIB; next += next / 2 + 1) {
        block = tarn_realloc(block, next);
        assert_non_null(block);
        assert_true(pattern_holds(block, bytes, 7));
        pattern_write(block, next, 7);
        bytes = next;
    }
    while (bytes > 1) {
        bytes = bytes * 2 / 3;
        block = tarn_realloc(block, bytes);
        assert_non_null(block);
        assert_true(pattern_holds(block, bytes, 7));
    }
    tarn_free(block);
}

static void what_fits_stays(void **state)
{
    (void)state;
    char *block = tarn_malloc(1000);
    assert_ptr_equal(tarn_realloc(block, 1024), block);
    assert_ptr_equal(tarn_realloc(block, 512), block);
    char *moved = tarn_realloc(block, 400); /* less than half: a smaller block will do */
    assert_ptr_not_equal(moved, block);
    assert_true(tarn_malloc_usable_size(moved) < 1024);
    tarn_free(moved);

    char *run = tarn_malloc(300000);
    assert_ptr_equal(tarn_realloc(run, 100000), run);
    assert_int_equal(tarn_malloc_usable_size(run), 7 * 16 * KIB);
    assert_ptr_equal(tarn_realloc(run, 114688), run);
    tarn_free(run);

    char *raw = tarn_malloc(8 * MIB);
    assert_ptr_equal(tarn_realloc(raw, 7 * MIB + 1), raw);
    assert_ptr_equal(tarn_realloc(raw, 2 * MIB), raw);
    assert_true(tarn_malloc_usable_size(raw) < 3 * MIB); /* what is cut off is of use elsewhere */
    tarn_free(raw);
}

/* No block is kept whose half would do; the rest of memory would be lost. */
static void small_sizes_get_small_blocks(void **state)
{
    (void)state;
    for (size_t from = 0; from < SIZES; from++) {
        for (size_t to = 0; to <= from; to++) {
            void *block = tarn_realloc(tarn_malloc(sizes[from]), sizes[to]);
            size_t usable = tarn_malloc_usable_size(block);
            struct classified found = classify(block);
            assert_true(sizes[to] > settings.run_threshold_bytes || found.kind == KIND_POOL);
            if (found.kind == KIND_POOL)
                assert_true(usable <= 2 * sizes[to] + 16);
            else if (found.kind == KIND_RUN)
                assert_true(usable < sizes[to] + 16 * KIB);
            else
                assert_true(sizes[to] > settings.raw_threshold_bytes / 2 &&
                            usable <= sizes[to] + sizes[to] / 4 + 64 * KIB);
            tarn_free(block);
        }
    }
}

static void no_block_and_no_size(void **state)
{
    (void)state;
    void *block = tarn_realloc(NULL, 100);
    assert_non_null(block);
    assert_int_equal(classify(block).bytes, 112);
    errno = EDOM;
    assert_null(tarn_realloc(block, 0));
    assert_int_equal(errno, EDOM);
    assert_ptr_equal(tarn_malloc(100), block); /* it was freed */
    tarn_free(block);
    void *nothing = tarn_realloc(NULL, 0);
    assert_non_null(nothing);
    tarn_free(nothing);
    block = tarn_malloc(2 * MIB);
    assert_null(tarn_realloc(block, 0));
    assert_int_equal(classify(block).kind, KIND_INVALID);
}

static void arrays(void **state)
{
    (void)state;
    char *block = tarn_reallocarray(NULL, 100, 7);
    assert_true(block != NULL && tarn_malloc_usable_size(block) >= 700);
    pattern_write(block, 700, 3);
    errno = 0;
    assert_null(tarn_reallocarray(block, opaque_size(SIZE_MAX / 2), 3));
    assert_int_equal(errno, ENOMEM);
    assert_null(tarn_reallocarray(block, opaque_size(UINT64_C(1) << 32), opaque_size(UINT64_C(1) << 32)));
    assert_true(pattern_holds(block, 700, 3));
    block = tarn_reallocarray(block, 1000, 70);
    assert_true(block != NULL && pattern_holds(block, 700, 3));
    assert_null(tarn_reallocarray(block, 0, 70));
}

static void check_failure(void *context)
{
    size_t bytes = *(const size_t *)context;
    char *block = tarn_malloc(bytes);
    must(block != NULL);
    pattern_write(block, bytes, 9);
    limit_address_space(2 * MIB);
    static const size_t larger[] = {256 * MIB, PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1, SIZE_MAX};
    for (unsigned i = 0; i < 4; i++) {
        errno = 0;
        must(tarn_realloc(block, opaque_size(larger[i])) == NULL);
        must(errno == ENOMEM);
        must(pattern_holds(block, bytes, 9));
        must(tarn_malloc_usable_size(block) >= bytes);
    }
    block[bytes - 1] = 'w';
    lift_limit();
    block = tarn_realloc(block, 20 * MIB);
    must(block != NULL && pattern_holds(block, bytes / 8 * 8 - 8, 9));
    tarn_free(block);
}

static void failure_leaves_the_block(void **state)
{
    (void)state;
    for (size_t i = 0; i < SIZES; i++) {
        size_t bytes = sizes[i] < 16 ? 16 : sizes[i];
        child_must_succeed(check_failure, &bytes);
    }
}

static void resize_pointer(void *context)
{
    (void)!tarn_realloc(context, 1000);
}

static void what_is_no_block(void **state)
{
    (void)state;
    char line[256];
    static const size_t large[] = {100, 100000, MIB};
    for (unsigned i = 0; i < 3; i++) {
        char *block = tarn_malloc(large[i]);
        snprintf(line, sizeof line,
                 "tarn: fatal: invalid pointer %p passed to realloc: no live block begins there",
                 (void *)(block + 16));
        child_must_die(resize_pointer, block + 16, line);
        tarn_free(block);
    }
}

static void any_order(void **state)
{
    (void)state;
    struct random random = {2};
    static char *held[64];
    static size_t bytes[64];
    for (unsigned step = 0; step < TURNS(6000); step++) {
        size_t i = random_below(&random, 64);
        size_t wanted = 8 + random_size(&random) / 8 * 8;
        held[i] = tarn_realloc(held[i], wanted);
        must(held[i] != NULL && pattern_holds(held[i], smaller(bytes[i], wanted), i));
        pattern_write(held[i], wanted, i);
        bytes[i] = wanted;
    }
    for (size_t i = 0; i < 64; i++)
        tarn_free(held[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contents_survive_every_change),
        cmocka_unit_test(a_growing_block_keeps_its_contents),
        cmocka_unit_test(what_fits_stays),
        cmocka_unit_test(small_sizes_get_small_blocks),
        cmocka_unit_test(no_block_and_no_size),
        cmocka_unit_test(arrays),
        cmocka_unit_test(failure_leaves_the_block),
        cmocka_unit_test(what_is_no_block),
        cmocka_unit_test(any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
