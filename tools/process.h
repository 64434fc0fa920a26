/* A process seen from outside: its mappings, its memory, and what Tarn publishes in it (base/published).
 *
 * What is read belongs to another process and changes while it is read: nothing in it is trusted. Reading
 * wants the same user as the process, or root, and where kernel.yama.ptrace_scope is 1, root.
 */
#ifndef TARN_TOOLS_PROCESS_H
#define TARN_TOOLS_PROCESS_H

#include "base/published.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct mapping {
    uint64_t begin;
    uint64_t end;
    uint64_t resident_bytes;
    uint64_t swapped_bytes;
    uint64_t huge_bytes; /* of those resident, in transparent huge pages */
    bool writable;
    bool anonymous;
    char name[256]; /* "" for anonymous memory */
};

enum process_state {
    PROCESS_ON_TARN,
    PROCESS_WITHOUT,   /* nothing published: not there, TARN_PUBLISH=0, or another kind of version */
    PROCESS_OTHER,     /* a Tarn that this tool was not built with */
    PROCESS_FORBIDDEN, /* by the kernel */
    PROCESS_GONE
};

struct process {
    pid_t pid;
    enum process_state state;
    char name[32];    /* as ps shows it */
    uint64_t started; /* clock ticks since the boot: another process of the same number has another */
    struct mapping *mappings;
    size_t mapping_count;
    uint64_t at; /* where `published` lies in it */
    struct published published;
    unsigned copies;   /* of Tarn */
    char library[256]; /* the file that it was found in */
};

/* Looks at the process; process_close afterwards, whatever the state. */
void process_open(struct process *process, pid_t pid);
void process_close(struct process *process);

/* When the process began, and its name; false when there is none, or only what its parent has not fetched. */
bool process_started(pid_t pid, char *name, size_t name_bytes, uint64_t *started);

/* Whether it is still the process that was opened. */
bool process_lives(const struct process *process);

/* True if all bytes were read. */
bool process_read(const struct process *process, uint64_t address, void *to, size_t bytes);
bool process_write(const struct process *process, uint64_t address, const void *from, size_t bytes);
uint64_t process_read_word(const struct process *process, uint64_t address);   /* 0 on failure */
uint32_t process_read_uint32(const struct process *process, uint64_t address); /* 0 on failure */

/* Reads the mappings again, with what is resident. False when the process has ended. */
bool process_read_mappings(struct process *process);

/* The sum over all mappings, as smaps_rollup has it. */
uint64_t process_resident_bytes(const struct process *process);

/* For each page from `address` on: whether it is resident. False where the kernel does not say. */
bool process_resident_pages(const struct process *process, uint64_t address, size_t pages, bool *resident);

/* Says in one line why there is nothing to see; STATUS_OK if there is. */
int process_explain_state(const struct process *process);

#endif
