/* Mappings of freed raw blocks, kept for the next: what is kept is resident pages, so that they need not be
 * faulted in again. Bounded in bytes (TARN_RAW_CACHE), in number, and in age (TARN_PURGE_DELAY).
 *
 * A piece may begin at any page: when a block is cut from a larger piece, the rest stays as a piece of its
 * own.
 *
 * Not locked: the caller (raw/raw) holds the raw lock.
 */
#ifndef TARN_RAW_RAW_CACHE_H
#define TARN_RAW_RAW_CACHE_H

#include "raw/raw_piece.h"

#define RAW_CACHE_PIECES 64U

/* Keeps a piece, if the cache then holds at most `bytes_most` in at most RAW_CACHE_PIECES pieces; else false.
 */
bool raw_cache_put(const struct raw_piece *piece, uint64_t now_ms, size_t bytes_most);

/* Takes the smallest piece that begins at a multiple of `alignment` and has at least `bytes`. */
bool raw_cache_take_whole(size_t bytes, size_t alignment, struct raw_piece *piece);

/* Takes the smallest piece of at least `bytes`, else the largest of at least `least_bytes`; it begins at a
 * multiple of `alignment`. */
bool raw_cache_take_part(size_t bytes, size_t least_bytes, size_t alignment, struct raw_piece *piece);

/* Takes out one piece that was put in at or before `then_ms`; false when there is none. */
bool raw_cache_take_older(uint64_t then_ms, struct raw_piece *piece);

size_t raw_cache_bytes(void);
size_t raw_cache_count(void);

#endif
