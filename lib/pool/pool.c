#include "pool/pool.h"

#include "base/fatal.h"
#include "os/map.h"
#include "os/settings.h"
#include "pool/trailer.h"

struct block pool_end = {.canary = NULL, .next = NULL};

static uint64_t word_for(const void *heap, uint32_t first_slot)
{
    uint64_t checked = settings.check ? POOL_WORD_CHECKED : 0;
    return (uint64_t)(uintptr_t)heap | checked |
           (offsetof(struct arena, descriptors) + (uint64_t)first_slot * ARENA_DESCRIPTOR_BYTES);
}

static void enter_owner(struct pool *pool, void *heap)
{
    struct arena *arena = pool_arena(pool);
    uint64_t word = word_for(heap, pool->first_slot);
    pool->heap = heap;
    for (uint32_t slot = pool->first_slot; slot < pool->first_slot + pool->slots; slot++) {
        atomic_store_explicit(&arena->slot_class[slot], (uint8_t)pool_class(pool), memory_order_relaxed);
        /* release: pairs with the acquire of a free that finds a word not its own, and of statistics;
         * publishes the fixed fields. */
        atomic_store_explicit(&arena->slot_map[slot], word, memory_order_release);
    }
}

struct pool *pool_open(const struct span *span, uint32_t class, void *heap)
{
    uint32_t slot = span_first_slot(span);
    struct pool *pool = pool_at(span->arena, slot);
    uint32_t slots = class_pool_slots(class);
    CHECK(span->mask == bits_ones(slots) << slot % WORD_SLOTS);
    pool->free = &pool_end;
    owned_write(&pool->count, 1);
    pool->block_bytes = class_bytes(class);
    pool->slots = (uint16_t)slots;
    pool->capacity = (uint16_t)class_pool_blocks(class);
    atomic_store_explicit(&pool->class, (uint16_t) class, memory_order_relaxed);
    pool->first_slot = (uint16_t)slot;
    pool->dirty = (uint32_t)(span->dirty >> slot % WORD_SLOTS);
    pool->next = NULL;
    pool->previous = NULL;
    atomic_store_explicit(&pool->carved, 0, memory_order_relaxed);
    pool_set_state(pool, POOL_CURRENT);
    enter_owner(pool, heap);
    return pool;
}

void pool_set_owner(struct pool *pool, void *heap)
{
    enter_owner(pool, heap);
}

/* Slots up to the last carved block's end, and those that were dirty before. */
static uint64_t dirty_slots_mask(const struct pool *pool)
{
    size_t used_bytes = (size_t)pool_carved(pool) * pool->block_bytes;
    return pool->dirty | bits_ones((uint32_t)((used_bytes + SLOT_BYTES - 1) / SLOT_BYTES));
}

void pool_close(struct pool *pool, struct span *span)
{
    struct arena *arena = pool_arena(pool);
    uint32_t first = pool->first_slot;
    *span = (struct span){
        .arena = arena,
        .mask = bits_ones(pool->slots) << first % WORD_SLOTS,
        .dirty = dirty_slots_mask(pool) << first % WORD_SLOTS,
        .word = first / WORD_SLOTS,
    };
    pool_set_state(pool, POOL_NONE);
    for (uint32_t slot = first; slot < first + pool->slots; slot++)
        atomic_store_explicit(&arena->slot_map[slot], 0, memory_order_relaxed);
}

/* In the hardened build so many blocks are put in disorder at least, where the pool has them. */
#define SHUFFLED_LEAST 8U

/* How many blocks to carve now: those that end within the next page, one at least; all of them where the
 * pages have been touched before. */
static uint32_t carve_end(const struct pool *pool, uint32_t carved)
{
    if (pool->dirty == bits_ones(pool->slots))
        return pool->capacity;
    size_t page = map_page_bytes();
    size_t start = pool->first_slot * SLOT_BYTES; /* where pages are larger than slots, inside of one */
    size_t begin = (size_t)carved * pool->block_bytes;
    size_t least = pool->block_bytes * (TARN_HARDENED ? SHUFFLED_LEAST : 1);
    size_t limit = bits_align_up(start + begin + least, page) - start;
    uint32_t end = (uint32_t)(limit / pool->block_bytes);
    return end < pool->capacity ? end : (uint32_t)pool->capacity;
}

static void carve_in_order(struct pool *pool, uint32_t carved, uint32_t end)
{
    size_t bytes = pool->block_bytes;
    char *first = pool_start(pool) + carved * bytes;
    char *last = pool_start(pool) + (end - 1) * bytes;
    for (char *block = first; block < last; block += bytes)
        block_put((struct block *)(void *)block, pool, (struct block *)(void *)(block + bytes));
    block_put((struct block *)(void *)last, pool, pool->free);
    in_this_order();
    pool->free = (struct block *)(void *)first;
}

static uint64_t next_random(uint64_t *state)
{
    *state += UINT64_C(0x9E3779B97F4A7C15);
    return secret_of((uintptr_t)*state, SECRET_ORDER);
}

/* The hardened build: in an order that nobody can foretell (Fisher and Yates). */
static void carve_shuffled(struct pool *pool, uint32_t carved, uint32_t end)
{
    uint16_t order[POOL_BLOCKS_MOST];
    uint64_t random = (uintptr_t)pool + carved;
    uint32_t count = end - carved;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t other = (uint32_t)(next_random(&random) % (i + 1));
        order[i] = order[other];
        order[other] = (uint16_t)(carved + i);
    }
    for (uint32_t i = 0; i < count; i++) {
        struct block *block =
            (struct block *)(void *)(pool_start(pool) + order[i] * (size_t)pool->block_bytes);
        trailer_make_free(block, pool->block_bytes, pool->dirty != 0);
        block_put(block, pool, pool->free);
        pool->free = block;
    }
}

bool pool_carve(struct pool *pool)
{
    uint32_t carved = pool_carved(pool);
    if (carved == pool->capacity)
        return false;
    uint32_t end = carve_end(pool, carved);
    if (TARN_HARDENED)
        carve_shuffled(pool, carved, end);
    else
        carve_in_order(pool, carved, end);
    atomic_store_explicit(&pool->carved, end, memory_order_relaxed);
    return true;
}

uint32_t pool_used_of(const struct pool *pool, uint32_t capacity)
{
    uint32_t count = owned_read(&pool->count);
    uint32_t used = 0;
    switch (pool_state(pool)) {
    case POOL_NONE:
        break;
    case POOL_CURRENT:
        used = count - 1;
        break;
    case POOL_QUEUED:
        used = count;
        break;
    case POOL_FULL:
        used = capacity;
        break;
    }
    return used <= capacity ? used : capacity; /* read between two writes of the owner */
}

bool pool_list_has(const struct pool *pool, const struct block *block)
{
    uint32_t steps = 0;
    for (const struct block *one = pool->free; one != &pool_end && steps <= pool->capacity;
         one = block_next(one), steps++)
        if (one == block)
            return true;
    return false;
}

bool pool_is_valid(const struct pool *pool)
{
    uint32_t free_blocks = 0;
    for (const struct block *block = pool->free; block != &pool_end; block = block_next(block), free_blocks++)
        if (block_canary(block) != pool || !pool_is_block(pool, block) || free_blocks >= pool->capacity)
            return false;
    if (pool_carved(pool) > pool->capacity)
        return false;
    return pool_state(pool) == POOL_NONE || pool_used(pool) + free_blocks == pool_carved(pool);
}
