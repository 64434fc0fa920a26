/* Empty slots that a heap keeps for its next pool or run, so that the arena list is seldom asked.
 *
 *   heap->spans[]: up to 8 groups of slots of one bitmap word each, held by the heap: neither free in their
 * arena nor in a pool. span_slots is their number; above a budget (heap_may_keep_slots) groups go back to the
 * arena list.
 *
 * A claim for a one-slot pool takes several slots at once, more each time, and keeps the rest here. Slots of
 * a freed run come here too, to the thread that freed it: a run has no owner.
 *
 * Running (or tending) thread only.
 */
#ifndef TARN_HEAP_SLOT_CACHE_H
#define TARN_HEAP_SLOT_CACHE_H

#include "heap/heap.h"

/* Contiguous slots for a pool of `class` or, with class == CLASS_COUNT, for a run: from the cache, a listed
 * arena, a parked heap, a retired arena, a new arena; in need, from what every cache of the process can
 * spare. False without memory, or when a pool of `class` was adopted from a parked heap and queued instead.
 */
bool slot_cache_take(struct heap *heap, uint32_t slots, uint32_t class, struct span *span);

/* Slots that the heap needs no more. */
void slot_cache_put(struct heap *heap, const struct span *span);

/* Gives all slots back to their arenas. */
void slot_cache_flush(struct heap *heap);

/* Once a tick: gives back what was not needed since the last. */
void slot_cache_age(struct heap *heap);

bool slot_cache_is_valid(const struct heap *heap);

/* Gives back memory that the layers above keep in reserve; true when there was some. Set once, before
 * threads. */
extern bool (*slot_cache_last_resort)(void);

/* Called before a new arena of so many bytes is mapped. Set once, before threads. */
extern void (*slot_cache_make_way)(size_t bytes);

#endif
