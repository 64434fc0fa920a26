/*
 * arena/housekeeper: arenas retired, revived, and unmapped after a grace period; memory given back on request
 * and in need.
 */
#include "housekeeping.h"

#include "arena/arena_list.h"
#include "base/bits.h"
#include "os/lock.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

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
    reader_enter(&housekeeping_section);
    tick();
    assert_int_equal(count_listed(arenas, 2), 1);
    for (unsigned i = 0; i < 3; i++) {
        tick();
        assert_int_equal(count_mapped(arenas, 2), 2);
        assert_int_equal(housekeeper_totals().unmapped_arenas, unmapped);
    }
    reader_leave(&housekeeping_section);
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
    reader_enter(&housekeeping_section);
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
    reader_leave(&housekeeping_section);
    for (unsigned i = 0; i < 3; i++) {
        struct span span;
        assert_true(arena_list_extend(arenas[i], 3, UINT64_MAX, &span));
        assert_int_equal(span.dirty, 0);
        assert_true(all_zero(span_start(&span), SLOT_BYTES));
        give(&span, 0);
    }
    assert_true(arena_list_is_valid());
}

static void what_is_wrong_with_retired_arenas_is_seen(void **state)
{
    (void)state;
    struct arena *arenas[2] = {empty_arena(), empty_arena()};
    reader_enter(&housekeeping_section);
    tick();
    struct arena *retired = arena_list_get(arenas[0]->number) == NULL ? arenas[0] : arenas[1];
    assert_true(housekeeper_is_valid());
    atomic_store(&retired->dirty[2], 1);
    assert_false(housekeeper_is_valid());
    atomic_store(&retired->dirty[2], 0);
    atomic_store(&retired->free[2], 1); /* somebody has given a slot back */
    assert_false(housekeeper_is_valid());
    atomic_store(&retired->free[2], 0);
    assert_true(address_index_set(retired, ADDRESS_ARENA)); /* it would still be taken for ours */
    assert_false(housekeeper_is_valid());
    assert_true(address_index_set(retired, ADDRESS_NOTHING));
    assert_true(housekeeper_is_valid());
    reader_leave(&housekeeping_section);
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
    assert_int_equal(pages_resident(span_start(&kept), span_bytes(&kept)), pages_of(8 * SLOT_BYTES));
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
    reader_enter(&housekeeping_section);
    assert_true(housekeeper_reclaim());
    assert_false(is_resident(&span));
    assert_int_equal(count_listed(arenas, 3), 0);
    assert_int_equal(count_mapped(arenas, 3), 3);
    assert_false(housekeeper_reclaim());
    reader_leave(&housekeeping_section);
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
    reader_enter(&housekeeping_section);
    assert_false(housekeeper_reclaim()); /* retired, waits for the grace period that begins here */
    gone[1] = empty_arena();
    assert_false(housekeeper_reclaim()); /* waits for the next */
    assert_int_equal(count_listed(gone, 2), 0);
    child_must_succeed(revive_after_fork, gone);
    reader_leave(&housekeeping_section);
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
    struct span span = dirty_span(4); /* a whole page, whatever its size */
    (void)empty_arena();
    give(&span, span.mask);
    housekeeper_before_fork();
    lock_forking = true;
    assert_int_equal(housekeeper_trim(0), 4 * SLOT_BYTES);
    bool waited = atomic_load(&left);
    lock_forking = false;
    housekeeper_after_fork();
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_false(waited);
    tick();
}

/* A purge that is held up: until a fork waits, then for a while each. */
static _Atomic bool purges_wait;
static _Atomic bool purge_has_begun;
static _Atomic bool fork_waits;
static _Atomic unsigned purges;

int madvise(void *address, size_t bytes, int advice)
{
    if (purges_wait) {
        purge_has_begun = true;
        while (!fork_waits)
            sched_yield();
        sleep_ms(20);
        purges++;
    }
    return (int)syscall(SYS_madvise, address, bytes, advice);
}

