/*
 * raw/raw_guard: inaccessible pages on both sides; freed addresses stay inaccessible for a while; mappings
 * are counted; what is done without the pages.
 */
#include "raw/raw_guard.h"

#include "arena/arena.h"
#include "os/map.h"
#include "unit.h"

#include <string.h>
#include <sys/wait.h>

static bool faults(char *address)
{
    return !page_is_mapped(address) || page_is_forbidden(address);
}

static void pages_on_both_sides_are_forbidden(void **state)
{
    (void)state;
    size_t page = map_page_bytes();
    size_t before = map_count();
    struct raw_piece piece;
    assert_true(raw_guard_map(10 * page, ARENA_BYTES, &piece));
    assert_int_equal((uintptr_t)piece.address % ARENA_BYTES, 0);
    assert_int_equal(piece.bytes, 10 * page);
    assert_true(all_zero(piece.address, piece.bytes));
    memset(piece.address, 1, piece.bytes);
    assert_true(faults(piece.address - 1));
    assert_true(page_is_forbidden(piece.address + piece.bytes));
    assert_true(map_count() > before);
    raw_guard_unmap(&piece);
    assert_false(page_is_mapped(piece.address));
    assert_false(page_is_mapped(piece.address + 10 * page));
    assert_int_equal(map_count(), before);
}

/* Of the whole ring, and of those that it pushes out. */
static void freed_addresses_wait(void **state)
{
    (void)state;
    size_t page = map_page_bytes();
    static struct raw_piece pieces[2 * RAW_GUARD_KEPT];
    size_t before = map_count();
    for (size_t i = 0; i < 2 * RAW_GUARD_KEPT; i++) {
        assert_true(raw_guard_map((1 + i % 5) * page, ARENA_BYTES, &pieces[i]));
        for (size_t other = i < RAW_GUARD_KEPT ? 0 : i - RAW_GUARD_KEPT; other < i; other++)
            assert_ptr_not_equal(pieces[i].address, pieces[other].address);
        memset(pieces[i].address, 1, pieces[i].bytes);
        raw_guard_retire(&pieces[i]);
        assert_true(raw_guard_has(pieces[i].address));
        assert_true(page_is_forbidden(pieces[i].address));
    }
    assert_false(raw_guard_has(NULL));
    assert_in_range(map_count() - before, RAW_GUARD_KEPT, 4 * RAW_GUARD_KEPT);
    assert_true(raw_guard_drop() > RAW_GUARD_KEPT * page);
    assert_int_equal(raw_guard_drop(), 0);
    assert_int_equal(map_count(), before);
    assert_false(page_is_mapped(pieces[2 * RAW_GUARD_KEPT - 1].address));
}

/* The kernel's limit counts for all mappings; here it is reached by saying so. */
static void beyond_the_safe_number_of_mappings_there_are_none(void **state)
{
    (void)state;
    size_t page = map_page_bytes();
    long more = (long)(map_count_limit() - map_count());
    struct raw_piece piece;
    map_count_add(more);
    bool mapped = raw_guard_map(3 * page, ARENA_BYTES, &piece);
    size_t during = map_count();
    raw_guard_retire(&piece);
    size_t after = map_count();
    map_count_add(-more);
    assert_true(mapped && !piece.guard_begin && !piece.guard_end);
    assert_int_equal(during, map_count_limit() + 1);
    assert_int_equal(after, map_count_limit());
    assert_false(page_is_mapped(piece.address));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_on_both_sides_are_forbidden),
        cmocka_unit_test(freed_addresses_wait),
        cmocka_unit_test(beyond_the_safe_number_of_mappings_there_are_none),
    };
    return cmocka_run_group_tests_name("raw_guard", tests, NULL, NULL);
}
