/*
 * A burst: many blocks are made, then all are freed, in the order they were made, in reverse, or in a random
 * one. Building and dropping a tree, a document or a result set does this. It empties every cache of the
 * allocator and then overfills it, and the random order meets memory that no prefetcher foresees.
 */
#include "../support.h"
#include "../workload.h"

#include <stdlib.h>

enum { BLOCKS_PER_BURST = 20000, SMALLEST_BYTES = 16, LARGEST_BYTES = 512 };

enum order { ORDER_SAME, ORDER_REVERSE, ORDER_RANDOM };

struct entry {
    void *block;
    uint32_t size;
    uint32_t tag;
};

struct burst {
    enum order order;
    struct size_table sizes;
    struct entry *entries; /* BLOCKS_PER_BURST of each thread */
};

static void shuffle(struct entry *entries, struct rng *rng)
{
    for (uint32_t left = BLOCKS_PER_BURST; left > 1; left--) {
        uint32_t other = rng_below(rng, left);
        struct entry entry = entries[left - 1];

        entries[left - 1] = entries[other];
        entries[other] = entry;
    }
}

static void reverse(struct entry *entries)
{
    for (uint32_t low = 0, high = BLOCKS_PER_BURST - 1; low < high; low++, high--) {
        struct entry entry = entries[low];

        entries[low] = entries[high];
        entries[high] = entry;
    }
}

static void one_burst(struct burst *burst, struct entry *entries, struct rng *rng)
{
    for (uint32_t index = 0; index < BLOCKS_PER_BURST; index++) {
        struct entry *entry = &entries[index];

        entry->size = size_table_draw(&burst->sizes, rng);
        entry->tag = index;
        entry->block = must_malloc(entry->size);
        block_write(entry->block, entry->size, entry->tag);
    }
    if (burst->order == ORDER_REVERSE)
        reverse(entries);
    if (burst->order == ORDER_RANDOM)
        shuffle(entries, rng);
    for (uint32_t index = 0; index < BLOCKS_PER_BURST; index++) {
        block_check(entries[index].block, entries[index].size, entries[index].tag);
        free(entries[index].block);
    }
}

static void round_of_bursts(void *state, struct turn *turn)
{
    struct burst *burst = state;
    struct entry *mine = &burst->entries[turn->thread * BLOCKS_PER_BURST];

    for (uint64_t count = 0; count < turn->operations; count++)
        one_burst(burst, mine, &turn->rng);
}

static void *prepare(const struct workload *workload, int threads)
{
    struct burst *burst = must_malloc(sizeof(*burst));

    burst->order = *(const enum order *)workload->parameters;
    size_table_fill(&burst->sizes, SMALLEST_BYTES, LARGEST_BYTES);
    burst->entries = must_calloc((size_t)threads * BLOCKS_PER_BURST, sizeof(*burst->entries));
    return burst;
}

static void finish(void *state)
{
    struct burst *burst = state;

    free(burst->entries);
    free(burst);
}

static const enum order same = ORDER_SAME;
static const enum order reversed = ORDER_REVERSE;
static const enum order random_order = ORDER_RANDOM;

static const struct workload burst_workloads[] = {
    {
        .name = "burst/same",
        .operation = "burst of 20,000 blocks of 16 to 512 B, freed in the order they were made",
        .threads = {{1, true}, {2, false}, {4, false}, {16, false}, {64, false}},
        .operations = 64,
        .rounds = 2,
        .parameters = &same,
        .prepare = prepare,
        .round = round_of_bursts,
        .finish = finish,
    },
    {
        .name = "burst/reverse",
        .operation = "burst of 20,000 blocks of 16 to 512 B, freed last first",
        .threads = {{1, true}, {2, false}, {4, false}, {16, false}, {64, false}},
        .operations = 64,
        .rounds = 2,
        .parameters = &reversed,
        .prepare = prepare,
        .round = round_of_bursts,
        .finish = finish,
    },
    {
        .name = "burst/random",
        .operation = "burst of 20,000 blocks of 16 to 512 B, freed in a random order",
        .threads = {{1, true}, {2, false}, {4, true}, {16, false}, {64, false}},
        .operations = 64,
        .rounds = 2,
        .parameters = &random_order,
        .prepare = prepare,
        .round = round_of_bursts,
        .finish = finish,
    },
};

const struct workload_family burst_family = {burst_workloads, WORKLOAD_COUNT(burst_workloads)};
