#include "heap/thread.h"

#include "base/fatal.h"
#include "base/probe.h"
#include "heap/park.h"
#include "heap/tick.h"
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
    owned_set(&heap->counts.thread, 0);
    PROBE_1(heap_park, heap->number);
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
static struct heap *run(struct heap *heap)
{
    heap_run(heap);
    owned_set(&heap->counts.thread, (uint64_t)pthread_self());
    PROBE_1(heap_run, heap->number);
    thread_state = THREAD_RUNNING;
    if (pthread_setspecific(key, heap) == 0)
        return heap;
    leave(heap); /* would never be parked: served late from the start */
    return NULL;
}

/* Without memory for a heap the thread stays new, and asks again. */
static struct heap *begin(void)
{
    int saved_errno = errno;
    struct heap *heap = NULL;
    thread_initialise();
    if (atomic_load_explicit(&key_state, memory_order_acquire) != KEY_READY)
        thread_state = THREAD_LATE;
    else if ((heap = park_take()) != NULL)
        heap = run(heap);
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

void thread_reclaim_late(void)
{
    lock_acquire(&late_lock);
    if (late_heap != NULL)
        tick_reclaim(late_heap);
    lock_release(&late_lock);
}

struct reader *thread_late_reader(void)
{
    static struct reader reader;
    static bool published; /* under late_lock */
    lock_acquire(&late_lock);
    if (!published)
        reader_publish(&reader);
    published = true;
    return &reader;
}

void thread_before_fork(void)
{
    lock_acquire(&late_lock);
}

void thread_after_fork(void)
{
    lock_release(&late_lock);
}
