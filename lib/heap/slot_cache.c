#include "heap/slot_cache.h"

#include "arena/arena_list.h"
#include "arena/housekeeper.h"
#include "base/bits.h"
#include "base/fatal.h"
#include "heap/park.h"
#include "heap/run.h"
#include "heap/tick.h"
#include "os/clock.h"

#define BATCH_MOST_SLOTS 8U

static bool nothing_left(void)
{
    return false;
}

bool (*slot_cache_last_resort)(void) = nothing_left;

static void nothing_in_the_way(size_t bytes)
{
    (void)bytes;
}

void (*slot_cache_make_way)(size_t bytes) = nothing_in_the_way;

static uint32_t span_slots(const struct span *span)
{
    return bits_count(span->mask);
}

/* ---- taking ---- */

/* Takes slots that begin at the first of `starts`. */
static void split(struct span *from, uint64_t starts, uint32_t slots, struct span *span)
{
    uint64_t mask = bits_ones(slots) << bits_lowest(starts);
    *span =
        (struct span){.arena = from->arena, .mask = mask, .dirty = from->dirty & mask, .word = from->word};
    from->mask &= ~mask;
    from->dirty &= ~mask;
}

/* Dirty slots before others. */
static bool take_kept(struct heap *heap, uint32_t slots, struct span *span)
{
    struct span *other = NULL;
    uint64_t other_starts = 0;
    for (struct span *kept = heap->spans; kept < heap->spans + SPANS_KEPT; kept++) {
        uint64_t starts = bits_run_starts(kept->dirty, slots);
        if (starts != 0) {
            split(kept, starts, slots, span);
            heap->span_slots -= slots;
            return true;
        }
        if (other == NULL && kept->mask != kept->dirty &&
            (starts = bits_run_starts(kept->mask, slots)) != 0) {
            other = kept;
            other_starts = starts;
        }
    }
    if (other == NULL)
        return false;
    split(other, other_starts, slots, span);
    heap->span_slots -= slots;
    return true;
}

static void keep_rest(struct heap *heap, struct span *claimed, uint32_t slots, struct span *span)
{
    uint64_t starts = bits_run_starts(claimed->dirty, slots);
    if (starts == 0)
        starts = bits_run_starts(claimed->mask, slots);
    CHECK(starts != 0);
    split(claimed, starts, slots, span);
    if (claimed->mask != 0)
        slot_cache_put(heap, claimed);
}

static uint32_t next_batch(struct heap *heap)
{
    uint32_t batch = heap->claim_batch;
    if (batch < BATCH_MOST_SLOTS)
        heap->claim_batch = batch * 2;
    return batch;
}

static bool claim(struct heap *heap, uint32_t slots, uint32_t class, struct span *span)
{
    uint32_t most = slots == 1 ? next_batch(heap) : slots;
    struct span claimed;
    bool have = arena_list_claim(heap->reader, slots, most, &claimed);
    if (!have && park_harvest(heap, class)) {
        if (class < CLASS_COUNT && heap->bins[class].first != NULL)
            return false;
        have = arena_list_claim(heap->reader, slots, most, &claimed);
    }
    if (!have && housekeeper_revive_one())
        have = arena_list_claim(heap->reader, slots, most, &claimed);
    if (!have) {
        slot_cache_make_way(ARENA_BYTES);
        have = arena_list_claim_new(slots, most, &claimed);
    }
    if (!have) {
        park_settle_all(heap);
        slot_cache_last_resort();
        have = arena_list_claim(heap->reader, slots, most, &claimed) ||
               arena_list_claim_new(slots, most, &claimed);
    }
    if (have)
        keep_rest(heap, &claimed, slots, span);
    return have;
}

