#include "heap/inspect.h"

#include "base/fatal.h"

static struct pool *pool_at_word(const struct block *block, uint32_t *class)
{
    uint64_t word =
        atomic_load_explicit(&arena_of(block)->slot_map[arena_slot_of(block)], memory_order_acquire);
    if (!pool_word_is_plain(word & ~POOL_WORD_CHECKED) || !pool_word_has_block(block, word, class))
        return NULL;
    return pool_of_word(block, word);
}

/* The next block, of a block that may be looked at. */
static const struct block *inspect_block(const struct block *block, size_t block_bytes, bool is_first)
{
    uint32_t class;
    const struct pool *pool = pool_at_word(block, &class);
    if (pool == NULL)
        fatal_pointer("invalid pointer was passed to free: no live block begins at", block);
    const struct block *next = block_next(block);
    bool is_marked = heap_marks_free(block_canary(block), pool) || (is_first && block->canary == NULL);
    if (!is_marked || !block_may_follow(next))
        fatal_overwritten(block, block_bytes);
    return next;
}

static void inspect_list(const struct block *first, size_t block_bytes, uint32_t *left)
{
    for (const struct block *block = first; block != &pool_end && *left > 0; --*left)
        block = inspect_block(block, block_bytes, block == first);
}

void inspect_lists(const struct heap *heap, uint32_t blocks_most)
{
    for (uint32_t class = 0; class < CLASS_COUNT; ++class) {
        const struct bin *bin = &heap->bins[class];
        inspect_list(heap->foreign[class].free, class_bytes(class), &blocks_most);
        inspect_list(bin->own->free, class_bytes(class), &blocks_most);
        for (const struct pool *pool = bin->first; pool != NULL && blocks_most > 0; pool = pool->next)
            inspect_list(pool->free, class_bytes(class), &blocks_most);
    }
}
