/*
 * arena/housekeeper: what is purged, when, and that nothing else is; arenas retired, revived, unmapped after
 * a grace period; trim.
 *
 * The tests tell the housekeeper the time, from a day ahead on, so that heartbeats of the process itself,
 * where cmocka runs on Tarn, are never due.
 */
#include "arena/housekeeper.h"

#include "arena/arena_list.h"
#include "base/bits.h"
#include "os/clock.h"
#include "os/lock.h"
#include "os/map.h"
#include "os/settings.h"
#include "unit.h"

#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SLOT_PAGES (SLOT_BYTES / map_page_bytes())

static struct reader reader;
static struct reader section; /* open while a test wants a grace period to last */
static struct settings defaults;
static uint64_t time_ms;

static void tick_after(uint64_t more_ms)
{
    time_ms += more_ms;
    housekeeper_tick(time_ms);
}

/* The next tick that is due. */
static void tick(void)
{
    tick_after(housekeeper_interval_ms());
}

static int begin(void **state)
{
    (void)state;
    reader_publish(&reader);
    reader_publish(&section);
    defaults = settings;
    time_ms = clock_now_ms() + 86400000;
    return 0;
}

/* No dirty slot, no empty arena, nothing retired. */
static int tidy_up(void **state)
{
    (void)state;
    settings = defaults;
    housekeeper_trim(0);
    tick_after(10000);
    return arena_list_ledger().dirty_slots == 0 ? 0 : -1;
}

static struct span claim_new(uint32_t slots)
{
    struct span span;
    assert_true(arena_list_claim_new(slots, slots, &span));
    return span;
}

static char *span_start(const struct span *span)
{
    return arena_slot_address(span->arena, span_first_slot(span));
}

static size_t span_bytes(const struct span *span)
{
    return bits_count(span->mask) * SLOT_BYTES;
}

static void give(const struct span *span, uint64_t dirty)
{
    struct span given = *span;
    given.dirty = dirty & given.mask;
    arena_list_release(&reader, &given);
    atomic_store(&given.arena->released_ms, time_ms); /* the time that this test tells */
}

static struct span part(const struct span *span, uint64_t mask)
{
    return (struct span){.arena = span->arena, .mask = mask & span->mask, .word = span->word};
}

/* ---- purging ---- */

static bool is_resident(const struct span *span)
{
    size_t pages = pages_resident(span_start(span), span_bytes(span));
    assert_true(pages == 0 || pages == bits_count(span->mask) * SLOT_PAGES);
    return pages > 0;
}

static struct span dirty_span(uint32_t slots)
{
    struct span span = claim_new(slots);
    memset(span_start(&span), 'd', span_bytes(&span));
    return span;
}

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
    time_ms += 1;
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
        housekeeper_tick(time_ms + housekeeper_interval_ms() - 1);
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
    assert_int_equal(pages_resident(span_start(&span), 12 * SLOT_BYTES), 6 * SLOT_PAGES);
    assert_int_equal(arena_list_ledger().dirty_slots, 0);
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
    time_ms += 1000;
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
    housekeeper_tick(time_ms); /* though not again in the millisecond of the last round */
    assert_true(housekeeper_is_urgent());
    housekeeper_tick(time_ms + 1);
    assert_int_equal(arena_list_ledger().dirty_slots, 0);
    assert_false(housekeeper_is_urgent());
}

/* All slots of an arena of its own, dirty; nothing is written to them. */
static struct arena *dirty_arena(void)
{
    struct span span = claim_new(32);
    struct arena *arena = span.arena;
    give(&span, span.mask);
    for (uint32_t word = 0; word < ARENA_WORDS; word++) {
        uint64_t all = word == 0 ? ~bits_ones(ARENA_HEADER_SLOTS) : UINT64_MAX;
        assert_true(arena_list_extend(arena, word, all, &span));
        give(&span, all);
    }
    return arena;
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
    housekeeper_tick(time_ms + 1);
    assert_int_equal(arena_list_ledger().dirty_slots, 0);
}

