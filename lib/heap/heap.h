/* A heap: the owner of pools, and the per-thread cache that malloc takes from.
 *
 *   thread-local heap_self ──► heap
 *                               direct[(bytes + 15) / 16] ──┐
 *                               bins[class].current ────────┴─► pool ──► free list        malloc takes here
 *                               bins[class].first ──► pool ──► pool                       partly used, wait
 *                               foreign[class] ──► blocks of other heaps freed here       taken from like a
 * pool runs, spans: freed runs and empty slots kept for the next other threads ────────────► inbox: chains of
 * this heap's blocks, freed elsewhere
 *
 * Heaps are never unmapped. A heap is running (one thread uses it), parked (its thread has exited; its bit is
 * set in the parked set) or claimed for a while by a thread that tends it. Everything but `inbox` belongs to
 * whoever runs or has claimed the heap; the hand-over is release/acquire on the parked set. Full pools are in
 * no list: the first free of one of their blocks finds them by address.
 *
 * A heap is plain or mixed. With a plain heap a free asks who owns the block: an own one goes on its pool's
 * list, which is the shortest way, one of another heap on the foreign list of its class. Where a thread frees
 * both in turns, the answer cannot be foretold, and the block handed out next is seldom the one just freed. A
 * mixed heap does not ask: all go on the list of their class, malloc takes from there, and fills it from a
 * pool, some blocks at a time. Which it is to be, is seen from what is freed (heap/mailbox).
 *
 * direct[] repeats bins[].current for requests up to 1 KiB, so that the hot path needs no size class.
 * Invariant: for each class, own is &pool_none, or a pool of this heap and class in state CURRENT; current is
 * own or &foreign[class], always the latter when the heap is mixed, and all entries of direct[] for this
 * class are the same; the queue from first to
 * last holds this heap's QUEUED pools of the class, those that hold nothing last. Of these a few are kept
 * (heap_may_keep_slots), so that a list that has just come back whole need not be carved again; they are
 * closed on the tick, or when their slots are wanted.
 *
 * Heap addresses are multiples of 64 KiB, so that a slot map word has room for more than the owner
 * (pool/pool).
 */
#ifndef TARN_HEAP_HEAP_H
#define TARN_HEAP_HEAP_H

#include "arena/arena.h"
#include "base/compiler.h"
#include "heap/counts.h"
#include "os/rcu.h"
#include "pool/pool.h"
#include "pool/size_class.h"

#define HEAP_ALIGNMENT  POOL_OWNER_ALIGNMENT
#define HEAP_COUNT_MOST 65536U

#define DIRECT_BYTES_MOST 1024U
#define DIRECT_ENTRIES    (DIRECT_BYTES_MOST / BLOCK_ALIGNMENT + 1)

/* What a block above DIRECT_BYTES_MOST counts on the budget, whatever its size: with its bytes the heartbeat
 * (heap/tick) would come every few calls, and be most of their price. */
#define MEDIUM_BUDGET_BYTES 256

/* What requests count between two points at which one is counted, on average (counts). */
#define POINT_BYTES ((int64_t)64 << 10)

/* A request that is served outside of pools is dear anyway, and counts so much less. */
#define LARGE_BUDGET_DIVISOR 64

#define SPANS_KEPT 8U
#define RUNS_KEPT  16U

/* Empty slots that a heap may keep, in queued pools and again in its slot cache each: half of its pools. */
#define KEPT_SLOTS_LEAST 16U /* 256 KiB */
#define KEPT_SLOTS_MOST  64U /* 1 MiB */

struct bin {
    struct pool *current; /* malloc takes from here */
    struct pool *own;     /* the pool in state CURRENT */
    struct pool *first;   /* queue of QUEUED pools */
    struct pool *last;
};

/* Blocks of other heaps' pools that were freed here, of one class; with a mixed heap, of any heap's. The
 * beginning is that of a pool, so that malloc can take from it: `free` is the list, whose blocks carry this
 * address as their canary, `taken` counts what malloc took since the last look (mailbox). */
struct foreign {
    struct block *free;
    owned_count taken;
    uint32_t block_bytes;
};

static_assert(offsetof(struct foreign, free) == offsetof(struct pool, free), "malloc takes from either");
static_assert(offsetof(struct foreign, taken) == offsetof(struct pool, count), "malloc counts in either");
static_assert(offsetof(struct foreign, block_bytes) == offsetof(struct pool, block_bytes),
              "messages name either");

/* Freed blocks that wait (quarantine): in the hardened build only. */
#define QUARANTINE_SCATTERED (TARN_HARDENED ? 64U : 1U)
#define QUARANTINE_QUEUED    (TARN_HARDENED ? 448U : 1U)

