#include "arena/housekeeper.h"

#include "arena/arena_list.h"
#include "base/bits.h"
#include "base/counters.h"
#include "base/fatal.h"
#include "base/probe.h"
#include "base/published.h"
#include "os/lock.h"
#include "os/map.h"
#include "os/settings.h"

#include <sched.h>
#include <string.h>

/* A tick purges at most this much, so that no caller of malloc waits long: 16 MiB take about half a
 * millisecond. */
#define TICK_SLOTS_MOST 1024U

/* Wholly free arenas that stay listed, so that a program that swings around an arena's border does not map
 * and unmap all the time. Their pages are purged like any others. */
#define EMPTY_ARENAS_KEPT 1U

/* Unmapped at most by one step of a grace period: about as long. */
#define UNMAPS_MOST 64U

static lock housekeeping = LOCK_INITIAL;

/* All below: the holder of `housekeeping` only, but for the atomics, which any thread may read. */
static _Atomic uint64_t next_tick_ms;
static _Atomic uint64_t last_round_ms;
static uint32_t cursor;
static struct arena *retired;  /* off the list, wait for a grace period to begin */
static struct arena *in_grace; /* were retired when the present grace period began */
static _Atomic bool revivable; /* retired or in_grace is not empty */
static _Atomic uint64_t purged_bytes;
static _Atomic uint64_t purge_calls;
static _Atomic uint64_t retired_arenas;
static _Atomic uint64_t unmapped_arenas;
static _Atomic uint64_t revived_arenas;

static void total_add(_Atomic uint64_t *total, uint64_t amount)
{
    atomic_store_explicit(total, atomic_load_explicit(total, memory_order_relaxed) + amount,
                          memory_order_relaxed);
}

static uint64_t total_read(const _Atomic uint64_t *total)
{
    return atomic_load_explicit(total, memory_order_relaxed);
}

struct housekeeper_totals housekeeper_totals(void)
{
    return (struct housekeeper_totals){
        .purged_bytes = total_read(&purged_bytes),
        .purge_calls = total_read(&purge_calls),
        .retired_arenas = total_read(&retired_arenas),
        .unmapped_arenas = total_read(&unmapped_arenas),
        .revived_arenas = total_read(&revived_arenas),
    };
}

void housekeeper_publish(struct published *out)
{
    out->retired = (uintptr_t)&retired;
    out->in_grace = (uintptr_t)&in_grace;
    out->purged_bytes = (uintptr_t)&purged_bytes;
    out->purge_calls = (uintptr_t)&purge_calls;
    out->retired_arenas = (uintptr_t)&retired_arenas;
    out->unmapped_arenas = (uintptr_t)&unmapped_arenas;
}

static size_t limit_slots(struct ledger ledger)
{
    size_t limit = SETTING(dirty_limit_bytes) / SLOT_BYTES;
    size_t share = ledger.held_slots / 8;
    return limit > share ? limit : share;
}

static size_t hard_bound_slots(struct ledger ledger)
{
    size_t bound = SETTING(dirty_limit_bytes) / SLOT_BYTES * 16;
    return bound > ledger.held_slots ? bound : ledger.held_slots;
}

bool housekeeper_is_urgent(void)
{
    struct ledger ledger = arena_list_ledger();
    return ledger.dirty_slots > hard_bound_slots(ledger);
}

uint64_t housekeeper_interval_ms(void)
{
    struct ledger ledger = arena_list_ledger();
    uint64_t half = SETTING(purge_delay_ms) / 2;
    return ledger.dirty_slots > limit_slots(ledger) ? half / 4 : half;
}

/* ---- purging ---- */

static size_t slots_per_page(void)
{
    size_t page = map_page_bytes();
    return page > SLOT_BYTES ? page / SLOT_BYTES : 1;
}

static bool held_bit(const uint64_t held[ARENA_WORDS], uint32_t slot)
{
    return (held[slot / WORD_SLOTS] >> slot % WORD_SLOTS & 1) != 0;
}

static void clear_bits(uint64_t bits[ARENA_WORDS], uint32_t first, uint32_t end)
{
    for (uint32_t slot = first; slot < end; slot++)
        bits[slot / WORD_SLOTS] &= ~(UINT64_C(1) << slot % WORD_SLOTS);
}

/* Purges the held slots, whole pages at a time; what was purged is no longer in `dirty`. */
static uint32_t purge_held(struct arena *arena, const uint64_t held[ARENA_WORDS], uint64_t dirty[ARENA_WORDS])
{
    uint32_t unit = (uint32_t)slots_per_page();
    uint32_t purged = 0;
    uint32_t slot = ARENA_HEADER_SLOTS;
    while (slot < ARENA_END_SLOT) {
        if (!held_bit(held, slot)) {
            slot++;
            continue;
        }
        uint32_t first = slot;
        while (slot < ARENA_END_SLOT && held_bit(held, slot))
            slot++;
        uint32_t begin = (first + unit - 1) / unit * unit;
        /* The guard behind the last slot is never touched: the rest of its page may go without asking. */
        uint32_t end = slot == ARENA_END_SLOT ? (slot + unit - 1) / unit * unit : slot / unit * unit;
        if (first < unit) { /* on a page with the header, which stays: cleaned by hand */
            uint32_t after = slot < unit ? slot : unit;
            memset(arena_slot_address(arena, first), 0, (size_t)(after - first) * SLOT_BYTES);
            clear_bits(dirty, first, after);
        }
        if (begin >= end)
            continue;
        total_add(&purge_calls, 1);
        PROBE_2(purge, arena_slot_address(arena, begin), (size_t)(end - begin) * SLOT_BYTES);
        if (!map_purge(arena_slot_address(arena, begin), (size_t)(end - begin) * SLOT_BYTES))
            continue;
        clear_bits(dirty, begin, end);
        purged += end - begin;
    }
    total_add(&purged_bytes, (uint64_t)purged * SLOT_BYTES);
    return purged;
}

