/*
 * calloc. Memory fresh from the kernel is zero, and an allocator that knows so saves the writing; memory that
 * was used before must be cleared. The cold row frees nothing until the end, so all of its memory is fresh:
 * writing zeros there would touch every page twice. The recycled row replaces blocks that were written, so
 * what comes back is dirty.
 *
 * Zeros are looked for at the start, at the end and in every stretch between before a block is written.
 */
#include "../support.h"
#include "../workload.h"

enum {
    SMALLEST_BYTES = 64,
    LARGEST_BYTES = 64 * 1024,
    RECYCLED_BLOCKS = 64, /* of each thread */
    PROBE_BYTES = 512,
};

struct zeroed_kind {
    bool cold;
};

struct zeroed {
    struct zeroed_kind kind;
    int threads;
    size_t blocks_per_thread;
    struct size_table sizes;
    struct piece *pieces; /* blocks_per_thread of each thread */
};

static void check_zeros(const void *block, size_t size)
{
    const unsigned char *bytes = block;

    for (size_t at = 0; at + WORD_BYTES <= size; at += PROBE_BYTES)
        if (word_get(bytes + at) != 0)
            block_is_wrong(block, size, at);
    if (word_get(bytes + size - WORD_BYTES) != 0)
        block_is_wrong(block, size, size - WORD_BYTES);
}

static struct piece zeroed_piece(const struct zeroed *zeroed, struct rng *rng)
{
    size_t size = size_table_draw(&zeroed->sizes, rng);
    void *block = must_calloc(1, size);

    check_zeros(block, size);
    return piece_of(block, size, rng_next(rng) | 1); /* a word of zeros would not be dirty */
}

/* In the cold rows no place is used twice. */
static void round_of_blocks(void *state, struct turn *turn)
{
    struct zeroed *zeroed = state;
    struct piece *mine = &zeroed->pieces[(size_t)turn->thread * zeroed->blocks_per_thread];
    uint64_t first = turn->round * turn->operations;

    for (uint64_t count = 0; count < turn->operations; count++) {
        struct piece *piece = &mine[(first + count) % zeroed->blocks_per_thread];

        piece_free(piece);
        *piece = zeroed_piece(zeroed, &turn->rng);
    }
}

/* Shares differ by one, and there is a warm-up round. */
static size_t blocks_of_all_rounds(const struct workload *workload, int threads)
{
    return (size_t)(workload->operations / (uint64_t)threads + 1) * (workload->rounds + 1);
}

static void *prepare(const struct workload *workload, int threads)
{
    struct zeroed *zeroed = must_malloc(sizeof(*zeroed));
    size_t bytes;

    zeroed->kind = *(const struct zeroed_kind *)workload->parameters;
    zeroed->threads = threads;
    zeroed->blocks_per_thread = zeroed->kind.cold ? blocks_of_all_rounds(workload, threads) : RECYCLED_BLOCKS;
    size_table_fill(&zeroed->sizes, SMALLEST_BYTES, LARGEST_BYTES);
    bytes = (size_t)threads * zeroed->blocks_per_thread * sizeof(*zeroed->pieces);
    zeroed->pieces = must_malloc(bytes);
    memset(zeroed->pieces, 0, bytes); /* resident before the clock starts */
    return zeroed;
}

static void finish(void *state)
{
    struct zeroed *zeroed = state;

    for (size_t index = 0; index < (size_t)zeroed->threads * zeroed->blocks_per_thread; index++)
        piece_free(&zeroed->pieces[index]);
    free(zeroed->pieces);
    free(zeroed);
}

static const struct zeroed_kind cold = {.cold = true};
static const struct zeroed_kind recycled = {.cold = false};

static const struct workload zeroed_workloads[] = {
    {
        .name = "calloc/cold",
        .operation = "calloc of 64 B to 64 KiB that was never used before, written",
        .threads = {{1, false}, {2, false}, {4, false}, {16, false}, {64, false}},
        .operations = 10000,
        .rounds = 3,
        .parameters = &cold,
        .prepare = prepare,
        .round = round_of_blocks,
        .finish = finish,
    },
    {
        .name = "calloc/recycled",
        .operation = "calloc of 64 B to 64 KiB in the place of a block that was written and freed",
        .threads = {{1, false}, {2, false}, {4, false}, {16, false}, {64, false}},
        .operations = 240000,
        .rounds = 3,
        .parameters = &recycled,
        .prepare = prepare,
        .round = round_of_blocks,
        .finish = finish,
    },
};

const struct workload_family zeroed_family = {zeroed_workloads, WORKLOAD_COUNT(zeroed_workloads)};
