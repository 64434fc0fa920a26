#include "api/hardened.h"

#include "api/classify.h"
#include "base/fatal.h"
#include "heap/mailbox.h"
#include "heap/park.h"
#include "heap/quarantine.h"
#include "heap/thread.h"
#include "heap/tick.h"
#include "observe/arena_walk.h"
#include "os/lock.h"
#include "os/rcu.h"
#include "os/settings.h"
#include "pool/trailer.h"
#include "raw/empty.h"
#include "raw/raw.h"

#include <errno.h>
#include <string.h>

/* A signal handler that ends the process may have interrupted any of the calls below: blocks are then between
 * two states, and nothing is checked. */
static THREAD_LOCAL unsigned depth;

/* Held by the look at exit, and by a thread without a heap of its own as long as one of the calls below
 * lasts: the look counts threads by their heaps, and no other may begin to allocate while it lasts. Of the
 * locks only that for registering comes before it. */
static lock newcomers_lock = LOCK_INITIAL;
static THREAD_LOCAL bool holds_newcomers;

static void enter(void)
{
    if (UNLIKELY(heap_self == &heap_none) && depth == 0) {
        lock_acquire(&newcomers_lock);
        holds_newcomers = true;
    }
    depth++;
    atomic_signal_fence(memory_order_acq_rel);
}

static void leave(void)
{
    atomic_signal_fence(memory_order_acq_rel);
    depth--;
    if (UNLIKELY(holds_newcomers) && depth == 0) {
        holds_newcomers = false;
        lock_release(&newcomers_lock);
    }
}

void hardened_before_fork(void)
{
    lock_acquire(&newcomers_lock);
}

void hardened_after_fork(void)
{
    lock_release(&newcomers_lock);
}

/* ---- malloc ---- */

static void *from_pool(size_t request, size_t bytes)
{
    size_t block_bytes = class_bytes(class_of_size(request));
    void *block = request <= DIRECT_BYTES_MOST ? heap_malloc_small(heap_self, request)
                                               : heap_malloc_medium(heap_self, request);
    if (block == NULL)
        return NULL;
    if (UNLIKELY(!trailer_is_untouched(block, block_bytes, sizeof(struct block))))
        fatal_overwritten(block, block_bytes);
    *(struct block *)block = (struct block){NULL, NULL};
    trailer_write(block, block_bytes, bytes);
    return block;
}

static void *from_raw(size_t bytes, size_t alignment)
{
    size_t dirty_bytes;
    struct heap *heap = thread_heap();
    if (heap != NULL)
        tick_spend(heap, bytes);
    return raw_malloc(bytes, alignment, &dirty_bytes);
}

static size_t request_for(size_t bytes)
{
    size_t request = bytes + TRAILER_BYTES;
    return request < TRAILER_REQUEST_LEAST ? TRAILER_REQUEST_LEAST : request;
}

static void *take(size_t bytes, size_t alignment)
{
    if (bytes == 0 && alignment <= BLOCK_ALIGNMENT) {
        void *block = empty_take();
        if (block != NULL)
            return block;
    }
    if (bytes > PTRDIFF_MAX)
        return NULL;
    size_t request = request_for(bytes);
    if (alignment <= SLOT_BYTES && request <= SETTING(run_threshold_bytes)) {
        request = class_aligned_request(request, alignment);
        if (request <= SETTING(run_threshold_bytes))
            return from_pool(request, bytes);
    }
    return from_raw(bytes, alignment);
}

void *hardened_malloc(size_t bytes, size_t alignment)
{
    enter();
    void *block = take(bytes, alignment < BLOCK_ALIGNMENT ? BLOCK_ALIGNMENT : alignment);
    leave();
    if (UNLIKELY(block == NULL))
        errno = ENOMEM;
    return block;
}

/* ---- what a pointer is ---- */

enum live_kind { LIVE_EMPTY, LIVE_POOL, LIVE_RAW };

struct live {
    enum live_kind kind;
    size_t bytes;       /* asked for */
    size_t block_bytes; /* of the pool's block */
};

COLD __attribute__((noreturn)) static void fatal_freed(const void *pointer, size_t bytes, const char *call)
{
    if (strcmp(call, "free") == 0)
        fatal_double_free(pointer, bytes);
    fatal_freed_passed(pointer, bytes, call);
}

static struct live live_in_pool(const void *pointer, size_t block_bytes, const char *call)
{
    struct live live = {.kind = LIVE_POOL, .block_bytes = block_bytes};
    switch (trailer_read(pointer, block_bytes, &live.bytes)) {
    case TRAILER_IN_USE:
        return live;
    case TRAILER_FREE:
        fatal_freed(pointer, block_bytes, call);
    case TRAILER_DAMAGED:
        break;
    }
    fatal_overflow(pointer, block_bytes, "-byte class");
}

static struct live live_elsewhere(const void *pointer, const char *call)
{
    if (address_index_get(pointer) == ADDRESS_EMPTY) {
        if (!empty_is_taken(pointer))
            fatal_invalid(pointer, call);
        return (struct live){.kind = LIVE_EMPTY};
    }
    if (raw_was_freed(pointer) && strcmp(call, "free") == 0)
        fatal_pointer("double free of", pointer);
    fatal_invalid(pointer, call);
}

/* Anything but a block in use is fatal. */
static struct live look_up(const void *pointer, const char *call)
{
    struct classified found = classify(pointer);
    switch (found.kind) {
    case KIND_POOL:
        return live_in_pool(pointer, found.bytes, call);
    case KIND_RAW:
        return (struct live){.kind = LIVE_RAW, .bytes = raw_asked_bytes(pointer)};
    case KIND_RUN:
    case KIND_GUARDED:
    case KIND_INVALID:
        break;
    }
    return live_elsewhere(pointer, call);
}

