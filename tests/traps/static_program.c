/*
 * Trap: a wholly static program. There is no dynamic linker, the C library's own calls (stdio,
 * pthread_create, thread-local storage) go to the allocator from the first instruction on, and nothing may
 * need a late symbol. (cmocka comes as a shared library only, so this program reports its cases itself.)
 */
#include "../support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../interface.h"

#include <tarn/tarn.h>

enum { THREADS = 8, SLOTS = 64 };

static _Atomic(void *) exchange[SLOTS];

static void *exchange_blocks(void *argument)
{
    struct random random = {(uintptr_t)argument};

    for (size_t i = 0; i < 20000; i++) {
        size_t size = 8 + random_size(&random);
        uint64_t *block = malloc(opaque_size(size));

        must(block != NULL);
        block[0] = size;
        pattern_write(block + 1, size - 8 < 500 ? size - 8 : 500, size);
        block = atomic_exchange(&exchange[random_below(&random, SLOTS)], block);
        if (block != NULL) {
            size = block[0];
            must(pattern_holds(block + 1, size - 8 < 500 ? size - 8 : 500, size));
            free(block);
        }
    }
    return NULL;
}

/* The names of libc are the library's: one heap answers both. */
static void one_heap(void)
{
    void *block = malloc(opaque_size(5000));
    struct tarn_mallinfo2_result before, after;

    must(block != NULL);
    tarn_free(block);
    before = tarn_mallinfo2();
    block = malloc(opaque_size(30 * MIB));
    after = tarn_mallinfo2();
    must(after.hblkhd >= before.hblkhd + 30 * MIB);
    free(block);
}

static void threads(void)
{
    pthread_t threads[THREADS];

    for (size_t i = 0; i < THREADS; i++)
        must(pthread_create(&threads[i], NULL, exchange_blocks, (void *)(uintptr_t)(i + 1)) == 0);
    for (size_t i = 0; i < THREADS; i++)
        must(pthread_join(threads[i], NULL) == 0);
    for (size_t i = 0; i < SLOTS; i++)
        free(atomic_exchange(&exchange[i], NULL));
    (void)malloc_trim(0);
}

static void fork_in_it(void)
{
    pid_t pid;

    pid = fork();
    if (pid == 0) {
        exchange_blocks((void *)(uintptr_t)99);
        _exit(0);
    }
    must(pid > 0);
    must(wait_for_child(pid, 30) == 0);
}

int main(void)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } cases[] = {{"one heap", one_heap}, {"threads", threads}, {"fork", fork_in_it}};

    puts("1..3");
    for (int i = 0; i < 3; i++) {
        fflush(stdout);
        cases[i].run();
        printf("ok %d - %s\n", i + 1, cases[i].name);
    }
    return 0;
}