/* Where a page holds several slots, it is purged when all of them are free: asks for the neighbours too. */
static void widen_to_pages(uint64_t want[ARENA_WORDS])
{
    uint32_t unit = (uint32_t)slots_per_page();
    if (unit == 1)
        return;
    for (uint32_t first = 0; first < ARENA_SLOTS; first += unit) {
        uint64_t page = bits_ones(unit) << first % WORD_SLOTS;
        if ((want[first / WORD_SLOTS] & page) != 0)
            want[first / WORD_SLOTS] |= page;
    }
}

/* What is due: all that is dirty, when nothing has come back for the purge delay; else what the last tick saw
 * dirty. */
static uint32_t purge_arena(struct arena *arena, bool aged_only, uint64_t now_ms)
{
    uint64_t released_ms = atomic_load_explicit(&arena->released_ms, memory_order_relaxed);
    if (now_ms >= released_ms + SETTING(purge_delay_ms))
        aged_only = false;
    uint64_t want[ARENA_WORDS];
    uint64_t any = 0;
    for (uint32_t word = 0; word < ARENA_WORDS; word++) {
        uint64_t dirty = atomic_load_explicit(&arena->dirty[word], memory_order_relaxed);
        want[word] = aged_only ? dirty & arena->aged[word] : dirty;
        arena->aged[word] = dirty & ~want[word];
        any |= want[word];
    }
    if (any == 0)
        return 0;
    widen_to_pages(want);
    uint64_t held[ARENA_WORDS];
    uint64_t dirty[ARENA_WORDS];
    arena_list_hold_free(arena, want, held, dirty);
    uint32_t purged = purge_held(arena, held, dirty);
    arena_list_unhold(arena, held, dirty);
    return purged;
}

/* ---- retiring ---- */

static bool is_all_free(struct arena *arena)
{
    return arena_free_slots(arena) == ARENA_USABLE_SLOTS;
}

static bool is_clean(struct arena *arena)
{
    for (uint32_t word = 0; word < ARENA_WORDS; word++)
        if (atomic_load_explicit(&arena->dirty[word], memory_order_relaxed) != 0)
            return false;
    return true;
}

static void retire_arena(struct arena *arena)
{
    uint64_t all[ARENA_WORDS];
    uint64_t held[ARENA_WORDS];
    uint64_t dirty[ARENA_WORDS];
    for (uint32_t word = 0; word < ARENA_WORDS; word++)
        all[word] = ~UINT64_C(0);
    uint32_t count = arena_list_hold_free(arena, all, held, dirty);
    uint64_t any_dirty = dirty[0] | dirty[1] | dirty[2] | dirty[3];
    if (count != ARENA_USABLE_SLOTS || any_dirty != 0) { /* somebody was faster */
        arena_list_unhold(arena, held, dirty);
        return;
    }
    arena_list_retire(arena);
    arena->next_retired = retired;
    retired = arena;
    atomic_store_explicit(&revivable, true, memory_order_relaxed);
    total_add(&retired_arenas, 1);
}

static void unmap_in_grace(void)
{
    for (unsigned i = 0; i < UNMAPS_MOST && in_grace != NULL; i++) {
        struct arena *arena = in_grace;
        in_grace = arena->next_retired;
        arena_list_unmap(arena);
        total_add(&unmapped_arenas, 1);
    }
    atomic_store_explicit(&revivable, retired != NULL || in_grace != NULL, memory_order_relaxed);
}

/* One step of the grace period, never waiting. */
static void step_grace(void)
{
    if (in_grace != NULL && grace_has_passed())
        unmap_in_grace();
    if (in_grace == NULL && retired != NULL && grace_sample()) {
        in_grace = retired;
        retired = NULL;
        if (grace_has_passed())
            unmap_in_grace();
    }
}

bool housekeeper_revive_one(void)
{
    if (!atomic_load_explicit(&revivable, memory_order_relaxed) || !lock_try(&housekeeping))
        return false;
    struct arena **from = retired != NULL ? &retired : &in_grace;
    struct arena *arena = *from;
    if (arena != NULL) {
        *from = arena->next_retired;
        arena_list_revive(arena);
        total_add(&revived_arenas, 1);
    }
    atomic_store_explicit(&revivable, retired != NULL || in_grace != NULL, memory_order_relaxed);
    lock_release(&housekeeping);
    return arena != NULL;
}