/* ---- arenas ---- */

static struct arena *empty_arena(void)
{
    struct span span = claim_new(1);
    give(&span, 0);
    return span.arena;
}

static unsigned count_listed(struct arena *const arenas[], unsigned count)
{
    unsigned listed = 0;
    for (uint32_t number = 0; number < arena_list_bound(); number++)
        for (unsigned i = 0; i < count; i++)
            listed += arena_list_get(number) == arenas[i];
    return listed;
}

static unsigned count_mapped(struct arena *const arenas[], unsigned count)
{
    unsigned mapped = 0;
    for (unsigned i = 0; i < count; i++)
        mapped += page_is_mapped(arenas[i]);
    return mapped;
}

static void empty_arenas_go_all_but_one(void **state)
{
    (void)state;
    struct housekeeper_totals before = housekeeper_totals();
    struct arena *arenas[3] = {empty_arena(), empty_arena(), empty_arena()};
    struct span used = claim_new(1);
    tick();
    assert_int_equal(count_listed(arenas, 3), 1);
    assert_int_equal(count_mapped(arenas, 3), 1);
    assert_int_equal(housekeeper_totals().retired_arenas, before.retired_arenas + 2);
    assert_int_equal(housekeeper_totals().unmapped_arenas, before.unmapped_arenas + 2);
    assert_ptr_equal(arena_list_get(used.arena->number), used.arena);
    tick();
    assert_int_equal(count_mapped(arenas, 3), 1);
    give(&used, 0);
}

static void an_open_section_keeps_addresses_alive(void **state)
{
    (void)state;
    uint64_t unmapped = housekeeper_totals().unmapped_arenas;
    struct arena *arenas[2] = {empty_arena(), empty_arena()};
    reader_enter(&section);
    tick();
    assert_int_equal(count_listed(arenas, 2), 1);
    for (unsigned i = 0; i < 3; i++) {
        tick();
        assert_int_equal(count_mapped(arenas, 2), 2);
        assert_int_equal(housekeeper_totals().unmapped_arenas, unmapped);
    }
    reader_leave(&section);
    tick();
    assert_int_equal(count_mapped(arenas, 2), 1);
    assert_int_equal(housekeeper_totals().unmapped_arenas, unmapped + 1);
}

static void retired_arenas_come_back(void **state)
{
    (void)state;
    uint64_t revived = housekeeper_totals().revived_arenas;
    struct arena *arenas[3] = {empty_arena(), empty_arena(), NULL};
    assert_false(housekeeper_revive_one());
    reader_enter(&section);
    tick(); /* one waits for the grace period that begins here, the next for another */
    arenas[2] = empty_arena();
    tick();
    assert_int_equal(count_listed(arenas, 3), 1);
    assert_true(housekeeper_revive_one());
    assert_int_equal(count_listed(arenas, 3), 2);
    assert_true(housekeeper_revive_one());
    assert_int_equal(count_listed(arenas, 3), 3);
    assert_false(housekeeper_revive_one());
    assert_int_equal(housekeeper_totals().revived_arenas, revived + 2);
    reader_leave(&section);
    for (unsigned i = 0; i < 3; i++) {
        struct span span;
        assert_true(arena_list_extend(arenas[i], 3, UINT64_MAX, &span));
        assert_int_equal(span.dirty, 0);
        assert_true(all_zero(span_start(&span), SLOT_BYTES));
        give(&span, 0);
    }
    assert_true(arena_list_is_valid());
}

static void only_empty_and_clean_arenas_go(void **state)
{
    (void)state;
    struct arena *arenas[4] = {empty_arena(), empty_arena(), dirty_arena(), NULL};
    struct span held = claim_new(1);
    arenas[3] = held.arena;
    tick();
    assert_ptr_equal(arena_list_get(arenas[2]->number), arenas[2]);
    assert_ptr_equal(arena_list_get(arenas[3]->number), arenas[3]);
    assert_int_equal(count_mapped(arenas, 4), 3);
    tick();
    assert_int_equal(count_mapped(arenas, 4), 2);
    assert_ptr_equal(arena_list_get(arenas[3]->number), arenas[3]);
    give(&held, 0);
}

