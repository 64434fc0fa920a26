/* Looks at all rooms; see rooms.h. */
#include "rooms.h"

#include "../support.h"
#include "arena/arena_list.h"
#include "arena/housekeeper.h"
#include "heap/heap.h"
#include "heap/mailbox.h"
#include "heap/park.h"
#include "heap/run.h"
#include "heap/thread.h"
#include "heap/tick.h"
#include "raw/raw.h"
#include "script.h"
#include "tarn/tarn.h"

#include <string.h>

#define HEAPS_MOST 64U

/* ---- pools, found through the arenas: full ones are in no list ---- */

static void look_at_pool(struct pool *pool, uint32_t slots_of[HEAPS_MOST])
{
    struct heap *owner = pool->heap;
    must(park_is_heap(owner) && owner->number < HEAPS_MOST);
    must(pool_state(pool) != POOL_NONE && pool_is_valid(pool));
    must(pool_state(pool) != POOL_FULL || (pool->free == &pool_end && pool_used(pool) == pool->capacity));
    must(pool_state(pool) != POOL_CURRENT || owner->bins[pool_class(pool)].own == pool);
    slots_of[owner->number] += pool->slots;
}

static void look_at_slots(struct arena *arena, uint32_t slots_of[HEAPS_MOST])
{
    for (uint32_t slot = ARENA_HEADER_SLOTS; slot < ARENA_SLOTS; slot++) {
        uint64_t word = atomic_load(&arena->slot_map[slot]);
        if (word == 0 || word_is_run(word))
            continue;
        struct pool *pool = pool_of_word(arena_slot_address(arena, slot), word);
        must(slot >= pool->first_slot && slot < pool->first_slot + pool->slots);
        must(pool_word_heap(word) == pool->heap);
        must(atomic_load(&arena->slot_class[slot]) == pool_class(pool));
        if (slot == pool->first_slot)
            look_at_pool(pool, slots_of);
    }
}

static void look_at_pools(void)
{
    uint32_t slots_of[HEAPS_MOST] = {0};
    for (uint32_t number = 0; number < arena_list_bound(); number++)
        if (arena_list_get(number) != NULL)
            look_at_slots(arena_list_get(number), slots_of);
    for (uint32_t number = 0; number < park_bound(); number++)
        must(park_heap(number)->pool_slots == slots_of[number]);
}

static void look_at_heaps(void)
{
    must(park_is_valid() && park_bound() <= HEAPS_MOST);
    for (uint32_t number = 0; number < park_bound(); number++) {
        struct heap *heap = park_heap(number);
        must(heap_is_valid(heap));
        must(mailbox_is_valid(heap));
        must(run_is_valid(heap));
    }
}

void rooms_must_be_valid(void)
{
    must(arena_list_is_valid());
    must(housekeeper_is_valid());
    look_at_heaps();
    look_at_pools();
    must(raw_is_valid());
}

/* ---- the end of an input ---- */

static void reclaim_late_heap(void)
{
    struct heap *late = thread_late_heap();
    must(late != NULL);
    tick_reclaim(late);
    thread_late_done();
}

static void make_heap_new(struct heap *heap)
{
    must(heap->pool_slots == 0 && heap->span_slots == 0 && heap->run_slots == 0 && heap->foreign_bytes == 0 &&
         !mailbox_is_waiting(heap));
    heap->mixed = false;
    heap->foreign_bytes_most = 0;
    heap->tick_ms = 0;
    heap->run_next = 0;
    heap_initialise(heap, heap->number);
}

void rooms_must_be_empty(void)
{
    /* Twice: what one heap sends home in the first, another gives back in the second. */
    for (unsigned turn = 0; turn < 2; turn++) {
        tarn_malloc_trim(0);
        reclaim_late_heap();
    }
    tarn_malloc_trim(0);
    struct tarn_mallinfo2_result info = tarn_mallinfo2();
    must(info.uordblks == 0 && info.hblks == 0 && info.hblkhd == 0);
    must(arena_list_ledger().held_slots == 0 && arena_list_ledger().dirty_slots == 0);
    must(raw_totals().cached_bytes == 0);
    struct reader *own_reader = heap_self->reader;
    for (uint32_t number = 0; number < park_bound(); number++)
        make_heap_new(park_heap(number));
    must(heap_self->reader == own_reader);
}
