#include "pool/trailer.h"

#include "base/fatal.h"

#include <stdatomic.h>
#include <string.h>

/* Of a trailer: code 8 bits, 0, length of the slack 16 bits (by the address's code), code 32 bits that
 * depends on the length as well. */
#define SLACK_SHIFT 16
#define SLACK_MASK  UINT64_C(0xFFFF)
#define FIRST_MASK  UINT64_C(0xFFFF00FF)
#define REST_MASK   UINT64_C(0xFFFFFFFF00000000)
#define FREE_MARK   SLACK_MASK /* no slack is so long */

static_assert(CLASS_BYTES_MOST < FREE_MARK, "the slack of any block can be told from the free mark");

static _Atomic uint64_t *trailer_of(const void *block, size_t block_bytes)
{
    return (_Atomic uint64_t *)((uintptr_t)block + block_bytes - TRAILER_BYTES);
}

/* The byte that comes first in memory is never 0. */
ALWAYS_INLINE uint64_t word_for(const void *block, uint64_t slack)
{
    uint64_t code = secret_of((uintptr_t)block, SECRET_TRAILER) | 1;
    uint64_t factor = atomic_load_explicit(&secret_words[SECRET_LIST], memory_order_relaxed);
    uint64_t rest = code + (slack + 1) * factor;
    return (code & FIRST_MASK) ^ slack << SLACK_SHIFT ^ (rest & REST_MASK);
}

static uint64_t slack_in(const void *block, uint64_t word)
{
    return (word ^ secret_of((uintptr_t)block, SECRET_TRAILER)) >> SLACK_SHIFT & SLACK_MASK;
}

void fatal_overflow(const void *block, size_t bytes, const char *kind)
{
    struct text line = {0};
    text_string(&line, "heap corruption: memory behind ");
    text_address(&line, block);
    text_string(&line, " was written to (");
    text_decimal(&line, bytes);
    text_string(&line, kind);
    text_string(&line, ")");
    fatal_line(&line);
}

/* ---- slack ---- */

static unsigned char pattern_of(const char *end)
{
    return (unsigned char)(secret_of((uintptr_t)end, SECRET_TRAILER) >> 56 | 1);
}

void trailer_fill_slack(char *begin, const char *end)
{
    if (begin == end)
        return;
    memset(begin, pattern_of(end), (size_t)(end - begin));
    if (end - begin > 1)
        begin[1] = 0;
}

bool trailer_slack_is_whole(const char *begin, const char *end)
{
    unsigned char pattern = pattern_of(end);
    unsigned char wrong = 0;
    for (const char *byte = begin; byte < end; byte++)
        wrong |= (unsigned char)*byte ^ (byte == begin + 1 ? 0 : pattern);
    return wrong == 0;
}

/* ---- blocks of pools ---- */

void trailer_write(void *block, size_t block_bytes, size_t bytes)
{
    size_t slack = block_bytes - TRAILER_BYTES - bytes;
    char *begin = (char *)block + bytes;
    trailer_fill_slack(begin, begin + slack);
    /* relaxed: whoever frees the block got it from the program after this. */
    atomic_store_explicit(trailer_of(block, block_bytes), word_for(block, slack), memory_order_relaxed);
}

enum trailer_state trailer_read(const void *block, size_t block_bytes, size_t *bytes)
{
    uint64_t word = atomic_load_explicit(trailer_of(block, block_bytes), memory_order_relaxed);
    uint64_t slack = slack_in(block, word);
    if (word != word_for(block, slack))
        return TRAILER_DAMAGED;
    if (slack == FREE_MARK)
        return TRAILER_FREE;
    if (slack > block_bytes - TRAILER_BYTES)
        return TRAILER_DAMAGED;
    *bytes = block_bytes - TRAILER_BYTES - slack;
    const char *begin = (const char *)block + *bytes;
    return trailer_slack_is_whole(begin, begin + slack) ? TRAILER_IN_USE : TRAILER_DAMAGED;
}

bool trailer_free(void *block, size_t block_bytes, size_t bytes)
{
    uint64_t in_use = word_for(block, block_bytes - TRAILER_BYTES - bytes);
    /* acq_rel: of two frees, one sees the mark. Only this changes it from in use to free: no ABA. */
    bool freed = atomic_compare_exchange_strong_explicit(trailer_of(block, block_bytes), &in_use,
                                                         word_for(block, FREE_MARK), memory_order_acq_rel,
                                                         memory_order_relaxed);
    if (freed)
        memset(block, 0, block_bytes - TRAILER_BYTES);
    return freed;
}

void trailer_make_free(void *block, size_t block_bytes, bool is_dirty)
{
    if (is_dirty)
        memset(block, 0, block_bytes - TRAILER_BYTES);
    atomic_store_explicit(trailer_of(block, block_bytes), word_for(block, FREE_MARK), memory_order_relaxed);
}

bool trailer_is_untouched(const void *block, size_t block_bytes, size_t skip)
{
    const uint64_t *word = (const uint64_t *)((uintptr_t)block + skip);
    const uint64_t *end = (const uint64_t *)((uintptr_t)block + block_bytes - TRAILER_BYTES);
    uint64_t wrong = *end ^ word_for(block, FREE_MARK);
    for (; word < end; word++)
        wrong |= *word;
    return wrong == 0;
}
