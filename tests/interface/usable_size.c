/*
 * malloc_usable_size: at least what was asked for, every byte of it writable without harm to any neighbour,
 * stable while the block lives, and a realloc within it does not move a small block.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <string.h>

#include "../interface.h"

static void every_usable_byte_belongs_to_the_block(void **state)
{
    enum { BLOCKS = 600 };
    static unsigned char *blocks[BLOCKS];
    static size_t usable[BLOCKS];
    struct random random = {42};

    (void)state;
    for (size_t round = 0; round < 20; round++) {
        for (size_t i = 0; i < BLOCKS; i++) {
            size_t size = round == 0 ? i : random_size(&random);

            blocks[i] = opaque(malloc(opaque_size(size)));
            assert_non_null(blocks[i]);
            usable[i] = malloc_usable_size(blocks[i]);
            assert_true(usable[i] >= size);
            pattern_write(blocks[i], usable[i], i);
        }
        for (size_t i = 0; i < BLOCKS; i++) {
            assert_int_equal(malloc_usable_size(blocks[i]), usable[i]);
            assert_true(pattern_holds(blocks[i], usable[i], i));
            free(blocks[i]);
        }
    }
}

/* The most that a block of this request may have: classes waste an eighth up to 512 bytes and a quarter
 * above, runs a slot of 16 KiB, raw blocks an eighth. */
static size_t usable_bytes_max(size_t size)
{
    if (size <= 512)
        return size + size / 8 + 16;
    if (size <= 32 * KIB)
        return size + size / 4 + 16;
    return size + size / 8 + 16 * KIB;
}

static void little_is_wasted(void **state)
{
    (void)state;
    for (size_t size = 1; size <= 64 * MIB; size += size / 50 + 1) {
        void *block = opaque(malloc(opaque_size(size)));

        assert_non_null(block);
        if (malloc_usable_size(block) > usable_bytes_max(size))
            fail_msg("%zu usable bytes for %zu", malloc_usable_size(block), size);
        free(block);
    }
}

static void realloc_within_the_usable_size_stays(void **state)
{
    (void)state;
    for (size_t size = 1; size <= 32 * KIB; size += size / 20 + 1) {
        void *block = opaque(malloc(opaque_size(size)));
        size_t usable = malloc_usable_size(block);
        void *same = opaque(realloc(block, opaque_size(usable)));

        assert_ptr_equal(same, block);
        free(same);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_usable_byte_belongs_to_the_block),
        cmocka_unit_test(little_is_wasted),
        cmocka_unit_test(realloc_within_the_usable_size_stays),
    };

    return cmocka_run_group_tests_name("usable_size", tests, NULL, NULL);
}
