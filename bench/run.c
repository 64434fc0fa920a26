/*
 * Carrying out one run. Who writes what:
 *
 *     workload, threads, barrier    fixed once created
 *     state                         thread 0, before the first barrier; all read it after that
 *     readings                      thread 0
 *
 * The runs are static: describing the work must not be the first work of the allocator.
 */
#include "run.h"

#include "support.h"

#include <pthread.h>
#include <stdlib.h>

enum { MAX_RUNS = 512 };

struct run {
    const struct workload *workload;
    int threads;
    pthread_barrier_t barrier;
    void *state;
    struct readings readings;
};

static struct run runs[MAX_RUNS];
static int run_count;

struct run *run_create(const struct workload *workload, int threads)
{
    struct run *run;

    if (run_count == MAX_RUNS)
        bench_fail("there are more than %d rows", MAX_RUNS);
    run = &runs[run_count++];
    run->workload = workload;
    run->threads = threads;
    pthread_barrier_init(&run->barrier, NULL, (unsigned)threads);
    return run;
}

/* The first threads take one operation more where the work does not divide. */
static uint64_t share(const struct run *run, int thread)
{
    uint64_t all = run->workload->operations;
    uint64_t threads = (uint64_t)run->threads;

    return all / threads + ((uint64_t)thread < all % threads ? 1 : 0);
}

void run_round(struct run *run, struct turn *turn)
{
    run->workload->round(run->state, turn);
    turn->round++;
    pthread_barrier_wait(&run->barrier);
}

void run_start(struct run *run, struct turn *turn, int thread)
{
    *turn = (struct turn){
        .thread = thread,
        .threads = run->threads,
        .operations = share(run, thread),
        .rng = rng_seed((uint64_t)thread + 1),
    };
    if (thread == 0) {
        run->readings.before = process_usage_now();
        run->state = run->workload->prepare(run->workload, run->threads);
    }
    pthread_barrier_wait(&run->barrier);
    run_round(run, turn);
    if (thread == 0)
        run->readings.timed = process_usage_now();
    pthread_barrier_wait(&run->barrier);
}

void run_stop(struct run *run, const struct turn *turn)
{
    if (turn->thread != 0)
        return;
    run->readings.ended = process_usage_now();
    if (run->workload->report != NULL)
        run->readings.figure_count = run->workload->report(run->state, run->readings.figures);
    run->workload->finish(run->state);
    run->readings.after = process_usage_now();
    if (getenv("BENCH_REST_MS") != NULL) {
        work_lightly(atoi(getenv("BENCH_REST_MS")));
        run->readings.rested = process_usage_now();
    }
}

const struct readings *run_readings(const struct run *run)
{
    return &run->readings;
}