/* ---- trim ---- */

static void trim_gives_back_what_is_free(void **state)
{
    (void)state;
    struct span span = claim_new(16);
    uint64_t low = span.mask & -span.mask;
    struct span kept = part(&span, low * 0xff00);
    struct span gone = part(&span, low * 0x00ff);
    pattern_write(span_start(&span), span_bytes(&span), 2);
    give(&gone, gone.mask);
    assert_int_equal(housekeeper_trim(0), 8 * SLOT_BYTES);
    assert_int_equal(pages_resident(span_start(&gone), span_bytes(&gone)), 0);
    assert_int_equal(pages_resident(span_start(&kept), span_bytes(&kept)), 8 * SLOT_PAGES);
    assert_int_equal(housekeeper_trim(0), 0);
    give(&kept, kept.mask);
    assert_int_equal(housekeeper_trim(0), 8 * SLOT_BYTES);
    assert_false(page_is_mapped(kept.arena));
}

static void trim_keeps_what_it_is_asked_to(void **state)
{
    (void)state;
    struct arena *arenas[4] = {empty_arena(), empty_arena(), empty_arena(), empty_arena()};
    housekeeper_trim(3 * ARENA_BYTES - 1);
    assert_int_equal(count_mapped(arenas, 4), 2);
    assert_int_equal(count_listed(arenas, 4), 2);
    housekeeper_trim(0);
    assert_int_equal(count_mapped(arenas, 4), 0);
    assert_true(arena_list_is_valid());
}

/* In need of memory: everything, at once, but without waiting for anybody. */
static void reclaim_gives_back_without_waiting(void **state)
{
    (void)state;
    struct span span = dirty_span(4);
    struct arena *arenas[3] = {empty_arena(), empty_arena(), span.arena};
    give(&span, span.mask);
    reader_enter(&section);
    assert_true(housekeeper_reclaim());
    assert_false(is_resident(&span));
    assert_int_equal(count_listed(arenas, 3), 0);
    assert_int_equal(count_mapped(arenas, 3), 3);
    assert_false(housekeeper_reclaim());
    reader_leave(&section);
    assert_true(housekeeper_reclaim());
    assert_int_equal(count_mapped(arenas, 3), 0);
    assert_false(housekeeper_reclaim());
    housekeeper_before_fork();
    struct arena *another[1] = {empty_arena()};
    assert_false(housekeeper_reclaim()); /* somebody keeps house */
    housekeeper_after_fork();
    assert_int_equal(count_listed(another, 1), 1);
}

/* Threads that were publishing retired arenas when the process forked are gone: the arenas can still come
 * back. */
static void revive_after_fork(void *context)
{
    struct arena **gone = context;
    atomic_store(&gone[0]->publishing, 1);
    atomic_store(&gone[1]->publishing, 1);
    housekeeper_before_fork();
    housekeeper_after_fork_child();
    housekeeper_after_fork();
    must(gone[0]->publishing == 0 && gone[1]->publishing == 0);
    must(housekeeper_revive_one() && housekeeper_revive_one());
    must(arena_list_get(gone[0]->number) == gone[0] && arena_list_get(gone[1]->number) == gone[1]);
    must(arena_list_is_valid());
}

static void a_fork_repairs_retired_arenas(void **state)
{
    (void)state;
    struct arena *gone[2] = {empty_arena(), NULL};
    reader_enter(&section);
    assert_false(housekeeper_reclaim()); /* retired, waits for the grace period that begins here */
    gone[1] = empty_arena();
    assert_false(housekeeper_reclaim()); /* waits for the next */
    assert_int_equal(count_listed(gone, 2), 0);
    child_must_succeed(revive_after_fork, gone);
    reader_leave(&section);
}

static _Atomic bool left;

