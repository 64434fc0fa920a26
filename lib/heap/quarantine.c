#include "heap/quarantine.h"

#include "heap/mailbox.h"
#include "os/settings.h"
#include "pool/trailer.h"

static uint64_t word_of(const struct block *block)
{
    /* acquire: as in free_elsewhere (api/release). */
    return atomic_load_explicit(&arena_of(block)->slot_map[arena_slot_of(block)], memory_order_acquire);
}

static size_t bytes_of(const struct block *block)
{
    struct arena *arena = arena_of(block);
    return class_bytes(atomic_load_explicit(&arena->slot_class[arena_slot_of(block)], memory_order_relaxed));
}

void quarantine_release(struct heap *heap, struct block *block)
{
    uint64_t word = word_of(block);
    struct pool *pool = pool_of_word(block, word);
    size_t bytes = bytes_of(block);
    if (UNLIKELY(!trailer_is_untouched(block, bytes, 0)))
        fatal_overwritten(block, bytes);
    if (heap == NULL)
        mailbox_send_now(pool, block);
    else if (pool_word_heap(word) == heap && !heap->mixed)
        heap_free_own(pool, block);
    else
        mailbox_send(heap, class_of_size(bytes), block);
}

static void leave(struct heap *heap, struct block **place)
{
    struct block *block = *place;
    if (block == NULL)
        return;
    *place = NULL;
    heap->quarantine.bytes -= bytes_of(block);
    quarantine_release(heap, block);
}

static uint32_t random_place(struct quarantine *quarantine)
{
    quarantine->draws++;
    return (uint32_t)(secret_of((uintptr_t)quarantine ^ quarantine->draws << 20, SECRET_ORDER) %
                      QUARANTINE_SCATTERED);
}

static void leave_oldest(struct heap *heap)
{
    struct quarantine *quarantine = &heap->quarantine;
    leave(heap, &quarantine->queue[quarantine->oldest]);
    quarantine->oldest = (quarantine->oldest + 1) % QUARANTINE_QUEUED;
}

void quarantine_flush(struct heap *heap)
{
    struct quarantine *quarantine = &heap->quarantine;
    for (uint32_t i = 0; i < QUARANTINE_QUEUED && quarantine->bytes > 0; i++)
        leave_oldest(heap);
    for (uint32_t i = 0; i < QUARANTINE_SCATTERED && quarantine->bytes > 0; i++)
        leave(heap, &quarantine->scattered[i]);
}

/* Who stood in the place of the new one goes to the end of the queue. */
void quarantine_put(struct heap *heap, struct block *block, size_t block_bytes)
{
    struct quarantine *quarantine = &heap->quarantine;
    struct block **place = &quarantine->scattered[random_place(quarantine)];
    struct block *displaced = *place;
    *place = block;
    quarantine->bytes += block_bytes;
    if (displaced != NULL) {
        uint32_t end = quarantine->oldest;
        leave_oldest(heap);
        quarantine->queue[end] = displaced;
    }
    for (uint32_t i = 0; i < QUARANTINE_QUEUED && quarantine->bytes > SETTING(quarantine_bytes); i++)
        leave_oldest(heap);
    if (UNLIKELY(quarantine->bytes > SETTING(quarantine_bytes)))
        quarantine_flush(heap);
}
