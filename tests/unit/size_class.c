/*
 * pool/size_class: every size against the definition: the smallest class that holds it, multiples of 16, at
 * most 12.5 % larger from 128 to 512 bytes and 25 % above, powers of two exact.
 */
#include "pool/size_class.h"

#include "arena/arena.h"
#include "unit.h"

static void every_size_gets_its_smallest_class(void **state)
{
    (void)state;
    for (size_t bytes = 1; bytes <= CLASS_BYTES_MOST; bytes++) {
        uint32_t class = class_of_size(bytes);
        assert_true(class < CLASS_COUNT);
        assert_true(class_bytes(class) >= bytes);
        assert_true(class == 0 || class_bytes(class - 1) < bytes);
        if (bytes > 512)
            assert_true(class_bytes(class) * 4 <= bytes * 5);
        else if (bytes > 128)
            assert_true(class_bytes(class) * 8 <= bytes * 9);
        else
            assert_true(class_bytes(class) - bytes < BLOCK_ALIGNMENT);
    }
}

static void classes_grow_in_multiples_of_16(void **state)
{
    (void)state;
    assert_int_equal(CLASS_COUNT, 51);
    assert_int_equal(class_bytes(0), 16);
    assert_int_equal(class_bytes(7), 128);
    assert_int_equal(class_bytes(8), 144);
    assert_int_equal(class_bytes(CLASS_COUNT - 1), 32 * KIB);
    for (uint32_t class = 0; class < CLASS_COUNT; class ++) {
        assert_int_equal(class_bytes(class) % BLOCK_ALIGNMENT, 0);
        assert_int_equal(class_of_size(class_bytes(class)), class);
        if (class > 0)
            assert_true(class_bytes(class) > class_bytes(class - 1));
    }
    for (size_t power = 16; power <= CLASS_BYTES_MOST; power *= 2)
        assert_int_equal(class_bytes(class_of_size(power)), power);
    for (size_t power = 4 * KIB; power < CLASS_BYTES_MOST; power *= 2) /* and a header */
        assert_int_equal(class_bytes(class_of_size(power + 1)), power + power / 8);
}

static void pools_have_the_slots_they_should(void **state)
{
    (void)state;
    for (uint32_t class = 0; class < CLASS_COUNT; class ++) {
        size_t bytes = class_bytes(class);
        size_t pool_kib = class_pool_slots(class) * SLOT_BYTES / KIB;
        assert_int_equal(pool_kib, bytes <= 512 ? 16 : bytes <= 2048 ? 64 : bytes <= 4096 ? 128 : 256);
        assert_true(class_pool_slots(class) <= SPAN_SLOTS_MOST);
        assert_true(pool_kib * KIB / bytes >= 8);
        assert_int_equal(class_pool_blocks(class), pool_kib * KIB / bytes);
        /* What is left over behind the last block: less than an eighth of the pool. */
        assert_true(pool_kib * KIB % bytes * 8 < pool_kib * KIB);
    }
}

static void block_numbers_without_a_division(void **state)
{
    (void)state;
    for (uint32_t class = 0; class < CLASS_COUNT; class ++) {
        for (uint32_t offset = 0; offset < class_pool_slots(class) * SLOT_BYTES; offset++) {
            uint32_t number = UINT32_MAX;
            bool begins =
                offset % class_bytes(class) == 0 && offset / class_bytes(class) < class_pool_blocks(class);
            must(class_has_block_at(class, offset, &number) == begins);
            must(!begins || number == offset / class_bytes(class));
        }
    }
}

static uint32_t naive_aligned(size_t bytes, size_t alignment)
{
    uint32_t class = 0;
    while (class < CLASS_COUNT && (class_bytes(class) < bytes || class_bytes(class) % alignment != 0))
        class ++;
    return class;
}

static void check_aligned(size_t bytes, size_t alignment)
{
    size_t request = class_aligned_request(bytes, alignment);
    uint32_t class = request <= CLASS_BYTES_MOST ? class_of_size(request) : CLASS_COUNT;
    assert_int_equal(class, naive_aligned(bytes, alignment));
}

static void aligned_sizes(void **state)
{
    (void)state;
    for (size_t alignment = 1; alignment <= SLOT_BYTES; alignment *= 2)
        for (size_t bytes = 0; bytes <= CLASS_BYTES_MOST; bytes++)
            check_aligned(bytes, alignment);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_size_gets_its_smallest_class),
        cmocka_unit_test(classes_grow_in_multiples_of_16),
        cmocka_unit_test(pools_have_the_slots_they_should),
        cmocka_unit_test(block_numbers_without_a_division),
        cmocka_unit_test(aligned_sizes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
