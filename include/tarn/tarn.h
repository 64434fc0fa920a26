/*
 * Tarn: a thread-scalable memory allocator.
 *
 * The calls of the C standard library under names of their own. In a program that Tarn is preloaded or linked
 * into, malloc and tarn_malloc are the same function; a library built with -Doverride=false has these names
 * only.
 *
 * All calls may be made by any thread at any time, also before constructors and after destructors have run,
 * and in the child of a fork. None is async-signal-safe. A block may be freed by another thread than the one
 * that got it.
 *
 * Sizes are bytes. Every block is aligned to 16 bytes at least. A request of 0 bytes gets a block of its own
 * that may be freed. A request above PTRDIFF_MAX fails. On failure a call returns NULL, sets errno to ENOMEM
 * unless said otherwise, and changes nothing.
 *
 * Passing a pointer that is not a live block of Tarn to any of these calls is a mistake of the program. When
 * it is seen, one line on stderr names it and the process ends with SIGABRT.
 *
 * Sources: C17 7.22.3, C23 7.24.4, POSIX.1-2024, malloc(3), mallinfo(3), malloc_info(3), malloc_trim(3) of
 * Linux man-pages.
 */
#ifndef TARN_TARN_H
#define TARN_TARN_H

#include <stddef.h>
#include <stdio.h>

#define TARN_VERSION_MAJOR 0
#define TARN_VERSION_MINOR 1
#define TARN_VERSION_PATCH 0

