/* Read sections over the global arena list, and the grace periods that end them.
 *
 * An arena's header and addresses may be unmapped only when no thread can still hold a pointer to it that it found
 * in the list. Whoever takes a pointer from the list does so inside a read section. A section is marked twice:
 *
 *   - as a liburcu-bp read section, which malloc_trim may wait for (rcu_wait, blocking);
 *   - in the reader's own `sections` word, odd inside a section, which lets a slow path ask, without ever waiting,
 *     whether all sections that were open at some moment have been left (grace_sample, grace_has_passed).
 *
 * Why the second: synchronize_rcu blocks, so it must never run inside malloc or free; liburcu 0.13 has no form of
 * it that polls, and call_rcu allocates and starts a thread.
 *
 * Readers are never unmapped and never leave the list; a thread's reader is that of its heap.
 *
 *   who writes      | field
 *   ----------------|---------------------------------
 *   its thread      | sections, registered, busy
 *   reader_publish  | next (fixed afterwards)
 *   housekeeper     | sampled
 */
#ifndef TARN_OS_RCU_H
#define TARN_OS_RCU_H

#include <stdbool.h>
#include <stdint.h>

struct reader {
    _Atomic uint64_t sections; /* odd while inside a read section */
    _Atomic bool registered;   /* the present thread is known to liburcu-bp */
    bool registering;          /* inside the registration, which may call malloc */
    struct reader *next;
    uint64_t sampled; /* `sections` at grace_sample, 0 when it was even */
};

/* Makes the reader known to grace_sample; once per reader, before its first section. Any thread. */
void reader_publish(struct reader *reader);

/* A new thread takes the reader over: its liburcu registration is yet to be made. */
void reader_begin_thread(struct reader *reader);

/* Own thread only; sections do not nest. */
void reader_enter(struct reader *reader);
void reader_leave(struct reader *reader);

/* Marks the beginning of a grace period. False when the kernel has no membarrier(2): only rcu_wait helps then.
 * One thread at a time (the housekeeper). */
bool grace_sample(void);

/* Have all sections that were open at grace_sample been left? Never blocks. The housekeeper only. */
bool grace_has_passed(void);

/* Blocks until all sections that are open now have been left; false when a thread was just being registered and
 * nothing can be said. Never from malloc or free, never inside a section or holding a lock. */
bool rcu_wait(void);

/* Around fork(2), in this order, by the forking thread. */
void rcu_before_fork(void);
void rcu_after_fork_parent(void);
/* `own` is the reader of the thread that goes on; sections of all other threads count as left. */
void rcu_after_fork_child(const struct reader *own);

#endif
