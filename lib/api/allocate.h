/* What the other entry points share of malloc. NULL and errno as for the public calls. */
#ifndef TARN_API_ALLOCATE_H
#define TARN_API_ALLOCATE_H

#include <stddef.h>

void *allocate_zeroed(size_t bytes);

/* alignment is a power of two. */
void *allocate_aligned(size_t bytes, size_t alignment) __attribute__((nothrow));

#endif
