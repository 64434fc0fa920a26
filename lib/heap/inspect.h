/* A look through a heap's lists when the process ends: what nothing has noticed before, because the memory
 * was not given out again.
 *
 * A block on a list that does not begin where blocks begin was freed by a wrong pointer; one whose mark, or
 * whose next block, is no longer what free wrote was written to after it had been freed. Either is fatal.
 * This may run in a signal handler that has interrupted malloc or free (exit(3) is often called there):
 * blocks are put on a list whole, and taken off after their mark has been cleared, so the first of a list may
 * have none.
 */
#ifndef TARN_HEAP_INSPECT_H
#define TARN_HEAP_INSPECT_H

#include "heap/heap.h"

/* The running thread's heap; so many blocks at most. */
void inspect_lists(const struct heap *heap, uint32_t blocks_most);

#endif
