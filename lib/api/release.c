/* free and its relatives: classify, then local, remote, run or raw.
 *
 * The hot path (free_hot): the slot map word of the block differs from the thread's own heap only in the
 * low bits, which lead to the pool's descriptor. A mixed heap (heap/heap) takes all blocks the other way.
 */
#include "api/release.h"

#include "api/classify.h"
#include "api/hardened.h"
#include "api/names.h"
#include "base/counters.h"
#include "base/fatal.h"
#include "guard/guard.h"
#include "guard/guard_report.h"
#include "heap/mailbox.h"
#include "heap/run.h"
#include "heap/thread.h"
#include "os/settings.h"
#include "raw/raw.h"
#include "tarn/tarn.h"

COLD __attribute__((noreturn)) static void free_again(const void *pointer, const struct pool *pool)
{
    fatal_double_free(pointer, pool->block_bytes);
}

static uint64_t word_at(struct arena *arena, size_t slot)
{
    /* acquire: pairs with the release in enter_owner (pool/pool), which publishes the pool's fixed fields,
     * and with those in heap/run. */
    return atomic_load_explicit(&arena->slot_map[slot], memory_order_acquire);
}

/* Perhaps free already; or by a thread that has no heap yet, or no more, or has freed many; or its own block
 * after all, with TARN_CHECK. */
static OUT_OF_LINE void free_in_pool_rarely(struct block *block)
{
    struct heap *heap = thread_heap();
    /* After the thread has got its heap: that one's pools may have been given to another just before. */
    uint64_t word = word_at(arena_of(block), arena_slot_of(block));
    struct pool *pool = pool_of_word(block, word);
    uint32_t class;
    if (UNLIKELY(!pool_word_has_block(block, word, &class)))
        fatal_invalid(block, "free");
    bool own = heap == pool_word_heap(word);
    if (heap_marks_free(block_canary(block), pool))
        free_again(block, pool);
    if (own && UNLIKELY(!pool_is_block(pool, block)))
        fatal_invalid(block, "free");
    if (own && !heap->mixed)
        heap_free_own(pool, block);
    else if (heap != NULL)
        mailbox_send(heap, class, block);
    else
        mailbox_send_now(pool, block);
}

/* By a thread that has no heap. */
COLD static bool free_run_late(void *pointer)
{
    struct heap *heap = thread_late_heap();
    bool freed =
        heap != NULL ? run_free(heap, pointer) : run_free_without_heap(thread_late_reader(), pointer);
    thread_late_done();
    return freed;
}

static void free_run(void *pointer)
{
    struct heap *heap = thread_heap();
    if (!(heap != NULL ? run_free(heap, pointer) : free_run_late(pointer)))
        fatal_invalid(pointer, "free");
}

/* Not a block of a pool. */
static OUT_OF_LINE void free_large(void *pointer, uint64_t word)
{
    if (word != 0)
        free_run(pointer);
    else if (pointer != NULL && UNLIKELY(!raw_free(pointer)))
        fatal_invalid(pointer, "free");
}

/* Puts a block of a pool on the heap's list of its class, whoever owns it; false, and nothing changed, where
 * something is to be looked at. `sized` is a constant. */
ALWAYS_INLINE bool sent_at_once(struct arena *arena, size_t slot, uint64_t word, struct block *block,
                                bool sized, size_t bytes)
{
    uint32_t class;
    if (UNLIKELY(!pool_word_is_plain(word) ||
                 !pool_slot_has_block(arena, (uint32_t)slot, word, block, &class) ||
                 heap_may_mark_free(block_canary(block), pool_in_arena(arena, word))))
        return false;
    if (sized && UNLIKELY(bytes > class_bytes(class) || bytes < class_bytes(class) / 2 ||
                          !pool_is_block(pool_in_arena(arena, word), block)))
        return false;
    return LIKELY(mailbox_sent_at_once(heap_self, class, block));
}

static OUT_OF_LINE void free_not_sent(uint64_t word, void *pointer)
{
    if (run_begins(pointer, word) && LIKELY(run_kept_at_once(heap_self, pointer, run_word_slots(word))))
        return;
    if (word == GUARDED_WORD)
        guard_free(pointer);
    else if (word == 0 || word_is_run(word))
        free_large(pointer, word);
    else
        free_in_pool_rarely(pointer);
}

/* What the hot path of free does not serve, whose arena's slot map it has read: mostly blocks of other
 * threads. */
static OUT_OF_LINE void free_elsewhere(void *pointer, size_t slot, struct arena *arena)
{
    if (UNLIKELY(!arena_is_marked(arena)))
        fatal_invalid(pointer, "free");
    uint64_t word = word_at(arena, slot);
    if (UNLIKELY(!sent_at_once(arena, slot, word, pointer, false, 0)))
        free_not_sent(word, pointer);
}

static void release_sized_rarely(void *pointer, size_t bytes, const char *call);

/* The same for a block whose size the caller says. */
static OUT_OF_LINE void release_sized_elsewhere(void *pointer, size_t bytes, const char *call)
{
    struct arena *arena = arena_of(pointer);
    size_t slot = arena_slot_of(pointer);
    uint64_t word = LIKELY(arena_is_marked(arena)) ? word_at(arena, slot) : 0;
    if (UNLIKELY(!sent_at_once(arena, slot, word, pointer, true, bytes)))
        release_sized_rarely(pointer, bytes, call);
}