struct quarantine {
    struct block *scattered[QUARANTINE_SCATTERED]; /* NULL: none */
    struct block *queue[QUARANTINE_QUEUED];        /* a ring */
    uint32_t oldest;                               /* of the queue; the next goes in its place */
    uint32_t draws;                                /* random numbers drawn */
    size_t bytes;                                  /* of all that wait */
};

enum parked_state { PARKED_SETTLED, PARKED_JUST_NOW, PARKED_A_WHILE };

/* A freed run kept for the next of its length. */
struct kept_run {
    void *run;      /* NULL: none */
    uint32_t slots; /* 0 then */
};

struct heap {
    /* hot, the running thread's */
    struct pool *direct[DIRECT_ENTRIES];
    int64_t budget_bytes; /* malloc may hand out this much before it looks at the clock */
    struct bin bins[CLASS_COUNT];
    struct foreign foreign[CLASS_COUNT];
    size_t foreign_bytes;      /* put into foreign[], less what was seen taken out */
    size_t foreign_bytes_most; /* above this it is counted again, and flushed if need be */
    struct kept_run runs[RUNS_KEPT];
    uint32_t run_next;  /* where the next freed run goes */
    uint32_t run_slots; /* in all of them */
    bool mixed;         /* all that is freed goes on foreign[] */

    /* seldom, the running thread's */
    struct span spans[SPANS_KEPT]; /* mask 0: none */
    uint32_t span_slots;           /* in all spans */
    uint32_t span_slots_most;      /* most of them since the last tick that were never needed */
    uint32_t claim_batch;          /* slots to claim at once for the next pool */
    uint32_t pool_slots;           /* in pools of this heap */
    uint32_t empty_slots;          /* in its queued pools that hold nothing */
    int64_t budget_full_bytes;     /* what budget_bytes is set to at the next heartbeat */
    uint64_t heartbeat_ms;
    uint64_t tick_ms;
    int64_t sample_rest_bytes; /* beyond budget_bytes, until the next look at sampling (sample) */
    uint64_t random;           /* never 0 */
    struct reader *reader;     /* the running or tending thread's */
    struct reader own_reader;
    int64_t budget_begin_bytes; /* what budget_bytes was set to last */
    int64_t point_bytes;        /* from there to the next point at which a request is counted (counts) */
    int64_t point_interval;     /* from the last point to that */
    struct heap_counts counts;
    uint32_t number;
    _Atomic uint32_t parked_state; /* enum parked_state; any thread's hint while parked (park) */

    /* any thread pushes, the running thread takes all */
    LINE_ALIGNED struct block *_Atomic inbox;

    LINE_ALIGNED struct quarantine
        quarantine; /* the running thread's; last: the two builds differ here only */
};

static_assert(sizeof(struct heap) <= HEAP_ALIGNMENT, "one heap per unit of the table");

/* Serves nothing: the heap of a thread that has none yet, or no longer. Never written. */
extern struct heap heap_none;
/* The class of no request, in every bin of heap_none. Never written. */
extern struct pool pool_none;

/* The calling thread's heap. */
extern THREAD_LOCAL struct heap *heap_self;

/* What the hot path of free finds its heap's blocks by: the slot map words of its pools differ from this in
 * the low bits only. The address of heap_none, which no word is near, when it is mixed or there is none. */
extern THREAD_LOCAL uint64_t heap_own_word;

/* The calling thread uses this heap from now on. */
ALWAYS_INLINE void heap_run(struct heap *heap)
{
    heap_self = heap;
    heap_own_word = (uintptr_t)(heap->mixed ? &heap_none : heap);
}

/* Makes a fresh, zeroed heap usable. */
void heap_initialise(struct heap *heap, uint32_t number);

/* The slow path of malloc (heap/slow): any reason, any request up to CLASS_BYTES_MOST, from any thread,
 * whether it has a heap or not. NULL and ENOMEM without memory. */
COLD void *heap_malloc_slow(struct heap *heap, size_t bytes);

/* The first free block of the class, from whatever pool; slow paths only. NULL without memory. */
void *heap_take_block(struct heap *heap, uint32_t class);

COLD __attribute__((noreturn)) void fatal_overwritten(const void *block, size_t block_bytes);

/* The pool's count has reached 0 after a free by its owner. */
COLD void heap_pool_event(struct pool *pool);

/* Blocks of an own pool come back from elsewhere and are on its list already. */
void heap_blocks_came_back(struct heap *heap, struct pool *pool, uint32_t blocks);

/* Makes the calling thread's heap mixed, or plain again. */
void heap_set_mixed(struct heap *heap, bool mixed);

/* Gives back queued pools that hold nothing. */
void heap_close_queued_empty_pools(struct heap *heap);