bool slot_cache_take(struct heap *heap, uint32_t slots, uint32_t class, struct span *span)
{
    if (heap->span_slots >= slots && take_kept(heap, slots, span)) {
        if (heap->span_slots < heap->span_slots_most)
            heap->span_slots_most = heap->span_slots;
        return true;
    }
    heap->span_slots_most = 0;
    if (heap->empty_slots + heap->run_slots > 0) {
        heap_close_queued_empty_pools(heap);
        run_flush(heap);
        if (take_kept(heap, slots, span))
            return true;
    }
    return claim(heap, slots, class, span);
}

/* ---- giving ---- */

static void release(struct heap *heap, const struct span *span)
{
    arena_list_release(heap->reader, span);
    tick_soon(heap);
    if (UNLIKELY(housekeeper_is_urgent()))
        housekeeper_tick(clock_now_ms());
}

static void release_kept(struct heap *heap, struct span *kept)
{
    heap->span_slots -= span_slots(kept);
    release(heap, kept);
    kept->mask = 0;
    kept->dirty = 0;
}

/* The entry that these slots can join, else an unused one, else the smallest, emptied. */
static struct span *place_for(struct heap *heap, const struct span *span)
{
    struct span *smallest = &heap->spans[0];
    struct span *unused = NULL;
    for (uint32_t i = 0; i < SPANS_KEPT; i++) {
        struct span *kept = &heap->spans[i];
        if (kept->mask == 0)
            unused = kept;
        else if (kept->arena == span->arena && kept->word == span->word)
            return kept;
        else if (smallest->mask != 0 && span_slots(kept) < span_slots(smallest))
            smallest = kept;
    }
    if (unused != NULL)
        return unused;
    release_kept(heap, smallest);
    return smallest;
}

/* Makes room for `slots` more, the largest group first: fewest calls. */
static bool make_room(struct heap *heap, uint32_t slots)
{
    uint32_t budget = heap_may_keep_slots(heap);
    while (heap->span_slots + slots > budget) {
        struct span *largest = NULL;
        for (uint32_t i = 0; i < SPANS_KEPT; i++) {
            struct span *kept = &heap->spans[i];
            if (kept->mask != 0 && (largest == NULL || span_slots(kept) > span_slots(largest)))
                largest = kept;
        }
        if (largest == NULL)
            return false;
        release_kept(heap, largest);
    }
    return true;
}

void slot_cache_put(struct heap *heap, const struct span *span)
{
    uint32_t slots = span_slots(span);
    if (slots > heap_may_keep_slots(heap) / 2 || !make_room(heap, slots)) {
        release(heap, span);
        return;
    }
    struct span *place = place_for(heap, span);
    if (place->mask == 0)
        *place = (struct span){.arena = span->arena, .word = span->word};
    CHECK((place->mask & span->mask) == 0);
    place->mask |= span->mask;
    place->dirty |= span->dirty;
    heap->span_slots += slots;
    tick_soon(heap);
}

void slot_cache_flush(struct heap *heap)
{
    for (uint32_t i = 0; i < SPANS_KEPT; i++)
        if (heap->spans[i].mask != 0)
            release_kept(heap, &heap->spans[i]);
}

void slot_cache_age(struct heap *heap)
{
    uint32_t unneeded = heap->span_slots_most;
    for (uint32_t i = 0; i < SPANS_KEPT && unneeded > 0; i++) {
        struct span *kept = &heap->spans[i];
        uint32_t slots = span_slots(kept);
        if (slots == 0 || slots > unneeded)
            continue;
        unneeded -= slots;
        release_kept(heap, kept);
    }
    heap->span_slots_most = heap->span_slots;
    heap->claim_batch = 1;
}

bool slot_cache_is_valid(const struct heap *heap)
{
    uint32_t slots = 0;
    for (uint32_t i = 0; i < SPANS_KEPT; i++) {
        const struct span *kept = &heap->spans[i];
        if ((kept->dirty & ~kept->mask) != 0)
            return false;
        if (kept->mask != 0 && (atomic_load(&kept->arena->free[kept->word]) & kept->mask) != 0)
            return false;
        slots += span_slots(kept);
    }
    return slots == heap->span_slots;
}
