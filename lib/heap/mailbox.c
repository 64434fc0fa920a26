#include "heap/mailbox.h"

#include "base/fatal.h"
#include "base/probe.h"
#include "heap/park.h"

/* Messages for one owner, linked from first to last. */
struct batch {
    struct heap *owner; /* NULL: none */
    struct block *first;
    struct block *last;
};

#define BATCHES 64U
#define CHAINS  64U

/* ---- a message's first word ---- */

/* The tag shows the receiver that nobody has freed or used the block since it was sent. */
static void message_write(struct block *last, struct block *next_message, uint64_t blocks)
{
    uintptr_t word = (uintptr_t)next_message | (uintptr_t)(blocks << MESSAGE_BLOCKS_SHIFT) | MESSAGE_TAG;
    block_set_canary(last, (const struct pool *)word);
}

bool mailbox_is_message(const struct block *last)
{
    return ((uintptr_t)block_canary(last) & MESSAGE_TAG_MASK) == MESSAGE_TAG;
}

static struct block *message_next(const struct block *last)
{
    return (struct block *)((uintptr_t)block_canary(last) & MESSAGE_ADDRESS_MASK);
}

static uint32_t message_blocks(const struct block *last)
{
    return (uint32_t)((uintptr_t)block_canary(last) >> MESSAGE_BLOCKS_SHIFT);
}

static uint64_t word_of_block(const struct block *block)
{
    /* acquire: pairs with the release in enter_owner (pool/pool); the heap is initialised. */
    return atomic_load_explicit(&arena_of(block)->slot_map[arena_slot_of(block)], memory_order_acquire);
}

static struct heap *owner_of_block(const struct block *block)
{
    return pool_word_heap(word_of_block(block));
}

/* ---- posting ---- */

static void post(struct heap *owner, struct block *first, struct block *last)
{
    uint64_t blocks = message_blocks(last);
    struct block *head = atomic_load_explicit(&owner->inbox, memory_order_relaxed);
    counter_add(COUNTER_REMOTE_POST, 1);
    for (;;) {
        message_write(last, head, blocks);
        counter_locked();
        /* release: pairs with the acquire in mailbox_drain; publishes canary and next of all blocks. Whatever
         * head is by now, it is only pushed under: no ABA. */
        if (atomic_compare_exchange_weak_explicit(&owner->inbox, &head, first, memory_order_release,
                                                  memory_order_relaxed))
            return;
        counter_retry();
    }
}

/* Takes a message: onto the list of its pool, or on to the heap that owns it by now. */
static void receive(struct heap *heap, struct block *last)
{
    uint64_t word = word_of_block(last);
    uint32_t blocks = message_blocks(last);
    if (UNLIKELY(pool_word_heap(word) != heap)) {
        message_write(last, NULL, blocks);
        post(pool_word_heap(word), last, last);
        return;
    }
    struct pool *pool = pool_of_word(last, word);
    if (UNLIKELY(!pool_is_block(pool, last))) /* a block that was never given out: the sender cannot know */
        fatal_pointer("invalid pointer was passed to free: no live block begins at", last);
    struct block *first = block_next(last);
    block_put(last, pool, pool->free);
    pool->free = first;
    PROBE_3(remote_receive, heap->number, blocks, pool->block_bytes);
    owned_add(&heap->counts.received_blocks, blocks);
    owned_add(&heap->counts.received_bytes, (uint64_t)blocks * pool->block_bytes);
    heap_blocks_came_back(heap, pool, blocks);
}

static void batch_add(struct batch *batch, struct block *message)
{
    if (batch->first == NULL)
        batch->last = message;
    message_write(message, batch->first, message_blocks(message));
    batch->first = message;
}

static void post_batch(struct heap *heap, const struct batch *batch)
{
    post(batch->owner, batch->first, batch->last);
    park_posted_to(heap, batch->owner);
}

static void count_sent(struct heap *heap, const struct block *message)
{
    uint32_t class;
    pool_word_has_block(message, word_of_block(message), &class);
    PROBE_3(remote_post, owner_of_block(message)->number, message_blocks(message), class_bytes(class));
    owned_add(&heap->counts.sent_blocks, message_blocks(message));
    owned_add(&heap->counts.sent_bytes, (uint64_t)message_blocks(message) * class_bytes(class));
}

/* The batch for this owner; one for another owner in its place is posted. */
static struct batch *batch_for(struct heap *heap, struct batch batches[BATCHES], struct heap *owner)
{
    struct batch *batch = &batches[(uintptr_t)owner / HEAP_ALIGNMENT % BATCHES];
    if (batch->owner == owner)
        return batch;
    if (batch->owner != NULL)
        post_batch(heap, batch);
    *batch = (struct batch){.owner = owner};
    return batch;
}

