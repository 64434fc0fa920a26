/* Mappings of freed raw blocks, kept for the next: what is kept is resident pages, so that they need not be faulted in
 * again. Bounded in bytes (TARN_RAW_CACHE), in number, and in age (TARN_PURGE_DELAY).
 *
 * Not locked: the caller (raw/raw) holds the raw lock.
 */
#ifndef TARN_RAW_RAW_CACHE_H
#define TARN_RAW_RAW_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RAW_CACHE_ENTRIES 64U

struct raw_mapping {
    void *address;
    size_t bytes;       /* mapped */
    size_t dirty_bytes; /* only these may hold anything but zeroes */
};

/* Keeps a mapping. What has to go for it, or it itself, is in evicted[0 .. result - 1]: the caller unmaps those. */
unsigned raw_cache_put(const struct raw_mapping *mapping, uint64_t now_ms,
                       struct raw_mapping evicted[RAW_CACHE_ENTRIES + 1]);

/* The smallest mapping of at least `bytes`, else the largest one that is still worth making longer. */
bool raw_cache_take(size_t bytes, struct raw_mapping *mapping);

/* Takes out one mapping that was put in at or before `then_ms`; false when there is none. */
bool raw_cache_take_older(uint64_t then_ms, struct raw_mapping *mapping);

size_t raw_cache_bytes(void);
size_t raw_cache_count(void);

#endif
