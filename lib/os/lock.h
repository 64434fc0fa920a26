/* The few locks of the slow paths, and how they behave around fork.
 *
 * A lock is a pthread mutex, which needs no constructor and never allocates. While a thread forks it holds
 * all of them (api/process); other fork handlers of the program that run in between may call malloc in that
 * same thread. For it the locks are open then: it holds them, and what they guard is whole.
 *
 * Ranks, outermost first: late heap, raw, housekeeper, guard.
 */
#ifndef TARN_OS_LOCK_H
#define TARN_OS_LOCK_H

#include "base/compiler.h"

#include <pthread.h>
#include <stdbool.h>

#define LOCK_INITIAL PTHREAD_MUTEX_INITIALIZER

typedef pthread_mutex_t lock;

/* This thread holds all locks for a fork. Set and cleared by api/process. */
extern THREAD_LOCAL bool lock_forking;

static inline void lock_acquire(lock *one)
{
    if (LIKELY(!lock_forking))
        pthread_mutex_lock(one);
}

static inline bool lock_try(lock *one)
{
    return !lock_forking && pthread_mutex_trylock(one) == 0;
}

static inline void lock_release(lock *one)
{
    if (LIKELY(!lock_forking))
        pthread_mutex_unlock(one);
}

#endif
