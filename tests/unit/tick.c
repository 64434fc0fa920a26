/*
 * heap/tick: budgets that follow the clock, the duty of the layers above, and the housekeeping of a heap's
 * own reserves once an interval.
 */
#include "heap/tick.h"

#include "arena/arena_list.h"
#include "arena/housekeeper.h"
#include "heap/mailbox.h"
#include "heap/park.h"
#include "heap/run.h"
#include "heap/slot_cache.h"
#include "housekeeping.h"
#include "os/clock.h"
#include "os/settings.h"
#include "raw/raw.h"
#include "unit.h"

static struct heap *heap;

static int take_heap(void **state)
{
    (void)state;
    heap = park_take();
    if (heap == NULL)
        return -1;
    heap->tick_ms = clock_now_ms(); /* the next is some time away */
    return 0;
}

static int leave_heap(void **state)
{
    (void)state;
    heap_close_empty_pools(heap);
    run_flush(heap);
    slot_cache_flush(heap);
    park_leave(heap);
    return 0;
}

/* ---- budgets ---- */

/* A heartbeat in the same millisecond of the coarse clock as the last one. False when it moved meanwhile. */
static bool beat_at_once(int64_t full_before)
{
    heap->heartbeat_ms = clock_now_ms();
    heap->tick_ms = heap->heartbeat_ms;
    heap->budget_full_bytes = full_before;
    heap->budget_bytes = -1;
    heap->budget_begin_bytes = 0;
    heap->point_bytes = 2 * TICK_BUDGET_MOST_BYTES;
    uint64_t before_ms = heap->heartbeat_ms;
    tick_heartbeat(heap, 16);
    return clock_now_ms() == before_ms;
}

static void a_busy_heap_doubles_its_budget(void **state)
{
    (void)state;
    for (int64_t full = TICK_BUDGET_LEAST_BYTES; full <= TICK_BUDGET_MOST_BYTES; full *= 2) {
        while (!beat_at_once(full))
            continue;
        int64_t expected = full < TICK_BUDGET_MOST_BYTES ? 2 * full : TICK_BUDGET_MOST_BYTES;
        assert_int_equal(heap->budget_full_bytes, expected);
        assert_int_equal(heap->budget_bytes,
                         expected < TICK_BUDGET_MOST_BYTES ? expected : heap->point_bytes);
    }
}

static void an_idle_heap_starts_again_with_the_least(void **state)
{
    (void)state;
    uint64_t before_ms = clock_now_ms();
    heap->heartbeat_ms = before_ms - 1000;
    heap->tick_ms = before_ms;
    heap->budget_full_bytes = TICK_BUDGET_MOST_BYTES;
    tick_heartbeat(heap, 16);
    assert_int_equal(heap->budget_bytes, TICK_BUDGET_LEAST_BYTES);
    assert_int_equal(heap->budget_full_bytes, TICK_BUDGET_LEAST_BYTES);
    assert_true(heap->heartbeat_ms >= before_ms && heap->heartbeat_ms <= clock_now_ms());
}

static void soon_means_a_small_budget(void **state)
{
    (void)state;
    heap->budget_bytes = TICK_BUDGET_MOST_BYTES;
    tick_soon(heap);
    assert_int_equal(heap->budget_bytes, TICK_BUDGET_SOON_BYTES);
    heap->budget_bytes = 100;
    tick_soon(heap);
    assert_int_equal(heap->budget_bytes, 100);
    assert_true(TICK_BUDGET_SOON_BYTES < TICK_BUDGET_MOST_BYTES);
}

/* ---- duties ---- */

static uint64_t duty_ms;
static unsigned duty_calls;

static void note(uint64_t now_ms)
{
    duty_ms = now_ms;
    duty_calls++;
}

static void the_duty_is_called_with_the_time(void **state)
{
    (void)state;
    duty_calls = 0;
    tick_heartbeat(heap, 16);
    assert_int_equal(duty_calls, 0);
    tick_set_duty(note);
    uint64_t before_ms = clock_now_ms();
    tick_heartbeat(heap, 16);
    tick_heartbeat(heap, 16);
    tick_set_duty(raw_age); /* the one there is */
    tick_heartbeat(heap, 16);
    assert_int_equal(duty_calls, 2);
    assert_true(duty_ms >= before_ms && duty_ms <= clock_now_ms());
}

/* ---- a heap's reserves ---- */

static struct pool *pool_of(const void *block)
{
    return pool_of_word(block, atomic_load(&arena_of(block)->slot_map[arena_slot_of(block)]));
}

static struct block *block_of(struct heap *of, size_t bytes)
{
    struct block *block = heap_take_block(of, class_of_size(bytes));
    must(block != NULL);
    return block;
}

/* One of everything that a tick sees to. */
static struct reserves {
    struct heap *other;
    struct block *foreign; /* of `other`, freed here */
    struct block *own;     /* freed by `other`, posted */
    struct block *kept;
} reserves;

