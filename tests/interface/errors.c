/*
 * The edges of the interface: size 0, sizes that cannot be, products that overflow, NULL, and what becomes of
 * errno.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <errno.h>
#include <string.h>

#include "../interface.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const size_t impossible[] = {
    SIZE_MAX,        SIZE_MAX - 1,       SIZE_MAX - 15,    SIZE_MAX - 16,
    SIZE_MAX - 4096, SIZE_MAX - 4 * MIB, SIZE_MAX / 2 + 1, (size_t)PTRDIFF_MAX + 1,
};

/* Allowed by PTRDIFF_MAX, refused by every address space. */
static const size_t too_large[] = {
    (size_t)PTRDIFF_MAX,
    (size_t)PTRDIFF_MAX - 4095,
    (size_t)1 << 60,
    (size_t)1 << 50,
};

static void assert_out_of_memory(void *block)
{
    assert_null(opaque(block));
    assert_int_equal(errno, ENOMEM);
    errno = 0;
}

static void blocks_of_size_zero(void **state)
{
    enum { BLOCKS = 300 };
    void *blocks[BLOCKS];

    (void)state;
    for (size_t i = 0; i < BLOCKS; i++) {
        blocks[i] = i % 3 == 0   ? malloc(opaque_size(0))
                    : i % 3 == 1 ? calloc(opaque_size(0), opaque_size(8))
                                 : calloc(opaque_size(8), opaque_size(0));
        assert_non_null(opaque(blocks[i]));
        for (size_t k = 0; k < i; k++)
            assert_ptr_not_equal(blocks[i], blocks[k]);
    }
    for (size_t i = 0; i < BLOCKS; i++)
        free(blocks[i]);
}

static void one_size_asked_for(size_t size)
{
    void *block = NULL;

    errno = 0;
    assert_out_of_memory(malloc(opaque_size(size)));
    assert_out_of_memory(calloc(1, opaque_size(size)));
    assert_out_of_memory(calloc(opaque_size(size), 1));
    assert_out_of_memory(realloc(NULL, opaque_size(size)));
    assert_out_of_memory(reallocarray(NULL, opaque_size(size), 1));
    assert_out_of_memory(aligned_alloc(64, opaque_size(size)));
    assert_out_of_memory(memalign(4096, opaque_size(size)));
    assert_out_of_memory(valloc(opaque_size(size)));
    assert_out_of_memory(pvalloc(opaque_size(size)));
    errno = 55;
    assert_int_equal(posix_memalign(&block, 64, opaque_size(size)), ENOMEM);
    assert_null(block);
    assert_int_equal(errno, 55);
}

static void sizes_that_cannot_be(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(impossible); i++)
        one_size_asked_for(impossible[i]);
    for (size_t i = 0; i < COUNT(too_large); i++)
        one_size_asked_for(too_large[i]);
}

static void products_that_overflow(void **state)
{
    static const size_t pairs[][2] = {
        {SIZE_MAX, 2},
        {SIZE_MAX / 2, 3},
        {(size_t)1 << 32, (size_t)1 << 32},
        {((size_t)1 << 32) + 1, (size_t)1 << 32},
        {SIZE_MAX / 16 + 1, 16},
        {SIZE_MAX / 48 + 2, 48},
        {3, SIZE_MAX / 2},
        {SIZE_MAX, SIZE_MAX},
    };
    char *kept = malloc(100);

    (void)state;
    assert_non_null(kept);
    pattern_write(kept, 100, 1);
    for (size_t i = 0; i < COUNT(pairs); i++) {
        size_t count = opaque_size(pairs[i][0]), size = opaque_size(pairs[i][1]);

        errno = 0;
        assert_out_of_memory(calloc(count, size));
        assert_out_of_memory(reallocarray(NULL, count, size));
        assert_out_of_memory(reallocarray(opaque(kept), count, size));
        assert_true(pattern_holds(kept, 100, 1));
    }
    free(kept);
}

/* A refused realloc leaves the block as it was, whatever its size. */
static void refused_realloc_keeps_the_block(void **state)
{
    static const size_t sizes[] = {1, 100, 4000, 32 * KIB, 100 * KIB, 512 * KIB, MIB, 9 * MIB};

    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        char *block = malloc(opaque_size(sizes[i]));

        assert_non_null(block);
        pattern_write(block, sizes[i], i);
        for (size_t k = 0; k < COUNT(impossible); k++) {
            errno = 0;
            assert_out_of_memory(realloc(opaque(block), opaque_size(impossible[k])));
        }
        for (size_t k = 0; k < COUNT(too_large); k++) {
            errno = 0;
            assert_out_of_memory(realloc(opaque(block), opaque_size(too_large[k])));
        }
        assert_true(pattern_holds(block, sizes[i], i));
        block = realloc(block, opaque_size(sizes[i] * 2));
        assert_non_null(block);
        assert_true(pattern_holds(block, sizes[i], i));
        free(block);
    }
}

