/*
 * Arenas come and go: threads grow to some tens of MiB and shrink to nothing in waves of their own, while
 * others trim, read statistics and allocate. Afterwards, with all freed and trimmed, memory is back near
 * where it began.
 */
#include "stress.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "../tests/interface.h"

static atomic_bool stop;

static size_t wave_bytes(void)
{
    /* Together about half a GiB at the crest. */
    return 512 * MIB / (stress.threads < 8 ? 8 : stress.threads);
}

/* Blocks of one wave are of similar size: 64 bytes to 64 KiB, so that it fills whole arenas of one kind. */
static uint64_t rise_and_fall(struct random *random)
{
    size_t scale = (size_t)64 << random_below(random, 11), bytes = 0;
    uint64_t count = 0;
    struct block *list = NULL;

    while (bytes < wave_bytes() && count < 40000) {
        size_t size = BLOCK_BYTES_MIN + sizeof list + random_below(random, scale);
        struct block *block = malloc(size);

        must(block != NULL);
        /* A list through the blocks themselves: first word next, second a check. */
        ((struct block **)block)[0] = list;
        ((uint64_t *)block)[1] = (uintptr_t)block ^ size;
        ((uint64_t *)block)[2] = size;
        list = block;
        bytes += size;
        count++;
    }
    while (list != NULL) {
        struct block *next = ((struct block **)list)[0];

        must(((uint64_t *)list)[1] == ((uintptr_t)list ^ ((uint64_t *)list)[2]));
        ((uint64_t *)list)[1] = 0;
        free(list);
        list = next;
    }
    return count;
}

static uint64_t waves(unsigned number)
{
    struct random random = stress_random(number);
    uint64_t blocks = 0;

    while (!stress_is_over()) {
        if (number % 8 == 7) {
            /* Every eighth thread lives evenly, through mailboxes. */
            for (size_t i = 0; i < 1000; i++, blocks++)
                block_free(mailbox_exchange(random_below(&random, MAILBOXES), &random,
                                            block_make(&random, block_random_size(&random))),
                           &random);
        } else {
            blocks += rise_and_fall(&random);
        }
    }
    return blocks;
}

static void *trim(void *argument)
{
    (void)argument;
    while (!atomic_load(&stop)) {
        (void)malloc_trim(0);
        sleep_ms(3);
    }
    return NULL;
}

static void *read_statistics(void *argument)
{
    FILE *nowhere = fopen("/dev/null", "we");

    (void)argument;
    must(nowhere != NULL);
    while (!atomic_load(&stop)) {
        mallinfo2_fields info = mallinfo2();

        must(info.uordblks < (size_t)1 << 40 && info.hblkhd < (size_t)1 << 40);
        must(malloc_info(0, nowhere) == 0);
        sleep_ms(1);
    }
    fclose(nowhere);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t trimmer, readers[2];
    struct random random;
    size_t before;
    uint64_t blocks;

    stress_begin("arena_churn", argc, argv);
    before = resident_bytes();
    must(pthread_create(&trimmer, NULL, trim, NULL) == 0);
    for (size_t i = 0; i < 2; i++)
        must(pthread_create(&readers[i], NULL, read_statistics, NULL) == 0);
    blocks = stress_threads(waves);
    atomic_store(&stop, true);
    must(pthread_join(trimmer, NULL) == 0);
    for (size_t i = 0; i < 2; i++)
        must(pthread_join(readers[i], NULL) == 0);
    random = stress_random(1000000);
    mailbox_free_all(&random);
    (void)malloc_trim(0);
    stress_must_be_resident_below(before + 48 * MIB);
    stress_end(blocks);
    return 0;
}
