/* What a pointer from the program is. For every path but that of free, which knows pools without asking. */
#ifndef TARN_API_CLASSIFY_H
#define TARN_API_CLASSIFY_H

#include "arena/address_index.h"
#include "heap/heap.h"
#include "pool/pool.h"

enum kind { KIND_INVALID, KIND_POOL, KIND_RUN, KIND_RAW, KIND_GUARDED };

struct classified {
    enum kind kind;
    size_t bytes;      /* usable */
    struct pool *pool; /* KIND_POOL */
    struct heap *heap; /* its owner, read once */
};

/* The pointer is not NULL. KIND_INVALID for anything that is not the start of a block or run or raw block; a
 * free block of a pool is KIND_POOL. Any thread. */
struct classified classify(const void *pointer);

/* The pool of a live block of the calling thread's own heap; NULL for anything else, which classify knows. */
ALWAYS_INLINE struct pool *classify_own(const void *pointer)
{
    if (UNLIKELY(((uintptr_t)pointer & (ARENA_BYTES - 1)) == 0 ||
                 address_index_get(pointer) != ADDRESS_ARENA))
        return NULL;
    struct arena *arena = arena_of(pointer);
    /* A word of the own heap was written by this thread; for any other classify loads again. */
    uint64_t offset = owned_xor(&arena->slot_map[arena_slot_of(pointer)], (uintptr_t)heap_self);
    if (UNLIKELY(offset >= POOL_WORD_CHECKED))
        return NULL;
    struct pool *pool = (struct pool *)((uintptr_t)arena + offset);
    bool live = !heap_may_mark_free(block_canary(pointer), pool) && pool_is_block(pool, pointer);
    return LIKELY(live) ? pool : NULL;
}

/* As classify, where anything but a live block is fatal. `call` is the function's name for the message. */
struct classified classify_live(const void *pointer, const char *call);

COLD __attribute__((noreturn)) void fatal_invalid(const void *pointer, const char *call);
COLD __attribute__((noreturn)) void fatal_freed_passed(const void *pointer, size_t bytes, const char *call);
COLD __attribute__((noreturn)) void fatal_size(const char *call, const void *pointer, size_t bytes,
                                               size_t block_bytes);
COLD __attribute__((noreturn)) void fatal_double_free(const void *pointer, size_t bytes);

#endif