static void make_reserves(void)
{
    reserves.other = park_take();
    reserves.foreign = block_of(reserves.other, 300);
    mailbox_send(heap, pool_class(pool_of(reserves.foreign)), reserves.foreign);
    reserves.kept = block_of(heap, 700);
    reserves.own = block_of(heap, 700);
    struct block *empty = block_of(heap, 9000);
    heap_free_own(pool_of(empty), empty);
    assert_true(run_free(heap, run_malloc(heap, 50000)));
    assert_true(heap->run_slots > 0);
    mailbox_send_now(pool_of(reserves.own), reserves.own); /* the last: whoever needs blocks drains */
    assert_int_equal(pool_used(pool_of(reserves.kept)), 2);
}

static void check_reserves(bool seen_to)
{
    assert_int_equal(mailbox_is_waiting(reserves.other), seen_to);
    assert_int_equal(heap->foreign_bytes == 0, seen_to);
    assert_int_equal(mailbox_is_waiting(heap), !seen_to);
    assert_int_equal(pool_used(pool_of(reserves.kept)), seen_to ? 1 : 2);
    assert_int_equal(heap->bins[class_of_size(9000)].own == &pool_none, seen_to);
    assert_int_equal(heap->run_slots == 0, seen_to);
    assert_true(heap_is_valid(heap));
}

static void drop_reserves(void)
{
    mailbox_flush(heap);
    mailbox_drain(heap);
    heap_free_own(pool_of(reserves.kept), reserves.kept);
    park_leave(reserves.other);
}

static void reserves_are_seen_to_once_an_interval(void **state)
{
    (void)state;
    settings.purge_delay_ms = 3600000;
    make_reserves();
    heap->tick_ms = clock_now_ms() - housekeeper_interval_ms() + 60000;
    tick_heartbeat(heap, 16);
    check_reserves(false);
    heap->tick_ms = clock_now_ms() - housekeeper_interval_ms();
    tick_heartbeat(heap, 16);
    check_reserves(true);
    assert_true(clock_now_ms() - heap->tick_ms < 60000);
    drop_reserves();
    settings.purge_delay_ms = 1000;
}

/* Slots that were not needed for an interval go back to their arena with the second tick. */
static void kept_slots_age_with_the_ticks(void **state)
{
    (void)state;
    assert_true(run_free(heap, run_malloc(heap, 3 * SLOT_BYTES)));
    for (unsigned i = 0; i < 2; i++) {
        heap->tick_ms = 0;
        tick_heartbeat(heap, 16);
        assert_int_equal(heap->run_slots, 0);
        if (i == 0)
            assert_true(heap->span_slots >= 3);
    }
    assert_int_equal(heap->span_slots, 0);
}

/* What others left behind is seen to as well: parked heaps, and dirty slots. */
static void a_heartbeat_keeps_house(void **state)
{
    (void)state;
    struct heap *parked = park_take();
    struct block *empty = block_of(parked, 20000);
    heap_free_own(pool_of(empty), empty);
    park_leave(parked);
    assert_true(run_free(heap, run_malloc(heap, 100000)));
    run_flush(heap);
    slot_cache_flush(heap);
    assert_true(arena_list_ledger().dirty_slots > 0);
    settings.purge_delay_ms = 40;
    for (unsigned i = 0;
         i < 100 && (parked->pool_slots > 0 || arena_list_ledger().dirty_slots > dirty_beside_used()); i++) {
        heap->tick_ms = 0;
        tick_heartbeat(heap, 16);
        sleep_ms(30);
    }
    settings.purge_delay_ms = 1000;
    assert_int_equal(parked->pool_slots, 0);
    assert_int_equal(parked->span_slots, 0);
    assert_int_equal(arena_list_ledger().dirty_slots, dirty_beside_used());
}

static void in_need_everything_is_given_back(void **state)
{
    (void)state;
    make_reserves();
    struct heap *parked = park_take();
    struct block *empty = block_of(parked, 20000);
    heap_free_own(pool_of(empty), empty);
    park_leave(parked);
    tick_reclaim(heap);
    check_reserves(true);
    assert_int_equal(heap->span_slots, 0);
    assert_int_equal(heap->empty_slots, 0);
    assert_int_equal(parked->pool_slots, 0);
    assert_int_equal(parked->span_slots, 0);
    drop_reserves();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, take_heap, leave_heap)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_heartbeat_keeps_house), /* before others put the housekeeper's next round off */
        TEST(a_busy_heap_doubles_its_budget),
        TEST(an_idle_heap_starts_again_with_the_least),
        TEST(soon_means_a_small_budget),
        TEST(the_duty_is_called_with_the_time),
        TEST(reserves_are_seen_to_once_an_interval),
        TEST(kept_slots_age_with_the_ticks),
        TEST(in_need_everything_is_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
