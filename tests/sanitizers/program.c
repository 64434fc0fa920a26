/*
 * One mistake, or none, for a sanitizer or valgrind to find; and who serves malloc. Written with the libc's
 * names; compiled with TEST_TARN_NAMES, with the tarn_* names.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../interface.h"

/* Older C libraries lack them; they are called where Tarn is linked alone. */
#pragma weak free_sized
#pragma weak free_aligned_sized

enum { BYTES = 100, ROUNDS = 2000 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *volatile shared;

/* Tarn's blocks are of its size classes; the run times of the sanitizers say what was asked for. */
static void usable(char *block)
{
    printf("%zu\n", malloc_usable_size(block));
}

static void uninitialised(char *block)
{
    if (block[5] == 1)
        puts("one");
}

static void after_free(char *block)
{
    char *volatile freed = malloc(BYTES);

    (void)block;
    free(freed);
    printf("%d\n", freed[20] == 1);
}

static void overflow(char *block)
{
    ((char *volatile)block)[BYTES] = 1;
}

static void leak(char *block)
{
    shared = malloc(2 * (size_t)block[0] + BYTES);
    shared = NULL;
}

static void *write_without_lock(void *block)
{
    for (size_t i = 0; i < ROUNDS; i++)
        ((volatile char *)block)[7] = (char)i;
    return NULL;
}

/* Takes what the other thread left, frees it and leaves another. */
static void *exchange(void *unused)
{
    (void)unused;
    for (size_t i = 0; i < ROUNDS; i++) {
        char *mine = malloc(16 + i % 600), *other;

        memset(mine, 1, 16 + i % 600);
        pthread_mutex_lock(&lock);
        other = shared;
        shared = mine;
        pthread_mutex_unlock(&lock);
        free(other);
    }
    return NULL;
}

static void in_two_threads(void *(*body)(void *), void *argument)
{
    pthread_t threads[2];

    for (size_t i = 0; i < 2; i++)
        if (pthread_create(&threads[i], NULL, body, argument) != 0)
            abort();
    for (size_t i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
}

static void race(char *block)
{
    in_two_threads(write_without_lock, block);
}

/* No mistake: the names that the run times know, in two threads. */
static void nothing(char *block)
{
    void *aligned = NULL;

    in_two_threads(exchange, NULL);
    free(shared);
    shared = NULL;
    if (posix_memalign(&aligned, 256, BYTES) != 0)
        abort();
    free(aligned);
    free(reallocarray(realloc(calloc(3, BYTES), (size_t)1 << 20), 7, BYTES));
    free(aligned_alloc(64, 128));
    free(memalign(4096, BYTES));
    free(pvalloc(BYTES));
    memset(block, 0, BYTES);
}

/* No mistake either: names that are newer than some run times. */
static void sized(char *block)
{
    free_sized(malloc(BYTES), BYTES);
    free_aligned_sized(aligned_alloc(64, 128), 64, 128);
    memset(block, 0, BYTES);
}

static const struct {
    const char *name;
    void (*body)(char *block);
} mistakes[] = {{"usable", usable},
                {"uninitialised", uninitialised},
                {"after-free", after_free},
                {"overflow", overflow},
                {"leak", leak},
                {"race", race},
                {"nothing", nothing},
                {"sized", sized}};

int main(int argc, char **argv)
{
    for (size_t i = 0; argc == 2 && i < sizeof mistakes / sizeof mistakes[0]; i++) {
        if (strcmp(argv[1], mistakes[i].name) == 0) {
            char *block = malloc(BYTES);

            if (strcmp(argv[1], "uninitialised") != 0)
                block[0] = 0;
            mistakes[i].body(block);
            free(block);
            puts("end");
            return 0;
        }
    }
    return 2;
}
