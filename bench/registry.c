/*
 * Every workload that the benchmark program knows, in the order of the table: programs with many threads
 * first, then single patterns, then memory alone.
 */
#include "workload.h"

const struct workload_family *const workload_registry[] = {
    &server_family,  &pipe_family, &churn_family, &tail_family,      &large_family,
    &vectors_family, &hot_family,  &burst_family, &straggler_family, NULL,
};
