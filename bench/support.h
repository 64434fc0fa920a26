/*
 * What the workloads share: blocks that are written and checked as a program would, tables of sizes, and one
 * way to give up.
 *
 * A block carries a tag that only its owner knows. It is written when the block is obtained and checked when
 * the block is freed. Two live blocks that overlap, a realloc that loses bytes, or a free list that is
 * threaded through live memory thus show as a wrong tag, and a wrong tag ends the process: a time measured on
 * broken memory is worth nothing.
 */
#ifndef TARN_BENCH_SUPPORT_H
#define TARN_BENCH_SUPPORT_H

#include "rng.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Prints one line on stderr and ends the process with status 3, at once and from any thread. */
__attribute__((noreturn, cold, format(printf, 1, 2))) void bench_fail(const char *format, ...);

/* malloc, calloc and realloc as a program uses them: no memory is the end. */
void *must_malloc(size_t size);
void *must_calloc(size_t count, size_t size);
void *must_realloc(void *block, size_t size);
void *must_aligned(size_t alignment, size_t size);

/* Sizes drawn with equal weight on every doubling between two bounds, which is how requests of servers look
 * from far: many small, some large, no favourite. Drawing from a table keeps the logarithm out of the timed
 * code. */
enum { SIZE_TABLE_ENTRIES = 1024 };

struct size_table {
    uint32_t sizes[SIZE_TABLE_ENTRIES];
};

void size_table_fill(struct size_table *table, uint32_t smallest, uint32_t largest);

static inline uint32_t size_table_draw(const struct size_table *table, struct rng *rng)
{
    return table->sizes[rng_below(rng, SIZE_TABLE_ENTRIES)];
}

/* How a block is written: the first bytes all of them, as a header or a short string would be, then a word in
 * every stretch, then the last word. Every page is touched. */
enum { WRITTEN_FULLY_BYTES = 256, STRETCH_BYTES = 512, WORD_BYTES = sizeof(uint64_t) };

static inline void word_put(unsigned char *at, uint64_t word)
{
    memcpy(at, &word, sizeof(word));
}

static inline uint64_t word_get(const unsigned char *at)
{
    uint64_t word;

    memcpy(&word, at, sizeof(word));
    return word;
}

static inline void block_write(void *block, size_t size, uint64_t tag)
{
    unsigned char *bytes = block;
    size_t at;

    if (size < WORD_BYTES) {
        memset(bytes, (int)(tag & 0xff), size);
        return;
    }
    for (at = 0; at + WORD_BYTES <= size && at < WRITTEN_FULLY_BYTES; at += WORD_BYTES)
        word_put(bytes + at, tag + at);
    for (at = STRETCH_BYTES; at + WORD_BYTES <= size; at += STRETCH_BYTES)
        word_put(bytes + at, tag + at);
    word_put(bytes + size - WORD_BYTES, ~tag);
}

__attribute__((noreturn, cold)) void block_is_wrong(const void *block, size_t size, size_t at);

/* Looks at the first word, the last one, and one between. */
static inline void block_check(const void *block, size_t size, uint64_t tag)
{
    const unsigned char *bytes = block;
    size_t middle;

    if (size < WORD_BYTES) {
        if (size > 0 && (bytes[0] != (tag & 0xff) || bytes[size - 1] != (tag & 0xff)))
            block_is_wrong(block, size, 0);
        return;
    }
    if (word_get(bytes + size - WORD_BYTES) != ~tag)
        block_is_wrong(block, size, size - WORD_BYTES);
    if (size < 2 * WORD_BYTES)
        return;
    if (word_get(bytes) != tag)
        block_is_wrong(block, size, 0);
    if (size < 2 * STRETCH_BYTES)
        return;
    middle = (size / 2) & ~(size_t)(STRETCH_BYTES - 1);
    if (middle + WORD_BYTES <= size - WORD_BYTES && word_get(bytes + middle) != tag + middle)
        block_is_wrong(block, size, middle);
}

/* A block with what its owner knows of it. */
struct piece {
    void *block;
    size_t size;
    uint64_t tag;
};

/* Writes a fresh block. */
static inline struct piece piece_of(void *block, size_t size, uint64_t tag)
{
    block_write(block, size, tag);
    return (struct piece){.block = block, .size = size, .tag = tag};
}

static inline struct piece piece_make(size_t size, uint64_t tag)
{
    return piece_of(must_malloc(size), size, tag);
}

/* Of a size and with a tag drawn at random. */
static inline struct piece piece_draw(const struct size_table *sizes, struct rng *rng)
{
    uint32_t size = size_table_draw(sizes, rng);

    return piece_make(size, rng_next(rng));
}

/* Checks and frees. A piece of zeros is none. */
static inline void piece_free(const struct piece *piece)
{
    if (piece->block == NULL)
        return;
    block_check(piece->block, piece->size, piece->tag);
    free(piece->block);
}

/* Idle for a little more than a second, then a little work of all sizes: an allocator that gives memory back
 * with a delay, or when it is called next, has done so. Before memory is read. */
void let_time_pass(struct rng *rng);

/* A few small blocks every ten milliseconds, as a server does that waits for work. */
void work_lightly(int milliseconds);

#endif
