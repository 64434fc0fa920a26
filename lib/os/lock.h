/* The few locks of the slow paths, and how they behave around fork.
 *
 * A lock is a pthread mutex, which needs no constructor and never allocates. While a thread forks it holds
 * all of them (api/process); other fork handlers of the program that run in between may call malloc in that
 * same thread. For it the locks are open then: it holds them, and what they guard is whole.
 *
 * A signal handler may fork while its thread is inside a lock, or is forking already: that fork must not wait
 * for what its own thread holds. Hence each thread counts the locks that it is at.
 *
 * Ranks, outermost first: registering, late heap, raw, fork gate, housekeeper.
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

/* Locks that this thread holds, is about to take, or has just released. */
extern THREAD_LOCAL unsigned lock_inside;

static inline void lock_acquire(lock *one)
{
    if (UNLIKELY(lock_forking))
        return;
    lock_inside++; /* first: a signal may come between the two */
    pthread_mutex_lock(one);
}

static inline bool lock_try(lock *one)
{
    if (lock_forking)
        return false;
    lock_inside++;
    bool taken = pthread_mutex_trylock(one) == 0;
    if (!taken)
        lock_inside--;
    return taken;
}

static inline void lock_release(lock *one)
{
    if (UNLIKELY(lock_forking))
        return;
    pthread_mutex_unlock(one);
    lock_inside--;
}

/* Registers handlers of fork(2) that stay until the process is no more: also after the destructors of this
 * library have run, when other threads, or destructors of others, may still fork. False without memory. */
bool lock_handle_forks(void (*before)(void), void (*parent)(void), void (*child)(void));

#endif
