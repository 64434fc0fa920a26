#include "heap/heap.h"

#include "base/bits.h"
#include "base/counters.h"
#include "base/fatal.h"
#include "base/probe.h"
#include "heap/mailbox.h"
#include "heap/park.h"
#include "heap/sample.h"
#include "heap/slot_cache.h"
#include "heap/tick.h"
#include "os/settings.h"

/* ---- bins ---- */

/* malloc takes from this pool, or foreign list, from now on. */
static void point_to(struct heap *heap, uint32_t class, struct pool *pool)
{
    heap->bins[class].current = pool;
    size_t most = class_bytes(class);
    if (most > DIRECT_BYTES_MOST)
        return;
    size_t least = class == 0 ? 0 : class_bytes(class - 1) + 1;
    size_t first = (least + BLOCK_ALIGNMENT - 1) / BLOCK_ALIGNMENT;
    for (size_t i = first; i <= most / BLOCK_ALIGNMENT; i++)
        heap->direct[i] = pool;
}

static void queue_insert_after(struct heap *heap, struct pool *before, struct pool *pool)
{
    struct bin *bin = &heap->bins[pool_class(pool)];
    struct pool *after = before != NULL ? before->next : bin->first;
    pool->previous = before;
    pool->next = after;
    if (before != NULL)
        before->next = pool;
    else
        bin->first = pool;
    if (after != NULL)
        after->previous = pool;
    else
        bin->last = pool;
    pool_set_state(pool, POOL_QUEUED);
}

/* Behind the others of its kind; those that hold nothing stay last. */
static void queue_append(struct heap *heap, struct pool *pool)
{
    struct pool *before = heap->bins[pool_class(pool)].last;
    while (before != NULL && pool_used(before) == 0)
        before = before->previous;
    queue_insert_after(heap, before, pool);
}

static void queue_remove(struct heap *heap, struct pool *pool)
{
    struct bin *bin = &heap->bins[pool_class(pool)];
    if (pool->previous != NULL)
        pool->previous->next = pool->next;
    else
        bin->first = pool->next;
    if (pool->next != NULL)
        pool->next->previous = pool->previous;
    else
        bin->last = pool->previous;
    pool->next = NULL;
    pool->previous = NULL;
}

static void close_pool(struct heap *heap, struct pool *pool)
{
    struct span span;
    heap->pool_slots -= pool->slots;
    pool_close(pool, &span);
    slot_cache_put(heap, &span);
}

void heap_set_mixed(struct heap *heap, bool mixed)
{
    heap->mixed = mixed;
    if (heap == heap_self)
        heap_run(heap);
    for (uint32_t class = 0; mixed && class < CLASS_COUNT; ++class)
        point_to(heap, class, (struct pool *)&heap->foreign[class]);
}

/* ---- what happens to a pool ---- */

COLD __attribute__((noreturn)) static void fatal_damaged(const struct pool *pool)
{
    fatal_block("heap corruption: more blocks were freed than allocated in the pool of", pool_start(pool),
                pool->block_bytes, "class");
}

void fatal_overwritten(const void *block, size_t block_bytes)
{
    fatal_block("heap corruption: freed memory was written to at", block, block_bytes, "class");
}

/* A queued pool holds nothing any more. */
static void became_empty(struct heap *heap, struct pool *pool)
{
    queue_remove(heap, pool);
    if (heap->empty_slots + pool->slots > heap_may_keep_slots(heap)) {
        close_pool(heap, pool);
        return;
    }
    heap->empty_slots += pool->slots;
    queue_insert_after(heap, heap->bins[pool_class(pool)].last, pool);
    tick_soon(heap);
}

/* The pool that malloc took from goes where it belongs: it is full, or waits in the queue. */
static void set_aside(struct heap *heap, struct pool *pool)
{
    uint32_t used = owned_read(&pool->count) - 1;
    if (pool->free == &pool_end && pool_carved(pool) == pool->capacity) {
        if (UNLIKELY(used != pool->capacity))
            fatal_damaged(pool);
        pool_set_state(pool, POOL_FULL);
        owned_write(&pool->count, 1);
        return;
    }
    owned_write(&pool->count, used);
    queue_append(heap, pool);
    if (UNLIKELY(used == 0))
        became_empty(heap, pool);
}