/* Not inlined: what it needs of the stack and what gathering needs are not there at the same time. */
static OUT_OF_LINE void post_messages(struct heap *heap, struct block *message)
{
    struct batch batches[BATCHES] = {{.owner = NULL}};
    while (message != NULL) {
        struct block *next = message_next(message);
        struct heap *owner = owner_of_block(message);
        if (owner == heap) {
            receive(heap, message);
        } else {
            count_sent(heap, message);
            batch_add(batch_for(heap, batches, owner), message);
        }
        message = next;
    }
    for (uint32_t i = 0; i < BATCHES; i++)
        if (batches[i].owner != NULL)
            post_batch(heap, &batches[i]);
}

/* ---- gathering chains ---- */

struct chain {
    struct pool *pool; /* NULL: none */
    struct block *last;
    uint32_t blocks;
};

struct gathering {
    struct chain chains[CHAINS];
    struct block *pending; /* chains that lost their place, and in the end all, as messages */
};

static void chain_to_pending(struct gathering *gathering, struct chain *chain)
{
    message_write(chain->last, gathering->pending, chain->blocks);
    gathering->pending = chain->last;
    chain->pool = NULL;
}

static struct chain *chain_for(struct gathering *gathering, const struct pool *pool)
{
    uintptr_t descriptor = (uintptr_t)pool / ARENA_DESCRIPTOR_BYTES;
    uintptr_t arena = (uintptr_t)pool / ARENA_BYTES;
    return &gathering->chains[(descriptor ^ descriptor / CHAINS ^ arena) % CHAINS];
}

static void gather(struct gathering *gathering, struct block *block)
{
    struct pool *pool = pool_of_word(block, word_of_block(block));
    struct chain *chain = chain_for(gathering, pool);
    if (chain->pool == pool) {
        block_put(block, pool, block_next(chain->last));
        block_set_next(chain->last, block);
        chain->blocks++;
        return;
    }
    if (chain->pool != NULL)
        chain_to_pending(gathering, chain);
    block_put(block, pool, block);
    *chain = (struct chain){.pool = pool, .last = block, .blocks = 1};
}

static void gather_list(struct gathering *gathering, struct foreign *foreign)
{
    struct block *block = foreign->free;
    foreign->free = &pool_end;
    owned_write(&foreign->taken, 0);
    while (block != &pool_end) {
        struct block *next = block_next(block);
        if (UNLIKELY((const void *)block_canary(block) != foreign))
            fatal_overwritten(block, foreign->block_bytes);
        gather(gathering, block);
        block = next;
    }
}

/* All blocks of the foreign lists, as messages. */
static OUT_OF_LINE struct block *gather_all(struct heap *heap)
{
    struct gathering gathering = {.pending = NULL};
    for (uint32_t class = 0; class < CLASS_COUNT; ++class)
        gather_list(&gathering, &heap->foreign[class]);
    for (uint32_t i = 0; i < CHAINS; i++)
        if (gathering.chains[i].pool != NULL)
            chain_to_pending(&gathering, &gathering.chains[i]);
    return gathering.pending;
}

void mailbox_flush(struct heap *heap)
{
    if (heap->foreign_bytes == 0)
        return;
    struct block *messages = gather_all(heap);
    heap->foreign_bytes = 0;
    post_messages(heap, messages);
}

/* ---- foreign lists ---- */

/* Takes what malloc took out of the lists off the bytes in them. */
static void recount(struct heap *heap)
{
    for (uint32_t class = 0; class < CLASS_COUNT; ++class) {
        struct foreign *foreign = &heap->foreign[class];
        heap->foreign_bytes -= (size_t)owned_read(&foreign->taken) * foreign->block_bytes;
        owned_write(&foreign->taken, 0);
    }
}

/* Of the blocks that lie first on the foreign lists, whether more than three in four are the heap's own. */
static bool are_mostly_own(const struct heap *heap)
{
    uint32_t own = 0;
    uint32_t others = 0;
    for (uint32_t class = 0; class < CLASS_COUNT; ++class) {
        const struct block *block = heap->foreign[class].free;
        bool is_own = block != &pool_end && owner_of_block(block) == heap;
        own += is_own;
        others += block != &pool_end && !is_own;
    }
    return own > 3 * others;
}

/* Mixed where malloc takes what is freed: a heap that is only emptied would keep its own pools from becoming
 * empty. Of a plain one so many blocks were of others that it may be worth it to treat all alike; whether it
 * is, is seen the next time. */
