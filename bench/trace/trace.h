/*
 * A trace, read and checked as a whole before anything is replayed. All memory is mapped, none of it comes
 * from malloc. bench/trace/README.md describes the file.
 */
#ifndef TARN_BENCH_TRACE_TRACE_H
#define TARN_BENCH_TRACE_TRACE_H

#include <stdbool.h>
#include <stdint.h>

enum {
    MAX_RECORDED_THREADS = 4096,
    MAX_LANES = 16,
    SLOT_BITS = 23,
    MAX_SLOTS = 1 << SLOT_BITS,
    MAX_ALIGNMENT_LOG2 = 30,
};

enum event_kind { EVENT_MALLOC, EVENT_CALLOC, EVENT_ALIGNED, EVENT_REALLOC, EVENT_FREE, EVENT_THREAD };

/*
 * One event. The object's number is its slot; a number is used again after the free. `step` counts the events
 * of the slot from the beginning: the event may happen as soon as the slot has had so many.
 */
struct event {
    uint32_t slot : SLOT_BITS;
    uint32_t kind : 3;
    uint32_t alignment_log2 : 6;
    uint32_t size_bytes;
    uint32_t order; /* place in the file: 0, 1, … over all threads */
    uint32_t step;
};

/* The events of one thread of the replay: those of all recorded threads that are folded onto it. */
struct lane {
    struct event *events;
    uint32_t count;
};

struct trace {
    bool cut; /* the recording ended before the program did */
    uint32_t recorded_threads;
    uint32_t slots;
    uint32_t events;
    uint32_t frees;         /* of these */
    uint32_t foreign_frees; /* by a thread other than the one that has the block from the allocator */
    uint32_t left; /* blocks that live at the end; as many frees are added to the lanes, after `events` */
    uint64_t peak_bytes;
    uint32_t lane_count;
    struct lane lanes[MAX_LANES];
};

/*
 * Reads the trace in a file, stdin for «-», folded onto at most so many lanes. A file that is no trace, or a
 * damaged one, ends the program with one line and status 2.
 */
void trace_read(struct trace *trace, const char *path, uint32_t most_lanes);

#endif
