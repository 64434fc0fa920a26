/*
 * Alignment: 16 bytes for every plain block, what was asked for up to 16 MiB for the aligned functions, and
 * the refusals that C11, POSIX and glibc describe for wrong alignments. Blocks are written to their end and
 * must not overlap.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <errno.h>
#include <unistd.h>

#include "../interface.h"

#define LARGEST_ALIGNMENT (16 * MIB)

static const size_t sizes[] = {
    0,     1,     8,     15,     16,     17,     63,      64,          100,     128,
    129,   500,   512,   513,    1000,   4095,   4096,    4097,        16384,   20000,
    32768, 32769, 65536, 100000, 524288, 524289, 1048576, 3 * 1048576, 4194304, 5000000,
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static bool is_aligned(const void *block, size_t alignment)
{
    return (uintptr_t)block % alignment == 0;
}

/* Writes the whole block; tells if it is aligned, large enough, and still holds what was written. */
static void assert_good_block(void *block, size_t size, size_t alignment)
{
    assert_non_null(block);
    assert_true(is_aligned(block, alignment));
    assert_true(malloc_usable_size(block) >= size);
    pattern_write(block, size, (uintptr_t)block);
}

static void plain_blocks_of_every_small_size(void **state)
{
    (void)state;
    for (size_t size = 0; size <= 36 * KIB; size++) {
        void *block = opaque(malloc(opaque_size(size)));
        void *zeroed = opaque(calloc(1, opaque_size(size)));

        assert_good_block(block, size, 16);
        assert_good_block(zeroed, size, 16);
        assert_true(pattern_holds(block, size, (uintptr_t)block));
        block = realloc(block, opaque_size(size + 1));
        assert_good_block(block, size + 1, 16);
        free(block);
        free(zeroed);
    }
}

static void plain_blocks_of_large_sizes(void **state)
{
    (void)state;
    for (size_t size = 36 * KIB; size <= 20 * MIB; size += size / 37) {
        void *block = opaque(malloc(opaque_size(size)));

        assert_good_block(block, size, 16);
        free(block);
    }
}

/* Every alignment with every size, all of one alignment live at once, so that an overlap would show. */
static void aligned_blocks(void **state)
{
    void *blocks[3][COUNT(sizes)];

    (void)state;
    for (size_t alignment = 1; alignment <= LARGEST_ALIGNMENT; alignment *= 2) {
        size_t posix_alignment = alignment < sizeof(void *) ? sizeof(void *) : alignment;

        for (size_t i = 0; i < COUNT(sizes); i++) {
            blocks[0][i] = opaque(aligned_alloc(opaque_size(alignment), opaque_size(sizes[i])));
            blocks[1][i] = NULL;
            assert_int_equal(
                posix_memalign(&blocks[1][i], opaque_size(posix_alignment), opaque_size(sizes[i])), 0);
            blocks[2][i] = opaque(memalign(opaque_size(alignment), opaque_size(sizes[i])));
            for (size_t kind = 0; kind < 3; kind++)
                assert_good_block(blocks[kind][i], sizes[i], alignment < 16 ? 16 : alignment);
        }
        for (size_t i = 0; i < COUNT(sizes); i++)
            for (size_t kind = 0; kind < 3; kind++) {
                assert_true(pattern_holds(blocks[kind][i], sizes[i], (uintptr_t)blocks[kind][i]));
                free(blocks[kind][i]);
            }
    }
}

/* The many-blocks case: a whole pool of blocks of one alignment, each aligned. */
static void many_blocks_of_one_alignment(void **state)
{
    enum { BLOCKS = 3000 };
    static void *blocks[BLOCKS];

    (void)state;
    for (size_t alignment = 16; alignment <= 32 * KIB; alignment *= 2) {
        size_t count = alignment <= 4 * KIB ? BLOCKS : BLOCKS / 10;

        for (size_t i = 0; i < count; i++) {
            blocks[i] = opaque(memalign(opaque_size(alignment), opaque_size(1 + i % 100)));
            assert_good_block(blocks[i], 1 + i % 100, alignment);
        }
        for (size_t i = 0; i < count; i++) {
            assert_true(pattern_holds(blocks[i], 1 + i % 100, (uintptr_t)blocks[i]));
            free(blocks[i]);
        }
    }
}