static void choose_mode(struct heap *heap, bool is_reused)
{
    bool mixed = is_reused && !(heap->mixed && are_mostly_own(heap));
    if (mixed != heap->mixed)
        heap_set_mixed(heap, mixed);
}

/* Fewer than half of the bytes that may be kept are, so that the next look is far off. */
static void bound_bytes(struct heap *heap)
{
    size_t listed = heap->foreign_bytes;
    recount(heap);
    if (heap->foreign_bytes_most > 0)
        choose_mode(heap, listed - heap->foreign_bytes >= listed / 4);
    heap->foreign_bytes_most = heap_may_keep_slots(heap) * SLOT_BYTES;
    if (heap->foreign_bytes > heap->foreign_bytes_most / 2)
        mailbox_flush(heap);
}

void mailbox_send(struct heap *heap, uint32_t class, struct block *block)
{
    while (UNLIKELY(!mailbox_sent_at_once(heap, class, block)))
        bound_bytes(heap);
}

void mailbox_send_now(const struct pool *pool, struct block *block)
{
    counter_add(COUNTER_REMOTE_BLOCK, 1);
    PROBE_3(remote_post, owner_of_block(block)->number, 1, class_bytes(pool_class(pool)));
    block_put(block, pool, block);
    message_write(block, NULL, 1);
    post(owner_of_block(block), block, block);
}

/* ---- the inbox ---- */

COLD __attribute__((noreturn)) static void fatal_spoilt(const struct block *last)
{
    uint64_t word = word_of_block(last);
    uint32_t class;
    pool_word_has_block(last, word, &class);
    bool freed = heap_marks_free(block_canary(last), pool_of_word(last, word));
    fatal_block(freed ? "double free of" : "heap corruption: freed memory was written to at", last,
                class_bytes(class), "class");
}

bool mailbox_is_waiting(struct heap *heap)
{
    return atomic_load_explicit(&heap->inbox, memory_order_relaxed) != NULL;
}

bool mailbox_drain(struct heap *heap)
{
    if (LIKELY(!mailbox_is_waiting(heap)))
        return false;
    counter_locked();
    /* acquire: pairs with the release in post. */
    struct block *message = atomic_exchange_explicit(&heap->inbox, NULL, memory_order_acquire);
    while (message != NULL) {
        if (UNLIKELY(!mailbox_is_message(message)))
            fatal_spoilt(message);
        struct block *next = message_next(message);
        receive(heap, message);
        message = next;
    }
    return true;
}

/* ---- the invariants ---- */

/* The class of the block's pool, if one begins there. */
static bool class_of_block(const struct block *block, uint32_t *class)
{
    uint64_t word = word_of_block(block);
    return pool_word_has_block(block, word, class) && pool_is_block(pool_of_word(block, word), block);
}

/* Adds what the list holds, and what was taken, to *bytes, as long as that is no more than bytes_most: a ring
 * would have no end. */
static bool list_is_valid(const struct foreign *foreign, uint32_t class, size_t bytes_most, size_t *bytes)
{
    for (const struct block *block = foreign->free; block != &pool_end; block = block_next(block)) {
        uint32_t found;
        if ((const void *)block_canary(block) != foreign || !class_of_block(block, &found) ||
            found != class || *bytes > bytes_most)
            return false;
        *bytes += foreign->block_bytes;
    }
    *bytes += (size_t)owned_read(&foreign->taken) * foreign->block_bytes;
    return true;
}

/* The ring of blocks of one pool, of which the first may have an owner of its own by now. */
static bool message_is_valid(const struct block *last)
{
    struct pool *pool = pool_of_word(last, word_of_block(last));
    uint32_t blocks = message_blocks(last);
    uint32_t class;
    const struct block *block = block_next(last);
    for (uint32_t i = 1; i < blocks; i++, block = block_next(block))
        if (block == last || block_canary(block) != pool || !class_of_block(block, &class))
            return false;
    return block == last && mailbox_is_message(last) && class_of_block(last, &class) &&
           pool_used(pool) >= blocks;
}

bool mailbox_is_valid(struct heap *heap)
{
    size_t bytes = 0;
    for (uint32_t class = 0; class < CLASS_COUNT; ++class)
        if (!list_is_valid(&heap->foreign[class], class, heap->foreign_bytes, &bytes))
            return false;
    /* acquire: as in mailbox_drain */
    const struct block *message = atomic_load_explicit(&heap->inbox, memory_order_acquire);
    for (; message != NULL; message = message_next(message))
        if (!message_is_valid(message))
            return false;
    return bytes == heap->foreign_bytes;
}
