/*
 * Small helpers that tests and stress programs share: contents that can be checked, seeded random numbers,
 * time, resident memory, a check that works in any thread, child processes with a time limit.
 *
 * Nothing in here allocates, so that it never disturbs what is measured.
 */
#ifndef TEST_SUPPORT_H
#define TEST_SUPPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KIB ((size_t)1024)
#define MIB (1024 * KIB)

/* ---- values the compiler knows nothing about ---- */

/* The same pointer, but the compiler no longer sees where it came from: neither optimises nor warns about
 * misuse. */
static inline void *opaque(void *pointer)
{
    __asm__ volatile("" : "+r"(pointer) : : "memory");
    return pointer;
}

static inline size_t opaque_size(size_t size)
{
    __asm__ volatile("" : "+r"(size));
    return size;
}

/* ---- checks ---- */

/* cmocka's assertions may only fail in the thread that runs the test. This one may fail in any: it prints and
 * aborts. */
#define must(condition)                                                                                      \
    do {                                                                                                     \
        if (!(condition))                                                                                    \
            must_failed(#condition, __FILE__, __LINE__);                                                     \
    } while (0)

/* Called before a failed must() aborts; a stress program prints its seed with it. NULL: nothing. */
extern void (*must_explain)(void);
__attribute__((noreturn)) void must_failed(const char *condition, const char *file, int line);

/* ---- contents ---- */

/* Writes bytes that depend on the tag and on each byte's offset, and tells if they are still there. The first
 * bytes of a long pattern are the pattern of a shorter length, so that a shrunk block can be checked too. */
void pattern_write(void *block, size_t size_bytes, uint64_t tag);
bool pattern_holds(const void *block, size_t size_bytes, uint64_t tag);
bool all_zero(const void *block, size_t size_bytes);

/* ---- random numbers, the same for the same seed ---- */

struct random {
    uint64_t state;
};

static inline uint64_t random_next(struct random *random)
{
    uint64_t z = (random->state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* 0 … bound - 1 */
static inline size_t random_below(struct random *random, size_t bound)
{
    return (size_t)(random_next(random) % bound);
}

/* A size for a block: mostly small, some runs, a few raw blocks; every size up to 4 MiB is possible. */
size_t random_size(struct random *random);

/* ---- the process ---- */

uint64_t now_ns(void);
void sleep_ms(unsigned milliseconds);
/* Of anonymous memory: of files the kernel maps up to sixteen pages at a touch, when it likes. */
size_t resident_bytes(void);
size_t address_space_bytes(void);
size_t mappings(void);

/* Frees what the C library itself allocated, whichever names the test is compiled with. */
void libc_free(void *block);

/* ---- children ---- */

/* Waits for the child and returns its wait status; a child that has not ended in time is explained on stderr,
 * killed, and counts as a failure: the status tells of SIGKILL. */
int wait_for_child(int pid, unsigned seconds);

/* On stderr: where each thread of the process is, in the kernel and, where gdb is there, in the program. */
void explain_hung_process(int pid);

#ifdef __cplusplus
}
#endif

#endif
