/*
 * An mremap(2) for tests, in the place of the C library's: with UNIT_OLD_KERNEL in the environment it behaves
 * like that of Linux before 6.17, which moves pages of one mapping only, and says so (EFAULT) after it has
 * unmapped the target. Otherwise it is the running kernel's. The library asks before main, so that a program
 * can only be one or the other.
 */
#ifndef TEST_UNIT_KERNEL_H
#define TEST_UNIT_KERNEL_H

#include <stdbool.h>
#include <stddef.h>

bool kernel_is_old(void);

struct kernel_range {
    const char *begin;
    const char *end;
};

/* Whether each range lies in one mapping, as /proc/self/maps has it. */
bool kernel_maps_as_one(const struct kernel_range *ranges, size_t count);

/* Calls so far. */
extern _Atomic unsigned kernel_calls;

/* The next this many calls fail with ENOMEM, nothing changed. */
extern unsigned kernel_refuses;

/* The same, but the target has been unmapped by then. */
extern unsigned kernel_refuses_late;

/* Calls that an old kernel failed with EFAULT. */
extern _Atomic unsigned kernel_faults;

#endif
