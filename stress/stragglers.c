/*
 * The straggler row of the design: 400,000 blocks of 133 bytes are allocated and touched, all but one in a
 * thousand freed, then all. After each step the program lives on for 2.5 s with one small block every 10 ms,
 * as an idle server would. Prints resident memory above the start at the peak and after both steps, in MiB.
 *
 * With --max-straggler-mib and --max-freed-mib it fails beyond them. --random 1 keeps a random one in a
 * thousand instead of every thousandth.
 */
#include "stress.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../tests/interface.h"

enum { BLOCKS = 400000, BLOCK_BYTES = 133, KEEP_ONE_IN = 1000 };

static char *blocks[BLOCKS];

static void light_activity(double seconds)
{
    uint64_t end = now_ns() + (uint64_t)(seconds * 1e9);

    while (now_ns() < end) {
        char *block = opaque(malloc(40));

        must(block != NULL);
        *block = 1;
        free(block);
        sleep_ms(10);
    }
}

static double mib_above(size_t start)
{
    return ((double)resident_bytes() - (double)start) / (double)MIB;
}

int main(int argc, char **argv)
{
    double straggler_mib_max = stress_argument(&argc, argv, "max-straggler-mib", 1e9);
    double freed_mib_max = stress_argument(&argc, argv, "max-freed-mib", 1e9);
    bool keep_random = stress_argument(&argc, argv, "random", 0) != 0;
    double peak_mib, straggler_mib, freed_mib;
    struct random random;
    size_t start;

    stress_begin("stragglers", argc, argv);
    random = stress_random(0);
    memset(blocks, 1, sizeof blocks); /* the array's own pages are there from the start */
    free(opaque(malloc(BLOCK_BYTES)));
    start = resident_bytes();
    for (size_t i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(BLOCK_BYTES);
        must(blocks[i] != NULL);
        pattern_write(blocks[i], BLOCK_BYTES, i);
    }
    peak_mib = mib_above(start);

    for (size_t i = 0; i < BLOCKS; i++) {
        bool keep = keep_random ? random_below(&random, KEEP_ONE_IN) == 0 : i % KEEP_ONE_IN == 0;

        if (!keep) {
            free(blocks[i]);
            blocks[i] = NULL;
        }
    }
    light_activity(2.5);
    straggler_mib = mib_above(start);

    for (size_t i = 0; i < BLOCKS; i++)
        if (blocks[i] != NULL) {
            must(pattern_holds(blocks[i], BLOCK_BYTES, i));
            free(blocks[i]);
        }
    light_activity(2.5);
    freed_mib = mib_above(start);

    printf(
        "stragglers: seed %lu, %.1f MiB at the peak, %.1f after all but 0.1 %% were freed, %.1f after all: ",
        (unsigned long)stress.seed, peak_mib, straggler_mib, freed_mib);
    if (straggler_mib > straggler_mib_max || freed_mib > freed_mib_max) {
        printf("above the limits of %.1f and %.1f: FAILED\n", straggler_mib_max, freed_mib_max);
        return 1;
    }
    puts("ok");
    return 0;
}