#ifdef __cplusplus
#define TARN_NOTHROW noexcept
extern "C" {
#else
#define TARN_NOTHROW
#endif

#if defined(__GNUC__)
#define TARN_ALLOCATES(...) __attribute__((malloc, warn_unused_result, alloc_size(__VA_ARGS__)))
#define TARN_RESULT         __attribute__((warn_unused_result))
#else
#define TARN_ALLOCATES(...)
#define TARN_RESULT
#endif

/* The version that is running, "0.1.0". Never fails. */
TARN_RESULT const char *tarn_version(void) TARN_NOTHROW;

/* C17 7.22.3.4. */
TARN_ALLOCATES(1) void *tarn_malloc(size_t size) TARN_NOTHROW;

/* C17 7.22.3.2: count * size bytes, all zero. ENOMEM when the product overflows. */
TARN_ALLOCATES(1, 2) void *tarn_calloc(size_t count, size_t size) TARN_NOTHROW;

/* C17 7.22.3.5. realloc(NULL, size) is malloc(size); realloc(pointer, 0) frees the block and returns NULL, as
 * in the GNU C library. On failure the old block stays as it was. */
TARN_RESULT void *tarn_realloc(void *pointer, size_t size) TARN_NOTHROW;

/* POSIX.1-2024: realloc to count * size bytes; ENOMEM, and the block stays, when the product overflows. */
TARN_RESULT void *tarn_reallocarray(void *pointer, size_t count, size_t size) TARN_NOTHROW;

/* C17 7.22.3.3. Keeps errno. NULL is allowed. */
void tarn_free(void *pointer) TARN_NOTHROW;

/* Older name of free. */
void tarn_cfree(void *pointer) TARN_NOTHROW;

/* C23 7.24.4.4: as free, with the size that was asked for when the block was allocated or last resized. A
 * size that the block cannot have been asked for is fatal. */
void tarn_free_sized(void *pointer, size_t size) TARN_NOTHROW;

/* C23 7.24.4.5: as free, with what aligned_alloc was asked for. */
void tarn_free_aligned_sized(void *pointer, size_t alignment, size_t size) TARN_NOTHROW;

/* C17 7.22.3.1. EINVAL when the alignment is not a power of two. The size need not be a multiple of it. */
TARN_ALLOCATES(2) void *tarn_aligned_alloc(size_t alignment, size_t size) TARN_NOTHROW;

/* POSIX.1-2024. Returns 0, EINVAL (the alignment is not a power of two, or not a multiple of sizeof(void *))
 * or ENOMEM; errno is left alone, and *pointer is written on success only. */
TARN_RESULT int tarn_posix_memalign(void **pointer, size_t alignment, size_t size) TARN_NOTHROW;

/* memalign(3): an alignment that is not a power of two is rounded up to one; EINVAL when there is none. */
TARN_ALLOCATES(2) void *tarn_memalign(size_t alignment, size_t size) TARN_NOTHROW;

/* valloc(3): aligned to the page. pvalloc: the size is rounded up to whole pages too. */
TARN_ALLOCATES(1) void *tarn_valloc(size_t size) TARN_NOTHROW;
TARN_RESULT void *tarn_pvalloc(size_t size) TARN_NOTHROW;

/* malloc_usable_size(3): bytes of the block that may be used, at least what was asked for; 0 for NULL. */
size_t tarn_malloc_usable_size(void *pointer) TARN_NOTHROW;

/* malloc_trim(3): gives all free memory that can be given back to the system, but for about `pad` bytes.
 * Returns 1 when some was given back, else 0. May block for some milliseconds; never call it with a lock held
 * that an allocating thread may want. What other running threads keep for themselves stays (docs/tuning.md).
 */
int tarn_malloc_trim(size_t pad) TARN_NOTHROW;

/* mallinfo(3), in bytes, read while other threads go on:
 *   arena     mapped for arenas           hblks, hblkhd   raw blocks and their bytes
 *   uordblks  in live blocks of arenas    fordblks        arena - uordblks
 *   keepcost  free and resident, would be given back by malloc_trim
 * ordblks is the number of free slots of 16 KiB; smblks, fsmblks, usmblks are 0. The fields of struct
 * tarn_mallinfo_result stop at INT_MAX. */
struct tarn_mallinfo_result {
    int arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};
struct tarn_mallinfo2_result {
    size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};
struct tarn_mallinfo_result tarn_mallinfo(void) TARN_NOTHROW;
struct tarn_mallinfo2_result tarn_mallinfo2(void) TARN_NOTHROW;

/* malloc_info(3): writes the state of the allocator to the stream as XML. options must be 0, else EINVAL.
 * Returns 0, or -1 with errno set. */
int tarn_malloc_info(int options, FILE *stream) TARN_NOTHROW;

/* malloc_stats(3): writes the state of the allocator to stderr for a person to read. */
void tarn_malloc_stats(void) TARN_NOTHROW;

/* What the allocator holds and has done, in bytes and numbers, read while other threads go on. Each number
 * was so at some moment of the call; when nobody else allocates, arena_bytes = header_bytes + pool_bytes +
 * run_bytes + free_bytes + kept_bytes and pool_bytes is no less than the sum of block_bytes * blocks_capacity
 * over all classes. */
struct tarn_class_stats {
    size_t block_bytes;
    size_t pools;
    size_t blocks_used;             /* with those on their way to the thread that owns them */
    size_t blocks_capacity;         /* in all pools */
    unsigned long long allocations; /* since the start; estimated, as below */
};

#define TARN_STATS_VERSION 1
#define TARN_STATS_CLASSES 64

struct tarn_stats_result {
    size_t version; /* TARN_STATS_VERSION of the library; later versions only add fields */
    size_t arenas;
    size_t arena_bytes; /* mapped */
    size_t header_bytes;
    size_t pool_bytes;
    size_t run_bytes; /* requests above 32 KiB */
    size_t free_bytes;
    size_t dirty_bytes; /* of these, perhaps resident */
    size_t kept_bytes;  /* empty, kept by threads */
    size_t used_bytes;  /* in live blocks of pools, rounded up to block sizes */
    size_t runs;
    size_t raw_blocks; /* requests above 512 KiB */
    size_t raw_bytes;
    size_t raw_cached_blocks;
    size_t raw_cached_bytes;
    size_t guarded_blocks; /* TARN_GUARD_SAMPLE */
    size_t guarded_bytes;
    size_t heaps; /* as many threads as ever ran at once */
    size_t heaps_parked;
    /* since the start */
    unsigned long long allocations;     /* calls of malloc and its relatives; estimated */
    unsigned long long allocated_bytes; /* asked for by these; estimated */
    unsigned long long refills;         /* times that a thread's list was empty */
    unsigned long long remote_blocks;   /* sent to the thread that owns them */
    unsigned long long purged_bytes;
    unsigned long long purge_calls;
    unsigned long long retired_arenas;
    unsigned long long unmapped_arenas;
    size_t class_count; /* entries of classes that are filled in, smallest blocks first */
    struct tarn_class_stats classes[TARN_STATS_CLASSES];
};

/* Fills in the first `bytes` bytes of *stats; sizeof *stats of the header that the program was built with.
 * Returns 0, or EINVAL when `bytes` is 0 or stats NULL. May wait for the raw lock; never allocates. */
int tarn_stats(struct tarn_stats_result *stats, size_t bytes) TARN_NOTHROW;

/* The same as JSON, and as OpenMetrics text (OpenMetrics 1.0, ends with "# EOF"), terminated by a NUL. At
 * most `bytes` bytes are written, the NUL among them; returns the length of the whole text without it, as
 * snprintf(3). 64 KiB are always enough. Never allocates. */
size_t tarn_stats_json(char *buffer, size_t bytes) TARN_NOTHROW;
size_t tarn_stats_openmetrics(char *buffer, size_t bytes) TARN_NOTHROW;

/* mallopt(3): the parameters of the GNU allocator have no meaning here. Returns 1 for those it knows, which
 * are then ignored, and 0 for others. Tarn is tuned by its environment variables. */
int tarn_mallopt(int parameter, int value) TARN_NOTHROW;

#ifdef __cplusplus
}
#endif
#endif
