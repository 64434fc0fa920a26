/*
 * Threads come and go: each lives for a few hundred allocations, leaves blocks to others in the mailboxes,
 * and ends, some with blocks of others on their way. The number of live threads stays --threads; memory must
 * not grow with the number of threads there have been.
 */
#include "stress.h"

#include <pthread.h>

enum { HELD = 64 };

struct visitor {
    uint64_t number;
    uint64_t blocks;
};

/* One short life. */
static void *visit(void *argument)
{
    struct visitor *visitor = argument;
    struct random random = stress_random(visitor->number);
    struct block *held[HELD] = {NULL};
    size_t operations = random_below(&random, 600);

    for (size_t i = 0; i < operations; i++) {
        size_t at = random_below(&random, HELD);

        block_free(held[at], &random);
        held[at] = block_make(&random, block_random_size(&random));
        if (random_below(&random, 3) == 0)
            held[at] = mailbox_exchange(random_below(&random, MAILBOXES), &random, held[at]);
    }
    for (size_t i = 0; i < HELD; i++)
        if (held[i] != NULL)
            block_free(mailbox_exchange(i, &random, held[i]), &random);
    visitor->blocks = operations;
    return NULL;
}

/* Starts one thread after another in one place; several such places run side by side. */
static uint64_t start_visitors(unsigned place)
{
    uint64_t blocks = 0, visits = 0;
    size_t most_early = 0; /* one look alone may fall into a trough */

    for (uint64_t number = place; !stress_is_over(); number += stress.threads) {
        struct visitor visitor = {.number = number};
        pthread_t thread;

        must(pthread_create(&thread, NULL, visit, &visitor) == 0);
        must(pthread_join(thread, NULL) == 0);
        blocks += visitor.blocks;
        if (++visits <= 50 && visits % 10 == 0) {
            size_t resident = resident_bytes();
            if (resident > most_early)
                most_early = resident;
        } else if (visits % 50 == 0) {
            stress_must_be_resident_below(2 * most_early + 64 * MIB);
        }
    }
    return blocks;
}

int main(int argc, char **argv)
{
    struct random random;
    uint64_t blocks;

    stress_begin("thread_churn", argc, argv);
    blocks = stress_threads(start_visitors);
    random = stress_random(1000000);
    mailbox_free_all(&random);
    stress_end(blocks);
    return 0;
}
