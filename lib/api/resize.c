/* realloc: in place where the block can stay, by moving pages for raw blocks, else by copying.
 *
 * A block stays when the new size still fills half of it. */
#include "api/classify.h"
#include "api/hardened.h"
#include "api/names.h"
#include "base/bits.h"
#include "heap/run.h"
#include "heap/thread.h"
#include "os/settings.h"
#include "raw/raw.h"
#include "tarn/tarn.h"

#include <errno.h>
#include <string.h>

static OUT_OF_LINE void *copy_to_new(void *pointer, size_t old_bytes, size_t bytes)
{
    void *fresh = tarn_malloc(bytes);
    if (fresh == NULL)
        return NULL;
    memcpy(fresh, pointer, old_bytes < bytes ? old_bytes : bytes);
    tarn_free(pointer);
    return fresh;
}

static bool may_stay(size_t block_bytes, size_t bytes)
{
    return bytes <= block_bytes && bytes >= block_bytes / 2;
}

static bool is_run_size(size_t bytes)
{
    return bytes > SETTING(run_threshold_bytes) && bytes <= SETTING(raw_threshold_bytes);
}

static bool resize_run(void *pointer, size_t bytes)
{
    struct heap *heap = thread_heap();
    return heap != NULL && is_run_size(bytes) && run_resize(heap, pointer, bytes);
}

static void *resize_raw(void *pointer, size_t old_bytes, size_t bytes)
{
    if (bytes <= old_bytes && bytes >= old_bytes - old_bytes / 8)
        return pointer;
    void *resized = raw_realloc(pointer, bytes);
    if (resized != NULL)
        return resized;
    return bytes <= old_bytes ? pointer : NULL;
}

static void *resize(void *pointer, struct classified found, size_t bytes)
{
    switch (found.kind) {
    case KIND_RUN:
        if (resize_run(pointer, bytes))
            return pointer;
        break;
    case KIND_RAW:
        if (bytes > SETTING(raw_threshold_bytes) / 2) {
            void *resized = resize_raw(pointer, found.bytes, bytes);
            if (resized != NULL)
                return resized;
        }
        break;
    case KIND_GUARDED: /* moved always, so that the new end is guarded too */
        break;
    case KIND_POOL:
    case KIND_INVALID:
        if (may_stay(found.bytes, bytes))
            return pointer;
        break;
    }
    return copy_to_new(pointer, found.bytes, bytes);
}

static OUT_OF_LINE void *realloc_elsewhere(void *pointer, size_t bytes)
{
    if (pointer == NULL)
        return tarn_malloc(bytes);
    if (UNLIKELY(bytes > PTRDIFF_MAX)) {
        errno = ENOMEM;
        return NULL;
    }
    if (UNLIKELY(bytes == 0)) {
        tarn_free(pointer);
        return NULL;
    }
    return resize(pointer, classify_live(pointer, "realloc"), bytes);
}

EXPORT void *tarn_realloc(void *pointer, size_t bytes)
{
    if (TARN_HARDENED)
        return hardened_realloc(pointer, bytes);
    const struct pool *pool = classify_own(pointer);
    if (UNLIKELY(pool == NULL || bytes - 1 >= PTRDIFF_MAX))
        return realloc_elsewhere(pointer, bytes);
    if (LIKELY(may_stay(pool->block_bytes, bytes)))
        return pointer;
    return copy_to_new(pointer, pool->block_bytes, bytes);
}

EXPORT void *tarn_reallocarray(void *pointer, size_t count, size_t size)
{
    size_t bytes;
    if (UNLIKELY(!bits_multiply(count, size, &bytes))) {
        errno = ENOMEM;
        return NULL;
    }
    return tarn_realloc(pointer, bytes);
}

ALSO_AS(realloc, void *, void *, size_t)
ALSO_AS(reallocarray, void *, void *, size_t, size_t)
