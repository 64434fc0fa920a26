/* The few locks of the slow paths, and how they behave around fork.
 *
 * A lock is a pthread mutex, which needs no constructor and never allocates. While a thread forks it holds
 * all of them (api/process); other fork handlers of the program that run in between may call malloc in that
 * same thread. For it the locks are open then: it holds them, and what they guard is whole.
 *
 * A signal handler may fork while its thread is inside a lock, or is forking already: that fork must not wait
 * for what its own thread holds. Hence each thread counts the locks that it is at.
 *
 * A mutex does not queue: who releases one and takes it again at once may keep a waiting fork out for long.
 * Hence the fork gate, held by a thread that forks from before it waits for the locks that others take often:
 * those pass through the gate first.
 *
 * Ranks, outermost first: registering, late heap, fork gate, raw, housekeeper, guard.
 */
#ifndef TARN_OS_LOCK_H
#define TARN_OS_LOCK_H

#include "base/compiler.h"

#include <pthread.h>
#include <stdatomic.h>
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

/* A thread is about to fork and waits for locks, or forks. */
extern _Atomic bool lock_fork_waits;

/* By the forking thread, around the locks below the gate. */
void lock_before_fork(void);
void lock_after_fork(void);

/* Waits until that thread has forked. By others, with no lock below the gate held. */
COLD void lock_let_fork_pass(void);

/* For locks below the gate. */
static inline void lock_acquire_after_fork(lock *one)
{
    if (UNLIKELY(atomic_load_explicit(&lock_fork_waits, memory_order_relaxed)))
        lock_let_fork_pass();
    lock_acquire(one);
}

/* Registers handlers of fork(2) that stay until the process is no more: also after the destructors of this
 * library have run, when other threads, or destructors of others, may still fork. False without memory. */
bool lock_handle_forks(void (*before)(void), void (*parent)(void), void (*child)(void));

#endif