/* As statistics do. */
static void *walk_for_a_while(void *argument)
{
    pthread_barrier_t *entered = argument;
    static struct reader walkers[2];
    static unsigned count;
    struct reader *walker = &walkers[count++];
    reader_publish(walker);
    walk_begin();
    reader_enter(walker);
    pthread_barrier_wait(entered);
    sleep_ms(100);
    atomic_store(&left, true);
    reader_leave(walker);
    walk_end();
    return NULL;
}

static void trim_waits_for_walks(void **state)
{
    (void)state;
    pthread_barrier_t entered;
    pthread_t thread;
    assert_int_equal(pthread_barrier_init(&entered, NULL, 2), 0);
    assert_int_equal(pthread_create(&thread, NULL, walk_for_a_while, &entered), 0);
    pthread_barrier_wait(&entered);
    struct arena *arenas[1] = {empty_arena()};
    housekeeper_trim(0);
    assert_true(atomic_load(&left));
    assert_int_equal(count_mapped(arenas, 1), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

/* A program's own fork handler may trim while the library holds all its locks: it must not wait for anybody
 * then. */
static void trim_in_a_fork_handler(void **state)
{
    (void)state;
    pthread_barrier_t entered;
    pthread_t thread;
    atomic_store(&left, false);
    assert_int_equal(pthread_barrier_init(&entered, NULL, 2), 0);
    assert_int_equal(pthread_create(&thread, NULL, walk_for_a_while, &entered), 0);
    pthread_barrier_wait(&entered);
    struct span span = dirty_span(2);
    (void)empty_arena();
    give(&span, span.mask);
    housekeeper_before_fork();
    lock_forking = true;
    assert_int_equal(housekeeper_trim(0), 2 * SLOT_BYTES);
    bool waited = atomic_load(&left);
    lock_forking = false;
    housekeeper_after_fork();
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_false(waited);
    tick();
}

/* A thread that was stopped inside a claim holds addresses up, and nobody else. */
static void trim_does_not_wait_for_claims(void **state)
{
    (void)state;
    struct arena *arenas[2] = {empty_arena(), empty_arena()};
    reader_enter(&section);
    housekeeper_trim(0);
    assert_int_equal(count_listed(arenas, 2), 0);
    assert_int_equal(count_mapped(arenas, 2), 2);
    reader_leave(&section);
    tick();
    assert_int_equal(count_mapped(arenas, 2), 0);
}

/* Around a fork, and while somebody else keeps house, nobody waits and nothing is done. */
static void a_busy_housekeeper_is_not_waited_for(void **state)
{
    (void)state;
    struct span span = claim_new(2);
    struct arena *arenas[2] = {empty_arena(), empty_arena()};
    give(&span, span.mask);
    reader_enter(&section);
    tick();
    housekeeper_before_fork();
    tick();
    assert_false(housekeeper_revive_one());
    assert_int_equal(arena_list_ledger().dirty_slots, 2);
    housekeeper_after_fork();
    assert_int_equal(count_listed(arenas, 2), 1);
    assert_true(housekeeper_revive_one());
    assert_int_equal(count_listed(arenas, 2), 2);
    reader_leave(&section);
    tick();
    assert_int_equal(arena_list_ledger().dirty_slots, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, tidy_up, tidy_up)

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
        TEST(empty_arenas_go_all_but_one),
        TEST(an_open_section_keeps_addresses_alive),
        TEST(retired_arenas_come_back),
        TEST(only_empty_and_clean_arenas_go),
        TEST(trim_gives_back_what_is_free),
        TEST(trim_keeps_what_it_is_asked_to),
        TEST(reclaim_gives_back_without_waiting),
        TEST(a_fork_repairs_retired_arenas),
        TEST(trim_waits_for_walks),
        TEST(trim_in_a_fork_handler),
        TEST(trim_does_not_wait_for_claims),
        TEST(a_busy_housekeeper_is_not_waited_for),
    };
    return cmocka_run_group_tests(tests, begin, NULL);
}
