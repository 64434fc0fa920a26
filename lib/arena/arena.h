/* An arena: 4 MiB of address space at a multiple of 4 MiB, cut into 256 slots of 16 KiB.
 *
 *   slot 0, 1                         slot 2 … 255
 *   ┌──────────────────────────────┬──────┬──────┬─────────────┬── … ──┐
 *   │ header: descriptors, slot map│ pool │ pool │ run         │       │
 *   └──────────────────────────────┴──────┴──────┴─────────────┴── … ──┘
 *
 * In the hardened build the last pages of the header's slots, and the last slot, are inaccessible: between
 * blocks and what describes them, on either side.
 *
 * The header's pages are touched as they are needed: a descriptor page serves 64 slots.
 *
 *   who writes                     | field
 *   -------------------------------|------------------------------------------------------------
 *   the holder of the slot         | descriptors[slot], slot_map[slot], slot_class[slot], its bit in dirty
 *   any thread                     | free, publishing, bucket, released_ms (arena_list)
 *   the housekeeper                | aged, next_retired
 *   fixed once the arena is listed | mark, number, forbidden
 *
 * Holding a slot: its bit in `free` is 0 and this thread made it so (or received the slot from who did).
 *   free bit 1                 ⇒ slot_map[slot] == 0, no pointer to it exists outside
 *   dirty bit 1                ⇒ the slot is free, and some page of it may be resident
 *   free bit 1, dirty bit 0    ⇒ all its pages read as zeroes
 * Pages of a slot pass from one holder to the next by release on `free` in arena_release and acquire in the
 * claim.
 *
 * slot_map and slot_class change when a pool or run begins or ends, and are, with the mark, all that a free
 * by another thread reads; the descriptors change with every call of the owner, and lie on other lines.
 *
 * A slot map word says who serves the slot, and where its pool or run begins:
 *   0                                        nobody
 *   heap | offset of the descriptor          a pool's slot, owned by that heap (pool/pool)
 *   GUARDED_WORD                             guarded blocks (guard/guard)
 *   1 | slots << 16 | first slot << 32       the first slot of a run (its other slots hold 0)
 */
#ifndef TARN_ARENA_ARENA_H
#define TARN_ARENA_ARENA_H

#include "arena/address_index.h"
#include "base/bits.h"
#include "base/compiler.h"
#include "base/owned.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARENA_LOG2             GRANULE_LOG2
#define ARENA_BYTES            GRANULE_BYTES
#define SLOT_LOG2              14
#define SLOT_BYTES             (UINT64_C(1) << SLOT_LOG2)
#define ARENA_SLOTS            256U
#define ARENA_HEADER_SLOTS     2U
#define ARENA_GUARD_SLOTS      (TARN_HARDENED ? 1U : 0U) /* the last, before what lies behind the arena */
#define ARENA_END_SLOT         (ARENA_SLOTS - ARENA_GUARD_SLOTS)
#define ARENA_USABLE_SLOTS     (ARENA_END_SLOT - ARENA_HEADER_SLOTS)
#define ARENA_WORDS            4U
#define WORD_SLOTS             64U
#define ARENA_DESCRIPTOR_BYTES 64U

/* Claims of contiguous slots do not cross a word of the bitmap; runs are at most this long. */
#define SPAN_SLOTS_MOST 32U

/* Every slot of a guarded arena (guard/guard), whose header has no bitmaps and is in no list. */
#define GUARDED_WORD UINT64_C(2)

static inline uint64_t run_word(uint32_t first_slot, uint32_t slots)
{
    return 1 | (uint64_t)slots << 16 | (uint64_t)first_slot << 32;
}

static inline bool word_is_run(uint64_t word)
{
    return (word & 1) != 0;
}

static inline uint32_t run_word_slots(uint64_t word)
{
    return (uint32_t)(word >> 16) & 0xffff;
}

