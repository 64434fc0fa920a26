/*
 * Producers allocate and end; the threads that stay free most of what is left, allocate in its place and go
 * on. What the ended threads held must come back into use: memory stays within a bound however many rounds
 * there are.
 */
#include "stress.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCKS_PER_PRODUCER = 3000, PRODUCERS_MAX = 64 };

static struct block *left[PRODUCERS_MAX][BLOCKS_PER_PRODUCER];

static unsigned producers(void)
{
    return stress.threads < PRODUCERS_MAX ? stress.threads : PRODUCERS_MAX;
}

/* Small and medium blocks and some runs, 1.5 KiB on average. */
static size_t next_size(struct random *random)
{
    size_t kind = random_below(random, 100);

    return BLOCK_BYTES_MIN + (kind < 90   ? random_below(random, 400)
                              : kind < 99 ? random_below(random, 8 * KIB)
                                          : random_below(random, 200 * KIB));
}

struct part {
    pthread_t thread;
    unsigned number;
    uint64_t round;
};

static void *produce(void *argument)
{
    struct part *part = argument;
    struct random random = stress_random(part->round * 2 * PRODUCERS_MAX + part->number);

    for (size_t i = 0; i < BLOCKS_PER_PRODUCER; i++)
        if (left[part->number][i] == NULL)
            left[part->number][i] = block_make(&random, next_size(&random));
    return NULL;
}

/* Frees what another part's producer left, all but one in a hundred, and replaces a tenth. */
static void *consume(void *argument)
{
    struct part *part = argument;
    struct random random = stress_random((part->round * 2 + 1) * PRODUCERS_MAX + part->number);
    struct block **blocks = left[(part->number + 1) % producers()];

    for (size_t i = 0; i < BLOCKS_PER_PRODUCER; i++) {
        if (random_below(&random, 100) == 0)
            continue;
        block_free(blocks[i], &random);
        blocks[i] = random_below(&random, 10) == 0 ? block_make(&random, next_size(&random)) : NULL;
    }
    return NULL;
}

static void run_parts(void *(*body)(void *), uint64_t round)
{
    struct part parts[PRODUCERS_MAX];

    for (unsigned i = 0; i < producers(); i++) {
        parts[i].number = i;
        parts[i].round = round;
        must(pthread_create(&parts[i].thread, NULL, body, &parts[i]) == 0);
    }
    for (unsigned i = 0; i < producers(); i++)
        must(pthread_join(parts[i].thread, NULL) == 0);
}

int main(int argc, char **argv)
{
    struct random random;
    size_t resident_at_first = 0;
    uint64_t round = 0;

    stress_begin("adoption", argc, argv);
    do {
        run_parts(produce, round);
        if (round == 4)
            resident_at_first = resident_bytes();
        /* At its fullest it is as full as it was early on, but for chance and what lies scattered. */
        if (round > 4)
            stress_must_be_resident_below(resident_at_first + resident_at_first / 2 + 16 * MIB);
        run_parts(consume, round);
        round++;
    } while (!stress_is_over() || round < 6);
    random = stress_random(1000000);
    for (size_t i = 0; i < PRODUCERS_MAX; i++)
        for (size_t k = 0; k < BLOCKS_PER_PRODUCER; k++)
            block_free(left[i][k], &random);
    stress_end(round * producers() * BLOCKS_PER_PRODUCER);
    return 0;
}
