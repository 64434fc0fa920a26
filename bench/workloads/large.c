/*
 * Large blocks: images, columns of a table, network and file buffers of half a MiB to 8 MiB. Every byte is
 * written, because that is what such blocks are for, so the copying and the page faults are the price, and an
 * allocator wins by not asking the kernel for the same pages again and again; it may lose by keeping too many
 * of them.
 *
 * Each thread holds a few blocks and replaces one at random: mostly with malloc; sometimes with calloc, whose
 * bytes must be zero; sometimes the block grows by realloc, which must keep its bytes.
 */
#include "../support.h"
#include "../workload.h"

#include <stdlib.h>

enum {
    BLOCKS_PER_THREAD = 6, /* at most, and */
    BLOCKS = 128,          /* of all threads together, or many threads would need gigabytes */
    SMALLEST_BYTES = 512 * 1024,
    LARGEST_BYTES = 8 * 1024 * 1024,
    PROBE_BYTES = 4096, /* zeros are looked for at this distance */
    CHOICES = 8,        /* of which */
    CALLOC_CHOICES = 1,
    REALLOC_CHOICES = 2,
    LINE_BYTES = 64,
};

struct large_block {
    unsigned char *bytes;
    size_t size;
    unsigned char fill;
};

struct holder {
    _Alignas(LINE_BYTES) struct large_block blocks[BLOCKS_PER_THREAD];
};

struct large {
    int threads;
    uint32_t blocks_per_thread;
    struct size_table sizes;
    struct holder *holders;
};

static void check_bytes(const unsigned char *bytes, size_t size, unsigned char expected)
{
    for (size_t at = 0; at < size; at += PROBE_BYTES)
        if (bytes[at] != expected)
            block_is_wrong(bytes, size, at);
    if (bytes[size - 1] != expected)
        block_is_wrong(bytes, size, size - 1);
}

static void write_from(struct large_block *block, size_t start)
{
    memset(block->bytes + start, block->fill, block->size - start);
}

static void replace(struct large_block *block, size_t size, unsigned char fill, bool zeroed)
{
    if (block->bytes != NULL)
        check_bytes(block->bytes, block->size, block->fill);
    free(block->bytes);
    block->bytes = zeroed ? must_calloc(size, 1) : must_malloc(size);
    block->size = size;
    block->fill = fill;
    if (zeroed)
        check_bytes(block->bytes, size, 0);
    write_from(block, 0);
}

/* By a half, as a vector of bytes does, up to the largest size. */
static void grow(struct large_block *block)
{
    size_t old_size = block->size;
    size_t size = old_size + old_size / 2;

    block->size = size < LARGEST_BYTES ? size : LARGEST_BYTES;
    block->bytes = must_realloc(block->bytes, block->size);
    check_bytes(block->bytes, old_size, block->fill);
    write_from(block, old_size);
}

static void round_of_blocks(void *state, struct turn *turn)
{
    struct large *large = state;
    struct holder *holder = &large->holders[turn->thread];

    for (uint64_t count = 0; count < turn->operations; count++) {
        struct large_block *block = &holder->blocks[rng_below(&turn->rng, large->blocks_per_thread)];
        size_t size = size_table_draw(&large->sizes, &turn->rng);
        unsigned char fill = (unsigned char)(rng_below(&turn->rng, 255) + 1);
        uint32_t choice = rng_below(&turn->rng, CHOICES);

        if (choice < REALLOC_CHOICES && block->bytes != NULL)
            grow(block);
        else
            replace(block, size, fill, choice >= CHOICES - CALLOC_CHOICES);
    }
}

static void *prepare(const struct workload *workload, int threads)
{
    struct large *large = must_calloc(1, sizeof(*large));

    (void)workload;
    large->threads = threads;
    large->blocks_per_thread =
        (uint32_t)(threads * BLOCKS_PER_THREAD > BLOCKS ? BLOCKS / threads : BLOCKS_PER_THREAD);
    size_table_fill(&large->sizes, SMALLEST_BYTES, LARGEST_BYTES);
    large->holders = must_aligned(LINE_BYTES, (size_t)threads * sizeof(*large->holders));
    memset(large->holders, 0, (size_t)threads * sizeof(*large->holders));
    return large;
}

static void finish(void *state)
{
    struct large *large = state;

    for (int thread = 0; thread < large->threads; thread++)
        for (int index = 0; index < BLOCKS_PER_THREAD; index++)
            free(large->holders[thread].blocks[index].bytes);
    free(large->holders);
    free(large);
}

static const struct workload large_workloads[] = {
    {
        .name = "large",
        .operation = "block of 0.5 to 8 MiB, all of it written, put in the place of an older one",
        .threads = {{1, true}, {2, false}, {4, true}, {16, false}, {64, false}},
        .operations = 120,
        .rounds = 3,
        .prepare = prepare,
        .round = round_of_blocks,
        .finish = finish,
    },
};

const struct workload_family large_family = {large_workloads, WORKLOAD_COUNT(large_workloads)};
