/* A look through a heap's lists when the process ends: what nothing has noticed before, because the memory
 * was not given out again.
 *
 * A block on a list that does not begin where blocks begin was freed by a wrong pointer; one whose mark, or
 * whose next block, is no longer what free wrote was written to after it had been freed. Either is fatal.
 * Blocks are on a list whole at any instruction of malloc and free, so this may run in a signal handler that
 * has interrupted them (exit(3) is often called there).
 */
#ifndef TARN_HEAP_INSPECT_H
#define TARN_HEAP_INSPECT_H

#include "heap/heap.h"

/* The running thread's heap; so many blocks at most. */
void inspect_lists(const struct heap *heap, uint32_t blocks_most);

#endif