/* The same, the current ones too. */
void heap_close_empty_pools(struct heap *heap);

/* Those of 128 KiB and more: a thread that ends gives them back at once. */
void heap_close_large_empty_pools(struct heap *heap);

/* Takes the first queued pool of the class out of the heap, or NULL. */
struct pool *heap_give_pool(struct heap *heap, uint32_t class);

/* Becomes the owner of a pool that heap_give_pool took out of another heap. */
void heap_adopt_pool(struct heap *heap, struct pool *pool);

static inline uint32_t heap_may_keep_slots(const struct heap *heap)
{
    uint32_t share = heap->pool_slots / 2;
    if (share < KEPT_SLOTS_LEAST)
        return KEPT_SLOTS_LEAST;
    return share < KEPT_SLOTS_MOST ? share : KEPT_SLOTS_MOST;
}

/* Sets what is left of the budget; what was counted on it stays counted. */
static inline void heap_set_budget(struct heap *heap, int64_t bytes)
{
    int64_t used = heap->budget_begin_bytes - heap->budget_bytes;
    heap->budget_begin_bytes = bytes + (used > 0 ? used : 0);
    heap->budget_bytes = bytes;
}

/* Takes something off the budget that is not to be counted. */
static inline void heap_shorten_budget(struct heap *heap, int64_t bytes)
{
    heap_set_budget(heap, heap->budget_bytes - bytes);
}

/* What a request counts on the budget. */
static inline uint64_t heap_budget_weight(size_t bytes)
{
    if (bytes <= DIRECT_BYTES_MOST)
        return bytes;
    return bytes <= CLASS_BYTES_MOST ? MEDIUM_BUDGET_BYTES : bytes / LARGE_BUDGET_DIVISOR;
}

/* 48 bits, xorshift64*: Marsaglia (2003), Vigna (2016). */
static inline uint64_t heap_random(struct heap *heap)
{
    uint64_t x = heap->random;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    heap->random = x;
    return (x * UINT64_C(0x2545f4914f6cdd1d)) >> 16;
}

bool heap_is_valid(struct heap *heap);

/* Whether `canary`, the first word of a block of the pool, marks it as free: the pool's own mark, or that of
 * some heap's foreign list. */
COLD bool heap_marks_free(const struct pool *canary, const struct pool *pool);

/* Whether it is worth asking. */
ALWAYS_INLINE bool heap_may_mark_free(const struct pool *canary, const struct pool *pool)
{
    uintptr_t offset = (uintptr_t)canary % HEAP_ALIGNMENT;
    return canary == pool || offset - offsetof(struct heap, foreign) < sizeof(struct foreign[CLASS_COUNT]);
}

/* malloc for 1 .. DIRECT_BYTES_MOST bytes (0 too). */
ALWAYS_INLINE void *heap_malloc_small(struct heap *heap, size_t bytes)
{
    struct pool *pool = heap->direct[(bytes + BLOCK_ALIGNMENT - 1) / BLOCK_ALIGNMENT];
    struct block *block = pool->free;
    if (UNLIKELY(!block_is_first_of(block, pool)))
        return heap_malloc_slow(heap, bytes);
    if (UNLIKELY((heap->budget_bytes -= (int64_t)bytes) < 0))
        return heap_malloc_slow(heap, bytes);
    block->canary = NULL;
    pool->free = block_next(block);
    owned_increment(&pool->count);
    return block;
}

/* The same for DIRECT_BYTES_MOST < bytes <= CLASS_BYTES_MOST. Each counts MEDIUM_BUDGET_BYTES on the budget.
 */
ALWAYS_INLINE void *heap_malloc_medium(struct heap *heap, size_t bytes)
{
    if (bytes <= DIRECT_BYTES_MOST)
        __builtin_unreachable(); /* spares class_of_size a branch */
    struct pool *pool = heap->bins[class_of_size(bytes)].current;
    struct block *block = pool->free;
    if (UNLIKELY(!block_is_first_of(block, pool)))
        return heap_malloc_slow(heap, bytes);
    if (UNLIKELY((heap->budget_bytes -= MEDIUM_BUDGET_BYTES) < 0))
        return heap_malloc_slow(heap, bytes);
    block->canary = NULL;
    pool->free = block_next(block);
    owned_increment(&pool->count);
    return block;
}

/* Puts a block back on the list of a pool that the calling thread's heap owns. The block has been looked at.
 */
ALWAYS_INLINE void heap_free_own(struct pool *pool, struct block *block)
{
    block_put(block, pool, pool->free);
    in_this_order();
    pool->free = block;
    if (UNLIKELY(owned_decrement_is_zero(&pool->count)))
        heap_pool_event(pool);
}

#endif
