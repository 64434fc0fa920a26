/*
 * raw/raw_cache: against a naive list of pieces. The room never looks at the memory it keeps, so the pieces
 * are made up; where cmocka runs on Tarn, none of its requests is large enough to come here.
 */
#include "raw/raw_cache.h"

#include "unit.h"

#include <string.h>

#define NO_LIMIT SIZE_MAX

/* The pieces in the order of putting. */
static struct raw_piece model[RAW_CACHE_PIECES];
static uint64_t put_ms[RAW_CACHE_PIECES];
static size_t count;

static size_t model_bytes(void)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += model[i].bytes;
    return bytes;
}

static void check_totals(void)
{
    assert_int_equal(raw_cache_count(), count);
    assert_int_equal(raw_cache_bytes(), model_bytes());
}

static int start_empty(void **state)
{
    (void)state;
    struct raw_piece piece;
    while (raw_cache_take_older(UINT64_MAX, &piece))
        continue;
    count = 0;
    return raw_cache_count() == 0 && raw_cache_bytes() == 0 ? 0 : -1;
}

static struct raw_piece make_piece(uintptr_t address, size_t bytes)
{
    struct raw_piece piece = {
        .address = (char *)address, .bytes = bytes, .dirty_bytes = bytes / 2, .parts = 2};
    piece.moved = address / bytes % 2 != 0;
    piece.part_end[0] = bytes / 4;
    piece.part_end[1] = bytes;
    return piece;
}

static void put_one(struct raw_piece piece, uint64_t now_ms, size_t bytes_most)
{
    bool fits = count < RAW_CACHE_PIECES && model_bytes() + piece.bytes <= bytes_most;
    assert_int_equal(raw_cache_put(&piece, now_ms, bytes_most), fits);
    if (fits) {
        put_ms[count] = now_ms;
        model[count++] = piece;
    }
    check_totals();
}

/* The piece came out of this place of the model. */
static void check_taken(size_t index, const struct raw_piece *piece)
{
    assert_ptr_equal(piece->address, model[index].address);
    assert_int_equal(piece->bytes, model[index].bytes);
    assert_int_equal(piece->dirty_bytes, model[index].dirty_bytes);
    assert_int_equal(piece->parts, model[index].parts);
    assert_int_equal(piece->moved, model[index].moved);
    assert_memory_equal(piece->part_end, model[index].part_end, sizeof piece->part_end);
    count--;
    memmove(&model[index], &model[index + 1], (count - index) * sizeof model[0]);
    memmove(&put_ms[index], &put_ms[index + 1], (count - index) * sizeof put_ms[0]);
    check_totals();
}

static bool is_aligned(const struct raw_piece *piece, size_t alignment)
{
    return (uintptr_t)piece->address % alignment == 0;
}

/* The smallest that is large enough, the youngest of equals. */
static size_t find_smallest(size_t bytes, size_t alignment)
{
    size_t found = SIZE_MAX;
    for (size_t i = 0; i < count; i++)
        if (model[i].bytes >= bytes && is_aligned(&model[i], alignment) &&
            (found == SIZE_MAX || model[i].bytes <= model[found].bytes))
            found = i;
    return found;
}

static size_t find_largest(size_t least_bytes, size_t alignment)
{
    size_t found = SIZE_MAX;
    for (size_t i = 0; i < count; i++)
        if (model[i].bytes >= least_bytes && is_aligned(&model[i], alignment) &&
            (found == SIZE_MAX || model[i].bytes >= model[found].bytes))
            found = i;
    return found;
}

static void take_whole(size_t bytes, size_t alignment)
{
    struct raw_piece piece;
    size_t expected = find_smallest(bytes, alignment);
    assert_int_equal(raw_cache_take_whole(bytes, alignment, &piece), expected != SIZE_MAX);
    if (expected != SIZE_MAX)
        check_taken(expected, &piece);
}

static void take_part(size_t bytes, size_t least_bytes, size_t alignment)
{
    struct raw_piece piece;
    size_t expected = find_smallest(bytes, alignment);
    if (expected == SIZE_MAX)
        expected = find_largest(least_bytes, alignment);
    assert_int_equal(raw_cache_take_part(bytes, least_bytes, alignment, &piece), expected != SIZE_MAX);
    if (expected != SIZE_MAX)
        check_taken(expected, &piece);
}

static void take_older(uint64_t then_ms)
{
    struct raw_piece piece;
    bool expected = count > 0 && put_ms[0] <= then_ms;
    assert_int_equal(raw_cache_take_older(then_ms, &piece), expected);
    if (expected)
        check_taken(0, &piece);
}

/* ---- tests ---- */

