/* Runs: whole slots for one request of more than a size class holds, up to 512 KiB. A run begins at a slot,
 * has no owner and no descriptor; the slot map word of its first slot says how long it is. Any thread frees
 * it, and its heap keeps the last few for requests of the same length; a kept run's word is 0.
 */
#ifndef TARN_HEAP_RUN_H
#define TARN_HEAP_RUN_H

#include "heap/heap.h"

#define RUN_BYTES_MOST (SPAN_SLOTS_MOST * SLOT_BYTES)

/* A run of at least `bytes`, 0 < bytes <= RUN_BYTES_MOST; *zeroed says whether it reads as zeroes. NULL
 * without memory. */
void *run_malloc(struct heap *heap, size_t bytes, bool *zeroed);

/* Bytes of the run that begins here, 0 when none does. Any thread. */
size_t run_bytes(const void *pointer);

/* Frees the run that begins here; false when none does (any more). `heap` gets the slots. */
bool run_free(struct heap *heap, void *pointer);

/* Gives the slots of kept runs to the slot cache. */
void run_flush(struct heap *heap);

/* Makes the run `bytes` long where it is: shorter by giving slots back, longer when the slots behind it are
 * free. False, and nothing changed, where it cannot. Only by the block's owner in the program. */
bool run_resize(struct heap *heap, void *pointer, size_t bytes);

#endif
