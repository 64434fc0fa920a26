#include "os/rcu.h"

#include "base/bits.h"
#include "base/compiler.h"
#include "os/lock.h"
#include "os/map.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Without _LGPL_SOURCE: its read_lock, a call that only walks make, stays in liburcu. In 0.13 the readers
 * that it asks the compiler to align lie 32 bytes beside that, which must not become undefined behaviour of
 * this file. */
#include <urcu-bp.h>

/* liburcu's mapping at first, and what each thread makes of it when it doubles. */
#define WALK_ROOM_BYTES ((size_t)64 << 10)
#define WALKER_BYTES    ((size_t)512)

static struct reader *_Atomic readers;

/* The kernel has membarrier(2) for this process: readers need no fence. Set before the first reader is
 * published. */
static _Atomic bool have_membarrier;

/* A child of a fork: liburcu's registry may hold threads, and its locks owners, that are no more. */
static _Atomic bool forked;

/* Held while liburcu makes a thread known to itself; it takes its own locks for that. */
static lock registering = LOCK_INITIAL;

static int membarrier_call(int command)
{
    int saved_errno = errno;
    int result = (int)syscall(SYS_membarrier, command, 0);
    errno = saved_errno;
    return result;
}

void reader_publish(struct reader *reader)
{
    /* acquire: who finds readers finds have_membarrier too. */
    struct reader *head = atomic_load_explicit(&readers, memory_order_acquire);
    if (head == NULL)
        atomic_store_explicit(&have_membarrier,
                              membarrier_call(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0,
                              memory_order_relaxed);
    do {
        reader->next = head;
        /* release: pairs with the acquire in the walks below; publishes next. Push-only list: no ABA. */
    } while (!atomic_compare_exchange_weak_explicit(&readers, &head, reader, memory_order_acq_rel,
                                                    memory_order_acquire));
}

void reader_enter(struct reader *reader)
{
    uint64_t sections = atomic_load_explicit(&reader->sections, memory_order_relaxed);
    atomic_store_explicit(&reader->sections, sections + 1, memory_order_relaxed);
    /* pairs with the barrier in grace_sample: either it sees the section open, or the section sees the list
     * without the retired arena. */
    if (LIKELY(atomic_load_explicit(&have_membarrier, memory_order_relaxed)))
        atomic_signal_fence(memory_order_seq_cst);
    else
        atomic_thread_fence(memory_order_seq_cst);
}

void reader_leave(struct reader *reader)
{
    uint64_t sections = atomic_load_explicit(&reader->sections, memory_order_relaxed);
    /* release: pairs with the acquire in grace_has_passed; all reads of the section come before it. */
    atomic_store_explicit(&reader->sections, sections + 1, memory_order_release);
}

bool grace_sample(void)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&have_membarrier, memory_order_relaxed) &&
        membarrier_call(MEMBARRIER_CMD_PRIVATE_EXPEDITED) != 0)
        return false;
    struct reader *reader = atomic_load_explicit(&readers, memory_order_acquire);
    for (; reader != NULL; reader = reader->next) {
        uint64_t sections = atomic_load_explicit(&reader->sections, memory_order_acquire);
        reader->sampled = (sections & 1) != 0 ? sections : 0;
    }
    return true;
}

bool grace_has_passed(void)
{
    struct reader *reader = atomic_load_explicit(&readers, memory_order_acquire);
    for (; reader != NULL; reader = reader->next)
        if (reader->sampled != 0 &&
            atomic_load_explicit(&reader->sections, memory_order_acquire) == reader->sampled)
            return false;
    return true;
}

/* Threads that walked. liburcu keeps them in a mapping that it doubles when it is full. */
static _Atomic size_t walkers;

static THREAD_LOCAL bool is_walker;
static THREAD_LOCAL bool is_in_walk;

/* liburcu ends the process when it gets no memory for a thread that it sees for the first time. So it is
 * asked for beforehand. (Another thread may take it meanwhile; nothing in liburcu could be asked instead.) */
static COLD bool become_walker(void)
{
    size_t count = atomic_fetch_add_explicit(&walkers, 1, memory_order_relaxed);
    size_t bytes = bits_align_up(WALK_ROOM_BYTES + count * WALKER_BYTES, map_page_bytes());
    void *room = map_pages(bytes);
    is_walker = room != NULL;
    if (room != NULL)
        map_unmap(room, bytes);
    else
        atomic_fetch_sub_explicit(&walkers, 1, memory_order_relaxed);
    if (is_walker) {
        lock_acquire(&registering);
        urcu_bp_register_thread();
        lock_release(&registering);
    }
    return is_walker;
}

/* Not while this thread forks: in the child, before `forked` is set, liburcu's locks may have owners that are
 * no more. Nor without memory. Then trim does not sleep until the walk is over, and sees to it later. */
void walk_begin(void)
{
    is_in_walk = !atomic_load_explicit(&forked, memory_order_relaxed) && !lock_forking &&
                 (is_walker || become_walker());
    if (is_in_walk)
        urcu_bp_read_lock();
}

void walk_end(void)
{
    if (is_in_walk)
        urcu_bp_read_unlock();
    is_in_walk = false;
}

/* liburcu ends the process when the barrier that it began with is refused. */
static bool may_wait(void)
{
    return !atomic_load_explicit(&forked, memory_order_relaxed) && !lock_forking &&
           atomic_load_explicit(&walkers, memory_order_relaxed) > 0 &&
           (!atomic_load_explicit(&have_membarrier, memory_order_relaxed) ||
            membarrier_call(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0);
}

void walk_wait(void)
{
    if (!may_wait())
        return;
    /* It sleeps in poll(2), where the thread must not be cancelled with liburcu's locks held. */
    int cancelling;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancelling);
    int saved_errno = errno;
    urcu_bp_synchronize_rcu();
    errno = saved_errno;
    pthread_setcancelstate(cancelling, &cancelling);
}

void rcu_before_fork(void)
{
    lock_acquire(&registering);
}

void rcu_after_fork(void)
{
    lock_release(&registering);
}

void rcu_after_fork_child(const struct reader *own)
{
    atomic_store_explicit(&forked, true, memory_order_relaxed);
    struct reader *reader = atomic_load_explicit(&readers, memory_order_acquire);
    for (; reader != NULL; reader = reader->next) {
        uint64_t sections = atomic_load_explicit(&reader->sections, memory_order_relaxed);
        if (reader != own && (sections & 1) != 0)
            atomic_store_explicit(&reader->sections, sections + 1, memory_order_relaxed);
        reader->sampled = 0;
    }
}