static void *trim_it_all(void *argument)
{
    (void)argument;
    (void)housekeeper_trim(0);
    return NULL;
}

/* Each arena is one purge. A fork comes after the piece of work that was begun, and not after the last. */
static void a_fork_goes_before_the_rest_of_a_trim(void **state)
{
    (void)state;
    struct arena *arenas[40];
    pthread_t thread;
    for (unsigned i = 0; i < 40; i++)
        arenas[i] = dirty_arena();
    purges_wait = true;
    assert_int_equal(pthread_create(&thread, NULL, trim_it_all, NULL), 0);
    while (!purge_has_begun)
        sched_yield();
    fork_waits = true;
    lock_before_fork();
    housekeeper_before_fork();
    unsigned purges_before = purges;
    purges_wait = false;
    housekeeper_after_fork();
    lock_after_fork();
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_in_range(purges_before, 1, 20);
    assert_int_equal(count_mapped(arenas, 40), 0);
    assert_int_equal(arena_list_ledger().dirty_slots, 0);
}

/* A tick unmaps so many, the next goes on; a trim unmaps all. */
static void unmapping_is_done_in_pieces(void **state)
{
    (void)state;
    struct arena *arenas[150];
    for (unsigned i = 0; i < 150; i++)
        arenas[i] = empty_arena();
    tick();
    assert_int_equal(count_listed(arenas, 150), 1);
    assert_int_equal(count_mapped(arenas, 150), 150 - 64);
    assert_true(housekeeper_revive_one()); /* one of those that wait, retired again by the next tick */
    tick();
    assert_in_range(count_mapped(arenas, 150), 150 - 2 * 64, 150 - 2 * 64 + 1);
    housekeeper_trim(0);
    assert_int_equal(count_mapped(arenas, 150), 0);
    for (unsigned i = 0; i < 150; i++)
        arenas[i] = empty_arena();
    assert_true(housekeeper_reclaim());
    assert_int_equal(count_mapped(arenas, 150), 0);
    assert_true(arena_list_is_valid());
}

/* A thread that was stopped inside a claim holds addresses up, and nobody else. */
static void trim_does_not_wait_for_claims(void **state)
{
    (void)state;
    struct arena *arenas[2] = {empty_arena(), empty_arena()};
    reader_enter(&housekeeping_section);
    housekeeper_trim(0);
    assert_int_equal(count_listed(arenas, 2), 0);
    assert_int_equal(count_mapped(arenas, 2), 2);
    reader_leave(&housekeeping_section);
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
    reader_enter(&housekeeping_section);
    tick();
    housekeeper_before_fork();
    tick();
    assert_false(housekeeper_revive_one());
    assert_int_equal(arena_list_ledger().dirty_slots, 2);
    housekeeper_after_fork();
    assert_int_equal(count_listed(arenas, 2), 1);
    assert_true(housekeeper_revive_one());
    assert_int_equal(count_listed(arenas, 2), 2);
    reader_leave(&housekeeping_section);
    tick();
    assert_int_equal(arena_list_ledger().dirty_slots, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, housekeeping_tidy_up, housekeeping_tidy_up)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(empty_arenas_go_all_but_one),
        TEST(an_open_section_keeps_addresses_alive),
        TEST(retired_arenas_come_back),
        TEST(what_is_wrong_with_retired_arenas_is_seen),
        TEST(only_empty_and_clean_arenas_go),
        TEST(trim_gives_back_what_is_free),
        TEST(trim_keeps_what_it_is_asked_to),
        TEST(reclaim_gives_back_without_waiting),
        TEST(a_fork_repairs_retired_arenas),
        TEST(trim_waits_for_walks),
        TEST(trim_in_a_fork_handler),
        TEST(a_fork_goes_before_the_rest_of_a_trim),
        TEST(unmapping_is_done_in_pieces),
        TEST(trim_does_not_wait_for_claims),
        TEST(a_busy_housekeeper_is_not_waited_for),
    };
    return cmocka_run_group_tests(tests, housekeeping_begin, NULL);
}
