/*
 * One run of one workload with a given number of threads: the barrier between rounds, and the readings before
 * and after. The threads belong to the caller, and so does the `struct turn` of each, which may sit on its
 * stack. Each thread calls run_start once, run_round once in every round, and run_stop once.
 */
#ifndef TARN_BENCH_RUN_H
#define TARN_BENCH_RUN_H

#include "process.h"
#include "workload.h"

struct run;

/* Takes one of a fixed number of places; allocates nothing and is never undone. */
struct run *run_create(const struct workload *workload, int threads);

void run_start(struct run *run, struct turn *turn, int thread); /* prepares, then the warm-up round */
void run_round(struct run *run, struct turn *turn);
void run_stop(struct run *run, const struct turn *turn); /* frees all that the workload holds */

/* Readings, valid after run_stop. */
struct readings {
    struct process_usage before; /* before the first block was asked for */
    struct process_usage timed;  /* as the timed rounds began */
    struct process_usage ended;  /* as they ended */
    struct process_usage after;  /* after everything was freed */
    struct process_usage rested; /* after light work for BENCH_REST_MS, where that is set; else zeros */
    struct figure figures[MAX_FIGURES];
    size_t figure_count;
};

const struct readings *run_readings(const struct run *run);

#endif
