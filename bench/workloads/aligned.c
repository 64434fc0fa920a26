/*
 * Aligned blocks: lines of a cache for vectors and locks, pages for direct input and output. An allocator may
 * serve them from its usual classes or by a slow path of their own, may waste up to the alignment on each,
 * and has to find the block again when it is freed. posix_memalign and aligned_alloc take turns; their
 * promise is checked with every block.
 *
 * Each thread holds a few hundred blocks and replaces one at random.
 */
#include "../support.h"
#include "../workload.h"

enum { BLOCKS_PER_THREAD = 256, SMALLEST_BYTES = 16, LARGEST_BYTES = 8192 };

/* Alignments are drawn from the powers of two between these, with equal weight. */
struct alignments {
    uint32_t smallest_log2;
    uint32_t largest_log2;
};

struct aligned {
    struct alignments alignments;
    int threads;
    struct size_table sizes;
    struct piece *pieces; /* BLOCKS_PER_THREAD of each thread */
};

/* aligned_alloc wants a multiple of the alignment. */
static struct piece from_aligned_alloc(size_t alignment, size_t size, uint64_t tag)
{
    size_t rounded = (size + alignment - 1) & ~(alignment - 1);
    void *block = aligned_alloc(alignment, rounded);

    if (block == NULL || ((uintptr_t)block & (alignment - 1)) != 0)
        bench_fail("the block at %p is not aligned to %zu", block, alignment);
    return piece_of(block, rounded, tag);
}

static struct piece aligned_piece(const struct aligned *aligned, struct rng *rng)
{
    const struct alignments *range = &aligned->alignments;
    uint32_t log2 = range->smallest_log2 + rng_below(rng, range->largest_log2 - range->smallest_log2 + 1);
    size_t alignment = (size_t)1 << log2;
    size_t size = size_table_draw(&aligned->sizes, rng);
    uint64_t tag = rng_next(rng);

    if (tag % 2 == 0)
        return from_aligned_alloc(alignment, size, tag);
    return piece_of(must_aligned(alignment, size), size, tag);
}

static void round_of_blocks(void *state, struct turn *turn)
{
    struct aligned *aligned = state;
    struct piece *mine = &aligned->pieces[turn->thread * BLOCKS_PER_THREAD];

    for (uint64_t count = 0; count < turn->operations; count++) {
        struct piece *piece = &mine[rng_below(&turn->rng, BLOCKS_PER_THREAD)];

        piece_free(piece);
        *piece = aligned_piece(aligned, &turn->rng);
    }
}

static void *prepare(const struct workload *workload, int threads)
{
    struct aligned *aligned = must_malloc(sizeof(*aligned));

    aligned->alignments = *(const struct alignments *)workload->parameters;
    aligned->threads = threads;
    size_table_fill(&aligned->sizes, SMALLEST_BYTES, LARGEST_BYTES);
    aligned->pieces = must_calloc((size_t)threads * BLOCKS_PER_THREAD, sizeof(*aligned->pieces));
    return aligned;
}

static void finish(void *state)
{
    struct aligned *aligned = state;

    for (int index = 0; index < aligned->threads * BLOCKS_PER_THREAD; index++)
        piece_free(&aligned->pieces[index]);
    free(aligned->pieces);
    free(aligned);
}

static const struct alignments lines = {.smallest_log2 = 6, .largest_log2 = 6};
static const struct alignments pages = {.smallest_log2 = 12, .largest_log2 = 12};
static const struct alignments all = {.smallest_log2 = 4, .largest_log2 = 12};

static const struct workload aligned_workloads[] = {
    {
        .name = "aligned/64",
        .operation = "block of 16 B to 8 KiB aligned to 64, put in the place of an older one",
        .threads = {{1, false}, {2, false}, {4, false}, {16, false}, {64, false}},
        .operations = 400000,
        .rounds = 3,
        .parameters = &lines,
        .prepare = prepare,
        .round = round_of_blocks,
        .finish = finish,
    },
    {
        .name = "aligned/4096",
        .operation = "block of 16 B to 8 KiB aligned to 4096, put in the place of an older one",
        .threads = {{1, false}, {2, false}, {4, false}, {16, false}, {64, false}},
        .operations = 200000,
        .rounds = 3,
        .parameters = &pages,
        .prepare = prepare,
        .round = round_of_blocks,
        .finish = finish,
    },
    {
        .name = "aligned/16-4096",
        .operation = "block of 16 B to 8 KiB aligned to 16 … 4096, put in the place of an older one",
        .threads = {{1, false}, {2, false}, {4, false}, {16, false}, {64, false}},
        .operations = 300000,
        .rounds = 3,
        .parameters = &all,
        .prepare = prepare,
        .round = round_of_blocks,
        .finish = finish,
    },
};

const struct workload_family aligned_family = {aligned_workloads, WORKLOAD_COUNT(aligned_workloads)};