/* memalign rounds an odd alignment up to a power of two, as glibc does. */
static void memalign_of_odd_alignments(void **state)
{
    static const size_t odd[] = {0,  1,  2,   3,    5,    7,    15,     17,     24,
                                 33, 48, 100, 1000, 4097, 5000, 100000, 3000000};

    (void)state;
    for (size_t i = 0; i < COUNT(odd); i++)
        for (size_t k = 0; k < COUNT(sizes); k++) {
            size_t alignment = 1;
            void *block = opaque(memalign(opaque_size(odd[i]), opaque_size(sizes[k])));

            while (alignment < odd[i])
                alignment *= 2;
            assert_good_block(block, sizes[k], alignment);
            free(block);
        }
}

static void wrong_alignments_of_aligned_alloc(void **state)
{
    static const size_t wrong[] = {0, 3, 5, 6, 7, 9, 24, 48, 100, 4095, 4097, SIZE_MAX, SIZE_MAX - 1};

    (void)state;
    for (size_t i = 0; i < COUNT(wrong); i++) {
        errno = 0;
        assert_null(opaque(aligned_alloc(opaque_size(wrong[i]), opaque_size(64))));
        assert_int_equal(errno, EINVAL);
    }
}

static void wrong_alignments_of_posix_memalign(void **state)
{
    static const size_t wrong[] = {0, 1, 2, 3, 4, 7, 12, 15, 24, 48, 100, 4095, 4097, SIZE_MAX, SIZE_MAX - 1};

    (void)state;
    for (size_t i = 0; i < COUNT(wrong); i++) {
        void *block = &block;

        errno = 1234;
        assert_int_equal(posix_memalign(&block, opaque_size(wrong[i]), opaque_size(64)), EINVAL);
        assert_ptr_equal(block, &block);
        assert_int_equal(errno, 1234);
    }
}

/* An alignment that no address space can give, and one that overflows together with the size. */
static void impossible_alignments(void **state)
{
    void *block = NULL;

    (void)state;
    errno = 0;
    assert_null(opaque(aligned_alloc(opaque_size(SIZE_MAX / 2 + 1), opaque_size(64))));
    assert_int_equal(errno, ENOMEM);
    errno = 0;
    assert_null(opaque(aligned_alloc(opaque_size(MIB), opaque_size((size_t)PTRDIFF_MAX - 1000))));
    assert_int_equal(errno, ENOMEM);
    errno = 77;
    assert_int_equal(posix_memalign(&block, opaque_size(SIZE_MAX / 2 + 1), opaque_size(64)), ENOMEM);
    assert_null(block);
    assert_int_equal(posix_memalign(&block, opaque_size(64), opaque_size(SIZE_MAX - 10)), ENOMEM);
    assert_null(block);
    assert_int_equal(errno, 77);
}

static void pages(void **state)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    (void)state;
    for (size_t i = 0; i < COUNT(sizes); i++) {
        size_t rounded = (sizes[i] + page - 1) / page * page;
        void *block = opaque(valloc(opaque_size(sizes[i])));
        void *whole = opaque(pvalloc(opaque_size(sizes[i])));

        assert_good_block(block, sizes[i], page);
        assert_good_block(whole, rounded, page);
        free(block);
        free(whole);
    }
}

/* An aligned block may be grown and shrunk like any other; its contents go along. */
static void aligned_blocks_resized(void **state)
{
    (void)state;
    for (size_t alignment = 32; alignment <= LARGEST_ALIGNMENT; alignment *= 2)
        for (size_t i = 0; i < COUNT(sizes); i++) {
            size_t grown = sizes[i] * 2 + 1;
            void *block = opaque(aligned_alloc(opaque_size(alignment), opaque_size(sizes[i])));

            assert_non_null(block);
            pattern_write(block, sizes[i], alignment);
            block = realloc(block, opaque_size(grown));
            assert_non_null(block);
            assert_true(is_aligned(block, 16));
            assert_true(pattern_holds(block, sizes[i], alignment));
            pattern_write(block, grown, alignment);
            block = realloc(block, opaque_size(sizes[i] / 2 + 1));
            assert_non_null(block);
            assert_true(pattern_holds(block, sizes[i] / 2 + 1, alignment));
            free(block);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_blocks_of_every_small_size),
        cmocka_unit_test(plain_blocks_of_large_sizes),
        cmocka_unit_test(aligned_blocks),
        cmocka_unit_test(many_blocks_of_one_alignment),
        cmocka_unit_test(memalign_of_odd_alignments),
        cmocka_unit_test(wrong_alignments_of_aligned_alloc),
        cmocka_unit_test(wrong_alignments_of_posix_memalign),
        cmocka_unit_test(impossible_alignments),
        cmocka_unit_test(pages),
        cmocka_unit_test(aligned_blocks_resized),
    };

    return cmocka_run_group_tests_name("alignment", tests, NULL, NULL);
}
