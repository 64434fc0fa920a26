#include "heap/park.h"

#include "arena/housekeeper.h"
#include "base/bits.h"
#include "base/counters.h"
#include "base/fatal.h"
#include "base/published.h"
#include "heap/mailbox.h"
#include "heap/quarantine.h"
#include "heap/run.h"
#include "heap/slot_cache.h"
#include "os/map.h"

#define CHUNK_HEAPS  16U
#define CHUNKS       (HEAP_COUNT_MOST / CHUNK_HEAPS)
#define PARKED_WORDS (HEAP_COUNT_MOST / 64)

/* Parked heaps looked at before a new arena is made, so that the search is bounded. */
#define HARVEST_HEAPS 8U

static char *_Atomic chunks[CHUNKS];
static _Atomic uint32_t heap_count;
static _Atomic uint64_t parked[PARKED_WORDS];
static _Atomic uint32_t harvest_cursor;
static _Atomic uint64_t tended_ms;

uint32_t park_bound(void)
{
    return atomic_load_explicit(&heap_count, memory_order_acquire);
}

struct heap *park_heap(uint32_t number)
{
    /* acquire: pairs with the release in chunk_of_number. */
    char *chunk = atomic_load_explicit(&chunks[number / CHUNK_HEAPS], memory_order_acquire);
    if (chunk == NULL)
        return NULL;
    return (struct heap *)(void *)(chunk + (size_t)(number % CHUNK_HEAPS) * HEAP_ALIGNMENT);
}

bool park_is_parked(uint32_t number)
{
    return (atomic_load_explicit(&parked[number / 64], memory_order_relaxed) >> number % 64 & 1) != 0;
}

bool park_is_heap(const void *address)
{
    for (uint32_t number = 0; number < park_bound(); number += CHUNK_HEAPS) {
        const char *chunk = (const char *)park_heap(number);
        size_t offset = (size_t)((const char *)address - chunk);
        if (chunk != NULL && offset < CHUNK_HEAPS * HEAP_ALIGNMENT)
            return offset % HEAP_ALIGNMENT == 0;
    }
    return false;
}

void park_publish(struct published *out)
{
    out->heaps_in_chunk = CHUNK_HEAPS;
    out->heap_chunks = (uintptr_t)chunks;
    out->heap_count = (uintptr_t)&heap_count;
    out->parked = (uintptr_t)parked;
}

static bool claim(uint32_t number)
{
    uint64_t bit = UINT64_C(1) << number % 64;
    if (!park_is_parked(number))
        return false;
    counter_locked();
    /* acquire: pairs with the release in hand_back; all the last holder did to the heap is done. */
    return (atomic_fetch_and_explicit(&parked[number / 64], ~bit, memory_order_acquire) & bit) != 0;
}

static void hand_back(struct heap *heap)
{
    heap->reader = &heap->own_reader;
    counter_locked();
    atomic_fetch_or_explicit(&parked[heap->number / 64], UINT64_C(1) << heap->number % 64,
                             memory_order_release);
}

/* The lowest parked heap at or after `from`, claimed, or HEAP_COUNT_MOST. */
static uint32_t claim_next(uint32_t from)
{
    uint32_t bound = park_bound();
    while (from < bound) {
        uint64_t word = atomic_load_explicit(&parked[from / 64], memory_order_relaxed) >> from % 64;
        if (word == 0) {
            from = (from / 64 + 1) * 64;
            continue;
        }
        from += bits_lowest(word);
        if (claim(from))
            return from;
    }
    return HEAP_COUNT_MOST;
}

/* ---- new heaps ---- */

static char *chunk_of_number(uint32_t number)
{
    _Atomic(char *) *place = &chunks[number / CHUNK_HEAPS];
    char *chunk = atomic_load_explicit(place, memory_order_acquire);
    if (chunk != NULL)
        return chunk;
    char *fresh = map_pages_aligned(CHUNK_HEAPS * HEAP_ALIGNMENT, HEAP_ALIGNMENT);
    if (fresh == NULL)
        return NULL;
    counter_locked();
    /* Changes once, from NULL: no ABA. */
    if (atomic_compare_exchange_strong_explicit(place, &chunk, fresh, memory_order_acq_rel,
                                                memory_order_acquire))
        return fresh;
    map_unmap(fresh, CHUNK_HEAPS * HEAP_ALIGNMENT);
    return chunk;
}

static struct heap *new_heap(void)
{
    uint32_t number = atomic_load_explicit(&heap_count, memory_order_relaxed);
    do {
        if (number >= HEAP_COUNT_MOST || chunk_of_number(number) == NULL)
            return NULL;
        counter_locked();
    } while (!atomic_compare_exchange_weak_explicit(&heap_count, &number, number + 1, memory_order_acq_rel,
                                                    memory_order_relaxed));
    struct heap *heap = park_heap(number);
    heap_initialise(heap, number);
    reader_publish(&heap->own_reader);
    return heap;
}

