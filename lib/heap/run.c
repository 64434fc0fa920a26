#include "heap/run.h"

#include "arena/arena_list.h"
#include "base/bits.h"
#include "heap/slot_cache.h"
#include "heap/tick.h"

/* 512 KiB: the longest run fits. */
#define KEPT_RUN_SLOTS_MOST SPAN_SLOTS_MOST

static uint32_t slots_for(size_t bytes)
{
    return (uint32_t)((bytes + SLOT_BYTES - 1) >> SLOT_LOG2);
}

static _Atomic uint64_t *word_of(const void *pointer)
{
    return &arena_of(pointer)->slot_map[arena_slot_of(pointer)];
}

/* ---- kept runs ---- */

/* The one freed last first: it is warm. */
static void *take_kept(struct heap *heap, uint32_t slots)
{
    if (heap->run_slots < slots)
        return NULL;
    for (uint32_t i = 1; i <= RUNS_KEPT; i++) {
        struct kept_run *kept = &heap->runs[(heap->run_next - i) % RUNS_KEPT];
        if (kept->run == NULL || kept->slots != slots)
            continue;
        void *run = kept->run;
        kept->run = NULL;
        if (i == 1)
            heap->run_next--;
        heap->run_slots -= slots;
        atomic_store_explicit(word_of(run), run_word(arena_slot_of(run), slots), memory_order_release);
        return run;
    }
    return NULL;
}

static struct span span_at(const void *pointer, uint32_t first, uint32_t slots)
{
    uint64_t mask = bits_ones(slots) << first % WORD_SLOTS;
    return (struct span){.arena = arena_of(pointer), .mask = mask, .dirty = mask, .word = first / WORD_SLOTS};
}

static void give_up(struct heap *heap, struct kept_run *kept)
{
    if (kept->run == NULL)
        return;
    struct span span = span_at(kept->run, arena_slot_of(kept->run), kept->slots);
    kept->run = NULL;
    heap->run_slots -= kept->slots;
    slot_cache_put(heap, &span);
}

static void keep(struct heap *heap, void *run, uint32_t slots)
{
    struct kept_run *place = &heap->runs[heap->run_next++ % RUNS_KEPT];
    give_up(heap, place);
    for (uint32_t i = 0; i < RUNS_KEPT && heap->run_slots + slots > KEPT_RUN_SLOTS_MOST; i++)
        give_up(heap, &heap->runs[(heap->run_next + i) % RUNS_KEPT]);
    *place = (struct kept_run){run, slots};
    heap->run_slots += slots;
    tick_soon(heap);
}

void run_flush(struct heap *heap)
{
    for (uint32_t i = 0; i < RUNS_KEPT && heap->run_slots > 0; i++)
        give_up(heap, &heap->runs[i]);
}

/* ---- blocks ---- */

void *run_malloc(struct heap *heap, size_t bytes, bool *zeroed)
{
    uint32_t slots = slots_for(bytes);
    void *kept = take_kept(heap, slots);
    if (kept != NULL) {
        *zeroed = false;
        return kept;
    }
    struct span span;
    if (!slot_cache_take(heap, slots, CLASS_COUNT, &span))
        return NULL;
    uint32_t first = span_first_slot(&span);
    *zeroed = span.dirty == 0;
    /* release: pairs with the acquire in run_bytes, for a program that hands the pointer over without order.
     */
    atomic_store_explicit(&span.arena->slot_map[first], run_word(first, slots), memory_order_release);
    return arena_slot_address(span.arena, first);
}

size_t run_bytes(const void *pointer)
{
    if (((uintptr_t)pointer & (SLOT_BYTES - 1)) != 0)
        return 0;
    uint64_t word = atomic_load_explicit(word_of(pointer), memory_order_acquire);
    return word_is_run(word) ? run_word_slots(word) * SLOT_BYTES : 0;
}

bool run_free(struct heap *heap, void *pointer)
{
    uint32_t slots = (uint32_t)(run_bytes(pointer) >> SLOT_LOG2);
    if (slots == 0)
        return false;
    /* relaxed: only the block's owner in the program writes its word. */
    atomic_store_explicit(word_of(pointer), 0, memory_order_relaxed);
    keep(heap, pointer, slots);
    return true;
}

static bool grow(void *pointer, uint32_t first, uint32_t have, uint32_t want)
{
    if (first % WORD_SLOTS + want > WORD_SLOTS)
        return false;
    uint64_t more = bits_ones(want - have) << (first + have) % WORD_SLOTS;
    struct span span;
    if (!arena_list_extend(arena_of(pointer), first / WORD_SLOTS, more, &span))
        return false;
    atomic_store_explicit(word_of(pointer), run_word(first, want), memory_order_release);
    return true;
}

static void shrink(struct heap *heap, void *pointer, uint32_t first, uint32_t have, uint32_t want)
{
    atomic_store_explicit(word_of(pointer), run_word(first, want), memory_order_release);
    struct span span = span_at(pointer, first + want, have - want);
    slot_cache_put(heap, &span);
}

bool run_resize(struct heap *heap, void *pointer, size_t bytes)
{
    uint32_t first = arena_slot_of(pointer);
    uint32_t have = (uint32_t)(run_bytes(pointer) >> SLOT_LOG2);
    uint32_t want = slots_for(bytes);
    if (have == 0 || want == 0 || want > SPAN_SLOTS_MOST)
        return false;
    if (want > have)
        return grow(pointer, first, have, want);
    if (want < have)
        shrink(heap, pointer, first, have, want);
    return true;
}
