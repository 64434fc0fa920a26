/* Bit tricks and checked arithmetic: pure functions on integers. */
#ifndef TARN_BASE_BITS_H
#define TARN_BASE_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool bits_is_power_of_two(size_t n)
{
    return n != 0 && (n & (n - 1)) == 0;
}

/* `alignment` is a power of two. The caller has made sure that n + alignment does not wrap. */
static inline size_t bits_align_up(size_t n, size_t alignment)
{
    return (n + alignment - 1) & ~(alignment - 1);
}

static inline size_t bits_align_down(size_t n, size_t alignment)
{
    return n & ~(alignment - 1);
}

/* Floor of log2; n > 0. */
static inline unsigned bits_log2(uint64_t n)
{
    return 63U - (unsigned)__builtin_clzll(n);
}

/* Index of the lowest set bit; n != 0. */
static inline unsigned bits_lowest(uint64_t n)
{
    return (unsigned)__builtin_ctzll(n);
}

/* The compiler's own is a call where the instruction may be missing. */
static inline unsigned bits_count(uint64_t n)
{
#if defined(__x86_64__) && !defined(__POPCNT__)
    n -= n >> 1 & UINT64_C(0x5555555555555555);
    n = (n & UINT64_C(0x3333333333333333)) + (n >> 2 & UINT64_C(0x3333333333333333));
    n = (n + (n >> 4)) & UINT64_C(0x0f0f0f0f0f0f0f0f);
    return (unsigned)(n * UINT64_C(0x0101010101010101) >> 56);
#else
    return (unsigned)__builtin_popcountll(n);
#endif
}

/* 0 < by < 32 */
static inline uint32_t bits_rotate_right(uint32_t n, unsigned by)
{
    return n >> by | n << (32 - by);
}

/* The lowest `length` bits set, 0 <= length <= 64. */
static inline uint64_t bits_ones(unsigned length)
{
    return length >= 64 ? ~UINT64_C(0) : (UINT64_C(1) << length) - 1;
}

/* Bit i of the result is set when bits i .. i + length - 1 of `set` all are; 1 <= length <= 64. */
static inline uint64_t bits_run_starts(uint64_t set, unsigned length)
{
    unsigned have = 1;
    while (set != 0 && have < length) {
        unsigned step = have <= length - have ? have : length - have;
        set &= set >> step;
        have += step;
    }
    return set;
}

/* False, with *product untouched by the caller's use, when a * b wraps. */
static inline bool bits_multiply(size_t a, size_t b, size_t *product)
{
    return !__builtin_mul_overflow(a, b, product);
}

static inline bool bits_add(size_t a, size_t b, size_t *sum)
{
    return !__builtin_add_overflow(a, b, sum);
}

#endif