static void set_own_aside(struct heap *heap, uint32_t class)
{
    struct bin *bin = &heap->bins[class];
    struct pool *pool = bin->own;
    if (pool == &pool_none)
        return;
    bin->own = &pool_none;
    if (bin->current == pool)
        point_to(heap, class, &pool_none);
    set_aside(heap, pool);
}

/* The class's own pool is this one from now on, in which `used` blocks are in use. */
static void replace_own(struct heap *heap, uint32_t class, struct pool *pool, uint32_t used)
{
    struct bin *bin = &heap->bins[class];
    struct pool *before = bin->own;
    bin->own = pool;
    pool_set_state(pool, POOL_CURRENT);
    owned_write(&pool->count, used + 1);
    if (before != &pool_none)
        set_aside(heap, before);
}

/* A block of a full pool came back. While other pools of the class wait, it waits behind them, so that its
 * blocks gather; else malloc takes from it next: the block is warm, and no pool is fuller. */
static void no_longer_full(struct heap *heap, struct pool *pool, uint32_t used)
{
    uint32_t class = pool_class(pool);
    struct bin *bin = &heap->bins[class];
    if (used > 0 && bin->first == NULL && bin->current == bin->own) {
        replace_own(heap, class, pool, used);
        point_to(heap, class, pool);
        return;
    }
    owned_write(&pool->count, used);
    queue_append(heap, pool);
    if (UNLIKELY(used == 0))
        became_empty(heap, pool);
}

void heap_blocks_came_back(struct heap *heap, struct pool *pool, uint32_t blocks)
{
    uint32_t used = pool_used(pool);
    if (UNLIKELY(blocks > used))
        fatal_damaged(pool);
    used -= blocks;
    switch (pool_state(pool)) {
    case POOL_NONE:
        fatal_damaged(pool);
    case POOL_CURRENT:
        owned_write(&pool->count, used + 1);
        return;
    case POOL_FULL:
        no_longer_full(heap, pool, used);
        return;
    case POOL_QUEUED:
        owned_write(&pool->count, used);
        if (used == 0)
            became_empty(heap, pool);
        return;
    }
}

void heap_pool_event(struct pool *pool)
{
    /* The block just freed is on the list; count is 0. */
    if (LIKELY(pool_state(pool) == POOL_FULL && pool->capacity > 1)) {
        no_longer_full(pool->heap, pool, pool->capacity - 1U);
        return;
    }
    /* As if it had not been counted yet: */
    owned_write(&pool->count, 1);
    heap_blocks_came_back(pool->heap, pool, 1);
}

/* ---- refill ---- */

/* What a mixed heap moves from a pool to the foreign list at once. */
#define FILL_BLOCKS 16U
#define FILL_BYTES  8192U

static struct pool *queued_pool(struct heap *heap, uint32_t class)
{
    struct pool *pool = heap->bins[class].first;
    if (pool == NULL)
        return NULL;
    queue_remove(heap, pool);
    if (pool_used(pool) == 0)
        heap->empty_slots -= pool->slots;
    return pool;
}

static struct pool *fresh_pool(struct heap *heap, uint32_t class)
{
    struct span span;
    if (!slot_cache_take(heap, class_pool_slots(class), class, &span))
        return NULL;
    heap->pool_slots += class_pool_slots(class);
    return pool_open(&span, class, heap);
}

/* Makes the class's own pool one with a block on its list: queued pools, then pages not carved yet, then a
 * fresh pool. */
