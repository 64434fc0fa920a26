/* The hardened build: what malloc, free and their relatives do there. Every block carries a trailer
 * (pool/trailer) or lies between inaccessible pages (raw/raw_guard); every pointer that comes in is looked
 * up; what is freed is cleared, and waits (heap/quarantine). All memory that is given out reads as zeroes.
 *
 * There are no runs: requests above the size classes are raw blocks.
 *
 * NULL and errno are as for the public calls; `call` is the function's name in a message. */
#ifndef TARN_API_HARDENED_H
#define TARN_API_HARDENED_H

#include <stddef.h>

/* alignment is a power of two. */
void *hardened_malloc(size_t bytes, size_t alignment);

#define HARDENED_ANY_SIZE ((size_t)-1)

/* `bytes` is what the caller says was asked for, or HARDENED_ANY_SIZE. */
void hardened_free(void *pointer, size_t bytes, const char *call);

void *hardened_realloc(void *pointer, size_t bytes);

/* What was asked for. The pointer is not NULL. */
size_t hardened_bytes(const void *pointer, const char *call);

/* At the end of the process, where no other thread has a heap: looks at every block, in use or free. Threads
 * that allocate or free for the first time meanwhile wait. */
void hardened_check_all(void);

/* Around fork(2), by the forking thread: after rcu_before_fork, before all other locks. */
void hardened_before_fork(void);
void hardened_after_fork(void);

#endif
