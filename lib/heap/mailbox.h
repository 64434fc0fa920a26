/* Remote free: how a block gets from the thread that frees it to the heap that owns its pool.
 *
 *   free by another thread ─► own outbox: chains by pool ─(flush)─► owner's inbox ─(drain)─► the pool's list
 *
 * A chain holds blocks of one pool, linked in a ring through `next`: last → first → … → last. Posted, it is a message,
 * known by its last block, whose first word holds the next message and the number of blocks:
 *
 *   inbox ──► last block { next message | blocks << 48 , next ──► first block { canary, next } ──► … ──► last block }
 *             └─► last block of the next message …
 *
 * So the owner takes a whole chain onto the pool's list by writing one block, and a flush posts all chains for one
 * owner with one CAS. An inbox is push-a-chain, take-all: no ABA, and the sender touches nothing after its CAS.
 *
 * A block in an outbox or inbox counts as used in its pool, so the pool cannot be given away under it. The owner is
 * read when a chain is posted; should the pool have moved since (adoption), the drain finds another owner in the slot
 * map and posts the message on.
 *
 * Outboxes are bounded in bytes (OUTBOX_BYTES_MOST), and flushed on the tick, when a fresh pool is claimed, and when
 * the thread exits.
 */
#ifndef TARN_HEAP_MAILBOX_H
#define TARN_HEAP_MAILBOX_H

#include "heap/heap.h"

#define OUTBOX_BYTES_MOST ((size_t)128 << 10)

/* The running thread of `heap` frees a block of a pool that another heap owns. */
void mailbox_send(struct heap *heap, struct pool *pool, struct block *block);

/* A thread without a heap does the same: posts at once. */
void mailbox_send_now(struct pool *pool, struct block *block);

/* Posts everything in the heap's outbox. */
void mailbox_flush(struct heap *heap);

/* Takes everything in the heap's inbox; true when there was something. The running or tending thread. */
bool mailbox_drain(struct heap *heap);

/* Whether something waits in the inbox. Any thread. */
bool mailbox_is_waiting(struct heap *heap);

#endif