static void realloc_of_null_is_malloc(void **state)
{
    (void)state;
    for (size_t size = 0; size < 3 * MIB; size = size * 2 + 1) {
        void *block = realloc(NULL, opaque_size(size));
        void *array = reallocarray(NULL, opaque_size(size), 1);

        assert_non_null(block);
        assert_non_null(array);
        pattern_write(block, size, size);
        pattern_write(array, size, size + 1);
        assert_true(pattern_holds(block, size, size));
        free(block);
        free(array);
    }
}

/* As glibc does: the block is freed and the answer is NULL. Were it not freed, memory would grow beyond the
 * bound. */
static void realloc_to_zero_frees(void **state)
{
    size_t before;

    (void)state;
    free(malloc(opaque_size(2 * MIB)));
    before = resident_bytes();
    for (size_t i = 0; i < 200; i++) {
        void *block = malloc(opaque_size(2 * MIB));

        assert_non_null(block);
        memset(block, 1, 2 * MIB);
        assert_null(opaque(realloc(block, opaque_size(0))));
    }
    for (size_t i = 0; i < 200000; i++) {
        void *block = malloc(opaque_size(1000));

        assert_non_null(block);
        assert_null(
            opaque(i % 2 == 0 ? realloc(block, opaque_size(0)) : reallocarray(block, opaque_size(0), 8)));
    }
    assert_true(resident_bytes() < before + 60 * MIB);
}

/* POSIX asks it of free since 2024; giving memory back must not show in errno either. */
static void free_keeps_errno(void **state)
{
    static const size_t sizes[] = {0,        1,         100,       2000,    32 * KIB,
                                   33 * KIB, 512 * KIB, 513 * KIB, 6 * MIB, 60 * MIB};

    (void)state;
    for (size_t round = 0; round < 50; round++)
        for (size_t i = 0; i < COUNT(sizes); i++) {
            void *one = malloc(opaque_size(sizes[i])), *two = malloc(opaque_size(sizes[i]));
            void *aligned = aligned_alloc(64, opaque_size(sizes[i]));

            assert_non_null(one);
            assert_non_null(two);
            assert_non_null(aligned);
            errno = 4321;
            free(one);
            assert_int_equal(errno, 4321);
            free_sized(two, opaque_size(sizes[i]));
            assert_int_equal(errno, 4321);
            free_aligned_sized(aligned, 64, opaque_size(sizes[i]));
            assert_int_equal(errno, 4321);
            free(NULL);
            assert_int_equal(errno, 4321);
        }
}

/* What succeeds does not write errno either: programs that read it after a success are wrong, yet they exist.
 */
static void success_keeps_errno(void **state)
{
    void *block = NULL;

    (void)state;
    for (size_t size = 1; size < 20 * MIB; size *= 3) {
        errno = 4322;
        block = malloc(opaque_size(size));
        block = realloc(block, opaque_size(size * 2));
        block = realloc(block, opaque_size(size / 2 + 1));
        assert_non_null(block);
        assert_int_equal(errno, 4322);
        free(block);
        block = calloc(1, opaque_size(size));
        assert_non_null(block);
        assert_int_equal(errno, 4322);
        free(block);
    }
}

static void null_is_freed_by_every_free(void **state)
{
    (void)state;
    errno = 99;
    free(opaque(NULL));
    cfree(opaque(NULL));
    free_sized(opaque(NULL), opaque_size(0));
    free_sized(opaque(NULL), opaque_size(100));
    free_aligned_sized(opaque(NULL), opaque_size(64), opaque_size(100));
    assert_int_equal(errno, 99);
    assert_int_equal(malloc_usable_size(opaque(NULL)), 0);
}

static void cfree_is_free(void **state)
{
    size_t before;

    (void)state;
    before = resident_bytes();
    for (size_t i = 0; i < 100; i++) {
        void *block = malloc(opaque_size(2 * MIB));

        assert_non_null(block);
        memset(block, 1, 2 * MIB);
        cfree(block);
    }
    assert_true(resident_bytes() < before + 60 * MIB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_of_size_zero),
        cmocka_unit_test(sizes_that_cannot_be),
        cmocka_unit_test(products_that_overflow),
        cmocka_unit_test(refused_realloc_keeps_the_block),
        cmocka_unit_test(realloc_of_null_is_malloc),
        cmocka_unit_test(realloc_to_zero_frees),
        cmocka_unit_test(free_keeps_errno),
        cmocka_unit_test(success_keeps_errno),
        cmocka_unit_test(null_is_freed_by_every_free),
        cmocka_unit_test(cfree_is_free),
    };

    return cmocka_run_group_tests_name("errors", tests, NULL, NULL);
}
