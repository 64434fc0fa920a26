/*
 * The hot path of one size class: nothing but malloc and free of one size, with a handful of blocks alive in
 * a ring, the oldest freed as a new one comes. The first and the last word are written, so a block that is
 * not in the cache shows. This is the price of an instruction more or less on the fast path, and of nothing
 * else.
 */
#include "../support.h"
#include "../workload.h"

#include <stdlib.h>

enum { LIVE_BLOCKS = 64, LINE_BYTES = 64 };

struct ring {
    _Alignas(LINE_BYTES) unsigned char *blocks[LIVE_BLOCKS];
    uint64_t next; /* also the tag of the next block */
};

struct hot {
    size_t size;
    int threads;
    struct ring *rings; /* one for each thread */
};

static void mark(unsigned char *block, size_t size, uint64_t tag)
{
    word_put(block, tag);
    word_put(block + size - WORD_BYTES, tag);
}

static void check_and_free(unsigned char *block, size_t size, uint64_t tag)
{
    if (word_get(block) != tag)
        block_is_wrong(block, size, 0);
    if (word_get(block + size - WORD_BYTES) != tag)
        block_is_wrong(block, size, size - WORD_BYTES);
    free(block);
}

static void round_of_pairs(void *state, struct turn *turn)
{
    struct hot *hot = state;
    struct ring *ring = &hot->rings[turn->thread];
    size_t size = hot->size;

    for (uint64_t count = 0; count < turn->operations; count++) {
        uint64_t tag = ring->next++;
        unsigned char **place = &ring->blocks[tag % LIVE_BLOCKS];

        if (*place != NULL)
            check_and_free(*place, size, tag - LIVE_BLOCKS);
        *place = must_malloc(size);
        mark(*place, size, tag);
    }
}

static void *prepare(const struct workload *workload, int threads)
{
    struct hot *hot = must_malloc(sizeof(*hot));
    size_t bytes = (size_t)threads * sizeof(*hot->rings);

    hot->size = *(const size_t *)workload->parameters;
    hot->threads = threads;
    hot->rings = must_aligned(LINE_BYTES, bytes);
    memset(hot->rings, 0, bytes);
    return hot;
}

static void finish(void *state)
{
    struct hot *hot = state;

    for (int thread = 0; thread < hot->threads; thread++)
        for (int index = 0; index < LIVE_BLOCKS; index++)
            free(hot->rings[thread].blocks[index]);
    free(hot->rings);
    free(hot);
}

static const size_t sizes[] = {8,    16,   32,   64,    128,   256,   512,   1024,
                               2048, 4096, 8192, 16384, 32768, 65536, 262144};

/* Fewer operations for the large ones, whose blocks do not fit in a cache. */
#define HOT_ROW(index, title, count, wanted)                                                                 \
    {                                                                                                        \
        .name = "hot/" title, .operation = "free and malloc of " title,                                      \
        .threads = {{1, wanted}, {2, false}, {4, false}, {16, false}, {64, false}}, .operations = (count),   \
        .rounds = 3, .parameters = &sizes[index], .prepare = prepare, .round = round_of_pairs,               \
        .finish = finish                                                                                     \
    }

static const struct workload hot_workloads[] = {
    HOT_ROW(0, "8B", 4000000, false),     HOT_ROW(1, "16B", 4000000, true),
    HOT_ROW(2, "32B", 4000000, false),    HOT_ROW(3, "64B", 4000000, true),
    HOT_ROW(4, "128B", 4000000, false),   HOT_ROW(5, "256B", 4000000, true),
    HOT_ROW(6, "512B", 4000000, false),   HOT_ROW(7, "1KiB", 2000000, true),
    HOT_ROW(8, "2KiB", 2000000, false),   HOT_ROW(9, "4KiB", 2000000, false),
    HOT_ROW(10, "8KiB", 2000000, true),   HOT_ROW(11, "16KiB", 2000000, false),
    HOT_ROW(12, "32KiB", 500000, false),  HOT_ROW(13, "64KiB", 500000, true),
    HOT_ROW(14, "256KiB", 200000, false),
};

const struct workload_family hot_family = {hot_workloads, WORKLOAD_COUNT(hot_workloads)};
