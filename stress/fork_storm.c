/*
 * A busy process forks again and again; half of its threads start one short-lived thread after another. A
 * child verifies what it inherited, frees blocks of all threads, allocates, starts threads or forks once
 * more, and ends; the parent's threads go on meanwhile. A child that does not end within 60 s is taken for a
 * deadlock.
 */
#include "stress.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../tests/interface.h"

enum { INHERITED = 500, CHILD_SECONDS = 60 };

static struct block *inherited[INHERITED];
static atomic_bool stop;

static uint64_t allocate_and_exchange(uint64_t seed, size_t operations)
{
    struct random random = stress_random(seed);

    for (size_t i = 0; i < operations; i++)
        block_free(mailbox_exchange(random_below(&random, MAILBOXES), &random,
                                    block_make(&random, block_random_size(&random))),
                   &random);
    return operations;
}

static void *short_life(void *argument)
{
    uint64_t *seed = argument;

    *seed = allocate_and_exchange(*seed, 20);
    return NULL;
}

/* A fork may come while a thread begins or ends. */
static uint64_t in_a_thread_of_its_own(uint64_t seed)
{
    pthread_t thread;

    must(pthread_create(&thread, NULL, short_life, &seed) == 0);
    must(pthread_join(thread, NULL) == 0);
    return seed;
}

static void *busy(void *argument)
{
    uint64_t *result = argument, seed = *result;

    *result = 0;
    for (uint64_t i = 0; !atomic_load(&stop); i++) {
        if (seed % 2 == 0)
            *result += allocate_and_exchange(seed + i * 10000, 200);
        else
            *result += in_a_thread_of_its_own(seed + i * 10000);
        if (i % 64 == 0)
            (void)malloc_trim(0);
        if (i % 16 == 0)
            (void)mallinfo2();
    }
    return NULL;
}

/* Without the mailboxes: their locks may be held by threads that the child does not have. */
static void *allocate_alone(void *argument)
{
    struct random random = stress_random((uintptr_t)argument);
    struct block *held[100] = {NULL};

    for (size_t i = 0; i < 2000; i++) {
        size_t at = random_below(&random, 100);

        block_free(held[at], &random);
        held[at] = block_make(&random, block_random_size(&random));
    }
    for (size_t i = 0; i < 100; i++)
        block_free(held[i], &random);
    return NULL;
}

static void child(uint64_t seed, unsigned depth)
{
    struct random random = stress_random(seed);

    for (size_t i = 0; i < INHERITED; i++) {
        block_verify(inherited[i]);
        if (random_below(&random, 2) == 0)
            inherited[i] = block_resize(inherited[i], block_random_size(&random));
    }
    allocate_alone((void *)(uintptr_t)seed);
    if (random_below(&random, 3) == 0) {
        pthread_t threads[4];

        for (size_t i = 0; i < 4; i++)
            must(pthread_create(&threads[i], NULL, allocate_alone, (void *)(uintptr_t)(seed + i + 1)) == 0);
        for (size_t i = 0; i < 4; i++)
            must(pthread_join(threads[i], NULL) == 0);
    }
    if (depth > 0 && random_below(&random, 4) == 0) {
        pid_t pid = fork();

        if (pid == 0) {
            child(seed + 77, depth - 1);
            _exit(0);
        }
        must(pid > 0);
        must(wait_for_child(pid, CHILD_SECONDS) == 0);
    }
    for (size_t i = 0; i < INHERITED; i++)
        block_free(inherited[i], &random);
    (void)malloc_trim(0);
    if (random_below(&random, 2) == 0)
        exit(0); /* destructors and atexit handlers run */
}

int main(int argc, char **argv)
{
    static pthread_t threads[4096];
    static uint64_t results[4096];
    struct random random;
    uint64_t blocks = 0;

    stress_begin("fork_storm", argc, argv);
    random = stress_random(1000000);
    for (size_t i = 0; i < INHERITED; i++)
        inherited[i] = block_make(&random, block_random_size(&random));
    for (unsigned i = 0; i < stress.threads; i++) {
        results[i] = 2000000 + i;
        must(pthread_create(&threads[i], NULL, busy, &results[i]) == 0);
    }
    for (uint64_t number = 0; !stress_is_over() || number < 5; number++) {
        pid_t pid = fork();

        if (pid == 0) {
            child(number * 1000, 2);
            _exit(0);
        }
        must(pid > 0);
        must(wait_for_child(pid, CHILD_SECONDS) == 0);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < stress.threads; i++) {
        must(pthread_join(threads[i], NULL) == 0);
        blocks += results[i];
    }
    for (size_t i = 0; i < INHERITED; i++)
        block_free(inherited[i], &random);
    mailbox_free_all(&random);
    stress_end(blocks);
    return 0;
}
