/*
 * base/bits.h: each function against one that is too simple to be wrong.
 */
#include "base/bits.h"

#include "unit.h"

static uint64_t naive_run_starts(uint64_t set, unsigned length)
{
    uint64_t starts = 0;
    for (unsigned first = 0; first + length <= 64; first++) {
        bool all = true;
        for (unsigned bit = first; bit < first + length; bit++)
            all &= (set >> bit & 1) != 0;
        starts |= (uint64_t)all << first;
    }
    return starts;
}

static void check_run_starts(uint64_t set)
{
    for (unsigned length = 1; length <= 64; length++)
        assert_int_equal(bits_run_starts(set, length), naive_run_starts(set, length));
}

static void run_starts_of_single_runs(void **state)
{
    (void)state;
    check_run_starts(0);
    for (unsigned first = 0; first < 64; first++)
        for (unsigned length = 1; first + length <= 64; length++)
            check_run_starts(bits_ones(length) << first);
}

static void run_starts_of_random_sets(void **state)
{
    (void)state;
    struct random random = {1};
    for (unsigned i = 0; i < 3000; i++) {
        uint64_t sparse = random_next(&random) & random_next(&random);
        check_run_starts(sparse);
        check_run_starts(~sparse);
        check_run_starts(~(sparse & random_next(&random) & random_next(&random)));
    }
}

static void ones_of_every_length(void **state)
{
    (void)state;
    uint64_t naive = 0;
    for (unsigned length = 0; length <= 64; length++) {
        assert_int_equal(bits_ones(length), naive);
        naive = naive << 1 | 1;
    }
}

static void rotated_bit_by_bit(void **state)
{
    (void)state;
    for (unsigned by = 1; by < 32; by++)
        for (unsigned bit = 0; bit < 32; bit++)
            assert_int_equal(bits_rotate_right(UINT32_C(1) << bit, by), UINT32_C(1) << (bit + 32 - by) % 32);
}

static void log2_is_the_floor(void **state)
{
    (void)state;
    for (unsigned bit = 0; bit < 64; bit++) {
        uint64_t power = UINT64_C(1) << bit;
        assert_int_equal(bits_log2(power), bit);
        assert_int_equal(bits_log2(power | (power - 1)), bit);
        assert_int_equal(bits_log2(power | power >> 1), bit);
    }
}

static void lowest_and_count(void **state)
{
    (void)state;
    struct random random = {2};
    assert_int_equal(bits_count(0), 0);
    assert_int_equal(bits_count(UINT64_MAX), 64);
    for (unsigned i = 0; i < 10000; i++) {
        uint64_t set = random_next(&random) << random_below(&random, 64);
        unsigned count = 0;
        unsigned lowest = 64;
        for (unsigned bit = 64; bit-- > 0;) {
            if ((set >> bit & 1) == 0)
                continue;
            count++;
            lowest = bit;
        }
        assert_int_equal(bits_count(set), count);
        if (set != 0)
            assert_int_equal(bits_lowest(set), lowest);
    }
}

static void powers_of_two(void **state)
{
    (void)state;
    assert_false(bits_is_power_of_two(0));
    for (unsigned bit = 0; bit < 64; bit++) {
        size_t power = (size_t)1 << bit;
        assert_true(bits_is_power_of_two(power));
        if (bit >= 2)
            assert_false(bits_is_power_of_two(power - 1));
        if (bit >= 1)
            assert_false(bits_is_power_of_two(power + 1));
    }
    assert_false(bits_is_power_of_two(SIZE_MAX));
}

static void alignment_up_and_down(void **state)
{
    (void)state;
    struct random random = {3};
    for (unsigned bit = 0; bit < 40; bit++) {
        size_t alignment = (size_t)1 << bit;
        for (unsigned i = 0; i < 200; i++) {
            size_t n = i < 3 ? alignment * i : random_below(&random, (size_t)1 << 50);
            size_t rest = n % alignment;
            assert_int_equal(bits_align_down(n, alignment), n - rest);
            assert_int_equal(bits_align_up(n, alignment), rest == 0 ? n : n - rest + alignment);
        }
    }
}

__extension__ typedef unsigned __int128 wide;

static void check_arithmetic(size_t a, size_t b)
{
    size_t result;
    bool fits = (wide)a * b <= SIZE_MAX;
    assert_int_equal(bits_multiply(a, b, &result), fits);
    if (fits)
        assert_int_equal(result, a * b);
    fits = (wide)a + b <= SIZE_MAX;
    assert_int_equal(bits_add(a, b, &result), fits);
    if (fits)
        assert_int_equal(result, a + b);
}

static void checked_arithmetic(void **state)
{
    (void)state;
    static const size_t edges[] = {0,
                                   1,
                                   2,
                                   3,
                                   0xffffffff,
                                   0x100000000,
                                   0x100000001,
                                   SIZE_MAX / 2,
                                   SIZE_MAX / 2 + 1,
                                   SIZE_MAX / 3,
                                   SIZE_MAX / 3 + 1,
                                   SIZE_MAX - 1,
                                   SIZE_MAX};
    const size_t count = sizeof edges / sizeof edges[0];
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < count; j++)
            check_arithmetic(edges[i], edges[j]);
    struct random random = {4};
    for (unsigned i = 0; i < 10000; i++)
        check_arithmetic(random_next(&random) >> random_below(&random, 64),
                         random_next(&random) >> random_below(&random, 64));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(run_starts_of_single_runs), cmocka_unit_test(run_starts_of_random_sets),
        cmocka_unit_test(ones_of_every_length),      cmocka_unit_test(rotated_bit_by_bit),
        cmocka_unit_test(ones_of_every_length),      cmocka_unit_test(log2_is_the_floor),
        cmocka_unit_test(lowest_and_count),          cmocka_unit_test(powers_of_two),
        cmocka_unit_test(alignment_up_and_down),     cmocka_unit_test(checked_arithmetic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
