/* A pool: slots cut into equal blocks of one size class, owned by one heap.
 *
 *   slots:  │ block 0 │ block 1 │ … │ block carved-1 │ not carved yet, never touched │
 *                 ▲         │
 *   free ─────────┘   next ─┴──► … ──► pool_end
 *
 * A free block holds two words: `canary`, the address of its pool's descriptor, and `next`. The canary is set
 * by free and cleared by malloc, so a block that carries it is free: a second free of it is seen, and so is a
 * write through a stale pointer, when the block is taken again. The list ends in pool_end, which carries no
 * canary, so that malloc needs one test for both "list empty" and "list damaged".
 *
 * The descriptor lives in the arena's header, far from the blocks. All fields are written by the owner only;
 * `count`, `state` and the fixed fields may be read by any thread (statistics).
 *
 * used = carved blocks that are not on the list; a block on its way through an inbox is used.
 *   state    | count           | meaning
 *   CURRENT  | used + 1        | its class's malloc takes from here; an empty pool is not noticed
 *   QUEUED   | used            | waits in its bin; count 0 says: empty now
 *   FULL     | 1               | used = capacity, in no list; count 0 says: the first block came back
 * So `free` counts down and tests for 0, whatever the state.
 */
#ifndef TARN_POOL_POOL_H
#define TARN_POOL_POOL_H

#include "arena/arena.h"
#include "base/compiler.h"
#include "base/owned.h"
#include "os/secret.h"
#include "pool/size_class.h"

struct pool;

/* Written and read through the four functions below. */
struct block {
    const struct pool *canary;
    struct block *next;
};

/* In the hardened build both words are encoded, with the block's own address too, so that a word written
 * through a stale pointer, or copied from another block, is no canary. */
ALWAYS_INLINE uintptr_t block_key(const struct block *block)
{
    return TARN_HARDENED ? secret_of((uintptr_t)block, SECRET_LIST) : 0;
}

ALWAYS_INLINE const struct pool *block_canary(const struct block *block)
{
    return (const struct pool *)((uintptr_t)block->canary ^ block_key(block));
}

ALWAYS_INLINE struct block *block_next(const struct block *block)
{
    return (struct block *)((uintptr_t)block->next ^ block_key(block));
}

ALWAYS_INLINE void block_set_canary(struct block *block, const struct pool *canary)
{
    block->canary = (const struct pool *)((uintptr_t)canary ^ block_key(block));
}

ALWAYS_INLINE void block_set_next(struct block *block, struct block *next)
{
    block->next = (struct block *)((uintptr_t)next ^ block_key(block));
}

/* To a signal handler of this thread, the stores before come before those after: a block that is on a list
 * is whole, for exit(3) called there (heap/inspect). */
ALWAYS_INLINE void in_this_order(void)
{
    atomic_signal_fence(memory_order_release);
}

ALWAYS_INLINE void block_put(struct block *block, const struct pool *canary, struct block *next)
{
    block_set_canary(block, canary);
    block_set_next(block, next);
}

enum pool_state { POOL_NONE, POOL_CURRENT, POOL_QUEUED, POOL_FULL };

struct pool {
    struct block *free;
    owned_count count;
    uint32_t block_bytes; /* fixed while the pool lives, as are all below up to `carved` */
    uint16_t capacity;    /* blocks */
    uint16_t slots;
    void *heap;             /* its owner: the heap's identity, also where the slot map has gone by */
    _Atomic uint16_t class; /* says all of the shape to a reader that may look while the pool is made anew */
    uint16_t first_slot;
    _Atomic uint32_t carved; /* blocks */
    _Atomic uint32_t state;  /* enum pool_state */
    uint32_t dirty;          /* slots that were dirty when taken, bit 0 the first; fixed */
    struct pool *next;       /* in its bin's queue */
    struct pool *previous;
};

static_assert(sizeof(struct pool) <= ARENA_DESCRIPTOR_BYTES, "a pool fits its descriptor");
static_assert(sizeof(struct arena) <= 2 * SLOT_BYTES, "a descriptor's offset fits below POOL_WORD_CHECKED");
static_assert(sizeof(struct block) <= BLOCK_ALIGNMENT, "a block fits the smallest class");

/* The end of every list. Read only. */
extern struct block pool_end;

/* Whether the block may follow in a list, as far as can be told without a look at it. */
ALWAYS_INLINE bool block_may_follow(const struct block *block)
{
    return ((uintptr_t)block % BLOCK_ALIGNMENT == 0 && address_index_get(block) == ADDRESS_ARENA) ||
           block == &pool_end;
}

/* Whether the first block of this list is a free one, and not the list's end, nor overwritten. */
ALWAYS_INLINE bool block_is_first_of(const struct block *block, const struct pool *pool)
{
    return block_canary(block) == pool && (!TARN_HARDENED || block_may_follow(block_next(block)));
}

static inline struct pool *pool_at(struct arena *arena, uint32_t slot)
{
    return (struct pool *)(void *)arena->descriptors[slot];
}

