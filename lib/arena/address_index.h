/* What stands at an address: a two-level table with one entry for each 4 MiB of address space.
 *
 *   root (static) ──► leaf: 8192 entries, 32 GiB of addresses, mapped at first need and never unmapped
 *
 * An entry is 0 (not ours), ADDRESS_ARENA, ADDRESS_EMPTY in the hardened build, or the address of a raw
 * block's record (at the block's first entry only). All but free, for an address inside an entry's, ask it
 * before they trust a pointer (arena_is_marked).
 *
 * Any thread reads and writes; an entry belongs to whoever owns the addresses. Written after the memory is
 * mapped and cleared before it is unmapped, so that an entry never speaks of memory that another mapping has
 * taken.
 */
#ifndef TARN_ARENA_ADDRESS_INDEX_H
#define TARN_ARENA_ADDRESS_INDEX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GRANULE_LOG2  22
#define GRANULE_BYTES (UINT64_C(1) << GRANULE_LOG2)

#define ADDRESS_NOTHING ((uintptr_t)0)
#define ADDRESS_ARENA   ((uintptr_t)1)
#define ADDRESS_EMPTY   ((uintptr_t)2) /* blocks of no bytes (raw/empty); what is larger is a record */

/* False when there is no memory for a leaf. Clearing an entry that was set never fails. */
bool address_index_set(const void *address, uintptr_t entry);

#define ADDRESS_BITS       48
#define ADDRESS_LEAF_LOG2  13
#define ADDRESS_LEAF_COUNT (1U << ADDRESS_LEAF_LOG2)
#define ADDRESS_ROOT_COUNT (1U << (ADDRESS_BITS - GRANULE_LOG2 - ADDRESS_LEAF_LOG2))

extern _Atomic(_Atomic uintptr_t *) address_index_root[ADDRESS_ROOT_COUNT];

/* The leaf for a granule number, or NULL. */
static inline _Atomic uintptr_t *address_index_leaf(uintptr_t granule)
{
    uintptr_t number = granule >> ADDRESS_LEAF_LOG2;
    if (number >= ADDRESS_ROOT_COUNT)
        return NULL;
    /* acquire: pairs with the release in make_leaf; the leaf reads as zeroes. */
    return atomic_load_explicit(&address_index_root[number], memory_order_acquire);
}

/* The entry of the 4 MiB that hold the address; ADDRESS_NOTHING for any address that was never set. */
static inline uintptr_t address_index_get(const void *address)
{
    uintptr_t granule = (uintptr_t)address >> GRANULE_LOG2;
    _Atomic uintptr_t *leaf = address_index_leaf(granule);
    if (leaf == NULL)
        return ADDRESS_NOTHING;
    return atomic_load_explicit(&leaf[granule % ADDRESS_LEAF_COUNT], memory_order_acquire);
}

/* Takes the entry away if it is still `entry`: of several callers one gets true. */
bool address_index_take(const void *address, uintptr_t entry);

/* Calls `each` for every entry but ADDRESS_NOTHING, with the beginning of its 4 MiB. What others change
 * meanwhile may be seen or not. */
void address_index_each(void (*each)(char *address, uintptr_t entry, void *context), void *context);

#endif
