/*
 * Something to record: two generations of three threads, whose blocks are freed by the main thread after they
 * have ended, and a forked process. The sizes are odd ones, by which tests/trace/check finds these blocks
 * again.
 *
 *     program [kill]     with «kill», it ends by a signal in the midst of it
 */
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    GENERATIONS = 2,
    THREADS = 3,
    BLOCKS = 50,
    HANDED_OVER_BYTES = 3001,
    ZEROED_COUNT = 7,
    ZEROED_BYTES = 431,
    FIRST_BYTES = 101,
    SECOND_BYTES = 5003,
    THIRD_BYTES = 20011,
    ALIGNED_BYTES = 1009,
    ALIGNMENT = 512,
    CHILD_BYTES = 7919,
};

static void *handed_over[THREADS][BLOCKS];

static void must(int holds)
{
    if (!holds)
        abort();
}

static void *work(void *argument)
{
    void **blocks = argument;

    for (int index = 0; index < BLOCKS; index++) {
        void *zeroed = calloc(ZEROED_COUNT, ZEROED_BYTES);
        char *moved = malloc(FIRST_BYTES);
        void *aligned = NULL;

        blocks[index] = malloc(HANDED_OVER_BYTES);
        must(blocks[index] != NULL && zeroed != NULL && moved != NULL);
        moved = realloc(moved, SECOND_BYTES);
        must(moved != NULL);
        moved = realloc(moved, THIRD_BYTES);
        must(moved != NULL);
        must(posix_memalign(&aligned, ALIGNMENT, ALIGNED_BYTES) == 0);
        free(aligned);
        free(moved);
        free(zeroed);
    }
    return NULL;
}

static void one_generation(void)
{
    pthread_t threads[THREADS];

    for (int thread = 0; thread < THREADS; thread++)
        must(pthread_create(&threads[thread], NULL, work, handed_over[thread]) == 0);
    for (int thread = 0; thread < THREADS; thread++) {
        must(pthread_join(threads[thread], NULL) == 0);
        for (int index = 0; index < BLOCKS; index++)
            free(handed_over[thread][index]);
    }
}

int main(int argc, char **argv)
{
    pid_t child;
    int status;

    for (int generation = 0; generation < GENERATIONS; generation++)
        one_generation();
    child = fork();
    must(child >= 0);
    if (child == 0) {
        for (int index = 0; index < BLOCKS; index++)
            free(malloc(CHILD_BYTES));
        _exit(0);
    }
    must(waitpid(child, &status, 0) == child && status == 0);
    if (argc > 1 && strcmp(argv[1], "kill") == 0)
        raise(SIGKILL);
    return 0;
}
