#include "observe/statistics.h"

#include "arena/arena_list.h"
#include "base/bits.h"
#include "heap/park.h"
#include "observe/arena_walk.h"

#include <string.h>

/* Of the pool only what may be read while it is made anew: class, state and count. */
static void add_pool(struct statistics *statistics, const struct pool *pool)
{
    uint32_t number = pool_class(pool);
    struct class_statistics *class = &statistics->classes[number];
    uint32_t capacity = class_pool_blocks(number);
    uint32_t used = pool_used_of(pool, capacity);
    class->pools++;
    class->blocks_used += used;
    class->blocks_capacity += capacity;
    statistics->pool_slots += class_pool_slots(number);
    statistics->block_bytes_used += (size_t)used * class_bytes(number);
}

static void add_slot(struct statistics *statistics, struct arena *arena, uint32_t slot)
{
    /* acquire: pairs with the release in enter_owner (pool/pool); publishes the pool's fixed fields. */
    uint64_t word = atomic_load_explicit(&arena->slot_map[slot], memory_order_acquire);
    if (word == 0)
        return;
    if (word_is_run(word)) {
        statistics->runs++;
        statistics->run_slots += run_word_slots(word);
        return;
    }
    const struct pool *pool = pool_of_word(arena_slot_address(arena, slot), word);
    if (pool == pool_at(arena, slot))
        add_pool(statistics, pool);
}

static void add_arena(void *context, struct arena *arena)
{
    struct statistics *statistics = context;
    statistics->arenas++;
    statistics->arena_bytes += ARENA_BYTES;
    statistics->header_slots += ARENA_SLOTS - ARENA_USABLE_SLOTS;
    statistics->free_slots += arena_free_slots(arena);
    for (uint32_t word = 0; word < ARENA_WORDS; word++)
        statistics->dirty_slots +=
            bits_count(atomic_load_explicit(&arena->dirty[word], memory_order_relaxed));
    for (uint32_t slot = ARENA_HEADER_SLOTS; slot < ARENA_SLOTS; slot++)
        add_slot(statistics, arena, slot);
}

static void add_counts(struct statistics *statistics, const struct heap_counts *counts)
{
    for (uint32_t kind = 0; kind < COUNTED_KINDS; kind++) {
        uint64_t calls = owned_total_read(&counts->kinds[kind].calls);
        statistics->calls += calls;
        statistics->asked_bytes += owned_total_read(&counts->kinds[kind].bytes);
        if (kind < CLASS_COUNT)
            statistics->classes[kind].calls += calls;
    }
    statistics->refills += owned_total_read(&counts->refills);
    statistics->sent_blocks += owned_total_read(&counts->sent_blocks);
}

void statistics_collect(struct statistics *statistics)
{
    memset(statistics, 0, sizeof *statistics);
    arena_walk(add_arena, statistics);
    size_t slots = statistics->arenas * ARENA_SLOTS;
    size_t known =
        statistics->header_slots + statistics->pool_slots + statistics->run_slots + statistics->free_slots;
    statistics->kept_slots = known < slots ? slots - known : 0;
    statistics->heaps = park_bound();
    for (uint32_t number = 0; number < statistics->heaps; number++) {
        statistics->heaps_parked += park_is_parked(number);
        add_counts(statistics, &park_heap(number)->counts);
    }
    statistics->guard = guard_totals();
    statistics->raw = raw_totals();
    statistics->housekeeper = housekeeper_totals();
}
