/*
 * pool/trailer: what was asked for is read back exactly; every byte behind it, and every byte of a free
 * block, is seen to have changed; of two frees one is told.
 */
#include "pool/trailer.h"

#include "unit.h"

#include <string.h>

static _Alignas(16) unsigned char memory[CLASS_BYTES_MOST];

static int draw_secret(void **state)
{
    (void)state;
    secret_initialise();
    return 0;
}

static enum trailer_state state_of(size_t block_bytes)
{
    size_t bytes;
    return trailer_read(memory, block_bytes, &bytes);
}

static const size_t block_sizes[] = {32, 48, 144, 1024, 5120, CLASS_BYTES_MOST};
#define SIZES (sizeof block_sizes / sizeof block_sizes[0])

static void each_size_is_read_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < SIZES; i++) {
        for (size_t bytes = 0; bytes <= block_sizes[i] - TRAILER_BYTES; bytes += bytes < 64 ? 1 : 61) {
            size_t found = 0;
            memset(memory, 0x5a, block_sizes[i]);
            trailer_write(memory, block_sizes[i], bytes);
            assert_int_equal(trailer_read(memory, block_sizes[i], &found), TRAILER_IN_USE);
            assert_int_equal(found, bytes);
            assert_true(bytes == 0 || memory[bytes - 1] == 0x5a);
        }
    }
}

/* A text of just that length ends in the byte that is never 0, and is over at the next. */
static void a_text_that_is_too_long_is_seen_and_ends(void **state)
{
    (void)state;
    for (size_t bytes = 1; bytes <= 24; bytes++) {
        trailer_write(memory, 32, bytes);
        assert_true(memory[bytes] != 0);
        assert_int_equal(memory[bytes + (bytes == 32 - TRAILER_BYTES - 1 ? 2 : 1)], 0);
        memory[bytes] = 0;
        assert_int_equal(state_of(32), TRAILER_DAMAGED);
    }
}

static void each_byte_behind_is_watched(void **state)
{
    (void)state;
    for (size_t bytes = 0; bytes <= 136; bytes += 17) {
        trailer_write(memory, 144, bytes);
        for (size_t byte = bytes; byte < 144; byte++) {
            for (unsigned bit = 0; bit < 8; bit++) {
                memory[byte] ^= (unsigned char)(1U << bit);
                assert_int_equal(state_of(144), TRAILER_DAMAGED);
                memory[byte] ^= (unsigned char)(1U << bit);
            }
        }
        assert_int_equal(state_of(144), TRAILER_IN_USE);
    }
}

static void a_trailer_is_worth_nothing_elsewhere(void **state)
{
    (void)state;
    trailer_write(memory, 64, 40);
    memcpy(memory + 64, memory, 64);
    size_t bytes;
    assert_int_equal(trailer_read(memory + 64, 64, &bytes), TRAILER_DAMAGED);
}

static void freed_blocks_are_zero_and_marked(void **state)
{
    (void)state;
    memset(memory, 0x5a, 144);
    trailer_write(memory, 144, 100);
    assert_true(trailer_free(memory, 144, 100));
    assert_int_equal(state_of(144), TRAILER_FREE);
    assert_true(all_zero(memory, 144 - TRAILER_BYTES));
    assert_true(trailer_is_untouched(memory, 144, 0));
    assert_false(trailer_free(memory, 144, 100));
}

static void each_byte_of_a_free_block_is_watched(void **state)
{
    (void)state;
    memset(memory, 0x5a, 144);
    trailer_make_free(memory, 144, true);
    for (size_t byte = 0; byte < 144; byte++) {
        memory[byte] ^= 0x10;
        assert_false(trailer_is_untouched(memory, 144, 0));
        assert_true(trailer_is_untouched(memory, 144, 16) == (byte < 16));
        memory[byte] ^= 0x10;
    }
    assert_true(trailer_is_untouched(memory, 144, 0));
}

static _Atomic unsigned freed;

static void free_it(void *context, unsigned index)
{
    (void)context;
    (void)index;
    freed += trailer_free(memory, 144, 100);
}

static void of_many_frees_at_once_one_is_the_first(void **state)
{
    (void)state;
    for (int round = 0; round < 200; round++) {
        trailer_write(memory, 144, 100);
        freed = 0;
        threads_run(4, free_it, NULL);
        assert_int_equal(freed, 1);
    }
}

static void overflow(void *context)
{
    (void)context;
    fatal_overflow((const void *)0x1230, 48, "-byte class");
}

static void damage_is_named(void **state)
{
    (void)state;
    child_must_die(overflow, NULL,
                   "tarn: fatal: heap corruption: memory behind 0x1230 was written to (48-byte class)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_size_is_read_back),
        cmocka_unit_test(a_text_that_is_too_long_is_seen_and_ends),
        cmocka_unit_test(each_byte_behind_is_watched),
        cmocka_unit_test(a_trailer_is_worth_nothing_elsewhere),
        cmocka_unit_test(freed_blocks_are_zero_and_marked),
        cmocka_unit_test(each_byte_of_a_free_block_is_watched),
        cmocka_unit_test(of_many_frees_at_once_one_is_the_first),
        cmocka_unit_test(damage_is_named),
    };
    return cmocka_run_group_tests_name("trailer", tests, draw_secret, NULL);
}
