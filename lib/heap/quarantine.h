/* The hardened build: freed blocks wait here before a pool may give them out again, in an order that nobody
 * can foretell, and are looked at when they leave.
 *
 *   free ─► scattered[a random place] ─(who stood there)─► queue, oldest first ─► the pool's list, or the
 * foreign one
 *
 * All are blocks in state TRAILER_FREE (pool/trailer), wholly zero; one that is not when it leaves was
 * written to after it had been freed. Bounded by places, and by bytes (TARN_QUARANTINE); emptied when the
 * thread ends, on malloc_trim, and in need of memory. The running thread's, like the rest of the heap. A
 * block that waits counts as used in its pool.
 */
#ifndef TARN_HEAP_QUARANTINE_H
#define TARN_HEAP_QUARANTINE_H

#include "heap/heap.h"

/* The heap's thread has freed this block of a pool of whatever heap; trailer_free has been called. */
void quarantine_put(struct heap *heap, struct block *block, size_t block_bytes);

/* All that wait go on. */
void quarantine_flush(struct heap *heap);

/* Frees a block for good: it was looked at, or comes from a thread without a heap (NULL). */
void quarantine_release(struct heap *heap, struct block *block);

#endif