static void the_best_fit_is_taken(void **state)
{
    (void)state;
    put_one(make_piece(16 * MIB, 9 * MIB), 1, NO_LIMIT);
    put_one(make_piece(32 * MIB, 5 * MIB), 2, NO_LIMIT);
    put_one(make_piece(48 * MIB, 5 * MIB), 3, NO_LIMIT);
    put_one(make_piece(64 * MIB + 4 * KIB, 6 * MIB), 4, NO_LIMIT);
    struct raw_piece piece;
    assert_true(raw_cache_take_whole(5 * MIB, 4 * MIB, &piece));
    assert_ptr_equal(piece.address, (char *)(48 * MIB)); /* the youngest of two */
    assert_int_equal(piece.dirty_bytes, 5 * MIB / 2);
    check_taken(2, &piece);
    assert_true(raw_cache_take_whole(5 * MIB + 1, 4 * MIB, &piece));
    assert_ptr_equal(piece.address, (char *)(16 * MIB)); /* the one of 6 MiB begins elsewhere */
    check_taken(0, &piece);
    assert_false(raw_cache_take_whole(5 * MIB + 1, 4 * MIB, &piece));
    assert_true(raw_cache_take_whole(5 * MIB + 1, 4 * KIB, &piece));
    check_taken(1, &piece);
}

static void a_part_is_the_largest_that_is_worth_it(void **state)
{
    (void)state;
    put_one(make_piece(16 * MIB, 2 * MIB), 1, NO_LIMIT);
    put_one(make_piece(32 * MIB, 3 * MIB), 2, NO_LIMIT);
    struct raw_piece piece;
    assert_false(raw_cache_take_part(8 * MIB, 3 * MIB + 1, 1, &piece));
    assert_true(raw_cache_take_part(8 * MIB, 3 * MIB, 1, &piece));
    check_taken(1, &piece);
    assert_true(raw_cache_take_part(MIB, 8 * MIB, 1, &piece));
    check_taken(0, &piece);
}

static void bytes_and_number_are_bounded(void **state)
{
    (void)state;
    put_one(make_piece(16 * MIB, 3 * MIB), 1, 4 * MIB);
    put_one(make_piece(32 * MIB, MIB + 1), 1, 4 * MIB);
    put_one(make_piece(32 * MIB, MIB), 1, 4 * MIB);
    assert_int_equal(count, 2);
    put_one(make_piece(48 * MIB, 1), 1, 4 * MIB);
    put_one(make_piece(48 * MIB, 1), 1, 0);
    assert_int_equal(count, 2);
    for (size_t i = 0; i < RAW_CACHE_PIECES; i++)
        put_one(make_piece((100 + i) * MIB, MIB), 2 + i, NO_LIMIT);
    assert_int_equal(count, RAW_CACHE_PIECES);
}

static void the_oldest_goes_first(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 5; i++)
        put_one(make_piece((1 + i) * 16 * MIB, (5 - i) * MIB), 100 + 10 * i, NO_LIMIT);
    take_older(99);
    assert_int_equal(count, 5);
    take_older(115);
    take_older(115);
    assert_int_equal(count, 3);
    take_older(120);
    take_older(UINT64_MAX);
    take_older(UINT64_MAX);
    assert_int_equal(count, 0);
    take_older(UINT64_MAX);
}

static void anything_after_anything(void **state)
{
    (void)state;
    struct random random = {1};
    uint64_t now_ms = 0;
    for (unsigned step = 0; step < 40000; step++) {
        size_t bytes = 4 * KIB * (1 + random_below(&random, 40));
        size_t alignment = (size_t)4 * KIB << random_below(&random, 4);
        size_t most = random_below(&random, 3) == 0 ? 100 * 4 * KIB : NO_LIMIT;
        now_ms += random_below(&random, 3);
        switch (random_below(&random, step / 5000 % 2 == 0 ? 5 : 9)) {
        case 0:
            take_older(now_ms - random_below(&random, 50));
            break;
        case 1:
            take_whole(bytes, alignment);
            break;
        case 2:
            take_part(bytes, 4 * KIB * random_below(&random, 40), alignment);
            break;
        default:
            put_one(make_piece(4 * KIB * (1 + random_below(&random, 1 << 20)), bytes), now_ms, most);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_best_fit_is_taken, start_empty),
        cmocka_unit_test_setup(a_part_is_the_largest_that_is_worth_it, start_empty),
        cmocka_unit_test_setup(bytes_and_number_are_bounded, start_empty),
        cmocka_unit_test_setup(the_oldest_goes_first, start_empty),
        cmocka_unit_test_setup(anything_after_anything, start_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
