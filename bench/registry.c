/*
 * Every workload that the benchmark program knows, in the order of the table: programs with many threads
 * first, then single patterns, then memory alone.
 */
#include "workload.h"

const struct workload_family *const workload_registry[] = {
    &server_family,  &connection_family, &pipe_family,   &pingpong_family, &sharing_family,
    &churn_family,   &tail_family,       &large_family,  &spans_family,    &containers_family,
    &vectors_family, &strings_family,    &zeroed_family, &aligned_family,  &hot_family,
    &burst_family,   &straggler_family,  &phases_family, &idle_family,     NULL,
};
