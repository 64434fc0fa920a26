/* The lock-free global arena list.
 *
 *   number ──► arenas[number] ──► arena          number ∈ exactly one bucket of the summary, by what is free
 * in it
 *
 * A claim looks for the fullest arena that has room for it, through the summary and so in constant time, and
 * then takes the slots by CAS on the arena's own bitmap; the summary only says where to look.
 *
 * Buckets: 5 f + h for arenas with something free and something taken, where f is how full the arena is (0
 * fullest) and h the longest row of free slots, rounded down to 1, 4, 8, 16 or 32; the last bucket holds
 * wholly free arenas. A request for n slots looks in the buckets with a row of at least n, fullest first.
 *
 * Publishing: whoever changed an arena's bitmap compares its bucket with the bitmap, and moves it if they
 * differ. One thread at a time does so per arena; one that comes meanwhile leaves a note (PUBLISHING_AGAIN)
 * and goes on, and the first looks again. Nobody waits.
 *
 * Invariant, when nobody is inside: arenas[n] != NULL and has a free slot ⇔ n is in bucket arena->bucket, and
 * that is the bucket of its bitmap.
 *
 * The ledger counts, over all listed arenas: slots that somebody holds, and free slots that are dirty.
 */
#ifndef TARN_ARENA_ARENA_LIST_H
#define TARN_ARENA_ARENA_LIST_H

#include "arena/arena.h"
#include "os/rcu.h"

struct ledger {
    uint32_t held_slots;
    uint32_t dirty_slots;
};

struct ledger arena_list_ledger(void);

/* Claims slots as arena_claim does, from the fullest listed arena that has room; false when none has.
 * `reader` is the calling thread's. */
bool arena_list_claim(struct reader *reader, uint32_t slots, uint32_t most, struct span *span);

/* Maps a new arena, claims from it and lists it. False when the system has no memory. */
bool arena_list_claim_new(uint32_t slots, uint32_t most, struct span *span);

/* Takes the slots that follow a held one, to make a run longer in place. The caller holds slots of the arena,
 * so it needs no read section. */
bool arena_list_extend(struct arena *arena, uint32_t word, uint64_t mask, struct span *span);

/* Gives slots back. */
void arena_list_release(struct reader *reader, const struct span *span);

/* The arena with this number, or NULL; the caller is in a read section or is the housekeeper. */
struct arena *arena_list_get(uint32_t number);

/* All numbers in use are below this. */
uint32_t arena_list_bound(void);

/* Tells where the tables are (base/published). */
struct published;
void arena_list_publish(struct published *out);

/* For the housekeeper. */

/* Takes every free slot of `want` bits of each word; the ledger's dirty count follows. Returns how many. */
uint32_t arena_list_hold_free(struct arena *arena, const uint64_t want[ARENA_WORDS],
                              uint64_t held[ARENA_WORDS], uint64_t dirty[ARENA_WORDS]);
/* Gives back what arena_list_hold_free took; those in `dirty` as dirty. */
void arena_list_unhold(struct arena *arena, const uint64_t held[ARENA_WORDS],
                       const uint64_t dirty[ARENA_WORDS]);
/* Takes a wholly held, clean arena off the list; from now on no new read section can find it. */
void arena_list_retire(struct arena *arena);
/* Puts a retired arena back. */
void arena_list_revive(struct arena *arena);
/* After a grace period: gives header and addresses back. */
void arena_list_unmap(struct arena *arena);

/* In the child of a fork, by its only thread: threads that were publishing are gone. */
void arena_list_after_fork_child(void);

/* The same for one arena that is not listed. */
void arena_list_forget_publisher(struct arena *arena);

/* The invariant above, and that the ledger is right. Only when nobody is inside. */
bool arena_list_is_valid(void);

#endif
