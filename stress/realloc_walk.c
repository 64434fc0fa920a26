/*
 * Blocks walk through all sizes by realloc: small steps, doublings, halvings, jumps, within and across the
 * ranges of size classes, runs and raw blocks.
 */
#include "stress.h"

enum { WALKERS = 40 };

#define SIZE_MAX_BYTES (6 * MIB)

static size_t next_size(struct random *random, size_t size)
{
    switch (random_below(random, 8)) {
    case 0:
        return size * 2;
    case 1:
        return size / 2;
    case 2:
        return size + 1 + random_below(random, 100);
    case 3:
        return size - random_below(random, size < 100 ? size : 100);
    case 4:
        return size + size / 2;
    case 5:
        return size - size / 8;
    case 6:
        /* About a limit of the ranges. */
        return ((size_t[]){512, 1024, 32 * KIB, 512 * KIB, 4 * MIB})[random_below(random, 5)] - 8 +
               random_below(random, 17);
    default:
        return random_size(random);
    }
}

static uint64_t walk(unsigned number)
{
    struct random random = stress_random(number);
    struct block *walkers[WALKERS] = {NULL};
    uint64_t blocks = 0;

    while (!stress_is_over())
        for (size_t i = 0; i < WALKERS; i++, blocks++) {
            size_t size;

            if (walkers[i] == NULL) {
                walkers[i] = block_make(&random, block_random_size(&random));
                continue;
            }
            size = next_size(&random, walkers[i]->size_bytes) % SIZE_MAX_BYTES;
            walkers[i] = block_resize(walkers[i], size < BLOCK_BYTES_MIN ? BLOCK_BYTES_MIN : size);
            if (random_below(&random, 64) == 0) {
                block_free(walkers[i], &random);
                walkers[i] = NULL;
            } else if (random_below(&random, 8) == 0) {
                walkers[i] = mailbox_exchange(i, &random, walkers[i]);
            }
        }
    for (size_t i = 0; i < WALKERS; i++)
        block_free(walkers[i], &random);
    return blocks;
}

int main(int argc, char **argv)
{
    struct random random;
    uint64_t blocks;

    stress_begin("realloc_walk", argc, argv);
    blocks = stress_threads(walk);
    random = stress_random(1000000);
    mailbox_free_all(&random);
    stress_end(blocks);
    return 0;
}
