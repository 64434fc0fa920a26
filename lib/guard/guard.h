/* Guarded blocks: a few allocations, picked by sampling (heap/sample), lie on pages of their own between
 * pages that nobody may touch.
 *
 *   place:  │ forbidden 16 KiB │ 32 KiB: forbidden … │ page: pattern, BLOCK, pattern │   next place's
 * forbidden …
 *
 * Mostly a block ends where its last page ends, so that the first byte behind it faults (with a size that is
 * no multiple of 16, the first behind the next multiple); of some it is the first byte that begins a page,
 * and the byte before it faults. What is left of the pages holds a pattern, which is looked at when the block
 * is freed. A freed block's pages are given back and forbidden; its place waits in a queue until all places
 * that may be made have been used, and an eighth of them were freed after it.
 *
 * Places lie in arenas of their own kind: at a multiple of 4 MiB, with a header that has the mark and the
 * slot map, so that free finds its way, and the places' records in the room of the descriptors. They are in
 * no list, nobody claims slots of them, and they are never unmapped.
 *
 *   who writes                            | field
 *   --------------------------------------|------------------------------------------------
 *   under the guard lock                  | next, the queue, the table of arenas
 *   who takes the place, until it is LIVE | start, bytes, allocated
 *   of several frees the one that made it | freed
 *   FREEING                               |
 *
 * The lock is the innermost; it is held while an arena is mapped, and not while a stack is taken.
 */
#ifndef TARN_GUARD_GUARD_H
#define TARN_GUARD_GUARD_H

#include "arena/arena.h"
#include "os/stack.h"

#define GUARD_BYTES_MOST  ((size_t)32 << 10)
#define GUARD_ARENAS_MOST 128U

enum guard_state { GUARD_NEVER, GUARD_LIVE, GUARD_FREEING, GUARD_FREED };

struct guard_place {
    struct guard_place *next; /* in the queue */
    char *start;              /* of the block */
    size_t bytes;             /* as asked for */
    _Atomic uint32_t state;   /* enum guard_state */
    struct stack allocated;
    struct stack freed; /* thread 0: not yet */
};

/* A guarded block of `bytes`, at most GUARD_BYTES_MOST, aligned to 16 and, when its size is a multiple of a
 * power of two up to 16 KiB, to that. `random` decides where it lies. NULL where none is to be had: as many
 * as may be are in use, the kernel refuses, or the unwinder itself allocates. Any thread. */
void *guard_take(size_t bytes, uint64_t random);

/* The word of the pointer's slot is GUARDED_WORD. Anything but a live block's start is reported and fatal; so
 * is a pattern that was written to. */
void guard_free(void *pointer);

/* The same precondition; the size that was asked for. */
bool guard_is_live(const void *pointer, size_t *bytes);

/* The place that an address belongs to: the one whose block is nearest; NULL where no block ever was, and for
 * an address outside of guarded arenas. Async-signal-safe. */
struct guard_place *guard_nearest(const void *address);

/* So many have been made, so many wait. */
struct guard_totals {
    size_t live_blocks;
    size_t live_bytes;
    size_t places;
    size_t waiting;
};
struct guard_totals guard_totals(void);

/* Tells where the tables are (base/published). */
struct published;
void guard_publish(struct published *out);

void guard_before_fork(void);
void guard_after_fork(void);

#endif
