/*
 * arena/housekeeper: what is purged, when, and that nothing else is.
 */
#include "housekeeping.h"

#include "arena/arena_list.h"
#include "base/bits.h"
#include "os/settings.h"

#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of an arena that gets slots back all the time, what a tick sees dirty goes at the next. */
static void dirty_slots_go_at_the_second_tick(void **state)
{
    (void)state;
    struct span span = dirty_span(12);
    uint64_t low = span.mask & -span.mask;
    struct span early = part(&span, low * 0xff);
    struct span late = part(&span, low * 0xf00);
    struct housekeeper_totals before = housekeeper_totals();
    give(&early, early.mask);
    tick_after(500);
    assert_true(is_resident(&early));
    assert_int_equal(span.arena->dirty[span.word], early.mask);
    give(&late, late.mask);
    assert_int_equal(housekeeper_totals().purged_bytes, before.purged_bytes);
    tick_after(500);
    assert_false(is_resident(&early));
    assert_true(is_resident(&late));
    assert_int_equal(span.arena->dirty[span.word], late.mask);
    assert_int_equal(arena_list_ledger().dirty_slots, 4);
    assert_int_equal(housekeeper_totals().purged_bytes, before.purged_bytes + 8 * SLOT_BYTES);
    assert_int_equal(housekeeper_totals().purge_calls, before.purge_calls + 1);
    /* What was purged, and used again since, is young again. */
    struct span again;
    assert_true(arena_list_extend(span.arena, span.word, early.mask, &again));
    assert_int_equal(again.dirty, 0);
    memset(span_start(&again), 'd', span_bytes(&again));
    give(&again, again.mask);
    tick_after(500);
    assert_false(is_resident(&late));
    assert_true(is_resident(&early));
    assert_int_equal(arena_list_ledger().dirty_slots, 8);
    assert_int_equal(housekeeper_totals().purge_calls, before.purge_calls + 2);
    tick_after(500);
    assert_false(is_resident(&early));
    assert_int_equal(arena_list_ledger().dirty_slots, 0);
    assert_true(arena_is_valid(span.arena));
}

/* An arena that nothing came back to for the purge delay need not be seen twice. */
static void an_arena_at_rest_is_purged_at_once(void **state)
{
    (void)state;
    struct span young = dirty_span(2);
    struct span old = dirty_span(2);
    give(&old, old.mask);
    housekeeping_ms += 1;
    give(&young, young.mask);
    assert_ptr_not_equal(old.arena, young.arena);
    tick_after(999);
    assert_false(is_resident(&old));
    assert_true(is_resident(&young));
}

static void nothing_happens_before_it_is_due(void **state)
{
    (void)state;
    struct span span = dirty_span(2);
    give(&span, span.mask);
    tick_after(600); /* the first tick ages */
    for (unsigned i = 0; i < 5; i++)
        housekeeper_tick(housekeeping_ms + housekeeper_interval_ms() - 1);
    assert_true(is_resident(&span));
    tick();
    assert_false(is_resident(&span));
}

/* Slots in use, and those that were clean when they came back, are left alone: whoever takes a clean slot
 * later relies on its zeroes, whoever holds one on its contents. */
static void held_slots_keep_their_contents(void **state)
{
    (void)state;
    struct span span = claim_new(12);
    uint64_t low = span.mask & -span.mask;
    struct span kept = part(&span, low * 0x0f0);
    struct span gone = part(&span, low * 0xf0f);
    pattern_write(span_start(&kept), span_bytes(&kept), 1);
    memset(span_start(&span), 'd', 4 * SLOT_BYTES);
    memset(span_start(&kept) + 4 * SLOT_BYTES, 'd', 4 * SLOT_BYTES);
    give(&gone, gone.mask);
    tick();
    struct span back; /* aged by now, but taken again before the second tick */
    assert_true(arena_list_extend(span.arena, span.word, low * 0xc00, &back));
    assert_int_equal(back.dirty, back.mask);
    tick();
    assert_true(pattern_holds(span_start(&kept), span_bytes(&kept), 1));
    assert_int_equal(span_start(&back)[0], 'd');
    assert_int_equal(pages_resident(span_start(&span), 4 * SLOT_BYTES), 0);
    assert_int_equal(pages_resident(span_start(&span), 12 * SLOT_BYTES), pages_of(6 * SLOT_BYTES));
    assert_int_equal(arena_list_ledger().dirty_slots, dirty_beside_used());
    give(&kept, kept.mask);
    give(&back, back.mask);
}