/* ---- the tick ---- */

/* A way round the arenas. */
struct round {
    uint32_t number; /* of the last arena looked at */
    uint32_t steps;
    size_t empty; /* arenas found wholly free and clean */
};

/* Goes on with the round until TICK_SLOTS_MOST are purged. Returns whether it came round. */
static bool purge_some(struct round *round, bool aged_only, uint64_t now_ms, size_t empty_kept)
{
    uint32_t purged = 0;
    uint32_t arena_bound = arena_list_bound();
    for (; round->steps < arena_bound; round->steps++) {
        if (purged >= TICK_SLOTS_MOST)
            return false;
        round->number = round->number + 1 < arena_bound ? round->number + 1 : 0;
        struct arena *arena = arena_list_get(round->number);
        if (arena == NULL)
            continue;
        purged += purge_arena(arena, aged_only, now_ms);
        if (is_all_free(arena) && is_clean(arena) && ++round->empty > empty_kept)
            retire_arena(arena);
    }
    return true;
}

void housekeeper_tick(uint64_t now_ms)
{
    bool urgent = housekeeper_is_urgent();
    uint64_t due = atomic_load_explicit(&next_tick_ms, memory_order_relaxed);
    /* Urgent or not, not twice within a millisecond when the last round came to its end. */
    if ((now_ms < due && !(urgent && now_ms > atomic_load_explicit(&last_round_ms, memory_order_relaxed))) ||
        !lock_try(&housekeeping))
        return;
    struct round round = {.number = cursor};
    bool done = purge_some(&round, !urgent && SETTING(purge_delay_ms) > 0, now_ms, EMPTY_ARENAS_KEPT);
    cursor = round.number;
    step_grace();
    if (done)
        atomic_store_explicit(&last_round_ms, now_ms, memory_order_relaxed);
    /* A round cut short goes on at the next heartbeat: ages stay as they are for the arenas it did not reach.
     */
    atomic_store_explicit(&next_tick_ms, now_ms + (done ? housekeeper_interval_ms() : 0),
                          memory_order_relaxed);
    lock_release(&housekeeping);
}

bool housekeeper_reclaim(void)
{
    struct round round = {.number = 0};
    bool gave_back = false;
    bool goes_on = true;
    while (goes_on && lock_try(&housekeeping)) {
        uint64_t purged_before = total_read(&purged_bytes);
        uint64_t unmapped_before = total_read(&unmapped_arenas);
        bool done = purge_some(&round, false, 0, 0);
        step_grace();
        bool unmapped = total_read(&unmapped_arenas) != unmapped_before;
        gave_back |= unmapped || total_read(&purged_bytes) != purged_before;
        goes_on = !done || unmapped;
        lock_release(&housekeeping);
        lock_let_fork_pass();
    }
    return gave_back;
}

/* Sections of claims are short: a few tries, but no waiting for a thread that was stopped inside one. */
static void hurry_grace(void)
{
    bool waiting = true;
    for (int idle = 0; idle < 100 && waiting; idle++) {
        lock_acquire(&housekeeping);
        uint64_t before = total_read(&unmapped_arenas);
        step_grace();
        if (total_read(&unmapped_arenas) != before)
            idle = 0;
        waiting = retired != NULL || in_grace != NULL;
        lock_release(&housekeeping);
        lock_let_fork_pass();
        sched_yield();
    }
}

size_t housekeeper_trim(size_t keep_bytes)
{
    struct round round = {.number = 0};
    size_t released = 0;
    bool waiting = false;
    for (bool done = false; !done; lock_let_fork_pass()) {
        lock_acquire(&housekeeping);
        uint64_t before = total_read(&purged_bytes);
        done = purge_some(&round, false, 0, keep_bytes / ARENA_BYTES);
        released += (size_t)(total_read(&purged_bytes) - before);
        waiting = retired != NULL || in_grace != NULL;
        lock_release(&housekeeping);
    }
    if (waiting) {
        walk_wait();
        hurry_grace();
    }
    return released;
}

void housekeeper_before_fork(void)
{
    lock_acquire(&housekeeping);
}

void housekeeper_after_fork(void)
{
    lock_release(&housekeeping);
}

void housekeeper_after_fork_child(void)
{
    for (struct arena *arena = retired; arena != NULL; arena = arena->next_retired)
        arena_list_forget_publisher(arena);
    for (struct arena *arena = in_grace; arena != NULL; arena = arena->next_retired)
        arena_list_forget_publisher(arena);
}

static bool are_retired(struct arena *list)
{
    for (struct arena *arena = list; arena != NULL; arena = arena->next_retired)
        if (!arena_is_valid(arena) || arena_free_slots(arena) != 0 || !is_clean(arena) ||
            address_index_get(arena) != ADDRESS_NOTHING || arena_list_get(arena->number) != NULL)
            return false;
    return true;
}

bool housekeeper_is_valid(void)
{
    bool any = retired != NULL || in_grace != NULL;
    return atomic_load(&revivable) == any && are_retired(retired) && are_retired(in_grace);
}
