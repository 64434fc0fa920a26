/*
 * What an input of the interface fuzzer says: settings, and steps, each of one of the workers.
 *
 *   bytes of the input:  settings (SETTINGS_BYTES) │ step │ step │ …
 *
 * Every input is a script: numbers are taken modulo what there is, and the end of the input ends the step
 * that it is in with zeroes. A step is one call, or the same call for several blocks: malloc's slow paths
 * begin where a pool's blocks are used up.
 */
#ifndef TEST_FUZZ_SCRIPT_H
#define TEST_FUZZ_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WORKERS    4U
#define PLACES     1024U /* for blocks; a power of two */
#define STEPS_MOST 512U

enum operation {
    STEP_ALLOCATE,
    STEP_FREE,
    STEP_RESIZE,
    STEP_LOOK,    /* usable size, contents */
    STEP_REFUSED, /* calls that must fail */
    STEP_TRIM,
    STEP_NUMBERS, /* mallinfo and its like */
    STEP_CLOCK,   /* time goes by */
    STEP_END,     /* the thread ends; steps that follow are done by its late destructor */
    STEP_MEET     /* all workers have done what came before; the rooms are looked at */
};

/* How a block is asked for. */
enum call {
    CALL_MALLOC,
    CALL_CALLOC,
    CALL_REALLOC_NULL,
    CALL_REALLOCARRAY_NULL,
    CALL_ALIGNED_ALLOC,
    CALL_POSIX_MEMALIGN,
    CALL_MEMALIGN,
    CALL_VALLOC,
    CALL_PVALLOC,
    CALLS
};

struct step {
    enum operation operation;
    unsigned worker;
    unsigned variant; /* of the call */
    unsigned first;   /* place, and how many more, so far apart */
    unsigned count;
    unsigned stride;
    size_t size;
    size_t alignment;
};

struct script {
    bool concurrent;       /* all workers at once between two meetings; else one at a time, in order */
    bool freed_by_workers; /* what is left at the end is freed before they end, else afterwards */
    struct step steps[STEPS_MOST];
    unsigned length;
};

/* Sets the library's settings too. */
void script_read(struct script *script, const uint8_t *bytes, size_t length);

#endif
