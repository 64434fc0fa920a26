#include "heap/run.h"

#include "arena/arena_list.h"
#include "base/bits.h"
#include "base/counters.h"
#include "heap/slot_cache.h"

static uint32_t slots_for(size_t bytes)
{
    return (uint32_t)((bytes + SLOT_BYTES - 1) >> SLOT_LOG2);
}

static _Atomic uint64_t *word_of(const void *pointer)
{
    return &arena_of(pointer)->slot_map[arena_slot_of(pointer)];
}

void *run_malloc(struct heap *heap, size_t bytes, bool *zeroed)
{
    uint32_t slots = slots_for(bytes);
    struct span span;
    if (!slot_cache_take(heap, slots, CLASS_COUNT, &span))
        return NULL;
    uint32_t first = span_first_slot(&span);
    *zeroed = span.dirty == 0;
    /* release: pairs with the acquire in run_bytes, for a program that hands the pointer over without order. */
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

static struct span span_at(const void *pointer, uint32_t first, uint32_t slots)
{
    uint64_t mask = bits_ones(slots) << first % WORD_SLOTS;
    return (struct span){.arena = arena_of(pointer), .mask = mask, .dirty = mask, .word = first / WORD_SLOTS};
}

bool run_free(struct heap *heap, void *pointer)
{
    if (run_bytes(pointer) == 0)
        return false;
    counter_locked();
    /* Of two frees of the same run one gets the word. */
    uint64_t word = atomic_exchange_explicit(word_of(pointer), 0, memory_order_acq_rel);
    if (!word_is_run(word))
        return false;
    struct span span = span_at(pointer, arena_slot_of(pointer), run_word_slots(word));
    slot_cache_put(heap, &span);
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
