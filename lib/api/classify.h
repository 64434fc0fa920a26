/* What a pointer from the program is. For every path but the hot one of free, which knows its own pools
 * without asking.
 */
#ifndef TARN_API_CLASSIFY_H
#define TARN_API_CLASSIFY_H

#include "arena/address_index.h"
#include "heap/heap.h"
#include "pool/pool.h"

enum kind { KIND_INVALID, KIND_POOL, KIND_RUN, KIND_RAW };

struct classified {
    enum kind kind;
    size_t bytes;      /* usable */
    struct pool *pool; /* KIND_POOL */
    struct heap *heap; /* its owner, read once */
};

/* The pointer is not NULL. KIND_INVALID for anything that is not the start of a block or run or raw block; a
 * free block of a pool is KIND_POOL. Any thread. */
struct classified classify(const void *pointer);

/* The slot map word of an address where a block of an arena could begin; 0 when none could. */
ALWAYS_INLINE uint64_t classify_word(const void *pointer)
{
    if (((uintptr_t)pointer & (ARENA_BYTES - 1)) == 0 || address_index_get(pointer) != ADDRESS_ARENA)
        return 0;
    /* acquire: pairs with the release in enter_owner (pool/pool), which publishes the pool's fixed fields,
     * and with those in heap/run. */
    return atomic_load_explicit(&arena_of(pointer)->slot_map[arena_slot_of(pointer)], memory_order_acquire);
}

/* The same, where anything but a live block is fatal. `call` is the function's name for the message. */
struct classified classify_live(const void *pointer, const char *call);

COLD __attribute__((noreturn)) void fatal_invalid(const void *pointer, const char *call);
COLD __attribute__((noreturn)) void fatal_double_free(const void *pointer, size_t bytes);

#endif
