/* Sampling: with TARN_GUARD_SAMPLE=1/N one allocation in N, on average, is a guarded block (guard/guard).
 *
 * The hot path knows nothing of it. It counts a heap's budget down; the budget is cut so short that it ends
 * where sampling wants to look:
 *
 *   budget_bytes + sample_rest_bytes = counted bytes until the next look
 *
 * An allocation that counts c bytes on the budget is c times as likely to meet the next look as one that
 * counts 1. So looks come every SAMPLE_UNIT_BYTES * N bytes on average, and one in c / SAMPLE_UNIT_BYTES is
 * taken: one in N allocations, whatever their sizes (of those below SAMPLE_UNIT_BYTES fewer). With N up to
 * SAMPLE_COUNTED_MOST the budget is always used up, and every allocation is counted here.
 *
 * Requests above the run threshold, and those of late threads, are never sampled.
 */
#ifndef TARN_HEAP_SAMPLE_H
#define TARN_HEAP_SAMPLE_H

#include "heap/heap.h"

#define SAMPLE_UNIT_BYTES   8
#define SAMPLE_COUNTED_MOST 64

/* Sampling begins with this heap, which is fresh or the calling thread's. */
void sample_begin(struct heap *heap);

/* In the slow path of malloc, with sampling on: the guarded block that serves this request, or NULL. */
void *sample_take(struct heap *heap, size_t bytes);

/* The budget has been set anew; so many bytes were left before that until the next look. */
void sample_shorten(struct heap *heap, int64_t until_bytes);

#endif
