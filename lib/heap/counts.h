/* What a heap has done, for those who look at it: written on slow paths only, by the thread that runs or
 * tends the heap, and read by any thread, or from outside of the process (base/published).
 *
 * The hot path of malloc counts nothing but the budget, so calls are estimated from it (heap/tick). Whatever
 * ends the budget, it ends at certain points, which follow each other in random distances of POINT_BYTES on
 * average. A request lies at a point with a probability that is as high as what it counts on the budget; it
 * stands for as many of its size as together count what lies between two points. An estimate from n points is
 * off by about one part in the square root of n. Requests that found their list empty are not on the budget,
 * and are counted as they come.
 */
#ifndef TARN_HEAP_COUNTS_H
#define TARN_HEAP_COUNTS_H

#include "base/owned.h"
#include "pool/size_class.h"

#include <stddef.h>

/* What serves a request: a size class by its number, or one of these. */
#define COUNTED_RUN   CLASS_COUNT
#define COUNTED_RAW   (CLASS_COUNT + 1)
#define COUNTED_KINDS (CLASS_COUNT + 2)

struct kind_counts {
    owned_total calls; /* of malloc and its relatives; estimated */
    owned_total bytes; /* asked for by these */
};

struct heap_counts {
    struct kind_counts kinds[COUNTED_KINDS];
    owned_total heartbeats;
    owned_total ticks;
    owned_total refills;
    owned_total sent_blocks; /* to other heaps */
    owned_total sent_bytes;
    owned_total received_blocks;
    owned_total received_bytes;
    owned_total thread; /* pthread_self() of who runs it; 0 while nobody does */
};

/* So many requests for `bytes`. */
static inline void counts_add_calls(struct heap_counts *counts, uint32_t kind, size_t bytes, uint64_t calls)
{
    owned_add(&counts->kinds[kind].calls, calls);
    owned_add(&counts->kinds[kind].bytes, calls * bytes);
}

#endif
