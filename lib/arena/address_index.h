/* What stands at an address: a two-level table with one entry for each 4 MiB of address space.
 *
 *   root (static) ──► leaf: 8192 entries, 32 GiB of addresses, mapped at first need and never unmapped
 *
 * An entry is 0 (not ours), ADDRESS_ARENA, or the address of a raw block's record (at the block's first entry
 * only). free asks it before it trusts a pointer that its own heap does not own.
 *
 * Any thread reads and writes; an entry belongs to whoever owns the addresses. Written after the memory is mapped
 * and cleared before it is unmapped, so that an entry never speaks of memory that another mapping has taken.
 */
#ifndef TARN_ARENA_ADDRESS_INDEX_H
#define TARN_ARENA_ADDRESS_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#define GRANULE_LOG2  22
#define GRANULE_BYTES (UINT64_C(1) << GRANULE_LOG2)

#define ADDRESS_NOTHING ((uintptr_t)0)
#define ADDRESS_ARENA   ((uintptr_t)1)

/* False when there is no memory for a leaf. Clearing an entry that was set never fails. */
bool address_index_set(const void *address, uintptr_t entry);

/* The entry of the 4 MiB that hold the address; ADDRESS_NOTHING for any address that was never set. */
uintptr_t address_index_get(const void *address);

/* Takes the entry away if it is still `entry`: of several callers one gets true. */
bool address_index_take(const void *address, uintptr_t entry);

#endif
