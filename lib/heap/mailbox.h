/* Remote free: how a block gets from the thread that frees it to the heap that owns its pool, if it has to.
 *
 *   free by another thread ─► own foreign[class] ─┬─► malloc of the same class by this thread
 *                                                 └─(flush)─► owner's inbox ─(drain)─► the pool's list
 *
 * A flush gathers the blocks into chains: blocks of one pool, linked in a ring through `next`, last → first →
 * … → last. Posted, a chain is a message, known by its last block, whose first word holds the next message
 * and the number of blocks:
 *
 *   inbox ──► last block { next message | blocks << 48 | tag , next ──► first block { canary, next } ──► …
 * ──► last block } └─► last block of the next message …
 *
 * So the owner takes a whole chain onto the pool's list by writing one block, and a flush posts all chains
 * for one owner with one CAS. An inbox is push-a-chain, take-all: no ABA, and the sender touches nothing
 * after its CAS.
 *
 * A block in a foreign list or inbox counts as used in its pool, so the pool cannot be given away under it.
 * The owner is read when a chain is posted; should the pool have moved since (adoption), the drain finds
 * another owner in the slot map and posts the message on.
 *
 * Foreign lists are bounded in bytes (heap_may_keep_slots), and flushed on the tick and when the thread
 * exits. When the bound is reached, a plain heap becomes mixed (heap/heap), if malloc has taken some of what
 * was freed; and plain again, if it has not, or if most of what lies on the lists is the heap's own. A flush
 * puts what is its own on its pool's list.
 */
#ifndef TARN_HEAP_MAILBOX_H
#define TARN_HEAP_MAILBOX_H

#include "base/counters.h"
#include "heap/heap.h"

/* A message's first word: next message | blocks << shift | tag. Blocks are multiples of 16. */
#define MESSAGE_BLOCKS_SHIFT 48
#define MESSAGE_TAG          UINT64_C(9)
#define MESSAGE_TAG_MASK     UINT64_C(15)
#define MESSAGE_ADDRESS_MASK (((UINT64_C(1) << MESSAGE_BLOCKS_SHIFT) - 1) & ~MESSAGE_TAG_MASK)

/* The running thread of `heap` frees a block of this class; mostly from a pool that another heap owns. */
void mailbox_send(struct heap *heap, uint32_t class, struct block *block);

/* The same where nothing else is to be done; false, and nothing changed, where the bound is reached. Of
 * heap_none it always is. */
ALWAYS_INLINE bool mailbox_sent_at_once(struct heap *heap, uint32_t class, struct block *block)
{
    struct foreign *foreign = &heap->foreign[class];
    size_t bytes = heap->foreign_bytes + foreign->block_bytes;
    if (UNLIKELY(bytes >= heap->foreign_bytes_most))
        return false;
    heap->foreign_bytes = bytes;
    counter_add(COUNTER_REMOTE_BLOCK, 1);
    block_put(block, (const struct pool *)foreign, foreign->free);
    in_this_order();
    foreign->free = block;
    return true;
}

/* A thread without a heap does the same: posts at once. */
void mailbox_send_now(const struct pool *pool, struct block *block);

/* Sends all blocks of the heap's foreign lists home. */
void mailbox_flush(struct heap *heap);

/* Takes everything in the heap's inbox; true when there was something. The running or tending thread. */
bool mailbox_drain(struct heap *heap);

/* Whether the block is the last of a message, by its first word. */
bool mailbox_is_message(const struct block *last);

/* Whether something waits in the inbox. Any thread. */
bool mailbox_is_waiting(struct heap *heap);

/* The lists and messages are what is said above, of blocks that count as used, and foreign_bytes is what they
 * hold and malloc took. Only while nobody else frees. */
bool mailbox_is_valid(struct heap *heap);

#endif
