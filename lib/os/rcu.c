#include "os/rcu.h"

#include "base/compiler.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Inline read_lock and read_unlock: one load of liburcu's thread-local by initial-exec. The functions in the library
 * would go through __tls_get_addr, which calls malloc after a dlopen, and so would come back here without end. */
#define _LGPL_SOURCE
#include <urcu-bp.h>

static struct reader *_Atomic readers;

void reader_publish(struct reader *reader)
{
    struct reader *head = atomic_load_explicit(&readers, memory_order_relaxed);
    do {
        reader->next = head;
        /* release: pairs with the acquire in the walks below; publishes next. Push-only list: no ABA. */
    } while (!atomic_compare_exchange_weak_explicit(&readers, &head, reader, memory_order_release,
                                                    memory_order_relaxed));
}

void reader_begin_thread(struct reader *reader)
{
    atomic_store_explicit(&reader->registered, false, memory_order_relaxed);
    reader->registering = false;
}

/* liburcu's registration takes locks and sets a thread-specific value, which may call malloc, which comes back
 * here: the nested call must not register again. */
static COLD void register_thread(struct reader *reader)
{
    reader->registering = true;
    int saved_errno = errno;
    urcu_bp_register_thread();
    errno = saved_errno;
    reader->registering = false;
    atomic_store_explicit(&reader->registered, true, memory_order_relaxed);
}

void reader_enter(struct reader *reader)
{
    bool registered = atomic_load_explicit(&reader->registered, memory_order_relaxed);
    if (UNLIKELY(!registered) && !reader->registering) {
        register_thread(reader);
        registered = true;
    }
    uint64_t sections = atomic_load_explicit(&reader->sections, memory_order_relaxed);
    atomic_store_explicit(&reader->sections, sections + 1, memory_order_relaxed);
    if (LIKELY(registered)) {
        /* Order against the reads of the section: by the membarrier in grace_sample, or by liburcu's own. */
        atomic_signal_fence(memory_order_seq_cst);
        urcu_bp_read_lock();
    } else {
        /* pairs with the fence in rcu_wait: either it sees the section open, or the section sees the list
         * without the retired arena. */
        atomic_thread_fence(memory_order_seq_cst);
    }
}

void reader_leave(struct reader *reader)
{
    if (LIKELY(atomic_load_explicit(&reader->registered, memory_order_relaxed)))
        urcu_bp_read_unlock();
    uint64_t sections = atomic_load_explicit(&reader->sections, memory_order_relaxed);
    /* release: pairs with the acquire in grace_has_passed; all reads of the section come before it. */
    atomic_store_explicit(&reader->sections, sections + 1, memory_order_release);
}

static int membarrier_call(int command)
{
    int saved_errno = errno;
    int result = (int)syscall(SYS_membarrier, command, 0);
    errno = saved_errno;
    return result;
}

/* A full barrier in every running thread of the process. */
static bool barrier_everywhere(void)
{
    static _Atomic bool registered;
    if (!atomic_load_explicit(&registered, memory_order_relaxed)) {
        if (membarrier_call(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) != 0)
            return false;
        atomic_store_explicit(&registered, true, memory_order_relaxed);
    }
    return membarrier_call(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0;
}

bool grace_sample(void)
{
    /* pairs with the compiler fence in reader_enter: a section that this sample does not see open began after the
     * barrier and so reads the list as it is now. */
    if (!barrier_everywhere())
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

bool rcu_wait(void)
{
    urcu_bp_synchronize_rcu();
    atomic_thread_fence(memory_order_seq_cst);
    struct reader *reader = atomic_load_explicit(&readers, memory_order_acquire);
    for (; reader != NULL; reader = reader->next)
        if (!atomic_load_explicit(&reader->registered, memory_order_relaxed) &&
            (atomic_load_explicit(&reader->sections, memory_order_acquire) & 1) != 0)
            return false;
    return true;
}

void rcu_before_fork(void)
{
    urcu_bp_before_fork();
}

void rcu_after_fork_parent(void)
{
    urcu_bp_after_fork_parent();
}

void rcu_after_fork_child(const struct reader *own)
{
    urcu_bp_after_fork_child();
    struct reader *reader = atomic_load_explicit(&readers, memory_order_acquire);
    for (; reader != NULL; reader = reader->next) {
        uint64_t sections = atomic_load_explicit(&reader->sections, memory_order_relaxed);
        if (reader != own && (sections & 1) != 0)
            atomic_store_explicit(&reader->sections, sections + 1, memory_order_relaxed);
        reader->sampled = 0;
    }
}
