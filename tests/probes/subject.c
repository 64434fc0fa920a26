/*
 * Does once what each probe tells of, then prints "done".
 */
#include "../support.h"

#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCKS = 20000, BYTES = 1000, ROUNDS = 8, WALKERS = 2 };

static void *blocks[BLOCKS];

static void *fill(void *argument)
{
    (void)argument;
    for (size_t i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(BYTES);
        must(blocks[i] != NULL);
        memset(blocks[i], 1, BYTES);
    }
    return NULL;
}

static void *empty(void *argument)
{
    (void)argument;
    for (size_t i = 0; i < BLOCKS; i++)
        free(blocks[i]);
    return NULL;
}

static volatile int stop;

/* Walks the arenas all the time: those that were retired meanwhile wait for it, and may be taken again. */
static void *walk(void *argument)
{
    (void)argument;
    while (!stop)
        (void)mallinfo2();
    return NULL;
}

static void in_thread(void *(*body)(void *))
{
    pthread_t thread;

    must(pthread_create(&thread, NULL, body, NULL) == 0);
    must(pthread_join(thread, NULL) == 0);
}

int main(void)
{
    pthread_t walkers[WALKERS];

    for (size_t i = 0; i < WALKERS; i++)
        must(pthread_create(&walkers[i], NULL, walk, NULL) == 0);
    for (size_t round = 0; round < ROUNDS; round++) {
        in_thread(fill);
        in_thread(empty); /* another thread's: sent home */
        fill(NULL);
        in_thread(empty);
        fill(NULL);
        empty(NULL);
        void *volatile raw = malloc(10 * MIB);

        free(raw);
        if (round % 2 == 1) /* else retired arenas are taken again */
            (void)malloc_trim(0);
        sleep_ms(10);
        for (size_t i = 0; i < BLOCKS; i++) {
            void *volatile block = malloc(BYTES);

            free(block);
        }
    }
    stop = 1;
    for (size_t i = 0; i < WALKERS; i++)
        must(pthread_join(walkers[i], NULL) == 0);
    printf("done\n");
    return 0;
}
