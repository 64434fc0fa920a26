/*
 * free_sized and free_aligned_sized of C23 with the right sizes: they free what malloc, calloc, realloc and
 * the aligned functions gave, and the memory comes back into use. (Wrong sizes are misuse: see tests/abort.)
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <string.h>

#include "../interface.h"

/* Much more is allocated and freed than may stay resident: a free that does nothing would show. */
#define RESIDENT_BOUND (100 * MIB)

static void blocks_of_every_size(void **state)
{
    size_t before;

    (void)state;
    before = resident_bytes();
    for (size_t round = 0; round < 4; round++)
        for (size_t size = 0; size < 2 * MIB; size += size / 100 + 1) {
            void *block = malloc(opaque_size(size));
            void *zeroed = calloc(1, opaque_size(size));
            void *resized = realloc(malloc(opaque_size(size / 2)), opaque_size(size + 1));

            assert_non_null(block);
            assert_non_null(zeroed);
            assert_non_null(resized);
            memset(block, 1, size);
            memset(zeroed, 1, size);
            memset(resized, 1, size + 1);
            free_sized(block, opaque_size(size));
            free_sized(zeroed, opaque_size(size));
            free_sized(resized, opaque_size(size + 1));
        }
    assert_true(resident_bytes() < before + RESIDENT_BOUND);
}

static void aligned_blocks_of_every_size(void **state)
{
    size_t before;

    (void)state;
    before = resident_bytes();
    for (size_t alignment = 1; alignment <= 8 * MIB; alignment *= 2)
        for (size_t size = 0; size < 3 * MIB; size += size / 10 + 1) {
            void *block = aligned_alloc(opaque_size(alignment), opaque_size(size));

            assert_non_null(block);
            memset(block, 1, size);
            free_aligned_sized(block, opaque_size(alignment), opaque_size(size));
        }
    assert_true(resident_bytes() < before + RESIDENT_BOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_of_every_size),
        cmocka_unit_test(aligned_blocks_of_every_size),
    };

    return cmocka_run_group_tests_name("sized_free", tests, NULL, NULL);
}
