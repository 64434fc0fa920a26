/*
 * Spans of pages. Runs (32 to 512 KiB) are what an allocator cuts from its own regions; raw blocks (0.5 to
 * 64 MiB) are what many pass through to the kernel. A span that is written costs its pages, so the allocator
 * that keeps them mapped wins; of a span that is hardly touched (a stack, a sparse table, a buffer sized for
 * the worst case) only the first and the last word are written, and all the rest is the price of the
 * allocator and of mmap and munmap.
 *
 * Each thread holds a few spans and replaces one at random. large.c writes every byte and uses calloc and
 * realloc too.
 */
#include "../support.h"
#include "../workload.h"

struct span_kind {
    bool written; /* a word in every stretch; else the first and the last word */
    uint32_t smallest_bytes;
    uint32_t largest_bytes; /* with many threads less, see most_bytes */
    uint32_t spans;         /* of all threads together, but at least one of each */
    uint32_t most_bytes;    /* of address space, if all spans were of the largest size */
};

struct spans {
    struct span_kind kind;
    int threads;
    uint32_t per_thread;
    struct size_table sizes;
    struct piece *pieces; /* per_thread of each thread */
};

static struct piece span_make(const struct spans *spans, struct rng *rng)
{
    size_t size = size_table_draw(&spans->sizes, rng);
    uint64_t tag = rng_next(rng);
    unsigned char *block = must_malloc(size);

    if (spans->kind.written)
        return piece_of(block, size, tag);
    word_put(block, tag);
    word_put(block + size - WORD_BYTES, tag);
    return (struct piece){.block = block, .size = size, .tag = tag};
}

static void span_free(const struct spans *spans, const struct piece *piece)
{
    const unsigned char *bytes = piece->block;

    if (spans->kind.written || bytes == NULL) {
        piece_free(piece);
        return;
    }
    if (word_get(bytes) != piece->tag)
        block_is_wrong(bytes, piece->size, 0);
    if (word_get(bytes + piece->size - WORD_BYTES) != piece->tag)
        block_is_wrong(bytes, piece->size, piece->size - WORD_BYTES);
    free(piece->block);
}

static void round_of_spans(void *state, struct turn *turn)
{
    struct spans *spans = state;
    struct piece *mine = &spans->pieces[(uint32_t)turn->thread * spans->per_thread];

    for (uint64_t count = 0; count < turn->operations; count++) {
        struct piece *piece = &mine[rng_below(&turn->rng, spans->per_thread)];

        span_free(spans, piece);
        *piece = span_make(spans, &turn->rng);
    }
}

static uint32_t smaller(uint32_t one, uint32_t other)
{
    return one < other ? one : other;
}

static void *prepare(const struct workload *workload, int threads)
{
    struct spans *spans = must_malloc(sizeof(*spans));
    uint32_t count;

    spans->kind = *(const struct span_kind *)workload->parameters;
    spans->threads = threads;
    spans->per_thread = spans->kind.spans / (uint32_t)threads;
    if (spans->per_thread == 0)
        spans->per_thread = 1;
    count = (uint32_t)threads * spans->per_thread;
    size_table_fill(&spans->sizes, spans->kind.smallest_bytes,
                    smaller(spans->kind.largest_bytes, spans->kind.most_bytes / count));
    spans->pieces = must_calloc(count, sizeof(*spans->pieces));
    return spans;
}

static void finish(void *state)
{
    struct spans *spans = state;

    for (uint32_t index = 0; index < (uint32_t)spans->threads * spans->per_thread; index++)
        span_free(spans, &spans->pieces[index]);
    free(spans->pieces);
    free(spans);
}

enum { KIB = 1024, MIB = 1024 * KIB };

#define SPAN_ROW(title, is_written, sizes_title, smallest, largest, at_a_time, count)                        \
    {                                                                                                        \
        .name = title, .operation = "block of " sizes_title ", put in the place of an older one",            \
        .threads = {{1, false}, {2, false}, {4, false}, {16, false}, {64, false}}, .operations = (count),    \
        .rounds = 3,                                                                                         \
        .parameters = &(const struct span_kind){.written = (is_written),                                     \
                                                .smallest_bytes = (smallest),                                \
                                                .largest_bytes = (largest),                                  \
                                                .spans = (at_a_time),                                        \
                                                .most_bytes = 1024 * MIB},                                   \
        .prepare = prepare, .round = round_of_spans, .finish = finish                                        \
    }

static const struct workload spans_workloads[] = {
    SPAN_ROW("runs/written", true, "32 to 512 KiB, a word in every 512 B written", 32 * KIB, 512 * KIB, 256,
             20000),
    SPAN_ROW("runs/hardly-touched", false, "32 to 512 KiB, two words written", 32 * KIB, 512 * KIB, 256,
             50000),
    SPAN_ROW("raw/written", true, "0.5 to 64 MiB, a word in every 512 B written", 512 * KIB, 64 * MIB, 16,
             64),
    SPAN_ROW("raw/hardly-touched", false, "0.5 to 64 MiB, two words written", 512 * KIB, 64 * MIB, 16, 6000),
};

const struct workload_family spans_family = {spans_workloads, WORKLOAD_COUNT(spans_workloads)};
