#include "arena/address_index.h"

#include "base/counters.h"
#include "os/map.h"

#include <stdatomic.h>
#include <stddef.h>

#define ADDRESS_BITS 48
#define LEAF_LOG2    13
#define LEAF_ENTRIES (1U << LEAF_LOG2)
#define ROOT_ENTRIES (1U << (ADDRESS_BITS - GRANULE_LOG2 - LEAF_LOG2))

typedef _Atomic uintptr_t entry_word;

static entry_word *_Atomic root[ROOT_ENTRIES];

static entry_word *find_leaf(uintptr_t granule)
{
    uintptr_t number = granule >> LEAF_LOG2;
    if (number >= ROOT_ENTRIES)
        return NULL;
    /* acquire: pairs with the release in make_leaf; the leaf reads as zeroes. */
    return atomic_load_explicit(&root[number], memory_order_acquire);
}

static entry_word *make_leaf(uintptr_t granule)
{
    uintptr_t number = granule >> LEAF_LOG2;
    if (number >= ROOT_ENTRIES)
        return NULL;
    entry_word *fresh = map_pages(LEAF_ENTRIES * sizeof(entry_word));
    if (fresh == NULL)
        return NULL;
    entry_word *present = NULL;
    counter_locked();
    /* A root entry changes once, from NULL: no ABA. */
    if (atomic_compare_exchange_strong_explicit(&root[number], &present, fresh, memory_order_acq_rel,
                                                memory_order_acquire))
        return fresh;
    map_unmap(fresh, LEAF_ENTRIES * sizeof(entry_word));
    return present;
}

bool address_index_set(const void *address, uintptr_t entry)
{
    uintptr_t granule = (uintptr_t)address >> GRANULE_LOG2;
    entry_word *leaf = find_leaf(granule);
    if (leaf == NULL && (leaf = make_leaf(granule)) == NULL)
        return false;
    /* release: pairs with the acquire in address_index_get; publishes the record or the arena's header. */
    atomic_store_explicit(&leaf[granule & (LEAF_ENTRIES - 1)], entry, memory_order_release);
    return true;
}

uintptr_t address_index_get(const void *address)
{
    uintptr_t granule = (uintptr_t)address >> GRANULE_LOG2;
    entry_word *leaf = find_leaf(granule);
    if (leaf == NULL)
        return ADDRESS_NOTHING;
    return atomic_load_explicit(&leaf[granule & (LEAF_ENTRIES - 1)], memory_order_acquire);
}

bool address_index_take(const void *address, uintptr_t entry)
{
    uintptr_t granule = (uintptr_t)address >> GRANULE_LOG2;
    entry_word *leaf = find_leaf(granule);
    if (leaf == NULL)
        return false;
    counter_locked();
    /* acquire: the record is read after the entry is ours. An entry comes back only when the same address is
     * allocated again, which the taker alone can bring about: no ABA. */
    return atomic_compare_exchange_strong_explicit(&leaf[granule & (LEAF_ENTRIES - 1)], &entry, ADDRESS_NOTHING,
                                                   memory_order_acquire, memory_order_relaxed);
}
