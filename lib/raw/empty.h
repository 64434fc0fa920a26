/* The hardened build: blocks of no bytes, as malloc(0) gives them. Addresses that nobody can read or write,
 * each given to one at a time:
 *
 *   │ 4 MiB, inaccessible: one address every 16 bytes, and a bit for each that is in use │
 *
 * The first is left out: a multiple of 4 MiB is a raw block's. They are given out in turn, so that one that
 * was freed is given out again late. Any thread, without a lock: a bit is claimed by fetch_or, and taken away
 * by fetch_and, on the word itself.
 */
#ifndef TARN_RAW_EMPTY_H
#define TARN_RAW_EMPTY_H

#include <stdbool.h>

/* NULL when three quarters are in use (the search would be long), or without memory. */
void *empty_take(void);

/* For an address whose entry in the address index is ADDRESS_EMPTY: whether it is in use. */
bool empty_is_taken(const void *address);

/* False when it was not in use. */
bool empty_give(const void *address);

#endif
