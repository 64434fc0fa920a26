/*
 * A process to be looked at: holds what is known, says "ready", and goes on as its argument says until its
 * standard input ends.
 *
 *   busy      four threads allocate and free, and pass blocks to each other
 *   slow      allocates a little every 20 ms
 *   idle      does not allocate at all
 *   fork      says the number of a child too, which goes on as `slow` does
 *   damaged N overwrites at random what is published of it, from the seed N, then as `slow`
 */
#include "../support.h"

#include "base/published.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SMALL = 40000, MEDIUM = 2000, RUNS = 20, RAWS = 3, THREADS = 4, PASSED = 64, PAUSE_MS = 20 };

static void *small[SMALL], *medium[MEDIUM], *runs[RUNS], *raws[RAWS];
static void *_Atomic passed[PASSED];
static volatile int stop;

static void fill(void **blocks, size_t count, size_t bytes)
{
    for (size_t i = 0; i < count; i++) {
        blocks[i] = malloc(bytes);
        must(blocks[i] != NULL);
        memset(blocks[i], 1, bytes);
    }
}

/* 100 bytes each in blocks of 112; of the blocks of 5000 every other is freed. */
static void hold(void)
{
    fill(small, SMALL, 100);
    fill(medium, MEDIUM, 5000);
    fill(runs, RUNS, 100 * KIB);
    fill(raws, RAWS, 10 * MIB);
    for (size_t i = 0; i < MEDIUM; i += 2)
        free(medium[i]);
}

static void *work(void *argument)
{
    struct random random = {(uintptr_t)argument};

    while (!stop) {
        void *block = malloc(1 + random_size(&random) % (64 * KIB));

        free(atomic_exchange(&passed[random_below(&random, PASSED)], block));
    }
    return NULL;
}

static bool input_ended(int wait_ms)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char byte;

    return poll(&input, 1, wait_ms) > 0 && read(STDIN_FILENO, &byte, 1) <= 0;
}

static void go_slowly(void)
{
    while (!input_ended(PAUSE_MS)) {
        void *volatile block = malloc(100);

        free(block);
    }
}

static void go_busily(void)
{
    pthread_t threads[THREADS];

    for (uintptr_t i = 0; i < THREADS; i++)
        must(pthread_create(&threads[i], NULL, work, (void *)(i + 1)) == 0);
    while (!input_ended(PAUSE_MS))
        continue;
    stop = 1;
    for (size_t i = 0; i < THREADS; i++)
        (void)pthread_join(threads[i], NULL);
}

/* All but the first lines, by which it is found. */
static void damage(unsigned seed)
{
    extern char __data_start[], _end[];
    struct random random = {seed};

    for (char *at = __data_start; at + sizeof(struct published) <= _end; at += 8) {
        struct published *found = (struct published *)(void *)at;
        unsigned char *bytes = (unsigned char *)at;

        if (found->magic[0] != PUBLISHED_MAGIC || found->self != (uintptr_t)at)
            continue;
        for (unsigned i = 0; i < 1 + seed % 8; i++) {
            size_t where =
                offsetof(struct published, index_root) +
                random_below(&random, (sizeof *found - offsetof(struct published, index_root)) / 8) * 8;
            uint64_t what = random_below(&random, 3) == 0   ? random_below(&random, UINT64_C(1) << 47)
                            : random_below(&random, 2) == 0 ? (uintptr_t)small[random_below(&random, SMALL)]
                                                            : UINT64_MAX >> random_below(&random, 64);

            memcpy(bytes + where, &what, sizeof what);
        }
        return;
    }
    must(false);
}

int main(int count, char **arguments)
{
    const char *mode = count > 1 ? arguments[1] : "slow";
    pid_t child = 0;

    (void)prctl(PR_SET_PDEATHSIG, 9);
    hold();
    if (strcmp(mode, "damaged") == 0)
        damage((unsigned)atoi(arguments[2]));
    if (strcmp(mode, "fork") == 0 && (child = fork()) == 0) {
        go_slowly();
        _exit(0);
    }
    printf("ready %d\n", (int)child);
    fflush(stdout);
    if (strcmp(mode, "busy") == 0)
        go_busily();
    else if (strcmp(mode, "idle") == 0)
        while (!input_ended(-1))
            continue;
    else
        go_slowly();
    if (child > 0)
        (void)waitpid(child, NULL, 0);
    return 0;
}
