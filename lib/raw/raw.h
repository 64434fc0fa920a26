/* The raw mmap path: requests above the run limit, each a mapping of its own.
 *
 * A raw block begins at a multiple of 4 MiB, which no block of an arena does, so that free tells it by its
 * address. Its record lies elsewhere and is found through the address index (arena/address_index):
 *
 *   index[address >> 22] ──► record { address, mapped bytes, dirty bytes }
 *
 * The index entry is set after the memory is mapped, cleared before it is unmapped or moved, and set again
 * when a move fails. Whoever clears the entry owns the record: of two frees of one block one gets it.
 *
 * A freed mapping is kept for a while (raw/raw_cache). Records are never unmapped, only reused.
 *
 *   who writes                     | field
 *   -------------------------------|----------------------------------
 *   the block's owner              | record->address, bytes, dirty_bytes
 *   under the raw lock             | the free records, the cache
 */
#ifndef TARN_RAW_RAW_H
#define TARN_RAW_RAW_H

#include "base/compiler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A block of at least `bytes` at a multiple of `alignment` (a power of two; 4 MiB at least is given). Only
 * the first *dirty_bytes may hold anything but zeroes. NULL without memory; errno untouched. Any thread. */
void *raw_malloc(size_t bytes, size_t alignment, size_t *dirty_bytes);

/* What was asked for, of the raw block that begins here. The hardened build only, as are the
 * next three. */
size_t raw_asked_bytes(const void *pointer);

/* The block's owner wants it to hold so many bytes; false where its pages are not as many as those need. */
bool raw_ask_again(void *pointer, size_t bytes);

/* Looks behind every block that is in use, while no other thread runs. */
void raw_check_all(void);

/* Whether a raw block that began here was freed not long ago. */
bool raw_was_freed(const void *pointer);

/* Usable bytes of the raw block that begins here, 0 when none does. */
size_t raw_bytes(const void *pointer);

/* Whether a raw block of `block_bytes` may be that of a program which asked for no more than `bytes`, at
 * last. */
bool raw_fits(size_t block_bytes, size_t bytes);

/* False when no raw block begins here (any more). */
bool raw_free(void *pointer);

/* Makes the block `bytes` long, in place or by moving its pages; the contents stay. Returns its new address,
 * or NULL and nothing changed. The caller owns the block. */
void *raw_realloc(void *pointer, size_t bytes);

/* Gives cached mappings back: those kept longer than the purge delay; all of them, and what could not be
 * unmapped before. The latter tells how many bytes. */
void raw_age(uint64_t now_ms);
size_t raw_drop_cache(void);

/* So much memory is about to be mapped for something else: gives back as much of what is cached above the
 * setting, so that a large cache does not add to the peak. */
void raw_make_way(size_t bytes);

struct raw_totals {
    size_t live_bytes; /* mapped for live blocks */
    size_t live_blocks;
    size_t cached_bytes;
    size_t cached_blocks;
};
struct raw_totals raw_totals(void);

/* Tells where the tables are (base/published). */
struct published;
void raw_publish(struct published *out);

/* Each entry of the index that is no arena's leads to the record of the block that begins there, their totals
 * are right, and so is the cache. Only when nobody is inside. */
bool raw_is_valid(void);

void raw_before_fork(void);
void raw_after_fork(void);

/* In the child of a fork, by its only thread. */
void raw_after_fork_child(void);

#endif
