/* Where malloc's hot path ends up when it cannot serve: for any reason, with or without a heap of the
 * thread's own. */
#include "base/counters.h"
#include "heap/heap.h"
#include "heap/sample.h"
#include "heap/thread.h"
#include "heap/tick.h"
#include "os/settings.h"

#include <errno.h>

static void *take(struct heap *heap, uint32_t class, size_t bytes)
{
    if (heap->budget_bytes < 0)
        tick_heartbeat(heap, bytes);
    else
        counts_add_calls(&heap->counts, class, bytes, 1);
    return heap_take_block(heap, class);
}

static void *take_late(uint32_t class, size_t bytes)
{
    struct heap *heap = thread_late_heap();
    if (heap == NULL)
        return NULL;
    heap_shorten_budget(heap, class_bytes(class));
    void *block = take(heap, class, bytes);
    thread_late_done();
    return block;
}

void *heap_malloc_slow(struct heap *heap, size_t bytes)
{
    uint32_t class = class_of_size(bytes == 0 ? 1 : bytes);
    if (heap == &heap_none)
        heap = thread_heap();
    void *block = NULL;
    if (!TARN_HARDENED && heap != NULL && UNLIKELY(settings.guard_interval > 0))
        block = sample_take(heap, bytes);
    if (block == NULL)
        block = heap != NULL ? take(heap, class, bytes) : take_late(class, bytes);
    if (UNLIKELY(block == NULL))
        errno = ENOMEM;
    return block;
}
