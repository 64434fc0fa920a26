/* The process as a whole: its start, its forks, its end, and memory given back on request.
 *
 * Malloc works before any of this has run. Lock order at fork: late heap, raw, housekeeper
 * (docs/concurrency.md).
 */
#include "api/report.h"

#include "api/names.h"
#include "arena/arena_list.h"
#include "arena/housekeeper.h"
#include "heap/park.h"
#include "heap/slot_cache.h"
#include "heap/thread.h"
#include "heap/tick.h"
#include "os/lock.h"
#include "os/map.h"
#include "os/settings.h"
#include "raw/raw.h"
#include "tarn/tarn.h"

#include <pthread.h>

static void before_fork(void)
{
    thread_before_fork();
    raw_before_fork();
    housekeeper_before_fork();
    lock_forking = true;
}

static void unlock_all(void)
{
    lock_forking = false;
    housekeeper_after_fork();
    raw_after_fork();
    thread_after_fork();
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
    unlock_all();
}

static bool drop_caches(void)
{
    bool gave_back = raw_drop_cache() > 0;
    return housekeeper_reclaim() || gave_back;
}

__attribute__((constructor(101))) static void start(void)
{
    settings_read();
    thread_initialise();
    map_moves_several(); /* asks the kernel, while there is one thread */
    slot_cache_last_resort = drop_caches;
    slot_cache_make_way = raw_make_way;
    pthread_atfork(before_fork, after_fork_parent, after_fork_child);
    if (settings.statistics_at_exit)
        report_keep_stderr();
    if (settings.verbosity > 1)
        report_start();
}

__attribute__((destructor(101))) static void end(void)
{
    if (settings.statistics_at_exit)
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
