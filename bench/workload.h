/*
 * A workload is what a program does with its allocator, written in C against the libc names alone, so that
 * any allocator can be preloaded under it. This header says what a workload is made of; registry.c lists them
 * all; run.c carries one out; harness.cc hands them to Google Benchmark.
 *
 * The life of a run with n threads:
 *
 *     thread 0      prepare ─┐                                                           ┌─ finish
 *     every thread           └─ round (warm-up, not timed) ─ round ─ round ─ … (timed) ─┘
 *
 * Between two rounds all threads meet at a barrier, so the time of a round is that of its slowest thread. The
 * amount of work in a round is fixed and the random numbers come from fixed seeds: two runs do the same work,
 * and the ratio of two times compares two allocators and nothing else.
 */
#ifndef TARN_BENCH_WORKLOAD_H
#define TARN_BENCH_WORKLOAD_H

#include "rng.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What one thread is asked to do in one round. It keeps its place in memory, and its random numbers, from
 * round to round. */
struct turn {
    int thread;          /* 0 … threads − 1 */
    int threads;         /* how many take part */
    unsigned round;      /* 0 is the warm-up */
    uint64_t operations; /* this thread's share of the round */
    struct rng rng;
};

/* A number that a workload reports beside its time. */
struct figure {
    const char *name;
    double value;
};

enum { MAX_THREAD_COUNTS = 5, MAX_FIGURES = 6 };

/* One row, or several that differ in the number of threads. */
struct threads_choice {
    int threads;
    bool by_default; /* part of the default set of rows, which has to stay short */
};

struct workload {
    const char *name;      /* family, or family/variant */
    const char *operation; /* what one operation is */
    struct threads_choice threads[MAX_THREAD_COUNTS];
    bool memory_only;    /* its figures are the result; its time means nothing */
    uint64_t operations; /* in one round, all threads together */
    unsigned rounds;     /* timed ones */
    const void *parameters;

    /* Called by thread 0 alone, before the warm-up; what it returns is handed to the others. */
    void *(*prepare)(const struct workload *workload, int threads);
    /* Called by every thread, once in every round. */
    void (*round)(void *state, struct turn *turn);
    /* Called by thread 0 alone after the last round; frees all that is left, the state included. */
    void (*finish)(void *state);
    /* May be null. Called by thread 0 before finish; fills at most MAX_FIGURES and returns how many. */
    size_t (*report)(const void *state, struct figure *figures);
};

struct workload_family {
    const struct workload *workloads;
    size_t count;
};

#define WORKLOAD_COUNT(workloads) (sizeof(workloads) / sizeof((workloads)[0]))

extern const struct workload_family *const workload_registry[]; /* ends with a null pointer */

extern const struct workload_family server_family;
extern const struct workload_family pipe_family;
extern const struct workload_family churn_family;
extern const struct workload_family tail_family;
extern const struct workload_family large_family;
extern const struct workload_family vectors_family;
extern const struct workload_family hot_family;
extern const struct workload_family burst_family;
extern const struct workload_family straggler_family;
extern const struct workload_family containers_family;
extern const struct workload_family phases_family;
extern const struct workload_family idle_family;
extern const struct workload_family connection_family;
extern const struct workload_family pingpong_family;
extern const struct workload_family sharing_family;
extern const struct workload_family strings_family;
extern const struct workload_family zeroed_family;
extern const struct workload_family aligned_family;
extern const struct workload_family spans_family;

#endif
