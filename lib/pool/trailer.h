/* The hardened build: what stands behind a block's bytes, and what a free block looks like.
 *
 *   │◄──────────────────────── the block of the pool ────────────────────────►│
 *   │ bytes asked for              │ slack: pattern             │ trailer     │   in use
 *   │ canary, next (encoded)  │ zeroes                          │ free mark   │   free, on a list
 *   │ zeroes                                                    │ free mark   │   free, in quarantine
 *
 * The trailer holds the length of the slack and 40 bits of a code that depends on the address and on the
 * secret of the process. So a write behind the bytes asked for is seen when the block is freed, by one byte
 * too; what was asked for is known exactly; and a block that is free, or was never given out, cannot be taken
 * for one in use. The first byte behind the bytes asked for is never 0, so that a text that is one byte too
 * long is seen; the second, or the third, is 0, so that a text that has lost its end does not run on.
 *
 * A raw block has the same pattern in its last page, and no trailer: its record knows its length.
 *
 * The trailer passes from "in use" to "free" by one compare-and-swap: of two frees at once, one is told.
 */
#ifndef TARN_POOL_TRAILER_H
#define TARN_POOL_TRAILER_H

#include "pool/pool.h"

#define TRAILER_BYTES sizeof(uint64_t)

/* The smallest request: list words and trailer have room beside each other. */
#define TRAILER_REQUEST_LEAST (sizeof(struct block) + TRAILER_BYTES)

/* The block is given out for so many bytes: its slack and trailer are written. */
void trailer_write(void *block, size_t block_bytes, size_t bytes);

enum trailer_state { TRAILER_IN_USE, TRAILER_FREE, TRAILER_DAMAGED };

/* What the trailer says, and when in use what was asked for; slack that was written to counts as damage. */
enum trailer_state trailer_read(const void *block, size_t block_bytes, size_t *bytes);

/* Makes the block in use a free one: all zeroes, and the mark. False, and nothing changed, when another
 * thread did it just before. `bytes` were asked for. */
bool trailer_free(void *block, size_t block_bytes, size_t bytes);

/* A block that was never given out becomes a free one. */
void trailer_make_free(void *block, size_t block_bytes, bool is_dirty);

/* Whether a free block is as trailer_free left it, but for the `skip` bytes at its beginning. */
bool trailer_is_untouched(const void *block, size_t block_bytes, size_t skip);

/* Memory behind a block was written to: `kind` says what the number is. */
COLD __attribute__((noreturn)) void fatal_overflow(const void *block, size_t bytes, const char *kind);

/* The pattern alone, for memory that ends at `end` and of which all up to `begin` is used. */
void trailer_fill_slack(char *begin, const char *end);
bool trailer_slack_is_whole(const char *begin, const char *end);

#endif
