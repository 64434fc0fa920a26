/*
 * What the kernel says of this process, and which object its malloc comes from.
 */
#ifndef TARN_BENCH_PROCESS_H
#define TARN_BENCH_PROCESS_H

struct process_usage {
    long rss_kib;      /* resident now */
    long peak_rss_kib; /* the most that was ever resident */
    long minor_faults;
    long major_faults;
    long voluntary_switches;
    long involuntary_switches;
};

/* Allocates nothing. */
struct process_usage process_usage_now(void);

/* The file that provides malloc and all of its companions. Ends the process when they come from different
 * ones: a block would then be freed by an allocator that does not know it. */
const char *process_malloc_provider(void);

#endif
