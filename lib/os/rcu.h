/* Read sections over the global arena list, and the grace periods that end them.
 *
 * An arena's header and addresses may be unmapped only when no thread can still hold a pointer to it that it
 * found in the list. Whoever takes a pointer from the list does so inside a read section, of one of two
 * kinds:
 *
 *   - A claim or release of slots, below a microsecond: the reader's own word `sections` is odd meanwhile. A
 * slow path can ask, without ever waiting, whether all sections that were open at some moment have been left
 * (grace_sample, grace_has_passed).
 *   - A walk over all arenas (statistics), which may take long: the same, and a liburcu-bp read section
 * besides, so that malloc_trim can sleep until it is over (walk_wait) and need not spin.
 *
 * Claims are not liburcu sections: that would register every thread with liburcu, whose locks its own fork
 * hooks do not all cover, and which calls malloc while it holds them (docs/decisions/0002-read-sections.md).
 * Those that walk are registered under a lock of this room's, which ranks above all others and which a fork
 * takes: else a child could inherit liburcu's locked, and wait for them when it exits.
 *
 * Readers are never unmapped and never leave the list; a thread's reader is that of its heap.
 *
 *   who writes      | field
 *   ----------------|---------------------------------
 *   its thread      | sections
 *   reader_publish  | next (fixed afterwards)
 *   housekeeper     | sampled
 */
#ifndef TARN_OS_RCU_H
#define TARN_OS_RCU_H

#include <stdbool.h>
#include <stdint.h>

struct reader {
    _Atomic uint64_t sections; /* odd while inside a read section */
    struct reader *next;
    uint64_t sampled; /* `sections` at grace_sample, 0 when it was even */
};

/* Makes the reader known to grace_sample; once per reader, before its first section. Any thread. */
void reader_publish(struct reader *reader);

/* Own thread only; sections do not nest. */
void reader_enter(struct reader *reader);
void reader_leave(struct reader *reader);

/* Marks the beginning of a grace period; false when the kernel would not give the barrier it takes (a filter
 * on system calls), and no grace period has begun. One thread at a time (the housekeeper). */
bool grace_sample(void);

/* Have all sections that were open at grace_sample been left? Never blocks. The housekeeper only. */
bool grace_has_passed(void);

/* Around a walk, besides reader_enter and reader_leave. May allocate the first time in a thread. */
void walk_begin(void);
void walk_end(void);

/* Sleeps until all walks that are under way are over. Never from malloc or free, never inside a section,
 * never with a lock held. */
void walk_wait(void);

/* Around fork(2), by the forking thread: no thread is just being registered with liburcu meanwhile. */
void rcu_before_fork(void);
void rcu_after_fork(void);

/* In the child of a fork, by its only thread, whose reader is `own`: sections of all other threads count as
 * left. The child has no liburcu sections any more. */
void rcu_after_fork_child(const struct reader *own);

#endif