size_t hardened_bytes(const void *pointer, const char *call)
{
    return look_up(pointer, call).bytes;
}

/* ---- free ---- */

static void free_in_pool(struct block *block, struct live live)
{
    if (UNLIKELY(!trailer_free(block, live.block_bytes, live.bytes)))
        fatal_double_free(block, live.block_bytes);
    struct heap *heap = thread_heap();
    if (heap != NULL)
        quarantine_put(heap, block, live.block_bytes);
    else
        quarantine_release(NULL, block);
}

static void free_live(void *pointer, struct live live)
{
    bool freed = true;
    enter();
    if (live.kind == LIVE_POOL)
        free_in_pool(pointer, live);
    else
        freed = live.kind == LIVE_RAW ? raw_free(pointer) : empty_give(pointer);
    if (UNLIKELY(!freed))
        fatal_invalid(pointer, "free");
    leave();
}

void hardened_free(void *pointer, size_t bytes, const char *call)
{
    if (pointer == NULL)
        return;
    struct live live = look_up(pointer, call);
    if (UNLIKELY(bytes != HARDENED_ANY_SIZE && bytes != live.bytes))
        fatal_size(call, pointer, bytes, live.bytes);
    free_live(pointer, live);
}

/* ---- realloc ---- */

/* A block stays when the new size still fills half of it, or would get one like it. */
static bool may_stay(size_t block_bytes, size_t bytes)
{
    return bytes <= block_bytes - TRAILER_BYTES &&
           (bytes >= block_bytes / 2 || class_bytes(class_of_size(request_for(bytes))) == block_bytes);
}

static bool stays_as_it_is(void *pointer, struct live live, size_t bytes)
{
    switch (live.kind) {
    case LIVE_POOL:
        if (!may_stay(live.block_bytes, bytes))
            return false;
        trailer_write(pointer, live.block_bytes, bytes);
        return true;
    case LIVE_RAW:
        return bytes > CLASS_BYTES_MOST && raw_ask_again(pointer, bytes);
    case LIVE_EMPTY:
        break;
    }
    return false;
}

static bool stays(void *pointer, struct live live, size_t bytes)
{
    enter();
    bool it_does = stays_as_it_is(pointer, live, bytes);
    leave();
    return it_does;
}

void *hardened_realloc(void *pointer, size_t bytes)
{
    if (pointer == NULL)
        return hardened_malloc(bytes, BLOCK_ALIGNMENT);
    struct live live = look_up(pointer, "realloc");
    if (bytes == 0) {
        free_live(pointer, live);
        return NULL;
    }
    if (stays(pointer, live, bytes))
        return pointer;
    void *fresh = hardened_malloc(bytes, BLOCK_ALIGNMENT);
    if (fresh == NULL)
        return NULL;
    memcpy(fresh, pointer, live.bytes < bytes ? live.bytes : bytes);
    free_live(pointer, live);
    return fresh;
}

/* ---- the check at the end ---- */

/* The list words of a free block: on a list of its pool, of some heap, or of messages. */
static bool list_words_are_whole(const struct block *block, const struct pool *pool)
{
    return block_may_follow(block_next(block)) &&
           (heap_marks_free(block_canary(block), pool) || mailbox_is_message(block));
}

static void check_block(const struct pool *pool, const struct block *block, size_t block_bytes)
{
    size_t bytes;
    switch (trailer_read(block, block_bytes, &bytes)) {
    case TRAILER_IN_USE:
        return;
    case TRAILER_FREE:
        if (trailer_is_untouched(block, block_bytes, sizeof *block) && list_words_are_whole(block, pool))
            return;
        fatal_overwritten(block, block_bytes);
    case TRAILER_DAMAGED:
        fatal_overflow(block, block_bytes, "-byte class");
    }
}

static void check_pool(const struct pool *pool)
{
    size_t block_bytes = class_bytes(pool_class(pool));
    for (uint32_t number = 0; number < pool_carved(pool); number++)
        check_block(pool, (const struct block *)(void *)(pool_start(pool) + number * block_bytes),
                    block_bytes);
}

static void check_arena(void *context, struct arena *arena)
{
    (void)context;
    for (uint32_t slot = ARENA_HEADER_SLOTS; slot < ARENA_END_SLOT; slot++) {
        uint64_t word = atomic_load_explicit(&arena->slot_map[slot], memory_order_acquire);
        const struct pool *pool = pool_of_word(arena_slot_address(arena, slot), word);
        if (word != 0 && !word_is_run(word) && pool == pool_at(arena, slot))
            check_pool(pool);
    }
}

/* Where another thread may run, its blocks change while they are looked at. */
static bool is_alone(const struct heap *heap)
{
    uint32_t running = 0;
    for (uint32_t number = 0; number < park_bound(); number++)
        running += !park_is_parked(number);
    return heap != NULL && running == 1;
}

static void check_blocks(struct heap *heap)
{
    quarantine_flush(heap);
    mailbox_drain(heap);
    arena_walk(check_arena, NULL);
    raw_check_all();
}

void hardened_check_all(void)
{
    struct heap *heap = thread_heap();
    if (depth > 0)
        return;
    walk_begin(); /* registers the thread: the lock for that comes before the newcomers' */
    walk_end();
    lock_acquire(&newcomers_lock);
    if (is_alone(heap))
        check_blocks(heap);
    lock_release(&newcomers_lock);
}
