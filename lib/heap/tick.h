/* The heartbeat of a heap: how a thread that only ever takes the hot path still gets its housekeeping done.
 *
 * malloc counts the bytes it hands out down from a budget; when that is used up it comes here. A busy thread
 * doubles its budget each time that the coarse clock has not moved; an idle one, and one that has just given
 * slots back, gets a small one, so that memory is purged in time even when the program does little.
 *
 * Once per interval (half the purge delay) the heap's own reserves are looked through: empty current pools,
 * empty slots that were not needed, blocks on their way to other heaps; and parked heaps that were posted to.
 *
 * Other layers add duties of their own, each called after the housekeeper, with the time.
 */
#ifndef TARN_HEAP_TICK_H
#define TARN_HEAP_TICK_H

#include "heap/heap.h"
#include "os/settings.h"

#define TICK_BUDGET_LEAST_BYTES 512
#define TICK_BUDGET_SOON_BYTES  4096
#define TICK_BUDGET_MOST_BYTES  ((int64_t)64 << 10)

/* The budget is used up, by a request for `bytes`. Running thread, slow path. */
void tick_heartbeat(struct heap *heap, size_t bytes);

/* A request that is served outside of pools counts on the budget too. False, and nothing changed, where the
 * budget would be used up. */
static inline bool tick_may_spend(struct heap *heap, size_t bytes)
{
    int64_t left = heap->budget_bytes - (int64_t)(bytes / LARGE_BUDGET_DIVISOR);
    if (UNLIKELY(left < 0))
        return false;
    heap->budget_bytes = left;
    return true;
}

static inline void tick_spend(struct heap *heap, size_t bytes)
{
    if (UNLIKELY(!tick_may_spend(heap, bytes)))
        tick_heartbeat(heap, bytes);
}

/* There may be something to purge before long: shortens the budget. */
static inline void tick_soon(struct heap *heap)
{
    if (heap->budget_bytes > TICK_BUDGET_SOON_BYTES) {
        if (settings.guard_interval > 0)
            heap->sample_rest_bytes += heap->budget_bytes - TICK_BUDGET_SOON_BYTES;
        heap_set_budget(heap, TICK_BUDGET_SOON_BYTES);
    }
}

/* Sets the one duty of the layers above (raw). Never blocks, may be called by any thread. */
void tick_set_duty(void (*duty)(uint64_t now_ms));

enum tick_look { TICK_LOOK_WISHES, TICK_LOOK_REPORT, TICK_LOOKS };

/* Sets what a thread does at the end of a heartbeat, when it holds no lock and no heap but its own. */
void tick_set_look(enum tick_look number, void (*look)(uint64_t now_ms));

/* In need of memory, or asked to trim: gives back all that the heap, and the parked heaps, can spare to the
 * arenas. */
void tick_reclaim(struct heap *heap);

#endif
