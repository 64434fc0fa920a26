/* Every mapping call of the allocator.
 *
 * Each function keeps errno as it was; failure is in the return value. All may be called from any thread,
 * take no lock and never allocate. Addresses that must be aligned are asked for by hint, downwards from the
 * last one given, so that one system call normally does; where the hint is taken, a larger mapping is made
 * and trimmed.
 *
 * The room counts the mappings that it made (Linux limits them per process, vm.max_map_count). Neighbours
 * that the kernel merges are counted apart, so the count is an upper bound.
 */
#ifndef TARN_OS_MAP_H
#define TARN_OS_MAP_H

#include <stdbool.h>
#include <stddef.h>

/* Bytes of a page of the processor, 4 KiB to 64 KiB. */
size_t map_page_bytes(void);

/* Fresh, zeroed, readable and writable pages; NULL when the system has none. `bytes` is a multiple of the
 * page. */
void *map_pages(size_t bytes);

/* The same at a multiple of `alignment`, a power of two of at least a page. */
void *map_pages_aligned(size_t bytes, size_t alignment);

/* Where the kernel will not (it would have to split a mapping, and the process has too many), the pages are
 * given back and the addresses kept, to be unmapped later. */
void map_unmap(void *address, size_t bytes);

/* Now, as far as it will. Returns the bytes. */
size_t map_unmap_leftovers(void);

/* Gives the pages back and keeps the addresses: they read as zeroes from now on. False when the kernel
 * refused, for example for locked pages: contents are then what they were. */
bool map_purge(void *address, size_t bytes);

/* Makes pages of a mapping that map_forbid took away readable and writable, fresh and zeroed. False where the
 * kernel will not. Neither counts the mappings that it cuts or joins. */
bool map_permit(void *address, size_t bytes);

/* Gives the pages back and keeps the addresses, which nobody may touch from now on. False, and nothing
 * changed, where the kernel will not. */
bool map_forbid(void *address, size_t bytes);

/* Whether any of a few pages, looked at in equal distances, is in memory. */
bool map_is_resident(const void *address, size_t bytes);

/* Asks for huge pages here, or forbids them. Without effect where the kernel has none. */
void map_allow_huge(void *address, size_t bytes, bool allow);

/* Maps fresh pages behind a mapping, or anywhere where nothing is mapped yet; false, and nothing changed,
 * where something is. */
bool map_extend(void *end, size_t bytes);

/* Takes addresses where nothing is mapped, so that nobody may touch them, as one mapping more. False, and
 * nothing changed, where something is mapped. */
bool map_forbid_fresh(void *address, size_t bytes);

/* Moves pages of one mapping, or of a part of one, onto a mapped place of the same length, whose pages they
 * replace; the old addresses are unmapped. Where the kernel will not (no memory for its own tables) they are
 * copied. False when it had unmapped the target by then, and will not map it again: the target is gone, and
 * the pages are where they were. */
bool map_move_onto(void *address, size_t bytes, void *target);

/* Whether map_move_onto may be given pages of several mappings (Linux 6.17). Finds out at the first call. */
bool map_moves_several(void);

/* Mappings made and not unmapped yet, and how many are safe to have. Who cuts mappings or puts them together
 * says by how many their number changed. */
size_t map_count(void);
void map_count_add(long more);
size_t map_count_limit(void);

#endif
