/*
 * Memory, not time: what stays resident when a program has freed nearly all it had.
 *
 * 400,000 blocks of 133 bytes are made; then all but one in a thousand, spread evenly, are freed; then these
 * as well. Stragglers pin the memory around them: an allocator that gives back only whole large regions gives
 * back nothing. Resident memory above the start is read at the peak and after each step. Since many
 * allocators hold freed memory for a moment and give it back when called next, the reading comes after the
 * program has been idle for a little more than a second and has then done a little work of all sizes.
 *
 * A row of memory only: its time is that of the idling.
 */
#include "../process.h"
#include "../support.h"
#include "../workload.h"

#include <stdlib.h>

enum {
    BLOCKS = 400000,
    BLOCK_BYTES = 133,
    STRAGGLER_EVERY = 1000,
};

struct straggler {
    long start_kib;
    long peak_kib;
    long stragglers_kib;
    long empty_kib;
    void *blocks[BLOCKS];
};

static void drop(struct straggler *straggler, int index)
{
    block_check(straggler->blocks[index], BLOCK_BYTES, (uint64_t)index);
    free(straggler->blocks[index]);
    straggler->blocks[index] = NULL;
}

static void *prepare(const struct workload *workload, int threads)
{
    struct straggler *straggler = must_malloc(sizeof(*straggler));

    (void)workload;
    (void)threads;
    memset(straggler, 0, sizeof(*straggler)); /* resident before the start is read */
    return straggler;
}

static void fill_and_drop(void *state, struct turn *turn)
{
    struct straggler *straggler = state;

    if (turn->round == 0)
        return; /* no warm-up: the memory would already be there */
    straggler->start_kib = process_usage_now().rss_kib;
    for (int index = 0; index < BLOCKS; index++) {
        straggler->blocks[index] = must_malloc(BLOCK_BYTES);
        block_write(straggler->blocks[index], BLOCK_BYTES, (uint64_t)index);
    }
    straggler->peak_kib = process_usage_now().rss_kib;
    for (int index = 0; index < BLOCKS; index++)
        if (index % STRAGGLER_EVERY != 0)
            drop(straggler, index);
    let_time_pass(&turn->rng);
    straggler->stragglers_kib = process_usage_now().rss_kib;
    for (int index = 0; index < BLOCKS; index += STRAGGLER_EVERY)
        drop(straggler, index);
    let_time_pass(&turn->rng);
    straggler->empty_kib = process_usage_now().rss_kib;
}

static size_t report(const void *state, struct figure *figures)
{
    const struct straggler *straggler = state;
    const double kib = 1024;

    figures[0] = (struct figure){"held_at_peak", kib * (double)(straggler->peak_kib - straggler->start_kib)};
    figures[1] = (struct figure){"held_by_stragglers",
                                 kib * (double)(straggler->stragglers_kib - straggler->start_kib)};
    figures[2] =
        (struct figure){"held_when_empty", kib * (double)(straggler->empty_kib - straggler->start_kib)};
    return 3;
}

static void finish(void *state)
{
    free(state);
}

static const struct workload straggler_workloads[] = {
    {
        .name = "straggler",
        .operation = "400,000 blocks of 133 B made; all but one in a thousand freed; the rest freed",
        .threads = {{1, true}},
        .memory_only = true,
        .operations = 1,
        .rounds = 1,
        .prepare = prepare,
        .round = fill_and_drop,
        .finish = finish,
        .report = report,
    },
};

const struct workload_family straggler_family = {straggler_workloads, WORKLOAD_COUNT(straggler_workloads)};