static inline struct arena *pool_arena(const struct pool *pool)
{
    return arena_of(pool);
}

static inline char *pool_start(const struct pool *pool)
{
    return arena_slot_address(pool_arena(pool), pool->first_slot);
}

/* Owners' addresses are multiples of this; a slot map word holds
 *   owner | POOL_WORD_CHECKED, with TARN_CHECK | offset of the descriptor in the arena
 * With the checked bit no word is near its owner's address: every free then takes the slow path, which checks
 * all. */
#define POOL_OWNER_ALIGNMENT (4 * SLOT_BYTES)
#define POOL_WORD_CHECKED    (2 * SLOT_BYTES)

/* Of a slot with blocks of the smallest class. */
#define POOL_BLOCKS_MOST (SLOT_BYTES / BLOCK_ALIGNMENT)

/* The pool that has a slot with this word. */
static inline struct pool *pool_in_arena(struct arena *arena, uint64_t word)
{
    return (struct pool *)((uintptr_t)arena + (word & (POOL_WORD_CHECKED - 1)));
}

static inline struct pool *pool_of_word(const void *block, uint64_t word)
{
    return pool_in_arena(arena_of(block), word);
}

/* Whether the word is that of a pool, and not a checked one: not 0, nor a run's. */
static inline bool pool_word_is_plain(uint64_t word)
{
    return (word & (POOL_OWNER_ALIGNMENT - 1)) - offsetof(struct arena, descriptors) <
           sizeof(struct arena) - offsetof(struct arena, descriptors);
}

static inline void *pool_word_heap(uint64_t word)
{
    return (void *)(uintptr_t)(word & ~(POOL_OWNER_ALIGNMENT - 1));
}

static inline enum pool_state pool_state(const struct pool *pool)
{
    return (enum pool_state)atomic_load_explicit(&pool->state, memory_order_relaxed);
}

static inline uint32_t pool_class(const struct pool *pool)
{
    return atomic_load_explicit(&pool->class, memory_order_relaxed);
}

static inline void pool_set_state(struct pool *pool, enum pool_state state)
{
    atomic_store_explicit(&pool->state, (uint32_t)state, memory_order_relaxed);
}

static inline uint32_t pool_carved(const struct pool *pool)
{
    return atomic_load_explicit(&pool->carved, memory_order_relaxed);
}

/* Makes a pool of contiguous held slots and enters `heap` as their owner. State CURRENT, nothing carved. */
struct pool *pool_open(const struct span *span, uint32_t class, void *heap);

/* Takes an empty pool apart; its slots are held by the caller again. Those that were ever carved are dirty.
 */
void pool_close(struct pool *pool, struct span *span);

/* Enters another owner. The caller owns the pool exclusively (its old heap is parked and claimed). */
void pool_set_owner(struct pool *pool, void *heap);

/* The list is empty: puts the blocks of the next page onto it, in address order. False when all are carved.
 */
bool pool_carve(struct pool *pool);

/* Blocks in use of a pool of `capacity` blocks, from any thread; a snapshot. */
uint32_t pool_used_of(const struct pool *pool, uint32_t capacity);

/* Blocks in use; the owner only. */
static inline uint32_t pool_used(const struct pool *pool)
{
    return pool_used_of(pool, pool->capacity);
}

/* Whether the pointer into the pool's slots is the start of a block that was carved; the owner only. */
static inline bool pool_is_block(const struct pool *pool, const void *pointer)
{
    uint32_t number;
    uint32_t offset = (uint32_t)((const char *)pointer - pool_start(pool));
    return class_has_block_at(pool_class(pool), offset, &number) && number < pool_carved(pool);
}

/* The same by any thread, without a look at the descriptor, which its owner writes all the time: whether the
 * pointer, in this slot, which has this word, is the start of a block, carved or not. *class gets the pool's
 * class. */
ALWAYS_INLINE bool pool_slot_has_block(struct arena *arena, uint32_t slot, uint64_t word, const void *pointer,
                                       uint32_t *class)
{
    uint32_t descriptor =
        (uint32_t)((word & (POOL_WORD_CHECKED - 1)) - offsetof(struct arena, descriptors)); /* its offset */
    uint32_t offset = (uint32_t)((uintptr_t)pointer - (uintptr_t)arena) -
                      descriptor * (uint32_t)(SLOT_BYTES / ARENA_DESCRIPTOR_BYTES);
    uint32_t number;
    *class = atomic_load_explicit(&arena->slot_class[slot], memory_order_relaxed);
    return class_has_block_at(*class, offset, &number);
}

static inline bool pool_word_has_block(const void *pointer, uint64_t word, uint32_t *class)
{
    return pool_slot_has_block(arena_of(pointer), arena_slot_of(pointer), word, pointer, class);
}

/* Whether the block is on the pool's list; the owner only. */
bool pool_list_has(const struct pool *pool, const struct block *block);

/* The equations above; walks the list. The owner only. */
bool pool_is_valid(const struct pool *pool);

#endif