struct heap *park_take(void)
{
    uint32_t number = claim_next(0);
    struct heap *heap = number < HEAP_COUNT_MOST ? park_heap(number) : new_heap();
    return heap;
}

/* ---- leaving and tending ---- */

/* The caller has claimed a parked heap, and lends it its reader. */
static bool settle(struct heap *heap, struct reader *reader)
{
    heap->reader = reader;
    bool drained = mailbox_drain(heap);
    heap_close_empty_pools(heap);
    run_flush(heap);
    slot_cache_flush(heap);
    return drained;
}

void park_leave(struct heap *heap)
{
    if (TARN_HARDENED)
        quarantine_flush(heap);
    mailbox_flush(heap);
    mailbox_drain(heap);
    heap_close_large_empty_pools(heap);
    run_flush(heap);
    CHECK(heap_is_valid(heap));
    atomic_store_explicit(&heap->parked_state, PARKED_JUST_NOW, memory_order_relaxed);
    hand_back(heap);
}

/* Whether there may be something to settle: not when it was done and nothing came since, nor before the heap
 * has been parked for a whole tick. */
static bool wants_settling(struct heap *heap)
{
    uint32_t state = atomic_load_explicit(&heap->parked_state, memory_order_relaxed);
    if (state == PARKED_JUST_NOW)
        atomic_store_explicit(&heap->parked_state, PARKED_A_WHILE, memory_order_relaxed);
    return state == PARKED_A_WHILE || (state == PARKED_SETTLED && mailbox_is_waiting(heap));
}

static void settle_parked(struct heap *heap, uint32_t number)
{
    if (!claim(number))
        return;
    struct heap *parked_heap = park_heap(number);
    settle(parked_heap, heap->reader);
    atomic_store_explicit(&parked_heap->parked_state, PARKED_SETTLED, memory_order_relaxed);
    hand_back(parked_heap);
}

void park_posted_to(struct heap *heap, const struct heap *owner)
{
    if (park_is_parked(owner->number))
        settle_parked(heap, owner->number);
}

/* One thread at a time, and not more often than a tick. */
void park_tend(struct heap *heap)
{
    uint64_t last_ms = atomic_load_explicit(&tended_ms, memory_order_relaxed);
    if (heap->tick_ms < last_ms + housekeeper_interval_ms() ||
        !atomic_compare_exchange_strong_explicit(&tended_ms, &last_ms, heap->tick_ms, memory_order_relaxed,
                                                 memory_order_relaxed))
        return;
    for (uint32_t number = 0; number < park_bound(); number++)
        if (park_is_parked(number) && wants_settling(park_heap(number)))
            settle_parked(heap, number);
}

void park_settle_all(struct heap *heap)
{
    for (uint32_t number = 0; number < park_bound(); number++)
        settle_parked(heap, number);
}

static bool adopt_pool(struct heap *heap, struct heap *from, uint32_t class)
{
    if (class >= CLASS_COUNT)
        return false;
    struct pool *pool = heap_give_pool(from, class);
    if (pool == NULL)
        return false;
    heap_adopt_pool(heap, pool);
    return true;
}

static bool harvest_from(struct heap *heap, struct heap *other, uint32_t class)
{
    bool had_slots = other->span_slots + other->empty_slots + other->run_slots > 0;
    bool drained = settle(other, heap->reader);
    bool adopted = adopt_pool(heap, other, class);
    hand_back(other);
    return had_slots || drained || adopted;
}

/* Goes round once, from where the last search ended. */
bool park_harvest(struct heap *heap, uint32_t class)
{
    uint32_t from = atomic_load_explicit(&harvest_cursor, memory_order_relaxed);
    bool wrapped = from == 0;
    bool gained = false;
    for (uint32_t tries = 0; tries < HARVEST_HEAPS && !gained;) {
        uint32_t number = claim_next(from);
        if (number == HEAP_COUNT_MOST) {
            from = 0;
            if (wrapped)
                break;
            wrapped = true;
            continue;
        }
        gained = harvest_from(heap, park_heap(number), class);
        from = number + 1;
        tries++;
    }
    atomic_store_explicit(&harvest_cursor, from, memory_order_relaxed);
    return gained;
}

bool park_is_valid(void)
{
    for (uint32_t number = 0; number < park_bound(); number++) {
        const struct heap *heap = park_heap(number);
        if (heap == NULL || heap->number != number || !park_is_heap(heap))
            return false;
        if (park_is_parked(number) && heap->reader != &heap->own_reader)
            return false;
    }
    for (uint32_t number = park_bound(); number % 64 != 0; number++)
        if (park_is_parked(number))
            return false;
    return true;
}