static struct pool *refill_own(struct heap *heap, uint32_t class)
{
    struct bin *bin = &heap->bins[class];
    struct pool *pool = bin->own;
    if (pool->free != &pool_end || (pool != &pool_none && bin->first == NULL && pool_carve(pool)))
        return pool;
    pool = queued_pool(heap, class);
    if (pool == NULL)
        pool = fresh_pool(heap, class);
    if (pool == NULL && (pool = queued_pool(heap, class)) == NULL) /* adopted while looking for slots */
        return NULL;
    replace_own(heap, class, pool, pool_used(pool));
    if (pool->free == &pool_end)
        pool_carve(pool);
    return pool;
}

/* Some blocks of an own pool, which has one on its list, go on the foreign list. */
static void fill_foreign(struct heap *heap, uint32_t class, struct pool *pool)
{
    struct foreign *foreign = &heap->foreign[class];
    uint32_t most = FILL_BYTES / foreign->block_bytes;
    uint32_t blocks = 0;
    struct block *last = NULL;
    for (struct block *block = pool->free; block != &pool_end && blocks < FILL_BLOCKS && blocks <= most;
         block = block_next(block), blocks++) {
        if (UNLIKELY(!block_is_first_of(block, pool)))
            fatal_overwritten(block, pool->block_bytes);
        block_set_canary(block, (const struct pool *)foreign);
        last = block;
    }
    foreign->free = pool->free;
    pool->free = block_next(last);
    block_set_next(last, &pool_end);
    owned_write(&pool->count, owned_read(&pool->count) + blocks);
    heap->foreign_bytes += (size_t)blocks * foreign->block_bytes;
}

/* Where the class's next block is: among blocks freed onto the foreign list, which are warm and would mostly
 * have to be sent home otherwise, else in an own pool. */
static struct pool *refill(struct heap *heap, uint32_t class)
{
    counter_add(COUNTER_REFILL, 1);
    owned_add(&heap->counts.refills, 1);
    PROBE_2(refill, heap->number, class_bytes(class));
    mailbox_drain(heap);
    struct pool *pool = (struct pool *)&heap->foreign[class];
    if (pool->free == &pool_end)
        pool = refill_own(heap, class);
    if (pool == NULL)
        return NULL;
    if (heap->mixed && pool == heap->bins[class].own) {
        fill_foreign(heap, class, pool);
        pool = (struct pool *)&heap->foreign[class];
    }
    if (pool != heap->bins[class].current)
        point_to(heap, class, pool);
    return pool;
}

void *heap_take_block(struct heap *heap, uint32_t class)
{
    struct pool *pool = heap->bins[class].current;
    if (pool->free == &pool_end && (pool = refill(heap, class)) == NULL)
        return NULL;
    struct block *block = pool->free;
    if (UNLIKELY(!block_is_first_of(block, pool)))
        fatal_overwritten(block, pool->block_bytes);
    block->canary = NULL;
    pool->free = block_next(block);
    owned_increment(&pool->count);
    return block;
}

/* ---- cold services ---- */

static void close_queued_empty(struct heap *heap, uint32_t class)
{
    struct pool *pool;
    while ((pool = heap->bins[class].last) != NULL && pool_used(pool) == 0) {
        queue_remove(heap, pool);
        heap->empty_slots -= pool->slots;
        close_pool(heap, pool);
    }
}

void heap_close_queued_empty_pools(struct heap *heap)
{
    for (uint32_t class = 0; class < CLASS_COUNT && heap->empty_slots > 0; ++class)
        close_queued_empty(heap, class);
}

static void close_empty(struct heap *heap, uint32_t class)
{
    struct pool *pool = heap->bins[class].own;
    if (pool != &pool_none && pool_used(pool) == 0)
        set_own_aside(heap, class);
    close_queued_empty(heap, class);
}

void heap_close_empty_pools(struct heap *heap)
{
    for (uint32_t class = 0; class < CLASS_COUNT; ++class)
        close_empty(heap, class);
}

void heap_close_large_empty_pools(struct heap *heap)
{
    for (uint32_t class = CLASS_LARGE_FIRST; class < CLASS_COUNT; ++class)
        close_empty(heap, class);
}

