/* malloc and its relatives: from a request to the path that serves it.
 *
 *   bytes <= 1 KiB            heap_malloc_small, inlined here: the hot path
 *   <= the run threshold      heap_malloc_medium
 *   <= the raw threshold      run_malloc
 *   above                     raw_malloc
 */
#include "api/allocate.h"

#include "api/hardened.h"
#include "api/names.h"
#include "base/counters.h"
#include "heap/heap.h"
#include "heap/run.h"
#include "heap/thread.h"
#include "heap/tick.h"
#include "os/map.h"
#include "os/settings.h"
#include "raw/raw.h"
#include "tarn/tarn.h"

#include <errno.h>
#include <string.h>

static void *fail(int error)
{
    errno = error;
    return NULL;
}

static void *allocate_run(size_t bytes)
{
    struct heap *own = thread_heap();
    struct heap *heap = own != NULL ? own : thread_late_heap();
    if (heap == NULL)
        return NULL;
    void *run = run_malloc(heap, bytes);
    tick_spend(heap, bytes);
    if (own == NULL)
        thread_late_done();
    return run;
}

static void *allocate_raw(size_t bytes, size_t alignment, size_t *dirty_bytes)
{
    struct heap *heap = thread_heap();
    if (heap != NULL)
        tick_spend(heap, bytes);
    return raw_malloc(bytes, alignment, dirty_bytes);
}

/* Above the size classes. *dirty_bytes says how much of it calloc has to clear. All of a run, even where its
 * pages are known to be fresh: the program that reads them first and then writes pays for two faults each,
 * and with threads for a TLB shoot-down as well (docs/decisions/0008). */
static void *allocate_large(size_t bytes, size_t alignment, size_t *dirty_bytes)
{
    if (UNLIKELY(bytes > PTRDIFF_MAX))
        return fail(ENOMEM);
    *dirty_bytes = bytes;
    void *block = bytes <= SETTING(raw_threshold_bytes) && alignment <= SLOT_BYTES
                      ? allocate_run(bytes)
                      : allocate_raw(bytes, alignment, dirty_bytes);
    return block != NULL ? block : fail(ENOMEM);
}

static OUT_OF_LINE void *allocate_larger_slow(size_t bytes)
{
    size_t dirty_bytes;
    return allocate_large(bytes, BLOCK_ALIGNMENT, &dirty_bytes);
}

static OUT_OF_LINE void *take_run_and_tick(struct heap *heap, size_t bytes)
{
    void *run = run_take_last(heap);
    tick_heartbeat(heap, bytes);
    return run;
}

static OUT_OF_LINE void *allocate_larger(size_t bytes)
{
    struct heap *heap = heap_self;
    if (UNLIKELY(bytes > SETTING(raw_threshold_bytes) || !run_was_last(heap, bytes)))
        return allocate_larger_slow(bytes);
    if (UNLIKELY(!tick_may_spend(heap, bytes)))
        return take_run_and_tick(heap, bytes);
    return run_take_last(heap);
}

static OUT_OF_LINE void *malloc_above_small(size_t bytes)
{
    if (LIKELY(bytes <= SETTING(run_threshold_bytes)))
        return heap_malloc_medium(heap_self, bytes);
    return allocate_larger(bytes);
}

EXPORT void *tarn_malloc(size_t bytes)
{
    counter_add(COUNTER_CALL, 1);
    if (TARN_HARDENED)
        return hardened_malloc(bytes, BLOCK_ALIGNMENT);
    if (LIKELY(bytes <= DIRECT_BYTES_MOST))
        return heap_malloc_small(heap_self, bytes);
    return malloc_above_small(bytes);
}

/* By the kernel, where the program has hardly touched a large block that was used before. */
static void clear(void *block, size_t bytes)
{
    if (bytes <= RUN_BYTES_MOST || map_is_resident(block, bytes) ||
        !map_purge(block, bits_align_up(bytes, map_page_bytes())))
        memset(block, 0, bytes);
}

static OUT_OF_LINE void *allocate_zeroed_large(size_t bytes)
{
    size_t dirty_bytes;
    void *block = allocate_large(bytes, BLOCK_ALIGNMENT, &dirty_bytes);
    if (block != NULL)
        clear(block, dirty_bytes < bytes ? dirty_bytes : bytes);
    return block;
}

void *allocate_zeroed(size_t bytes)
{
    if (TARN_HARDENED)
        return hardened_malloc(bytes, BLOCK_ALIGNMENT);
    if (UNLIKELY(bytes > SETTING(run_threshold_bytes)))
        return allocate_zeroed_large(bytes);
    void *block = tarn_malloc(bytes);
    return LIKELY(block != NULL) ? memset(block, 0, bytes) : NULL;
}

EXPORT void *tarn_calloc(size_t count, size_t size)
{
    size_t bytes;
    if (UNLIKELY(!bits_multiply(count, size, &bytes)))
        return fail(ENOMEM);
    return allocate_zeroed(bytes);
}

static OUT_OF_LINE void *allocate_aligned_large(size_t bytes, size_t alignment)
{
    size_t dirty_bytes;
    return allocate_large(bytes == 0 ? 1 : bytes, alignment, &dirty_bytes);
}

ALWAYS_INLINE void *aligned(size_t bytes, size_t alignment)
{
    if (TARN_HARDENED)
        return hardened_malloc(bytes, alignment);
    if (LIKELY(alignment <= SLOT_BYTES && bytes <= SETTING(run_threshold_bytes))) {
        size_t request = class_aligned_request(bytes, alignment);
        if (LIKELY(request <= SETTING(run_threshold_bytes)))
            return tarn_malloc(request);
    }
    return allocate_aligned_large(bytes, alignment);
}

void *allocate_aligned(size_t bytes, size_t alignment)
{
    return aligned(bytes, alignment);
}

EXPORT void *tarn_aligned_alloc(size_t alignment, size_t bytes)
{
    return bits_is_power_of_two(alignment) ? aligned(bytes, alignment) : fail(EINVAL);
}

EXPORT int tarn_posix_memalign(void **pointer, size_t alignment, size_t bytes)
{
    if (!bits_is_power_of_two(alignment) || alignment % sizeof(void *) != 0)
        return EINVAL;
    int saved_errno = errno;
    void *block = aligned(bytes, alignment);
    errno = saved_errno;
    if (block == NULL)
        return ENOMEM;
    *pointer = block;
    return 0;
}

EXPORT void *tarn_memalign(size_t alignment, size_t bytes)
{
    if (alignment > (SIZE_MAX >> 1) + 1)
        return fail(EINVAL);
    size_t power = BLOCK_ALIGNMENT;
    while (power < alignment)
        power *= 2;
    return allocate_aligned(bytes, power);
}

EXPORT void *tarn_valloc(size_t bytes)
{
    return allocate_aligned(bytes, map_page_bytes());
}

EXPORT void *tarn_pvalloc(size_t bytes)
{
    size_t page = map_page_bytes();
    if (bytes > PTRDIFF_MAX)
        return fail(ENOMEM);
    return allocate_aligned(bytes == 0 ? page : bits_align_up(bytes, page), page);
}

ALSO_AS(malloc, void *, size_t)
ALSO_AS(calloc, void *, size_t, size_t)
ALSO_AS(aligned_alloc, void *, size_t, size_t)
ALSO_AS(posix_memalign, int, void **, size_t, size_t)
ALSO_AS(memalign, void *, size_t, size_t)
ALSO_AS(valloc, void *, size_t)
ALSO_AS(pvalloc, void *, size_t)
