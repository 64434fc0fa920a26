/*
 * One text, two sets of names.
 *
 * The tests and the stress programs are written with the names of libc. Compiled as they are and linked with
 * the library, they test what a linked or preloaded program gets; compiled with TEST_TARN_NAMES, every name
 * becomes the tarn_* function of the same meaning, so that the same text runs in builds which leave libc's
 * names alone (the sanitizers bring an allocator of their own).
 *
 * The mapping is done by macros that hide libc's names, therefore this header comes after all others.
 */
#ifndef TEST_INTERFACE_H
#define TEST_INTERFACE_H

#include <malloc.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef TEST_TARN_NAMES

#include <tarn/tarn.h>

#define malloc             tarn_malloc
#define free               tarn_free
#define calloc             tarn_calloc
#define realloc            tarn_realloc
#define reallocarray       tarn_reallocarray
#define aligned_alloc      tarn_aligned_alloc
#define posix_memalign     tarn_posix_memalign
#define memalign           tarn_memalign
#define valloc             tarn_valloc
#define pvalloc            tarn_pvalloc
#define malloc_usable_size tarn_malloc_usable_size
#define cfree              tarn_cfree
#define free_sized         tarn_free_sized
#define free_aligned_sized tarn_free_aligned_sized
#define malloc_trim        tarn_malloc_trim
#define malloc_info        tarn_malloc_info
#define malloc_stats       tarn_malloc_stats
#define mallopt            tarn_mallopt
#define mallinfo           tarn_mallinfo
#define mallinfo2          tarn_mallinfo2

typedef struct tarn_mallinfo_result mallinfo_fields;
typedef struct tarn_mallinfo2_result mallinfo2_fields;

#else

typedef struct mallinfo mallinfo_fields;
typedef struct mallinfo2 mallinfo2_fields;

/* C23 names and a name that older libraries had; the C library of the build machine need not declare them. */
#ifdef __cplusplus
extern "C" {
#endif
void free_sized(void *block, size_t size);
void free_aligned_sized(void *block, size_t alignment, size_t size);
void cfree(void *block);
#ifdef __cplusplus
}
#endif

#endif

/* mallinfo() is deprecated in favour of mallinfo2(), and still answered. */
#define MALLINFO_IS_DEPRECATED_BEGIN                                                                         \
    _Pragma("GCC diagnostic push") _Pragma("GCC diagnostic ignored \"-Wdeprecated-declarations\"")
#define MALLINFO_IS_DEPRECATED_END _Pragma("GCC diagnostic pop")

#endif