struct pool *heap_give_pool(struct heap *heap, uint32_t class)
{
    set_own_aside(heap, class);
    struct pool *pool = queued_pool(heap, class);
    if (pool != NULL)
        heap->pool_slots -= pool->slots;
    return pool;
}

void heap_adopt_pool(struct heap *heap, struct pool *pool)
{
    pool_set_owner(pool, heap);
    heap->pool_slots += pool->slots;
    queue_append(heap, pool);
}

bool heap_marks_free(const struct pool *canary, const struct pool *pool)
{
    uintptr_t offset = (uintptr_t)canary % HEAP_ALIGNMENT;
    return canary == pool || (heap_may_mark_free(canary, pool) &&
                              (offset - offsetof(struct heap, foreign)) % sizeof(struct foreign) == 0 &&
                              park_is_heap((const void *)((uintptr_t)canary - offset)));
}

static void initialise_bins(struct heap *heap)
{
    for (size_t i = 0; i < DIRECT_ENTRIES; i++)
        heap->direct[i] = &pool_none;
    for (uint32_t class = 0; class < CLASS_COUNT; ++class) {
        heap->bins[class].current = &pool_none;
        heap->bins[class].own = &pool_none;
        heap->foreign[class].free = &pool_end;
        heap->foreign[class].block_bytes = class_bytes(class);
    }
}

void heap_initialise(struct heap *heap, uint32_t number)
{
    if (TARN_HARDENED)
        secret_initialise();
    initialise_bins(heap);
    heap->number = number;
    heap->claim_batch = 1;
    heap->reader = &heap->own_reader;
    heap->budget_full_bytes = TICK_BUDGET_LEAST_BYTES;
    heap->budget_bytes = TICK_BUDGET_LEAST_BYTES;
    heap->budget_begin_bytes = TICK_BUDGET_LEAST_BYTES;
    heap->point_bytes = heap->point_interval = POINT_BYTES;
    heap->random = (number + UINT64_C(1)) * UINT64_C(0x9e3779b97f4a7c15);
    if (settings.guard_interval > 0)
        sample_begin(heap);
}

static bool bin_is_valid(struct heap *heap, uint32_t class)
{
    struct bin *bin = &heap->bins[class];
    if (bin->own != &pool_none &&
        (bin->own->heap != heap || pool_state(bin->own) != POOL_CURRENT || !pool_is_valid(bin->own)))
        return false;
    if (bin->current != bin->own && bin->current != &pool_none &&
        bin->current != (struct pool *)&heap->foreign[class])
        return false;
    struct pool *before = NULL;
    for (struct pool *pool = bin->first; pool != NULL; before = pool, pool = pool->next)
        if (pool->heap != heap || pool_class(pool) != class || pool->previous != before ||
            pool_state(pool) != POOL_QUEUED || !pool_is_valid(pool) ||
            (before != NULL && pool_used(before) == 0 && pool_used(pool) != 0))
            return false;
    return bin->last == before && (!heap->mixed || bin->current == (struct pool *)&heap->foreign[class]);
}

static uint32_t queued_empty_slots(const struct bin *bin)
{
    uint32_t slots = 0;
    for (const struct pool *pool = bin->first; pool != NULL; pool = pool->next)
        slots += pool_used(pool) == 0 ? pool->slots : 0;
    return slots;
}

bool heap_is_valid(struct heap *heap)
{
    uint32_t empty_slots = 0;
    for (uint32_t class = 0; class < CLASS_COUNT; ++class) {
        if (!bin_is_valid(heap, class))
            return false;
        empty_slots += queued_empty_slots(&heap->bins[class]);
    }
    if (empty_slots != heap->empty_slots)
        return false;
    for (size_t i = 0; i < DIRECT_ENTRIES; i++)
        if (heap->direct[i] != heap->bins[class_of_size(i == 0 ? 1 : i * BLOCK_ALIGNMENT)].current)
            return false;
    return slot_cache_is_valid(heap);
}
