/*
 * System calls that fail when a test says so.
 *
 * The programs here are linked with the library's objects and with the linker's --wrap for each call below,
 * so that a call of the library (not one of libc's or liburcu's own) comes through faults.c, and from there
 * to libc or, for mremap, to the kernels of tests/unit/kernel.c. The library itself knows nothing of it: a
 * release build is what it would be without.
 *
 * Which calls fail is said by FAULTS=kind,first,count in the environment, so that those before main can fail
 * too: of all calls of this kind by the process and its children, the first-th and the count - 1 after it.
 */
#ifndef TEST_FAULTS_FAULTS_H
#define TEST_FAULTS_FAULTS_H

#include <stdbool.h>
#include <stddef.h>

enum fault_kind {
    FAULT_MAP,        /* mmap: ENOMEM */
    FAULT_UNMAP,      /* munmap: ENOMEM */
    FAULT_PURGE,      /* madvise: ENOMEM */
    FAULT_REMAP,      /* mremap: ENOMEM, nothing changed */
    FAULT_REMAP_LATE, /* mremap: ENOMEM, the target has been unmapped */
    FAULT_PROTECT,    /* mprotect: ENOMEM */
    FAULT_RESIDENT,   /* mincore: EAGAIN */
    FAULT_BARRIER,    /* membarrier: ENOMEM */
    FAULT_KEY,        /* pthread_key_create: EAGAIN */
    FAULT_SPECIFIC,   /* pthread_setspecific: ENOMEM */
    FAULT_ANY,        /* each of these but mincore, which is no matter of memory; mremap as FAULT_REMAP */
    FAULT_ANY_LATE,   /* the same; mremap as FAULT_REMAP_LATE */
    FAULT_KINDS
};

extern const char *const fault_names[FAULT_KINDS];

/* Calls that have failed. */
unsigned long faults_so_far(void);

/* No call fails any more. */
void faults_end(void);

/* The system gives this many bytes more, then no more: as where memory is accounted when it is mapped
 * (vm.overcommit_memory = 2). What is unmapped may be had again. SIZE_MAX: no limit. */
void faults_cap_bytes(size_t more_bytes);

#endif