struct arena {
    _Atomic uint64_t slot_map[ARENA_SLOTS];  /* at offset 0: one instruction less in free */
    _Atomic uint8_t slot_class[ARENA_SLOTS]; /* of the pool that has the slot, while the slot map says so */
    LINE_ALIGNED _Atomic uint64_t mark;      /* arena_mark of its address; on the page of the slot map */
    uint32_t number;
    uint32_t forbidden; /* inaccessible parts */
    LINE_ALIGNED unsigned char descriptors[ARENA_SLOTS][ARENA_DESCRIPTOR_BYTES];
    LINE_ALIGNED _Atomic uint64_t free[ARENA_WORDS];
    _Atomic uint64_t dirty[ARENA_WORDS];
    LINE_ALIGNED _Atomic uint32_t publishing;
    _Atomic uint32_t bucket;
    _Atomic uint64_t released_ms; /* when slots last came back, any thread */
    LINE_ALIGNED uint64_t aged[ARENA_WORDS];
    struct arena *next_retired;
};

static_assert(sizeof(struct arena) <= ARENA_HEADER_SLOTS * SLOT_BYTES, "the header fits its slots");
static_assert(offsetof(struct arena, descriptors) % CACHE_LINE == 0, "a descriptor is a cache line");

/* Slots of one bitmap word held by one thread: bits of `mask` in word `word` of `arena`. */
struct span {
    struct arena *arena;
    uint64_t mask;
    uint64_t dirty; /* those of mask whose pages may be resident */
    uint32_t word;
};

static inline struct arena *arena_of(const void *pointer)
{
    return (struct arena *)((uintptr_t)pointer & ~(uintptr_t)(ARENA_BYTES - 1));
}

/* Of another copy of the library in the process it differs. */
static inline uintptr_t arena_mark(const struct arena *arena)
{
    return (uintptr_t)arena ^ (uintptr_t)&address_index_root;
}

/* Whether this, whose slot map can be read, is an arena of ours. Cheaper than the address index, and wrong
 * for other memory only if that holds the same number in the same place. */
static inline bool arena_is_marked(const struct arena *arena)
{
    /* As the hot path reads the slot map: a sanitizer must not look at it. */
    return owned_equals(&arena->mark, arena_mark(arena));
}

static inline uint32_t arena_slot_of(const void *pointer)
{
    return (uint32_t)((uintptr_t)pointer >> SLOT_LOG2) % ARENA_SLOTS;
}

static inline char *arena_slot_address(struct arena *arena, uint32_t slot)
{
    return (char *)arena + (size_t)slot * SLOT_BYTES;
}

static inline uint32_t span_first_slot(const struct span *span)
{
    return span->word * WORD_SLOTS + (uint32_t)__builtin_ctzll(span->mask);
}

/* The slots of a bitmap word that may be given out. */
static inline uint64_t arena_usable_mask(uint32_t word)
{
    uint64_t mask = word == 0 ? ~bits_ones(ARENA_HEADER_SLOTS) : ~UINT64_C(0);
    return word == ARENA_WORDS - 1 ? mask & bits_ones(WORD_SLOTS - ARENA_GUARD_SLOTS) : mask;
}

/* A fresh mapping becomes an arena whose usable slots are all free and clean. */
void arena_initialise(struct arena *arena, uint32_t number);

/* Takes `slots` contiguous slots, or, when `slots` is 1, up to `most` of one word in any order; dirty slots
 * before clean ones. False when this arena has none. Any thread. */
bool arena_claim(struct arena *arena, uint32_t slots, uint32_t most, struct span *span);

/* Takes exactly the slots of `mask` if all are free. Any thread. */
bool arena_claim_exactly(struct arena *arena, uint32_t word, uint64_t mask, struct span *span);

/* Gives held slots back: those in span->dirty as dirty. Their slot map words are 0 by now. The arena may be
 * gone as soon as this returns, unless the caller is in a read section. */
void arena_release(const struct span *span);

uint32_t arena_free_slots(struct arena *arena);

#define ROW_LOG2_MOST 5U

/* What is free, at a glance: slots, and log2 of the length of the longest row of them in a word, rounded
 * down, ROW_LOG2_MOST at most (0 also where nothing is free). */
struct arena_room {
    uint32_t free_slots;
    uint32_t row_log2;
};
struct arena_room arena_room(struct arena *arena);

bool arena_is_valid(struct arena *arena);

#endif
