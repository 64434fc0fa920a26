/* The process as a whole: its start, its forks, its end, and memory given back on request.
 *
 * Malloc works before any of this has run. Lock order at fork: that of the ranks (docs/concurrency.md, which
 * has what a fork does; docs/fork.md has what a program may do).
 */
#include "api/hardened.h"
#include "api/report.h"

#include "api/names.h"
#include "arena/arena_list.h"
#include "arena/housekeeper.h"
#include "guard/guard.h"
#include "guard/guard_report.h"
#include "heap/inspect.h"
#include "heap/park.h"
#include "heap/sample.h"
#include "heap/slot_cache.h"
#include "heap/thread.h"
#include "heap/tick.h"
#include "observe/publish.h"
#include "os/lock.h"
#include "os/map.h"
#include "os/settings.h"
#include "raw/raw.h"
#include "tarn/tarn.h"

#include <unistd.h>

/* Forks by signal handlers that are under way in this thread and interrupted it at a lock, or in another
 * fork: they leave all locks as they are. */
static THREAD_LOCAL unsigned forks_at_locks;

static void before_fork(void)
{
    if (lock_inside > 0) {
        forks_at_locks++;
        return;
    }
    rcu_before_fork();
    if (TARN_HARDENED)
        hardened_before_fork();
    thread_before_fork();
    lock_before_fork();
    raw_before_fork();
    housekeeper_before_fork();
    guard_before_fork();
    lock_forking = true;
}

static void unlock_all(void)
{
    if (forks_at_locks > 0) {
        forks_at_locks--;
        return;
    }
    lock_forking = false;
    guard_after_fork();
    housekeeper_after_fork();
    raw_after_fork();
    lock_after_fork();
    thread_after_fork();
    if (TARN_HARDENED)
        hardened_after_fork();
    rcu_after_fork();
}

static void after_fork_parent(void)
{
    unlock_all();
}

/* Heaps that other threads were running stay as they are: nobody runs them here, others may post to them. */
static void after_fork_child(void)
{
    rcu_after_fork_child(&heap_self->own_reader);
    arena_list_after_fork_child();
    housekeeper_after_fork_child();
    raw_after_fork_child();
    publish_after_fork_child();
    unlock_all();
}

static bool drop_caches(void)
{
    bool gave_back = raw_drop_cache() > 0;
    return housekeeper_reclaim() || gave_back;
}

/* What malloc_trim does, but for waiting: it may be wished from outside while the program is anywhere. */
static bool trim_at_once(void)
{
    tick_reclaim(heap_self);
    return drop_caches();
}

/* The unwinder allocates while it is loaded, and ends the process when it is asked for a stack before it is:
 * so nothing is sampled meanwhile. */
static void start_sampling(void)
{
    uint64_t interval = settings.guard_interval;
    settings.guard_interval = 0;
    guard_report_start();
    settings.guard_interval = interval;
    if (heap_self != &heap_none)
        sample_begin(heap_self);
}

/* Where a program, and not this build, brings ThreadSanitizer, that serves malloc, and is not up yet: no call
 * that it looks at may be made before. What is not asked now is asked when it is wanted. */
extern void __tsan_init(void) __attribute__((weak));

static void ask_system(void)
{
    map_moves_several(); /* while there is one thread */
    map_count_limit();   /* reads a file, which a program may forbid itself later */
}

/* The first constructor of the process, by the linker's -z initfirst: handlers of fork that are registered
 * later run before the locks are taken, and after they are released. Not even that of the C library has run.
 */
__attribute__((constructor(101))) static void start(int count, char **arguments, char **environment)
{
    (void)count;
    (void)arguments;
    if (environ == NULL)
        environ = environment;
    settings_read();
    thread_initialise();
    if (!TARN_HARDENED && settings.guard_interval > 0)
        start_sampling();
    if (TARN_THREAD_SANITIZER || __tsan_init == NULL)
        ask_system();
    slot_cache_last_resort = drop_caches;
    slot_cache_make_way = raw_make_way;
    publish_start(trim_at_once);
    lock_handle_forks(before_fork, after_fork_parent, after_fork_child);
    if (statistics_kind(settings.statistics) != STATISTICS_OFF)
        report_prepare();
    if (SETTING(verbosity) > 1)
        report_start();
}

/* Of the plain build's lists, so many blocks that it takes a fraction of a millisecond. */
#define CHECKED_AT_EXIT 4096U

static void check(void)
{
    if (TARN_HARDENED)
        hardened_check_all();
    else if (heap_self != &heap_none)
        inspect_lists(heap_self, CHECKED_AT_EXIT);
}

__attribute__((destructor(101))) static void end(void)
{
    if (settings.exit_check)
        check();
    if (statistics_kind(settings.statistics) == STATISTICS_AT_EXIT)
        report_end();
}

EXPORT int tarn_malloc_trim(size_t pad)
{
    struct heap *own = thread_heap();
    if (own != NULL)
        tick_reclaim(own);
    else if (thread_late_heap() != NULL)
        thread_late_done();
    thread_reclaim_late();
    size_t released = raw_drop_cache();
    released += housekeeper_trim(pad);
    return released > 0;
}

ALSO_AS(malloc_trim, int, size_t)
