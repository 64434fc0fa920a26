/*
 * Growing vectors and strings: what parsers, builders of replies and interpreters do with realloc. Many of
 * them grow at the same time, a few bytes at a step, so a vector can rarely grow where it stands unless its
 * block has room.
 *
 * A third of them double their capacity, a third grow by half, and a third ask for just what they need,
 * rounded up to 16 bytes, as careless code does: these call realloc most. When one has reached its length,
 * which is drawn with equal weight on every doubling, its bytes are checked and freed and another begins.
 */
#include "../support.h"
#include "../workload.h"

#include <stdlib.h>

enum {
    VECTORS_PER_THREAD = 300,
    SHORTEST_BYTES = 32,
    LONGEST_BYTES = 128 * 1024,
    SMALLEST_STEP_BYTES = 8,
    LARGEST_STEP_BYTES = 120,
    EXACT_ROUNDING_BYTES = 16,
    FIRST_CAPACITY_BYTES = 16,
    LONG_BYTES = 4096, /* a long vector grows by larger steps, or it would take all of the time */
    LONG_STEPS_LOG2 = 5,
    CHECKED_EVERY_BYTES = 64,
    GROWTH_KINDS = 3,
};

enum growth { GROW_DOUBLE, GROW_HALF, GROW_EXACT };

struct vector {
    unsigned char *bytes;
    size_t length;
    size_t capacity;
    size_t target;
    enum growth growth;
    unsigned char fill;
};

struct vectors {
    int threads;
    struct size_table lengths;
    struct vector *all; /* VECTORS_PER_THREAD of each thread */
};

static void vector_check(const struct vector *vector, size_t length)
{
    for (size_t at = 0; at < length; at += CHECKED_EVERY_BYTES)
        if (vector->bytes[at] != (unsigned char)(vector->fill + at))
            block_is_wrong(vector->bytes, vector->capacity, at);
}

static size_t next_capacity(const struct vector *vector, size_t needed)
{
    size_t capacity = vector->capacity;

    if (vector->growth == GROW_EXACT)
        return (needed + EXACT_ROUNDING_BYTES - 1) & ~(size_t)(EXACT_ROUNDING_BYTES - 1);
    if (capacity == 0)
        capacity = FIRST_CAPACITY_BYTES;
    while (capacity < needed)
        capacity += vector->growth == GROW_DOUBLE ? capacity : capacity / 2;
    return capacity;
}

static void vector_append(struct vector *vector, size_t step)
{
    size_t needed = vector->length + step;

    if (needed > vector->capacity) {
        vector->capacity = next_capacity(vector, needed);
        vector->bytes = must_realloc(vector->bytes, vector->capacity);
        if (vector->length > 0 &&
            (vector->bytes[0] != vector->fill ||
             vector->bytes[vector->length - 1] != (unsigned char)(vector->fill + vector->length - 1)))
            block_is_wrong(vector->bytes, vector->capacity, vector->length - 1);
    }
    for (size_t at = vector->length; at < needed; at++)
        vector->bytes[at] = (unsigned char)(vector->fill + at);
    vector->length = needed;
}

static void vector_restart(struct vector *vector, const struct vectors *vectors, struct rng *rng)
{
    vector_check(vector, vector->length);
    free(vector->bytes);
    *vector = (struct vector){
        .target = size_table_draw(&vectors->lengths, rng),
        .growth = (enum growth)rng_below(rng, GROWTH_KINDS),
        .fill = (unsigned char)rng_next(rng),
    };
}

static void round_of_appends(void *state, struct turn *turn)
{
    struct vectors *vectors = state;
    struct vector *mine = &vectors->all[turn->thread * VECTORS_PER_THREAD];

    for (uint64_t count = 0; count < turn->operations; count++) {
        struct vector *vector = &mine[rng_below(&turn->rng, VECTORS_PER_THREAD)];
        uint32_t step =
            SMALLEST_STEP_BYTES + rng_below(&turn->rng, LARGEST_STEP_BYTES - SMALLEST_STEP_BYTES + 1);

        if (vector->length >= vector->target)
            vector_restart(vector, vectors, &turn->rng);
        vector_append(vector, vector->target < LONG_BYTES ? step : (size_t)step << LONG_STEPS_LOG2);
    }
}

static void *prepare(const struct workload *workload, int threads)
{
    struct vectors *vectors = must_malloc(sizeof(*vectors));

    (void)workload;
    vectors->threads = threads;
    size_table_fill(&vectors->lengths, SHORTEST_BYTES, LONGEST_BYTES);
    vectors->all = must_calloc((size_t)threads * VECTORS_PER_THREAD, sizeof(*vectors->all));
    return vectors;
}

static void finish(void *state)
{
    struct vectors *vectors = state;

    for (int index = 0; index < vectors->threads * VECTORS_PER_THREAD; index++) {
        vector_check(&vectors->all[index], vectors->all[index].length);
        free(vectors->all[index].bytes);
    }
    free(vectors->all);
    free(vectors);
}

static const struct workload vectors_workloads[] = {
    {
        .name = "vectors",
        .operation = "append to one of 300 vectors and strings of 32 B to 128 KiB",
        .threads = {{1, true}, {2, false}, {4, true}, {16, false}, {64, false}},
        .operations = 100000,
        .rounds = 3,
        .prepare = prepare,
        .round = round_of_appends,
        .finish = finish,
    },
};

const struct workload_family vectors_family = {vectors_workloads, WORKLOAD_COUNT(vectors_workloads)};
