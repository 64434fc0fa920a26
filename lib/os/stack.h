/* Who called: a few return addresses, and their names when it comes to a report.
 *
 * Taken with the C library's backtrace(3), which reads the unwind tables and needs no frame pointers. Its
 * first call loads libgcc_s and allocates: stack_prepare makes it, in the constructor. Later calls do not
 * allocate, unless a program registers unwind tables of its own (__register_frame), and with glibc from 2.35
 * on take no lock; before, that of the dynamic linker. So no lock of ours may be held. Where the C library
 * has no backtrace, stacks are empty.
 */
#ifndef TARN_OS_STACK_H
#define TARN_OS_STACK_H

#include "base/text.h"

#include <stddef.h>
#include <stdint.h>

#define STACK_FRAMES_MOST 8U

struct stack {
    uint32_t count;
    int thread; /* as gettid(2) has it; 0: never taken */
    uintptr_t frames[STACK_FRAMES_MOST];
};

/* Once, while there is one thread. */
void stack_prepare(void);

/* The callers of the library, innermost first. In a static program the library's own functions are among
 * them.
 */
void stack_take(struct stack *stack);

/* The thread alone, where frames may not be taken. */
void stack_take_thread(struct stack *stack);

/* Adds "module+0xoffset" of every frame's call, from /proc/self/maps; offsets count from the module's first
 * mapping. Async-signal-safe, one thread at a time. */
void stack_describe(struct text *line, const struct stack *stack);

#endif
