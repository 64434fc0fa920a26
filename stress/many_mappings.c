/*
 * More live raw blocks than the kernel allows mappings (vm.max_map_count, 65,530 by default): 80,000 of 1
 * MiB, of which only the first page is touched. They are allocated by all threads, checked, half of them
 * freed and others allocated in their place, and all freed; then an allocation of everything else still
 * works. Neither the number of mappings nor resident memory may come near its limit.
 */
#include "stress.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "../tests/interface.h"

enum { BLOCKS = 80000 };

#define RESIDENT_BYTES_MAX ((size_t)3 << 30)

static uint64_t *blocks[BLOCKS];

static size_t mappings_max(void)
{
    unsigned long count = 65530;
    FILE *file = fopen("/proc/sys/vm/max_map_count", "re");

    if (file != NULL) {
        must(fscanf(file, "%lu", &count) == 1);
        fclose(file);
    }
    return count;
}

static void make(size_t i, uint64_t tag)
{
    blocks[i] = malloc(MIB);
    must(blocks[i] != NULL);
    blocks[i][0] = i ^ tag;
    blocks[i][511] = i + tag;
}

static void verify_and_free(size_t i, uint64_t tag)
{
    must(blocks[i][0] == (i ^ tag));
    must(blocks[i][511] == i + tag);
    free(blocks[i]);
    blocks[i] = NULL;
}

static uint64_t make_share(unsigned number)
{
    for (size_t i = number; i < BLOCKS; i += stress.threads)
        make(i, stress.seed);
    return BLOCKS / stress.threads;
}

/* Frees blocks that other threads made, every second one, and makes others. */
static uint64_t replace_share(unsigned number)
{
    for (size_t i = (number + 1) % stress.threads; i < BLOCKS; i += 2 * stress.threads) {
        verify_and_free(i, stress.seed);
        if (i % 3 == 0)
            make(i, stress.seed);
    }
    for (size_t i = (number + 1) % stress.threads; i < BLOCKS; i += 2 * stress.threads)
        if (blocks[i] == NULL)
            make(i, stress.seed);
    return BLOCKS / stress.threads;
}

static uint64_t free_share(unsigned number)
{
    for (size_t i = number; i < BLOCKS; i += stress.threads)
        verify_and_free(i, stress.seed);
    return 0;
}

static void must_be_within_limits(void)
{
    must(mappings() < mappings_max());
    must(resident_bytes() < RESIDENT_BYTES_MAX);
}

int main(int argc, char **argv)
{
    uint64_t count;

    stress_begin("many_mappings", argc, argv);
    count = stress_threads(make_share);
    must_be_within_limits();
    count += stress_threads(replace_share);
    must_be_within_limits();
    for (size_t size = 1; size < 64 * MIB; size *= 2) {
        void *block = malloc(size);

        must(block != NULL);
        free(block);
    }
    stress_threads(free_share);
    must_be_within_limits();
    stress_end(count);
    return 0;
}
