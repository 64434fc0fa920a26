/* What two cores cannot show by time: counts of the operations that cost on many cores.
 *
 * Only in a build with -Dcounters=true; elsewhere each call compiles to nothing. The counts are process-wide
 * and relaxed: they are read when the work is over. Their own locked operations are not counted.
 */
#ifndef TARN_BASE_COUNTERS_H
#define TARN_BASE_COUNTERS_H

#include "base/compiler.h"

#include <stdatomic.h>
#include <stdint.h>

enum counter {
    COUNTER_CALL,         /* malloc and free; realloc and calloc through them */
    COUNTER_LOCKED,       /* locked read-modify-write operations */
    COUNTER_CAS_RETRY,    /* compare-and-swaps that lost */
    COUNTER_SHARED_LINE,  /* writes to a line that any thread writes */
    COUNTER_MAP,          /* system calls that take mmap_lock */
    COUNTER_REFILL,       /* slow paths of malloc */
    COUNTER_REMOTE_BLOCK, /* blocks freed onto foreign lists (heap/mailbox) */
    COUNTER_REMOTE_POST,  /* chains posted to an inbox */
    COUNTER_KINDS
};

extern _Atomic uint64_t counters[COUNTER_KINDS];
extern const char *const counter_names[COUNTER_KINDS];

static inline void counter_add(enum counter kind, uint64_t amount)
{
    if (TARN_COUNTERS)
        atomic_fetch_add_explicit(&counters[kind], amount, memory_order_relaxed);
}

/* One locked operation on a line that other threads write too. */
static inline void counter_locked(void)
{
    counter_add(COUNTER_LOCKED, 1);
    counter_add(COUNTER_SHARED_LINE, 1);
}

static inline void counter_retry(void)
{
    counter_add(COUNTER_CAS_RETRY, 1);
}

#endif
