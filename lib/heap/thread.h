/* Threads come and go: which heap serves the calling thread.
 *
 *   state of the thread | heap_self  | served by
 *   --------------------|------------|------------------------------------------------------------
 *   new                 | &heap_none | thread_heap() gives it a heap at its first slow path
 *   running             | its heap   | its heap
 *   late                | &heap_none | the late heap, under a lock; its frees are posted at once
 *
 * A thread becomes late when its thread-specific destructor has run; what other destructors allocate and free
 * after that still works and never starts the cycle again. It is late from the start when there is no
 * thread-specific key left. A new thread for which there is no memory for a heap is served like a late one,
 * and asks again with its next slow path.
 *
 * The late heap's lock ranks above the raw lock (docs/concurrency.md).
 */
#ifndef TARN_HEAP_THREAD_H
#define TARN_HEAP_THREAD_H

#include "heap/heap.h"

/* A heap for a thread that has none: made, or taken from the parked ones. NULL for a late thread, and without
 * memory. */
COLD struct heap *thread_begin(void);

/* The heap of the calling thread, which it gets now if it has none yet. NULL for a late thread, and without
 * memory. */
static inline struct heap *thread_heap(void)
{
    return LIKELY(heap_self != &heap_none) ? heap_self : thread_begin();
}

/* For a late thread: the late heap, locked, and its end. NULL without memory (then nothing is locked). */
struct heap *thread_late_heap(void);
void thread_late_done(void);

/* Gives back what the late heap can spare, as tick_reclaim does. */
void thread_reclaim_late(void);

/* For a late thread where there is no late heap: a reader, which needs no memory; the late heap's lock is
 * held until thread_late_done. */
struct reader *thread_late_reader(void);

/* Makes the thread-specific key. Called again, does nothing. */
void thread_initialise(void);

/* Around fork(2), by the forking thread. */
void thread_before_fork(void);
void thread_after_fork(void);

#endif
