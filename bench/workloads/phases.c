/*
 * Memory, not time: a program that runs for long and whose needs change. In each phase the sizes are others;
 * blocks are made, replaced at random for a while, and then freed, all but one in 128, which stay until
 * the end. The holes that one phase leaves are of the wrong size for the next: resident memory then grows
 * from phase to phase although the live bytes hardly do.
 *
 *      phase 0:  ████████████  →  █····█·····█         16 to 128 B
 *      phase 1:  █++++█+++++█+++++++  →  …             96 B to 1 KiB, and so on
 *
 * Resident memory above the start is read at the end of each phase, after the program has been idle and has
 * done a little work, and once more when the survivors are gone. With several threads each does its part at
 * the same time. A row of memory only: its time is that of the idling.
 */
#include "../process.h"
#include "../support.h"
#include "../workload.h"

#include <pthread.h>

enum {
    PHASES = 4,
    PHASE_BYTES = 48 * 1024 * 1024, /* alive at the peak of a phase, about, all threads together */
    SURVIVOR_EVERY = 128,
    REPLACEMENTS = 2, /* of each block, on average */
};

struct phase {
    uint32_t smallest_bytes;
    uint32_t largest_bytes;
};

static const struct phase phases[PHASES] = {{16, 128}, {96, 1024}, {768, 16384}, {24, 512}};

/* Each thread has its part of `pieces`; the rest is thread 0's, between two barriers. */
struct program {
    pthread_barrier_t meeting;
    struct size_table sizes[PHASES];
    long start_kib;
    long phase_kib[PHASES];
    long empty_kib;
    size_t counts[PHASES]; /* of all threads together */
    struct piece *pieces[PHASES];
};

static uint64_t mean_size(const struct size_table *sizes)
{
    uint64_t sum = 0;

    for (int entry = 0; entry < SIZE_TABLE_ENTRIES; entry++)
        sum += sizes->sizes[entry];
    return sum / SIZE_TABLE_ENTRIES;
}

static void fill_and_replace(const struct size_table *sizes, struct piece *pieces, uint32_t count,
                             struct rng *rng)
{
    for (uint32_t index = 0; index < count; index++)
        pieces[index] = piece_draw(sizes, rng);
    for (uint64_t step = 0; step < (uint64_t)REPLACEMENTS * count; step++) {
        struct piece *piece = &pieces[rng_below(rng, count)];

        piece_free(piece);
        *piece = piece_draw(sizes, rng);
    }
}

static void drop(struct piece *piece)
{
    piece_free(piece);
    *piece = (struct piece){.block = NULL};
}

static void drop_most(struct piece *pieces, uint32_t count)
{
    for (uint32_t index = 0; index < count; index++)
        if (index % SURVIVOR_EVERY != 0)
            drop(&pieces[index]);
}

/* All threads meet, then thread 0 alone idles and reads. */
static void read_memory(struct program *program, struct turn *turn, long *kib)
{
    pthread_barrier_wait(&program->meeting);
    if (turn->thread == 0) {
        let_time_pass(&turn->rng);
        *kib = process_usage_now().rss_kib;
    }
    pthread_barrier_wait(&program->meeting);
}

static void live(void *state, struct turn *turn)
{
    struct program *program = state;
    size_t thread = (size_t)turn->thread, threads = (size_t)turn->threads;

    if (turn->round == 0)
        return; /* no warm-up: the memory would already be there */
    if (turn->thread == 0)
        program->start_kib = process_usage_now().rss_kib;
    pthread_barrier_wait(&program->meeting);
    for (int phase = 0; phase < PHASES; phase++) {
        size_t count = program->counts[phase] / threads;
        struct piece *mine = &program->pieces[phase][thread * count];

        fill_and_replace(&program->sizes[phase], mine, (uint32_t)count, &turn->rng);
        drop_most(mine, (uint32_t)count);
        read_memory(program, turn, &program->phase_kib[phase]);
    }
    for (int phase = 0; phase < PHASES; phase++)
        for (size_t index = thread; index < program->counts[phase]; index += threads)
            drop(&program->pieces[phase][index]);
    read_memory(program, turn, &program->empty_kib);
}

static void *prepare(const struct workload *workload, int threads)
{
    struct program *program = must_calloc(1, sizeof(*program));

    (void)workload;
    pthread_barrier_init(&program->meeting, NULL, (unsigned)threads);
    for (int phase = 0; phase < PHASES; phase++) {
        size_t bytes;

        size_table_fill(&program->sizes[phase], phases[phase].smallest_bytes, phases[phase].largest_bytes);
        program->counts[phase] = PHASE_BYTES / mean_size(&program->sizes[phase]);
        bytes = program->counts[phase] * sizeof(struct piece);
        program->pieces[phase] = must_malloc(bytes);
        memset(program->pieces[phase], 0, bytes); /* resident before the start is read */
    }
    return program;
}

static size_t report(const void *state, struct figure *figures)
{
    static const char *const names[PHASES] = {
        "held_after_phase_1",
        "held_after_phase_2",
        "held_after_phase_3",
        "held_after_phase_4",
    };
    const struct program *program = state;
    const double kib = 1024;

    for (int phase = 0; phase < PHASES; phase++)
        figures[phase] =
            (struct figure){names[phase], kib * (double)(program->phase_kib[phase] - program->start_kib)};
    figures[PHASES] =
        (struct figure){"held_after_all_phases", kib * (double)(program->empty_kib - program->start_kib)};
    return PHASES + 1;
}

static void finish(void *state)
{
    struct program *program = state;

    for (int phase = 0; phase < PHASES; phase++)
        free(program->pieces[phase]);
    pthread_barrier_destroy(&program->meeting);
    free(program);
}

static const struct workload phases_workloads[] = {
    {
        .name = "phases",
        .operation = "four phases of 48 MiB with sizes of their own, one block in 128 survives each",
        .threads = {{1, false}, {2, false}, {4, true}, {16, false}, {64, false}},
        .memory_only = true,
        .operations = 1,
        .rounds = 1,
        .prepare = prepare,
        .round = live,
        .finish = finish,
        .report = report,
    },
};

const struct workload_family phases_family = {phases_workloads, WORKLOAD_COUNT(phases_workloads)};
