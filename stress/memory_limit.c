/*
 * A process at its address space limit: several threads allocate until there is no more, each failure is NULL
 * and ENOMEM, nothing else breaks; after all is freed, allocation works again, and about as much can be had
 * as the first time.
 */
#include "stress.h"

#include <errno.h>
#include <pthread.h>
#include <sys/resource.h>

#include "../tests/interface.h"

/* What the threads may have together, and what each may keep of it while it waits is small against it. */
#define ROOM_BYTES (512 * MIB + stress.threads * 16 * MIB)

enum { BLOCKS_MAX = 200000 };

static pthread_barrier_t barrier;
static size_t limit_bytes;
static atomic_bool over;
static atomic_ulong failures;
static atomic_ulong filled_bytes;

/* Big ones for some threads, so that each kind runs out; a round of small ones alone now and then. */
static size_t next_size(struct random *random, uint64_t round)
{
    if (round % 4 == 3)
        return BLOCK_BYTES_MIN + random_below(random, 3000);
    if (random_below(random, 50) == 0)
        return BLOCK_BYTES_MIN + random_below(random, 16 * MIB);
    return BLOCK_BYTES_MIN + random_below(random, 300 * KIB);
}

static uint64_t fill(struct random *random, struct block **blocks, uint64_t round, size_t blocks_max)
{
    uint64_t count = 0;
    unsigned failed = 0;

    while (count < blocks_max && failed < 20) {
        size_t size_bytes = next_size(random, round);
        struct block *block = block_try_make(random, size_bytes);

        if (block == NULL) {
            failed++;
            atomic_fetch_add(&failures, 1);
            /* At the limit: growing fails or works, shrinking works or leaves all as it was; calloc may fail
             * too. */
            if (count > 0) {
                size_t at = random_below(random, count);

                blocks[at] = block_resize(blocks[at], blocks[at]->size_bytes * 2);
                blocks[at] = block_resize(blocks[at], blocks[at]->size_bytes / 3 + BLOCK_BYTES_MIN);
            }
        } else {
            blocks[count++] = block;
            atomic_fetch_add(&filled_bytes, size_bytes);
        }
    }
    return count;
}

static uint64_t live_at_the_limit(unsigned number)
{
    struct random random = stress_random(number);
    size_t blocks_max = BLOCKS_MAX / stress.threads;
    struct block **blocks = NULL;
    uint64_t sum = 0;

    /* Beforehand, as it could fail later. */
    while ((blocks = calloc(blocks_max, sizeof *blocks)) == NULL)
        continue;
    pthread_barrier_wait(&barrier); /* the limit is set now */
    for (uint64_t round = 0;; round++) {
        uint64_t count = fill(&random, blocks, round, blocks_max);

        sum += count;
        pthread_barrier_wait(&barrier); /* all are full */
        for (size_t i = 0; i < count; i++)
            block_free(blocks[i], &random);
        pthread_barrier_wait(&barrier); /* all is free: the main thread takes most of it at once */
        pthread_barrier_wait(&barrier);
        if (atomic_load(&over))
            break;
    }
    free(blocks);
    return sum;
}

/* After all is freed: a large block, and many small ones for a thread that had none. (What 64 waiting threads
 * keep may lie in every arena: then no address space comes free for a raw block, but a run can be had.) */
static void must_have_room(struct random *random)
{
    enum { SMALL_BLOCKS = 10000 };
    static struct block *small[SMALL_BLOCKS];
    void *large = malloc(stress.threads <= 8 ? 16 * MIB : 500 * KIB);

    must(large != NULL);
    free(large);
    for (size_t i = 0; i < SMALL_BLOCKS; i++)
        small[i] = block_make(random, 1000);
    for (size_t i = 0; i < SMALL_BLOCKS; i++)
        block_free(small[i], random);
}

/* Each round of the large kind fills about as much as the first one. */
static void must_have_filled(uint64_t round)
{
    static size_t first_bytes;
    size_t bytes = atomic_exchange(&filled_bytes, 0);

    if (round % 4 == 3)
        return;
    if (first_bytes == 0)
        first_bytes = bytes;
    must(bytes >= first_bytes / 2);
}

static void *watch(void *argument)
{
    struct random random = stress_random(1000000);
    struct rlimit limit;

    (void)argument;
    must(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = limit_bytes = address_space_bytes() + ROOM_BYTES;
    must(setrlimit(RLIMIT_AS, &limit) == 0);
    pthread_barrier_wait(&barrier);
    for (uint64_t round = 0; !atomic_load(&over); round++) {
        pthread_barrier_wait(&barrier);
        must(address_space_bytes() <= limit_bytes);
        must_have_filled(round);
        pthread_barrier_wait(&barrier);
        must_have_room(&random);
        if (stress_is_over())
            atomic_store(&over, true);
        pthread_barrier_wait(&barrier);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t watcher;
    uint64_t blocks;

    stress_begin("memory_limit", argc, argv);
    must(pthread_barrier_init(&barrier, NULL, stress.threads + 1) == 0);
    must(pthread_create(&watcher, NULL, watch, NULL) == 0);
    blocks = stress_threads(live_at_the_limit);
    must(pthread_join(watcher, NULL) == 0);
    must(atomic_load(&failures) > 0);
    stress_end(blocks);
    return 0;
}
