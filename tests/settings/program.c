/*
 * Allocates a little of everything and says so; tests/settings/check runs it with settings of all kinds.
 */
#include "../support.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "../interface.h"

static const size_t sizes[] = {1,        100,       1500,      5000,    32 * KIB,
                               60 * KIB, 400 * KIB, 600 * KIB, 3 * MIB, 20 * MIB};

enum { COUNT = sizeof sizes / sizeof sizes[0] };

static void *allocate_a_little(void *argument)
{
    for (size_t round = 0; round < 3; round++) {
        void *blocks[COUNT];

        for (size_t i = 0; i < COUNT; i++) {
            blocks[i] = malloc(opaque_size(sizes[i]));
            must(blocks[i] != NULL);
            pattern_write(blocks[i], sizes[i], i);
        }
        for (size_t i = 0; i < COUNT; i++) {
            blocks[i] = realloc(blocks[i], opaque_size(sizes[i] * 2));
            must(blocks[i] != NULL && pattern_holds(blocks[i], sizes[i], i));
        }
        for (size_t i = 0; i < COUNT; i++)
            free(blocks[i]);
    }
    return argument;
}

int main(void)
{
    pthread_t thread;

    allocate_a_little(NULL);
    must(pthread_create(&thread, NULL, allocate_a_little, NULL) == 0);
    must(pthread_join(thread, NULL) == 0);
    puts("done");
    return 0;
}
