/*
 * arena/housekeeper where a page holds several slots: pages of 64 KiB, as aarch64 may have them. The library
 * is told so by a sysconf(3) of this program's own; the kernel's real pages are smaller, so that purging
 * works.
 */
#include "housekeeping.h"

#include "arena/arena_list.h"
#include "base/bits.h"
#include "os/map.h"

#include <string.h>
#include <unistd.h>

#define PAGE_BYTES (64 * KIB)

/* Before main, too. Nothing else in this program wants to know more than the number of processors. */
long sysconf(int name)
{
    return name == _SC_PAGESIZE ? (long)PAGE_BYTES : 2;
}

static void the_library_believes_it(void **state)
{
    (void)state;
    assert_int_equal(map_page_bytes(), 4 * SLOT_BYTES);
}

/* Exactly these slots of the first word of a new arena, written to all over. */
static struct span written_slots(uint64_t mask)
{
    struct span span = claim_new(1);
    give(&span, 0);
    assert_true(arena_list_extend(span.arena, 0, mask, &span));
    for (uint64_t rest = mask; rest != 0; rest &= rest - 1)
        memset(arena_slot_address(span.arena, bits_lowest(rest)), 'd', SLOT_BYTES);
    return span;
}

static bool slot_is_zero(struct arena *arena, uint32_t slot)
{
    return all_zero(arena_slot_address(arena, slot), SLOT_BYTES);
}

static void purge_all_that_is_due(void)
{
    tick_after(1000);
    tick_after(1000);
}

/* As long as one slot of a page is in use its neighbours stay as they are, and dirty. */
static void a_page_goes_when_all_its_slots_are_free(void **state)
{
    (void)state;
    struct span span = written_slots(0xff0); /* two pages */
    struct span used = part(&span, 0x020);
    struct span unused = part(&span, ~UINT64_C(0x020));
    struct arena *arena = span.arena;
    give(&unused, unused.mask);
    purge_all_that_is_due();
    assert_int_equal(arena->dirty[0], 0x0d0);
    assert_int_equal(pages_resident(arena_slot_address(arena, 8), PAGE_BYTES), 0);
    for (uint32_t slot = 4; slot < 8; slot++)
        assert_int_equal(arena_slot_address(arena, slot)[100], 'd');
    for (uint32_t slot = 8; slot < 12; slot++)
        assert_true(slot_is_zero(arena, slot));
    give(&used, used.mask);
    purge_all_that_is_due();
    assert_int_equal(arena->dirty[0], 0);
    assert_int_equal(pages_resident(arena_slot_address(arena, 4), PAGE_BYTES), 0);
    assert_true(arena_is_valid(arena));
}

/* A clean slot in a page is taken along when its dirty neighbours are purged, and comes back clean. */
static void clean_neighbours_go_along(void **state)
{
    (void)state;
    struct span span = written_slots(0xb0); /* slot 6 was never touched */
    struct arena *arena = span.arena;
    struct ledger before = arena_list_ledger();
    give(&span, span.mask);
    purge_all_that_is_due();
    assert_int_equal(arena->dirty[0], 0);
    assert_int_equal(pages_resident(arena_slot_address(arena, 4), PAGE_BYTES), 0);
    assert_int_equal(arena_free_slots(arena), ARENA_USABLE_SLOTS);
    assert_int_equal(arena_list_ledger().held_slots, before.held_slots - 3);
    assert_int_equal(arena_list_ledger().dirty_slots, 0);
}

/* The header's page cannot be purged: the slots that share it are cleared, and the header stays. */
static void slots_beside_the_header_are_cleared(void **state)
{
    (void)state;
    struct span span = written_slots(0x00c);
    struct arena *arena = span.arena;
    uint32_t number = arena->number;
    give(&span, span.mask);
    purge_all_that_is_due();
    assert_int_equal(arena->dirty[0], 0);
    assert_true(slot_is_zero(arena, 2) && slot_is_zero(arena, 3));
    assert_int_equal(arena->number, number);
    assert_ptr_equal(arena_list_get(number), arena);
    assert_true(arena_list_is_valid());
    struct span again;
    assert_true(arena_list_extend(arena, 0, 0x00c, &again));
    assert_int_equal(again.dirty, 0);
    give(&again, 0);
}

/* The hardened library leaves the arena's last slot alone, and the others of its page go all the same. */
static void the_last_page_goes(void **state)
{
    (void)state;
    struct span span = written_slots(0x010); /* keeps the arena */
    struct arena *arena = span.arena;
    struct span last;
    uint64_t page = UINT64_C(15) << 60 & arena_usable_mask(ARENA_WORDS - 1);
    assert_true(arena_list_extend(arena, ARENA_WORDS - 1, page, &last));
    memset(span_start(&last), 'd', span_bytes(&last));
    give(&last, last.mask);
    purge_all_that_is_due();
    assert_int_equal(arena->dirty[ARENA_WORDS - 1], 0);
    assert_int_equal(pages_resident(span_start(&last), span_bytes(&last)), 0);
    give(&span, span.mask);
    housekeeper_trim(0);
    assert_false(page_is_mapped(arena));
}

/* Whatever was given back dirty comes back dirty, or zero. */
static void any_order(void **state)
{
    (void)state;
    struct random random = {1};
    struct span span = written_slots(0xfffffffc);
    struct arena *arena = span.arena;
    uint64_t mine = span.mask;
    for (unsigned step = 0; step < 2000; step++) {
        uint64_t mask = bits_ones(1 + (unsigned)random_below(&random, 9)) << (2 + random_below(&random, 22));
        if ((mine & mask) == mask) {
            give(&(struct span){.arena = arena, .mask = mask}, mask);
            mine &= ~mask;
        } else if (arena_list_extend(arena, 0, mask & ~mine, &span)) {
            for (uint64_t rest = span.mask & ~span.dirty; rest != 0; rest &= rest - 1)
                assert_true(slot_is_zero(arena, bits_lowest(rest)));
            for (uint64_t rest = span.mask; rest != 0; rest &= rest - 1)
                memset(arena_slot_address(arena, bits_lowest(rest)), 'd', SLOT_BYTES);
            mine |= span.mask;
        }
        if (step % 5 == 0)
            tick_after(600);
        for (uint64_t rest = mine; rest != 0; rest &= rest - 1)
            assert_int_equal(arena_slot_address(arena, bits_lowest(rest))[SLOT_BYTES - 1], 'd');
        assert_true(arena_is_valid(arena));
    }
    give(&(struct span){.arena = arena, .mask = mine}, mine);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, housekeeping_tidy_up, housekeeping_tidy_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_library_believes_it),   TEST(a_page_goes_when_all_its_slots_are_free),
        TEST(clean_neighbours_go_along), TEST(slots_beside_the_header_are_cleared),
        TEST(the_last_page_goes),        TEST(any_order),
    };
    return cmocka_run_group_tests(tests, housekeeping_begin, NULL);
}
