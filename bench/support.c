/*
 * The cold half of support.h: giving up, allocation that may not fail, tables of sizes.
 */
#include "support.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { EXIT_BROKEN_MEMORY = 3 };

void bench_fail(const char *format, ...)
{
    char line[256];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    dprintf(STDERR_FILENO, "%s: %s\n", program_invocation_short_name, line);
    _exit(EXIT_BROKEN_MEMORY);
}

void block_is_wrong(const void *block, size_t size, size_t at)
{
    bench_fail("the block of %zu bytes at %p has lost what was written at byte %zu", size, block, at);
}

static void *given(void *block, size_t size)
{
    if (block == NULL)
        bench_fail("no memory for %zu bytes", size);
    return block;
}

void *must_malloc(size_t size)
{
    return given(malloc(size), size);
}

void *must_calloc(size_t count, size_t size)
{
    return given(calloc(count, size), count * size);
}

void *must_realloc(void *block, size_t size)
{
    return given(realloc(block, size), size);
}

void *must_aligned(size_t alignment, size_t size)
{
    void *block = NULL;

    if (posix_memalign(&block, alignment, size) != 0)
        bench_fail("no memory for %zu bytes aligned to %zu", size, alignment);
    if (((uintptr_t)block & (alignment - 1)) != 0)
        bench_fail("the block at %p is not aligned to %zu", block, alignment);
    return block;
}

void size_table_fill(struct size_table *table, uint32_t smallest, uint32_t largest)
{
    double doublings = log2((double)largest / smallest);

    for (int entry = 0; entry < SIZE_TABLE_ENTRIES; entry++) {
        double part = (double)entry / (SIZE_TABLE_ENTRIES - 1);

        table->sizes[entry] = (uint32_t)(smallest * exp2(part * doublings));
    }
}
