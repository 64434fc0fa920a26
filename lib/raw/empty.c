#include "raw/empty.h"

#include "arena/address_index.h"
#include "os/map.h"

#define UNIT_BYTES 16U
#define UNITS      (GRANULE_BYTES / UNIT_BYTES)
#define WORD_UNITS 64U
#define TAKEN_MOST (UNITS / 4 * 3)

static _Atomic uint64_t taken[UNITS / WORD_UNITS];
static _Atomic uint32_t taken_units;
static _Atomic uint32_t next_unit = 1;
static _Atomic(char *) granule; /* set once */

/* Of several first callers one sets it, the others give theirs back. */
static char *map_granule(void)
{
    char *fresh = map_pages_aligned(GRANULE_BYTES, GRANULE_BYTES);
    char *there = NULL;
    if (fresh == NULL)
        return NULL;
    bool usable = map_forbid(fresh, GRANULE_BYTES) && address_index_set(fresh, ADDRESS_EMPTY);
    /* acq_rel: publishes the index entry. Changes once, from NULL: no ABA. */
    if (usable && atomic_compare_exchange_strong_explicit(&granule, &there, fresh, memory_order_acq_rel,
                                                          memory_order_acquire))
        return fresh;
    if (usable)
        address_index_set(fresh, ADDRESS_NOTHING);
    map_unmap(fresh, GRANULE_BYTES);
    return there;
}

static bool claim(uint32_t unit)
{
    uint64_t bit = UINT64_C(1) << unit % WORD_UNITS;
    return (atomic_fetch_or_explicit(&taken[unit / WORD_UNITS], bit, memory_order_acquire) & bit) == 0;
}

void *empty_take(void)
{
    char *first = atomic_load_explicit(&granule, memory_order_acquire);
    if (first == NULL && (first = map_granule()) == NULL)
        return NULL;
    if (atomic_fetch_add_explicit(&taken_units, 1, memory_order_relaxed) >= TAKEN_MOST) {
        atomic_fetch_sub_explicit(&taken_units, 1, memory_order_relaxed);
        return NULL;
    }
    for (;;) {
        uint32_t unit = atomic_fetch_add_explicit(&next_unit, 1, memory_order_relaxed) % UNITS;
        if (unit != 0 && claim(unit))
            return first + (size_t)unit * UNIT_BYTES;
    }
}

static uint32_t unit_of(const void *address)
{
    return (uint32_t)((uintptr_t)address % GRANULE_BYTES / UNIT_BYTES);
}

static uint64_t bit_of(const void *address)
{
    bool may_be = (uintptr_t)address % UNIT_BYTES == 0;
    return may_be ? UINT64_C(1) << unit_of(address) % WORD_UNITS : 0;
}

bool empty_is_taken(const void *address)
{
    uint64_t word = atomic_load_explicit(&taken[unit_of(address) / WORD_UNITS], memory_order_relaxed);
    return (word & bit_of(address)) != 0;
}

bool empty_give(const void *address)
{
    uint64_t bit = bit_of(address);
    _Atomic uint64_t *word = &taken[unit_of(address) / WORD_UNITS];
    bool was_taken = (atomic_fetch_and_explicit(word, ~bit, memory_order_release) & bit) != 0;
    if (was_taken)
        atomic_fetch_sub_explicit(&taken_units, 1, memory_order_relaxed);
    return was_taken;
}
