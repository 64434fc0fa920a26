/* Giving memory back: dirty free slots are purged, wholly empty arenas are retired.
 *
 * There is no thread for it. A thread on a slow path now and then calls housekeeper_tick; whoever gets the
 * lock does a bounded piece of work, everybody else goes on at once.
 *
 *   slot freed ──► dirty ──(dirty at two ticks, or its arena at rest)──► purged ──► all slots clean ──► arena
 * retired │ header and addresses wait revived when a new arena is wanted  ◄──────┤ ▼ unmapped after a grace
 * period
 *
 * Dirty memory is bounded in two ways. By age: what stays dirty and free for the purge delay is purged. By
 * bytes: above limit = max(dirty limit, held / 8) the delay is a quarter, and what exceeds the hard bound of
 * max(16 dirty limits, held) is purged at once, also by the thread that frees.
 *
 * Lock rank: below the raw lock and the late-heap lock (docs/concurrency.md). Never waited for on a path of
 * malloc or free; malloc_trim and fork wait for it. Whoever keeps house for longer than a tick lets forks
 * pass in between, and waits for them; in malloc that is so only where the system has no memory left.
 */
#ifndef TARN_ARENA_HOUSEKEEPER_H
#define TARN_ARENA_HOUSEKEEPER_H

#include "arena/arena.h"
#include "os/rcu.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Puts a retired arena back on the list; false when there is none, or somebody else is keeping house. */
bool housekeeper_revive_one(void);

/* Purges and retires what is due at `now_ms`. Never blocks. Any thread. */
void housekeeper_tick(uint64_t now_ms);

/* Is there so much dirty memory that housekeeper_tick should be called without waiting for the next tick? */
bool housekeeper_is_urgent(void);

/* Purges all dirty free slots and unmaps all empty arenas but `keep_bytes` worth; may block for a grace
 * period. Returns the bytes given back. For malloc_trim. */
size_t housekeeper_trim(size_t keep_bytes);

/* In need of memory or addresses: purges all dirty free slots and unmaps what empty arenas it can, without
 * waiting for anybody but forks. True when something was given back. Never inside a section. */
bool housekeeper_reclaim(void);

/* How long a heap may keep empty slots for itself, and the time between two ticks. */
uint64_t housekeeper_interval_ms(void);

/* Totals since the start, for statistics. */
struct housekeeper_totals {
    uint64_t purged_bytes;
    uint64_t purge_calls;
    uint64_t retired_arenas;
    uint64_t unmapped_arenas;
    uint64_t revived_arenas;
};
struct housekeeper_totals housekeeper_totals(void);

/* Tells where the tables are (base/published). */
struct published;
void housekeeper_publish(struct published *out);

void housekeeper_before_fork(void);
void housekeeper_after_fork(void);
/* In the child, with the lock still held. */
void housekeeper_after_fork_child(void);

/* Retired arenas are held wholly, clean and off the list, and `revivable` tells whether there are any. Only
 * when nobody is inside. */
bool housekeeper_is_valid(void);

#endif
