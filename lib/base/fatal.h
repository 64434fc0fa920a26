/* The end of a process whose memory can no longer be trusted: one exact line on stderr, then SIGABRT.
 *
 * Never allocates, takes no lock, and may be called from any thread in any state of the allocator.
 */
#ifndef TARN_BASE_FATAL_H
#define TARN_BASE_FATAL_H

#include "base/compiler.h"
#include "base/text.h"

#include <stddef.h>

/* Prints "tarn: fatal: " and the line, then aborts. */
COLD __attribute__((noreturn)) void fatal_line(struct text *line);

/* Prints "tarn: fatal: " and the line; the caller ends the process, or lets a signal end it. */
COLD void fatal_say(struct text *line);

/* tarn: fatal: <what> 0x… */
COLD __attribute__((noreturn)) void fatal_pointer(const char *what, const void *pointer);

/* tarn: fatal: <what> 0x… (<bytes>-byte <kind>) */
COLD __attribute__((noreturn)) void fatal_block(const char *what, const void *pointer, size_t bytes,
                                                const char *kind);

/* tarn: warning: <line>. The process goes on. */
COLD void warning_line(struct text *line);

/* tarn: <line>. The process goes on. */
COLD void notice_line(struct text *line);

/* An invariant of the allocator itself, checked in builds with -Dchecked=true. */
COLD __attribute__((noreturn)) void fatal_invariant(const char *condition, const char *file, unsigned line);

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (TARN_CHECKED && UNLIKELY(!(condition)))                                                          \
            fatal_invariant(#condition, __FILE__, __LINE__);                                                 \
    } while (0)

#endif