static void locked_pages_stay_dirty(void **state)
{
    (void)state;
    struct span span = claim_new(1);
    memset(span_start(&span), 'l', SLOT_BYTES);
    if (syscall(SYS_mlock, span_start(&span), SLOT_BYTES) != 0) /* the sanitizers make mlock() do nothing */
        not_here("no memory may be locked");
    give(&span, span.mask);
    for (unsigned i = 0; i < 3; i++)
        tick();
    assert_int_equal(span.arena->dirty[span.word], span.mask);
    assert_int_equal(arena_list_ledger().dirty_slots, 1);
    assert_int_equal(span_start(&span)[5], 'l');
    syscall(SYS_munlock, span_start(&span), SLOT_BYTES);
    tick();
    tick();
    assert_int_equal(arena_list_ledger().dirty_slots, 0);
    assert_int_equal(pages_resident(span_start(&span), SLOT_BYTES), 0);
}

static void without_a_delay_one_tick_is_enough(void **state)
{
    (void)state;
    settings.purge_delay_ms = 0;
    struct span span = claim_new(3);
    housekeeping_ms += 1000;
    give(&span, span.mask);
    tick_after(0);
    assert_int_equal(arena_list_ledger().dirty_slots, 0);
}

static void the_interval_is_shorter_above_the_limit(void **state)
{
    (void)state;
    settings.purge_delay_ms = 1000;
    settings.dirty_limit_bytes = 20 * SLOT_BYTES;
    struct span span = claim_new(32);
    struct span some = part(&span, (span.mask & -span.mask) * bits_ones(20));
    struct span more = part(&span, span.mask & ~some.mask);
    give(&some, some.mask);
    assert_int_equal(housekeeper_interval_ms(), 500);
    give(&more, more.mask);
    assert_int_equal(housekeeper_interval_ms(), 125);
    assert_false(housekeeper_is_urgent());
}

/* Far above the limit it is purged at once, due or not, aged or not. */
static void too_much_dirt_is_urgent(void **state)
{
    (void)state;
    settings.dirty_limit_bytes = SLOT_BYTES;
    struct span spans[6];
    for (unsigned i = 0; i < 6; i++)
        spans[i] = claim_new(32);
    assert_false(housekeeper_is_urgent());
    for (unsigned i = 0; i < 6; i++)
        give(&spans[i], spans[i].mask);
    assert_true(housekeeper_is_urgent());
    housekeeper_tick(housekeeping_ms); /* though not again in the millisecond of the last round */
    assert_true(housekeeper_is_urgent());
    housekeeper_tick(housekeeping_ms + 1);
    assert_int_equal(arena_list_ledger().dirty_slots, 0);
    assert_false(housekeeper_is_urgent());
}

static void a_tick_is_bounded_and_goes_on_soon(void **state)
{
    (void)state;
    settings.dirty_limit_bytes = 256 * MIB;
    for (unsigned i = 0; i < 6; i++)
        dirty_arena();
    tick();
    assert_int_equal(arena_list_ledger().dirty_slots, 6 * ARENA_USABLE_SLOTS);
    tick();
    uint32_t left = arena_list_ledger().dirty_slots;
    assert_true(left <= 6 * ARENA_USABLE_SLOTS - 1024);
    assert_true(left > 0);
    housekeeper_tick(housekeeping_ms + 1);
    assert_int_equal(arena_list_ledger().dirty_slots, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, housekeeping_tidy_up, housekeeping_tidy_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(dirty_slots_go_at_the_second_tick),
        TEST(an_arena_at_rest_is_purged_at_once),
        TEST(nothing_happens_before_it_is_due),
        TEST(held_slots_keep_their_contents),
        TEST(locked_pages_stay_dirty),
        TEST(without_a_delay_one_tick_is_enough),
        TEST(the_interval_is_shorter_above_the_limit),
        TEST(too_much_dirt_is_urgent),
        TEST(a_tick_is_bounded_and_goes_on_soon),
    };
    return cmocka_run_group_tests(tests, housekeeping_begin, NULL);
}
