/* Counts that one thread writes and any thread may read.
 *
 * The writer needs no locked operation, since nobody else writes; a reader needs only an untorn value. In C
 * that is a relaxed load followed by a relaxed store, which compilers do not fuse into one instruction; on
 * x86-64 the fused form is written out, because it stands on the hot path of malloc and of free.
 */
#ifndef TARN_BASE_OWNED_H
#define TARN_BASE_OWNED_H

#include "base/compiler.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef _Atomic uint32_t owned_count;
typedef _Atomic uint64_t owned_total; /* not on hot paths */

static inline uint64_t owned_total_read(const owned_total *total)
{
    return atomic_load_explicit(total, memory_order_relaxed);
}

static inline void owned_set(owned_total *total, uint64_t value)
{
    atomic_store_explicit(total, value, memory_order_relaxed);
}

static inline void owned_add(owned_total *total, uint64_t more)
{
    owned_set(total, owned_total_read(total) + more);
}

ALWAYS_INLINE uint32_t owned_read(const owned_count *count)
{
    return atomic_load_explicit(count, memory_order_relaxed);
}

ALWAYS_INLINE void owned_write(owned_count *count, uint32_t value)
{
    atomic_store_explicit(count, value, memory_order_relaxed);
}

#if defined(__x86_64__) && !TARN_THREAD_SANITIZER

ALWAYS_INLINE void owned_increment(owned_count *count)
{
    __asm__("incl %0" : "+m"(*count) : : "cc");
}

ALWAYS_INLINE bool owned_decrement_is_zero(owned_count *count)
{
    bool zero;
    __asm__("decl %0" : "+m"(*count), "=@ccz"(zero));
    return zero;
}

/* value ^ *word */
ALWAYS_INLINE uint64_t owned_xor(const _Atomic uint64_t *word, uint64_t value)
{
    __asm__("xorq %1, %0" : "+r"(value) : "m"(*word) : "cc");
    return value;
}

ALWAYS_INLINE bool owned_equals(const _Atomic uint64_t *word, uint64_t value)
{
    bool equal;
    __asm__("cmpq %2, %1" : "=@cce"(equal) : "m"(*word), "r"(value));
    return equal;
}

#else

ALWAYS_INLINE bool owned_equals(const _Atomic uint64_t *word, uint64_t value)
{
    return atomic_load_explicit(word, memory_order_relaxed) == value;
}

ALWAYS_INLINE uint64_t owned_xor(const _Atomic uint64_t *word, uint64_t value)
{
    return atomic_load_explicit(word, memory_order_relaxed) ^ value;
}

ALWAYS_INLINE void owned_increment(owned_count *count)
{
    owned_write(count, owned_read(count) + 1);
}

ALWAYS_INLINE bool owned_decrement_is_zero(owned_count *count)
{
    uint32_t left = owned_read(count) - 1;
    owned_write(count, left);
    return left == 0;
}

#endif
#endif
