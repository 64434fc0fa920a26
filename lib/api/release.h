/* What the C++ operators share of free. NULL does nothing; a size or alignment that the block cannot have
 * been asked for is fatal, with `call` in the message. */
#ifndef TARN_API_RELEASE_H
#define TARN_API_RELEASE_H

#include <stddef.h>

void release_sized(void *pointer, size_t bytes, const char *call) __attribute__((nothrow));
void release_aligned(void *pointer, size_t alignment, size_t bytes, const char *call)
    __attribute__((nothrow));
void release_check_alignment(const void *pointer, size_t alignment, const char *call);

#endif
