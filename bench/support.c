/*
 * The cold half of support.h: giving up, allocation that may not fail, tables of sizes, idling.
 */
#include "support.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum {
    EXIT_BROKEN_MEMORY = 3,
    IDLE_MS = 1100,
    MS_PER_S = 1000,
    NS_PER_MS = 1000000,
    WORK_BLOCKS = 4000,
    WORK_SMALLEST_BYTES = 16,
    WORK_LARGEST_BYTES = 4096,
    LIGHT_PAUSE_MS = 10,
    LIGHT_BLOCKS = 20,
};

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

void let_time_pass(struct rng *rng)
{
    const struct timespec idle = {IDLE_MS / MS_PER_S, (long)(IDLE_MS % MS_PER_S) * NS_PER_MS};
    struct size_table sizes;

    nanosleep(&idle, NULL);
    size_table_fill(&sizes, WORK_SMALLEST_BYTES, WORK_LARGEST_BYTES);
    for (int count = 0; count < WORK_BLOCKS; count++) {
        struct piece piece = piece_draw(&sizes, rng);

        piece_free(&piece);
    }
}

void work_lightly(int milliseconds)
{
    const struct timespec pause = {0, (long)LIGHT_PAUSE_MS * NS_PER_MS};
    struct rng rng = rng_seed(1);
    struct size_table sizes;

    size_table_fill(&sizes, WORK_SMALLEST_BYTES, WORK_LARGEST_BYTES);
    for (int passed = 0; passed < milliseconds; passed += LIGHT_PAUSE_MS) {
        nanosleep(&pause, NULL);
        for (int count = 0; count < LIGHT_BLOCKS; count++) {
            struct piece piece = piece_draw(&sizes, &rng);

            piece_free(&piece);
        }
    }
}
