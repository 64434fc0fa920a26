#include "arena/address_index.h"

#include "base/counters.h"
#include "os/map.h"

#include <stdatomic.h>
#include <stddef.h>

typedef _Atomic uintptr_t entry_word;

_Atomic(entry_word *) address_index_root[ADDRESS_ROOT_COUNT];

static entry_word *make_leaf(uintptr_t granule)
{
    uintptr_t number = granule >> ADDRESS_LEAF_LOG2;
    if (number >= ADDRESS_ROOT_COUNT)
        return NULL;
    entry_word *fresh = map_pages(ADDRESS_LEAF_COUNT * sizeof(entry_word));
    if (fresh == NULL)
        return NULL;
    entry_word *present = NULL;
    counter_locked();
    /* A root entry changes once, from NULL: no ABA. */
    if (atomic_compare_exchange_strong_explicit(&address_index_root[number], &present, fresh,
                                                memory_order_acq_rel, memory_order_acquire))
        return fresh;
    map_unmap(fresh, ADDRESS_LEAF_COUNT * sizeof(entry_word));
    return present;
}

bool address_index_set(const void *address, uintptr_t entry)
{
    uintptr_t granule = (uintptr_t)address >> GRANULE_LOG2;
    entry_word *leaf = address_index_leaf(granule);
    if (leaf == NULL && (leaf = make_leaf(granule)) == NULL)
        return false;
    /* release: pairs with the acquire in address_index_get; publishes the record or the arena's header. */
    atomic_store_explicit(&leaf[granule % ADDRESS_LEAF_COUNT], entry, memory_order_release);
    return true;
}

bool address_index_take(const void *address, uintptr_t entry)
{
    uintptr_t granule = (uintptr_t)address >> GRANULE_LOG2;
    entry_word *leaf = address_index_leaf(granule);
    if (leaf == NULL)
        return false;
    counter_locked();
    /* acquire: the record is read after the entry is ours. An entry comes back only when the same address is
     * allocated again, which the taker alone can bring about: no ABA. */
    return atomic_compare_exchange_strong_explicit(&leaf[granule % ADDRESS_LEAF_COUNT], &entry,
                                                   ADDRESS_NOTHING, memory_order_acquire,
                                                   memory_order_relaxed);
}

void address_index_each(void (*each)(char *address, uintptr_t entry, void *context), void *context)
{
    for (uintptr_t root = 0; root < ADDRESS_ROOT_COUNT; root++) {
        uintptr_t first = root << ADDRESS_LEAF_LOG2;
        entry_word *leaf = address_index_leaf(first);
        for (uintptr_t i = 0; leaf != NULL && i < ADDRESS_LEAF_COUNT; i++) {
            uintptr_t entry = atomic_load_explicit(&leaf[i], memory_order_acquire);
            if (entry != ADDRESS_NOTHING)
                each((char *)((first + i) << GRANULE_LOG2), entry, context);
        }
    }
}
