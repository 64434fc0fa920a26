/*
 * Helpers of the unit tests: children whose last words are read, threads that begin together, pages looked at
 * from outside.
 *
 * A child and a thread report through must(): cmocka's assertions work only in the thread that runs the test,
 * and in a child they would go on with the rest of the tests.
 */
#ifndef TEST_UNIT_H
#define TEST_UNIT_H

#include "../cmocka_headers.h"
#include "../support.h"

#include <stdbool.h>
#include <stddef.h>

/* A sanitizer's run time maps memory of its own, so that the process's address space cannot be measured. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define UNIT_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define UNIT_SANITIZED 1
#endif
#endif
#ifndef UNIT_SANITIZED
#define UNIT_SANITIZED 0
#endif

#if defined(__SANITIZE_THREAD__)
#define UNIT_THREAD_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNIT_THREAD_SANITIZED 1
#endif
#endif
#ifndef UNIT_THREAD_SANITIZED
#define UNIT_THREAD_SANITIZED 0
#endif

/* What cannot be seen on this machine passes, and says so. (cmocka's skip() is a failure to those who read
 * its TAP.) */
#define not_here(reason)                                                                                     \
    do {                                                                                                     \
        print_message("# not here: " reason "\n");                                                           \
        return;                                                                                              \
    } while (0)

/* Fewer turns where each access to memory is watched. */
#define TURNS(count) (UNIT_THREAD_SANITIZED ? (count) / 8 : (count))

/* ---- children ---- */

/* How a child ended, and what it had written to stderr. */
struct outcome {
    int status; /* as waitpid(2) tells it */
    size_t length;
    char output[16384];
};

/* Runs body in a child; one that returns from it ends with status 0. */
void child_run(void (*body)(void *context), void *context, struct outcome *outcome);

/* The child must end with status 0 and write nothing. */
void child_must_succeed(void (*body)(void *context), void *context);

/* The child must write exactly this line (without its newline) and end by SIGABRT. */
void child_must_die(void (*body)(void *context), void *context, const char *line);

/* In a child: mappings of more than this many bytes in all fail from now on, and then no longer. */
void limit_address_space(size_t more_bytes);
void lift_limit(void);

/* ---- threads ---- */

#define THREADS_MOST 16U

/* Runs body in `count` threads that begin together; index is 0 … count - 1. Returns when all have ended. */
void threads_run(unsigned count, void (*body)(void *context, unsigned index), void *context);

/* A place where that many threads meet again and again, without sleeping: they leave it at the same time. */
struct meeting {
    _Atomic unsigned arrivals;
};
void meet(struct meeting *meeting, unsigned count);

/* ---- pages ---- */

bool page_is_mapped(const void *address);
bool page_is_resident(const void *address);

/* Mapped, but for nobody to read. */
bool page_is_forbidden(const void *address);

/* How many pages so many bytes are. */
size_t pages_of(size_t bytes);

/* Resident pages among those that hold the bytes; all of them are mapped. */
size_t pages_resident(const void *address, size_t bytes);

#endif
