/*
 * guard/guard: where blocks lie, what they hold, how long freed places wait, and the bound.
 */
#include "guard/guard.h"

#include "os/map.h"
#include "unit.h"

#include <string.h>

#define LEFT  0
#define RIGHT 1

static char *take(size_t bytes, uint64_t random)
{
    char *block = guard_take(bytes, random);
    must(block != NULL && (uintptr_t)block % 16 == 0);
    return block;
}

static void a_block_lies_at_the_end_or_begin_of_its_pages(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 16, 17, 48, 520, 4095, 4096, 4097, 16384, 32752, GUARD_BYTES_MOST};
    size_t page = map_page_bytes();
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t held = sizes[i] == 0 ? 16 : (sizes[i] + 15) / 16 * 16;
        char *right = take(sizes[i], RIGHT);
        assert_int_equal((uintptr_t)(right + held) % (16 * KIB), 0);
        assert_false(page_is_resident(right + held));
        char *left = take(sizes[i], LEFT);
        assert_int_equal((uintptr_t)left % page, 0);
        assert_false(page_is_resident(left - 1));
        memset(right, 1, sizes[i]);
        memset(left, 1, sizes[i]);
        guard_free(right);
        guard_free(left);
    }
    assert_null(guard_take(GUARD_BYTES_MOST + 1, RIGHT));
}

static void a_live_block_is_known_and_counted(void **state)
{
    (void)state;
    struct guard_totals before = guard_totals();
    size_t mappings = map_count();
    char *block = take(100, RIGHT);
    size_t bytes = 0;
    assert_true(guard_is_live(block, &bytes));
    assert_int_equal(bytes, 100);
    assert_false(guard_is_live(block + 16, &bytes));
    assert_int_equal(guard_totals().live_blocks, before.live_blocks + 1);
    assert_int_equal(guard_totals().live_bytes, before.live_bytes + 100);
    assert_true(map_count() >= mappings + 2);
    guard_free(block);
    assert_false(guard_is_live(block, &bytes));
    assert_int_equal(guard_totals().live_blocks, before.live_blocks);
    assert_int_equal(guard_totals().live_bytes, before.live_bytes);
    assert_int_equal(guard_totals().waiting, before.waiting + 1);
    assert_false(page_is_resident(block));
}

static void an_address_between_two_blocks_belongs_to_the_nearer(void **state)
{
    (void)state;
    char *first = take(48, RIGHT);
    char *second = take(48, LEFT);
    assert_ptr_equal(guard_nearest(first + 48 + 100)->start, first);
    assert_ptr_equal(guard_nearest(second - 100)->start, second);
    assert_ptr_equal(guard_nearest(second + 20)->start, second);
    assert_null(guard_nearest(&first));
    guard_free(first);
    guard_free(second);
}

/* All places are used before one is used again, and then that which was freed first. */
static void freed_places_wait(void **state)
{
    (void)state;
    size_t page = map_page_bytes();
    size_t least = GUARD_ARENAS_MOST * (ARENA_BYTES / (64 * KIB + page));
    char *block = take(48, RIGHT);
    guard_free(block);
    size_t others = 0;
    for (char *other = NULL; other != block; others++) {
        other = take(48, RIGHT);
        assert_true(others < 20000);
        guard_free(other);
    }
    assert_true(others > least / 2);
}

/* With all places in use nothing is given, and an eighth must wait before there is something again. */
static void the_bound_holds(void **state)
{
    (void)state;
    static char *blocks[20000];
    size_t count = 0;
    while (count < 20000 && (blocks[count] = guard_take(48, RIGHT)) != NULL)
        count++;
    assert_true(count > 1000 && count < 20000);
    assert_true(guard_totals().places <= GUARD_ARENAS_MOST * 86);
    guard_free(blocks[--count]);
    if (guard_totals().waiting < guard_totals().places / 8)
        assert_null(guard_take(48, RIGHT));
    while (count > 0)
        guard_free(blocks[--count]);
    guard_free(take(48, RIGHT));
}

static void turns(void *context, unsigned index)
{
    (void)context;
    for (unsigned i = 0; i < TURNS(400); i++) {
        char *block = take(64, i);
        memset(block, (int)index, 64);
        for (int k = 0; k < 64; k++)
            must(block[k] == (char)index);
        guard_free(block);
    }
}

static void threads_take_and_free(void **state)
{
    (void)state;
    size_t live = guard_totals().live_blocks;
    threads_run(4, turns, NULL);
    assert_int_equal(guard_totals().live_blocks, live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_lies_at_the_end_or_begin_of_its_pages),
        cmocka_unit_test(a_live_block_is_known_and_counted),
        cmocka_unit_test(an_address_between_two_blocks_belongs_to_the_nearer),
        cmocka_unit_test(threads_take_and_free),
        cmocka_unit_test(freed_places_wait),
        cmocka_unit_test(the_bound_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
