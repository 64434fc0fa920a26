/* Heaps without a thread.
 *
 * The table of all heaps, by number, and the parked set: one bit per heap. Clearing a heap's bit claims the
 * heap for the thread that cleared it, be it to run it, to tend it or to take pools from it; setting it hands
 * the heap back. A claim takes the bit away atomically and says nothing about the past, so there is no ABA.
 *
 * Heaps are mapped 16 at a time, never unmapped, and numbered in order; numbers only grow.
 */
#ifndef TARN_HEAP_PARK_H
#define TARN_HEAP_PARK_H

#include "heap/heap.h"

/* A heap for the calling thread: the parked heap with the lowest number, else a new one. NULL without memory.
 */
struct heap *park_take(void);

/* The calling thread leaves its heap: sends blocks of other heaps home and parks the rest as it is, small
 * empty pools and slots too, so that the next thread can go on at once. What no thread takes up is given back
 * by park_tend. */
void park_leave(struct heap *heap);

/* Before a new arena is made: looks for memory in parked heaps. Drains some of them and, when `class` is a
 * size class, adopts a pool of it with free blocks into `heap`'s queue. True when something was gained. */
bool park_harvest(struct heap *heap, uint32_t class);

/* Something was posted to this heap: when it is parked, it is settled now, so that memory that nobody else
 * may want for long is given back at once. `heap` is the calling thread's. */
void park_posted_to(struct heap *heap, const struct heap *owner);

/* On the tick: settles heaps that have stayed parked since the last: drains them, gives back what is empty.
 * `heap` is the calling thread's. */
void park_tend(struct heap *heap);

/* In need of memory: settles all parked heaps. `heap` is the calling thread's. */
void park_settle_all(struct heap *heap);

/* Heap numbers are below this. Any thread. */
uint32_t park_bound(void);
struct heap *park_heap(uint32_t number);
bool park_is_parked(uint32_t number);

/* Tells where the tables are (base/published). */
struct published;
void park_publish(struct published *out);

/* Whether a heap of the table begins at this address. */
bool park_is_heap(const void *address);

/* Every number below the bound has its heap, and only such are parked, each with its own reader. Only when
 * nobody is inside. */
bool park_is_valid(void);

#endif
