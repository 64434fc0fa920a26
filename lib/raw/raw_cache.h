/* Mappings of freed raw blocks, kept for the next: what is kept is resident pages, so that they need not be
 * faulted in again. Bounded in bytes (TARN_RAW_CACHE), in number, and in age (TARN_PURGE_DELAY).
 *
 * A piece may begin at any page: when a block is cut from a larger piece, the rest stays as a piece of its
 * own, where it is. There it costs nothing to use again: for a block that grows into it, or joined with the
 * freed block before it. Moving it elsewhere costs 0.1 us a page.
 *
 * Invariant: no piece ends where another begins, unless that other begins a granule, or the kernel could not
 * have moved the two as one when the later was put.
 *
 * Not locked: the caller (raw/raw) holds the raw lock.
 */
#ifndef TARN_RAW_RAW_CACHE_H
#define TARN_RAW_RAW_CACHE_H

#include "raw/raw_piece.h"

#define RAW_CACHE_PIECES 64U

/* Smaller pieces are not worth a system call: faulting in 16 pages takes about 20 us, moving them 2 us. */
#define PIECE_LEAST_BYTES ((size_t)64 << 10)

/* Keeps a piece, joined with its neighbours, if the cache then holds at most `bytes_most` in at most
 * RAW_CACHE_PIECES pieces; else false. */
bool raw_cache_put(const struct raw_piece *piece, uint64_t now_ms, size_t bytes_most);

/* Takes the smallest piece that begins at a multiple of `alignment` and has at least `bytes`. */
bool raw_cache_take_whole(size_t bytes, size_t alignment, struct raw_piece *piece);

/* Takes the largest piece that begins at a multiple of `alignment`, if it has at least `least_bytes`. Here
 * and below, no untouched one. */
bool raw_cache_take_largest(size_t least_bytes, size_t alignment, struct raw_piece *piece);

/* Takes pages to be moved elsewhere, PIECE_LEAST_BYTES at least and `bytes` at most, unless what would be
 * left is too small to be kept. Of pieces in which no block can begin, if there are any; of the smallest that
 * has enough, else of the largest; and its end, so that a block can still begin where it begins. */
bool raw_cache_take_pages(size_t bytes, struct raw_piece *piece);

/* The piece of which they would be taken, which stays. */
bool raw_cache_look_at_source(size_t bytes, struct raw_piece *piece);

/* Notes of this piece, if it is still there, that it is untouched. */
void raw_cache_note_untouched(const struct raw_piece *piece);

/* Takes the piece that begins here, whatever it is. */
bool raw_cache_take_at(const char *address, struct raw_piece *piece);

/* Takes out one piece that was put in at or before `then_ms`; false when there is none. */
bool raw_cache_take_older(uint64_t then_ms, struct raw_piece *piece);

size_t raw_cache_bytes(void);
size_t raw_cache_count(void);

/* Tells where the tables are (base/published). */
struct published;
void raw_cache_publish(struct published *out);

/* The pieces are valid, none lies in another, and they are as many bytes as counted. */
bool raw_cache_is_valid(void);

#endif