ALWAYS_INLINE void not_hot(void *pointer, bool sized, size_t bytes, const char *call)
{
    if (sized)
        release_sized_elsewhere(pointer, bytes, call);
    else
        free_elsewhere(pointer, arena_slot_of(pointer), arena_of(pointer));
}

/* The hot path. `sized` is a constant: with it, a block that does not fit `bytes` goes the slow way, to be
 * named. */
ALWAYS_INLINE void free_hot(void *pointer, bool sized, size_t bytes, const char *call)
{
    if (UNLIKELY(((uintptr_t)pointer & (ARENA_BYTES - 1)) == 0)) {
        if (sized)
            release_sized_rarely(pointer, bytes, call);
        else
            free_large(pointer, 0);
        return;
    }
    struct arena *arena = arena_of(pointer);
    /* A word of the own heap was written by this thread; for any other the slow path loads again. */
    uint64_t offset = owned_xor(&arena->slot_map[arena_slot_of(pointer)], heap_own_word);
    if (UNLIKELY(offset >= POOL_WORD_CHECKED)) {
        not_hot(pointer, sized, bytes, call);
        return;
    }
    struct pool *pool = (struct pool *)((uintptr_t)arena + offset);
    struct block *block = pointer;
    if (sized && UNLIKELY(bytes > pool->block_bytes || bytes < pool->block_bytes / 2)) {
        not_hot(pointer, sized, bytes, call);
        return;
    }
    if (UNLIKELY(block_canary(block) == pool)) {
        free_again(pointer, pool);
        return;
    }
    heap_free_own(pool, block);
}

EXPORT void tarn_free(void *pointer)
{
    counter_add(COUNTER_CALL, 1);
    if (TARN_HARDENED)
        hardened_free(pointer, HARDENED_ANY_SIZE, "free");
    else
        free_hot(pointer, false, 0, "free");
}

/* A request for `bytes` may have been served by this block, also after realloc has left a block up to twice
 * as large as needed where it was. */
static bool fits(struct classified found, size_t bytes)
{
    if (found.kind == KIND_GUARDED)
        return bytes == found.bytes;
    if (bytes > found.bytes)
        return false;
    if (found.kind == KIND_RAW)
        return raw_fits(found.bytes, bytes);
    return bytes >= found.bytes / 2 || (found.kind == KIND_RUN && bytes + SLOT_BYTES > found.bytes) ||
           found.bytes <= BLOCK_ALIGNMENT ||
           class_bytes(class_of_size(bytes == 0 ? 1 : bytes)) == found.bytes;
}

static OUT_OF_LINE void release_sized_rarely(void *pointer, size_t bytes, const char *call)
{
    if (pointer == NULL)
        return;
    struct classified found = classify(pointer);
    if (UNLIKELY(found.kind == KIND_INVALID))
        fatal_invalid(pointer, call);
    if (UNLIKELY(!fits(found, bytes)))
        fatal_size(call, pointer, bytes, found.bytes);
    free_hot(pointer, false, 0, call);
}

void release_sized(void *pointer, size_t bytes, const char *call)
{
    if (TARN_HARDENED)
        hardened_free(pointer, bytes, call);
    else
        free_hot(pointer, true, bytes, call);
}

void release_aligned(void *pointer, size_t alignment, size_t bytes, const char *call)
{
    if (pointer == NULL)
        return;
    if (TARN_HARDENED) {
        release_check_alignment(pointer, alignment, call);
        hardened_free(pointer, bytes, call);
        return;
    }
    struct classified found = classify(pointer);
    if (UNLIKELY(found.kind == KIND_INVALID))
        fatal_invalid(pointer, call);
    if (UNLIKELY(bytes > found.bytes))
        fatal_size(call, pointer, bytes, found.bytes);
    release_check_alignment(pointer, alignment, call);
    tarn_free(pointer);
}

void release_check_alignment(const void *pointer, size_t alignment, const char *call)
{
    if (LIKELY(bits_is_power_of_two(alignment) && ((uintptr_t)pointer & (alignment - 1)) == 0))
        return;
    struct text line = {0};
    text_string(&line, call);
    text_string(&line, " of ");
    text_address(&line, pointer);
    text_string(&line, " with alignment ");
    text_decimal(&line, alignment);
    text_string(&line, ", but the block does not have it");
    fatal_line(&line);
}

EXPORT void tarn_cfree(void *pointer)
{
    tarn_free(pointer);
}

EXPORT void tarn_free_sized(void *pointer, size_t bytes)
{
    release_sized(pointer, bytes, "free_sized");
}

EXPORT void tarn_free_aligned_sized(void *pointer, size_t alignment, size_t bytes)
{
    release_aligned(pointer, alignment, bytes, "free_aligned_sized");
}

EXPORT size_t tarn_malloc_usable_size(void *pointer)
{
    if (TARN_HARDENED)
        return pointer == NULL ? 0 : hardened_bytes(pointer, "malloc_usable_size");
    const struct pool *pool = classify_own(pointer);
    if (LIKELY(pool != NULL))
        return pool->block_bytes;
    return pointer == NULL ? 0 : classify_live(pointer, "malloc_usable_size").bytes;
}

ALSO_AS(free, void, void *)
ALSO_AS(cfree, void, void *)
ALSO_AS(free_sized, void, void *, size_t)
ALSO_AS(free_aligned_sized, void, void *, size_t, size_t)
ALSO_AS(malloc_usable_size, size_t, void *)
