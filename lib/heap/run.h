/* Runs: whole slots for one request of more than a size class holds, up to 512 KiB. A run begins at a slot,
 * has no owner and no descriptor; the slot map word of its first slot says how long it is. Any thread frees
 * it, and its heap keeps the last few for requests of the same length; a kept run's word is 0.
 */
#ifndef TARN_HEAP_RUN_H
#define TARN_HEAP_RUN_H

#include "heap/heap.h"

#define RUN_BYTES_MOST (SPAN_SLOTS_MOST * SLOT_BYTES)

/* 512 KiB: the longest run fits. */
#define RUN_SLOTS_KEPT SPAN_SLOTS_MOST

static inline _Atomic uint64_t *run_word_of(const void *pointer)
{
    return &arena_of(pointer)->slot_map[arena_slot_of(pointer)];
}

/* The slot map word of an address in an arena. */
static inline uint64_t run_word_at(const void *pointer)
{
    /* acquire: pairs with the release in run_take_at and run_malloc. */
    return atomic_load_explicit(run_word_of(pointer), memory_order_acquire);
}

/* Whether a run begins at the address, whose word this is. */
static inline bool run_begins(const void *pointer, uint64_t word)
{
    return word_is_run(word) && ((uintptr_t)pointer & (SLOT_BYTES - 1)) == 0;
}

static inline uint32_t run_slots_for(size_t bytes)
{
    return (uint32_t)((bytes + SLOT_BYTES - 1) >> SLOT_LOG2);
}

/* Takes a kept run out and enters it in the slot map. */
static inline void *run_take_at(struct heap *heap, uint32_t index)
{
    struct kept_run *kept = &heap->runs[index % RUNS_KEPT];
    void *run = kept->run;
    /* release: pairs with the acquire in run_word_at, for a program that hands the pointer over without
     * order. */
    atomic_store_explicit(run_word_of(run), run_word(arena_slot_of(run), kept->slots), memory_order_release);
    heap->run_slots -= kept->slots;
    *kept = (struct kept_run){NULL, 0};
    return run;
}

/* Whether the run freed last is kept and has just this length. 0 < bytes <= RUN_BYTES_MOST. Of heap_none it
 * never is. */
static inline bool run_was_last(const struct heap *heap, size_t bytes)
{
    return heap->runs[(heap->run_next - 1) % RUNS_KEPT].slots == run_slots_for(bytes);
}

/* Takes it, from the heap of the calling thread. */
static inline void *run_take_last(struct heap *heap)
{
    return run_take_at(heap, --heap->run_next);
}

/* A run of at least `bytes`, 0 < bytes <= RUN_BYTES_MOST. NULL without memory. */
void *run_malloc(struct heap *heap, size_t bytes);

/* Bytes of the run that begins here, 0 when none does. Any thread. */
size_t run_bytes(const void *pointer);

/* Frees the run of so many slots that begins here, if there is room for it among those kept; else false, and
 * nothing changed. Of heap_none there never is. */
ALWAYS_INLINE bool run_kept_at_once(struct heap *heap, void *pointer, uint32_t slots)
{
    struct kept_run *place = &heap->runs[heap->run_next % RUNS_KEPT];
    if (UNLIKELY(place->slots > 0 || heap->run_slots + slots > RUN_SLOTS_KEPT))
        return false;
    /* relaxed: only the block's owner in the program writes its word. */
    atomic_store_explicit(run_word_of(pointer), 0, memory_order_relaxed);
    *place = (struct kept_run){pointer, slots};
    heap->run_next++;
    heap->run_slots += slots;
    return true;
}

/* Frees the run that begins here; false when none does (any more). `heap` gets the slots. */
bool run_free(struct heap *heap, void *pointer);

/* The same by a thread without a heap, where there is no memory for one: the slots go back to the arena. */
bool run_free_without_heap(struct reader *reader, void *pointer);

/* Gives the slots of kept runs to the slot cache. */
void run_flush(struct heap *heap);

/* Makes the run `bytes` long where it is: shorter by giving slots back, longer when the slots behind it are
 * free. False, and nothing changed, where it cannot. Only by the block's owner in the program. */
bool run_resize(struct heap *heap, void *pointer, size_t bytes);

/* Kept runs are held and in nobody's slot map, and run_slots is their number of slots. */
bool run_is_valid(const struct heap *heap);

#endif
