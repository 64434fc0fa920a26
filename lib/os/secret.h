/* The secret of the process, for the hardened build: what encodes list pointers and canaries, so that a
 * program that overwrites them cannot know what to write. Drawn once from getrandom(2), or from the AT_RANDOM
 * bytes (getauxval(3)) where that is refused; a forked child keeps its parent's, for it has its blocks.
 *
 * Written by secret_initialise before the first block is made, and never again.
 */
#ifndef TARN_OS_SECRET_H
#define TARN_OS_SECRET_H

#include "base/compiler.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum { SECRET_LIST, SECRET_TRAILER, SECRET_ORDER, SECRET_COUNT };

extern _Atomic uint64_t secret_words[SECRET_COUNT];

/* Called again, does nothing. Any thread. */
void secret_initialise(void);

/* A number that differs with the address, the purpose and the process. */
ALWAYS_INLINE uint64_t secret_of(uintptr_t address, unsigned purpose)
{
    uint64_t mixed = (address ^ atomic_load_explicit(&secret_words[purpose], memory_order_relaxed)) *
                     UINT64_C(0x9E3779B97F4A7C15); /* 2^64 / golden ratio, odd */
    mixed ^= mixed >> 32;
    mixed *= atomic_load_explicit(&secret_words[SECRET_ORDER], memory_order_relaxed) | 1;
    return mixed ^ mixed >> 29;
}

#endif
