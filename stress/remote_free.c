/*
 * Blocks go from thread to thread: most are freed, some resized, by a thread that did not allocate them.
 */
#include "stress.h"

static uint64_t exchange_blocks(unsigned number)
{
    struct random random = stress_random(number);
    uint64_t blocks = 0;

    while (!stress_is_over()) {
        for (size_t i = 0; i < 256; i++) {
            struct block *block = block_make(&random, block_random_size(&random));
            size_t mailbox = random_below(&random, MAILBOXES);

            blocks++;
            block = mailbox_exchange(mailbox, &random, block);
            if (block != NULL && random_below(&random, 16) == 0) {
                /* Resized here, on to the next. */
                block = block_resize(block, block_random_size(&random));
                block = mailbox_exchange(mailbox + 1, &random, block);
            }
            block_free(block, &random);
        }
        /* A burst of one size: chains of blocks of the same pool. */
        size_t size = BLOCK_BYTES_MIN + random_below(&random, 200);

        for (size_t i = 0; i < 64; i++) {
            block_free(mailbox_exchange(i, &random, block_make(&random, size)), &random);
            blocks++;
        }
    }
    return blocks;
}

int main(int argc, char **argv)
{
    struct random random;
    uint64_t blocks;

    stress_begin("remote_free", argc, argv);
    blocks = stress_threads(exchange_blocks);
    random = stress_random(1000000);
    mailbox_free_all(&random);
    stress_end(blocks);
    return 0;
}
