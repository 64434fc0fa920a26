/* Sets of arena numbers in which a member is found in constant time, however many arenas there are.
 *
 * One set per bucket, each a tree of bits three levels deep, 64 wide:
 *
 *   root[b]: bit i ── middle[i][b]: bit j ── leaf[64 i + j][b]: bit k   ⇔   arena 64 (64 i + j) + k is in set
 * b
 *
 * All words are written by any thread. A bit above the leaves says that there may be a member below it.
 * Invariant, when nobody is inside: a word that is not 0 has its bit one level up set. While writers are
 * inside, a bit above may be missing for a moment (a finder then misses the arena) or left over (a finder
 * finds nothing and takes it away); neither harms, since an answer is a hint which the arena's own bitmap
 * confirms.
 *
 * Order: a writer sets the word below, then looks at the bit above; one that takes a bit above away looks at
 * the word below again afterwards and repairs. Both are sequentially consistent, so at least one of the two
 * sees the other (docs/concurrency.md, model in docs/models/summary.pml).
 */
#ifndef TARN_ARENA_SUMMARY_H
#define TARN_ARENA_SUMMARY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define SUMMARY_BUCKETS 16U
#define SUMMARY_MEMBERS (64U * 64U * 64U)
#define SUMMARY_NONE    UINT32_MAX

struct summary {
    _Atomic uint64_t root[SUMMARY_BUCKETS];
    _Atomic uint64_t middle[64][SUMMARY_BUCKETS];
    _Atomic uint64_t leaf[64 * 64][SUMMARY_BUCKETS];
};

/* bucket < SUMMARY_BUCKETS, member < SUMMARY_MEMBERS. Any thread. */
void summary_add(struct summary *summary, unsigned bucket, uint32_t member);
void summary_remove(struct summary *summary, unsigned bucket, uint32_t member);

/* The lowest member of the lowest bucket that has one, of those whose bit is set in `buckets`; or
 * SUMMARY_NONE. */
uint32_t summary_find(struct summary *summary, uint32_t buckets, uint32_t *bucket);

/* The buckets that have the member, as bits. */
uint32_t summary_buckets_of(struct summary *summary, uint32_t member);

/* The invariant above, where all members are below `bound`. Only when nobody is inside. */
bool summary_is_valid(struct summary *summary, uint32_t bound);

#endif
