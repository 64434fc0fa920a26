#include "os/lock.h"

#include <stddef.h>

THREAD_LOCAL bool lock_forking;
THREAD_LOCAL unsigned lock_inside;

static lock fork_gate = LOCK_INITIAL;

_Atomic bool lock_fork_waits; /* a hint: relaxed */

void lock_before_fork(void)
{
    lock_acquire(&fork_gate);
    atomic_store_explicit(&lock_fork_waits, true, memory_order_relaxed);
}

void lock_after_fork(void)
{
    atomic_store_explicit(&lock_fork_waits, false, memory_order_relaxed);
    lock_release(&fork_gate);
}

void lock_let_fork_pass(void)
{
    lock_acquire(&fork_gate);
    lock_release(&fork_gate);
}

/* glibc's. pthread_atfork calls it with the handle of the library, and the handlers go with the library's
 * destructors; without a handle they belong to the process. */
extern int __register_atfork(void (*before)(void), void (*parent)(void), void (*child)(void), void *library)
    __attribute__((weak));

bool lock_handle_forks(void (*before)(void), void (*parent)(void), void (*child)(void))
{
    if (__register_atfork != NULL)
        return __register_atfork(before, parent, child, NULL) == 0;
    return pthread_atfork(before, parent, child) == 0;
}
