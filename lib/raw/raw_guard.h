/* The hardened build: raw blocks between inaccessible pages, which stay inaccessible for a while when they
 * are freed.
 *
 *   │ page: none │ block, whole pages              │ page: none │      in use
 *   │ none                                                       │      freed
 *
 * A write behind the last page, or before the first, faults at once; one behind the bytes asked for but in
 * the last page is seen when the block is freed (pool/trailer). The freed address is given to nobody until
 * RAW_GUARD_KEPT others have been freed. The page in front is left out where something else is mapped: an
 * arena, whose last slot is inaccessible itself.
 *
 * Beyond the safe number of mappings (os/map) blocks have no such pages, and go back at once.
 */
#ifndef TARN_RAW_RAW_GUARD_H
#define TARN_RAW_RAW_GUARD_H

#include "raw/raw_piece.h"

#define RAW_GUARD_KEPT 64U

/* As raw_piece_map. */
bool raw_guard_map(size_t bytes, size_t alignment, struct raw_piece *piece);

/* The piece's block is freed: its pages go back. Under the raw lock. */
void raw_guard_retire(const struct raw_piece *piece);

/* Whether a block that began here was freed not long ago. Under the raw lock. */
bool raw_guard_has(const void *address);

/* The addresses of all that are kept, too: in need, and on malloc_trim. Tells how many bytes of them. Under
 * the raw lock. */
size_t raw_guard_drop(void);

/* The piece was never given out. */
void raw_guard_unmap(const struct raw_piece *piece);

#endif
