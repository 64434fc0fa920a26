#include "heap/thread.h"

#include "base/fatal.h"
#include "heap/park.h"
#include "os/lock.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>

enum thread_state { THREAD_NEW, THREAD_RUNNING, THREAD_LATE };
enum key_state { KEY_NONE, KEY_IN_MAKING, KEY_READY, KEY_FAILED };

static THREAD_LOCAL enum thread_state thread_state;

static pthread_key_t key;
static _Atomic int key_state;

static lock late_lock = LOCK_INITIAL;
static struct heap *late_heap; /* under late_lock */

/* The thread-specific destructor: the last moment at which the heap is whole and the thread still runs. */
static void leave(void *value)
{
    struct heap *heap = value;
    heap_run(&heap_none);
    thread_state = THREAD_LATE;
    park_leave(heap);
}

void thread_initialise(void)
{
    int state = KEY_NONE;
    /* acquire: pairs with the release below; the key is made. Changes forward only: no ABA. */
    if (atomic_compare_exchange_strong_explicit(&key_state, &state, KEY_IN_MAKING, memory_order_acquire,
                                                memory_order_acquire)) {
        state = pthread_key_create(&key, leave) == 0 ? KEY_READY : KEY_FAILED;
        atomic_store_explicit(&key_state, state, memory_order_release);
    }
    while (atomic_load_explicit(&key_state, memory_order_acquire) == KEY_IN_MAKING)
        sched_yield();
}

/* heap_self is set first: pthread_setspecific may call malloc. */
static struct heap *begin(void)
{
    int saved_errno = errno;
    thread_initialise();
    struct heap *heap = NULL;
    if (atomic_load_explicit(&key_state, memory_order_acquire) == KEY_READY)
        heap = park_take();
    if (heap != NULL) {
        heap_run(heap);
        thread_state = THREAD_RUNNING;
        if (pthread_setspecific(key, heap) != 0) { /* would never be parked: served late from the start */
            leave(heap);
            heap = NULL;
        }
    }
    if (heap == NULL)
        thread_state = THREAD_LATE;
    errno = saved_errno;
    return heap;
}

struct heap *thread_begin(void)
{
    return thread_state == THREAD_NEW ? begin() : NULL;
}

struct heap *thread_late_heap(void)
{
    lock_acquire(&late_lock);
    if (late_heap == NULL)
        late_heap = park_take();
    if (late_heap == NULL)
        lock_release(&late_lock);
    return late_heap;
}

void thread_late_done(void)
{
    lock_release(&late_lock);
}

void thread_before_fork(void)
{
    lock_acquire(&late_lock);
}

void thread_after_fork(void)
{
    lock_release(&late_lock);
}
