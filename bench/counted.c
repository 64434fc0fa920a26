/*
 * tarn-counted: fixed work for counting, not for timing. bench/regress runs it.
 *
 *     tarn-counted calls                      every operation below, to run under callgrind
 *     tarn-counted NAME THREADS ROUNDS        a workload of the registry, without the harness
 *
 * An operation is a function `counted_…`, run after a warm-up of its own: what a thread meets once is not in
 * it. Under callgrind the calls that this function makes are seen with their number and the instructions
 * inside each; the loop around them is not counted.
 */
#include "run.h"
#include "support.h"
#include "workload.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    CALLS = 1000,
    FEW_CALLS = 50, /* of what is large */
    KIB = 1024,
    LARGEST_GROWN_BYTES = 64 * KIB,
    ALIGNMENT_BYTES = 256,
    MOST_THREADS = 64,
    FIRST_SECOND = 1000,
    NS_PER_LOOK = 50 * 1000,
    NS_PER_S = 1000 * 1000 * 1000,
    EXIT_USAGE = 2,
};

/* The library does some things after a time. So that a count repeats, this is the clock that it reads: it
 * goes on by a fixed step with each look at it. (The program is linked with -rdynamic, and stands before all
 * libraries.) */
int clock_gettime(clockid_t clock, struct timespec *now)
{
    static atomic_ullong looks;
    unsigned long long ns = NS_PER_LOOK * atomic_fetch_add_explicit(&looks, 1, memory_order_relaxed);

    (void)clock;
    *now =
        (struct timespec){.tv_sec = (time_t)(FIRST_SECOND + ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};
    return 0;
}

static void *blocks[CALLS];

/* A call that is counted is made by the operation itself, so these are not the functions of support.h. */
static inline void *checked(void *block)
{
    if (block == NULL)
        bench_fail("there is no memory");
    return block;
}

/* The body of each operation is written once, and compiled twice: as its warm-up and as what is counted.
 * Alike, the compiler would make one function of the two; the empty asm keeps them apart. */
#define BODY static inline __attribute__((always_inline)) void
#define OPERATION(name, body, ...)                                                                           \
    __attribute__((noinline)) static void warm_##name(void)                                                  \
    {                                                                                                        \
        body(__VA_ARGS__);                                                                                   \
    }                                                                                                        \
    __attribute__((noinline)) static void counted_##name(void)                                               \
    {                                                                                                        \
        body(__VA_ARGS__);                                                                                   \
        __asm__ volatile("");                                                                                \
    }                                                                                                        \
    static void name(void)                                                                                   \
    {                                                                                                        \
        warm_##name();                                                                                       \
        counted_##name();                                                                                    \
    }

/* The shortest way: a block that the thread has just freed. */
BODY pairs(size_t size, int calls)
{
    for (int call = 0; call < calls; call++)
        free(checked(malloc(size)));
}

/* Many alive at once: pools are filled, emptied, given back. */
BODY burst(size_t size, int calls)
{
    for (int call = 0; call < calls; call++)
        blocks[call] = checked(malloc(size));
    for (int call = 0; call < calls; call++)
        free(blocks[call]);
}

BODY zeroed(size_t size, int calls)
{
    for (int call = 0; call < calls; call++)
        free(checked(calloc(1, size)));
}

BODY aligned(size_t size, int calls)
{
    for (int call = 0; call < calls; call++)
        free(checked(aligned_alloc(ALIGNMENT_BYTES, size)));
}

/* A vector that grows by doubling. */
BODY grown(int calls)
{
    for (int call = 0; call < calls; call++) {
        void *block = checked(malloc(16));

        for (size_t size = 32; size <= LARGEST_GROWN_BYTES; size *= 2)
            block = checked(realloc(block, size));
        free(block);
    }
}

/* realloc that stays in its block. */
BODY kept(int calls)
{
    void *block = checked(malloc(100));

    for (int call = 0; call < calls; call++)
        block = checked(realloc(block, call % 2 == 0 ? 99 : 100));
    free(block);
}

struct order {
    size_t size;
    int calls;
};

static void *make_blocks(void *order_given)
{
    const struct order *order = order_given;

    for (int call = 0; call < order->calls; call++)
        blocks[call] = checked(malloc(order->size));
    return NULL;
}

/* Blocks of a thread that has ended are not foreign for long: this one waits until they are freed. */
struct maker {
    struct order order;
    pthread_barrier_t made, freed;
};

static void *make_and_wait(void *maker_given)
{
    struct maker *maker = maker_given;

    make_blocks(&maker->order);
    pthread_barrier_wait(&maker->made);
    pthread_barrier_wait(&maker->freed);
    return NULL;
}

BODY foreign(size_t size, int calls)
{
    struct maker maker = {.order = {.size = size, .calls = calls}};
    pthread_t thread;

    pthread_barrier_init(&maker.made, NULL, 2);
    pthread_barrier_init(&maker.freed, NULL, 2);
    if (pthread_create(&thread, NULL, make_and_wait, &maker) != 0)
        bench_fail("no thread");
    pthread_barrier_wait(&maker.made);
    for (int call = 0; call < calls; call++)
        free(blocks[call]);
    pthread_barrier_wait(&maker.freed);
    pthread_join(thread, NULL);
}

/* Blocks whose thread has ended. */
BODY orphaned(size_t size, int calls)
{
    struct order order = {.size = size, .calls = calls};
    pthread_t thread;

    if (pthread_create(&thread, NULL, make_blocks, &order) != 0)
        bench_fail("no thread");
    pthread_join(thread, NULL);
    for (int call = 0; call < calls; call++)
        free(blocks[call]);
}

OPERATION(pair_16, pairs, 16, CALLS)
OPERATION(pair_64, pairs, 64, CALLS)
OPERATION(pair_256, pairs, 256, CALLS)
OPERATION(pair_1KiB, pairs, 1 * KIB, CALLS)
OPERATION(pair_8KiB, pairs, 8 * KIB, CALLS)
OPERATION(pair_32KiB, pairs, 32 * KIB, CALLS)
OPERATION(run_64KiB, pairs, 64 * KIB, CALLS)
OPERATION(run_256KiB, pairs, 256 * KIB, CALLS)
OPERATION(raw_2MiB, pairs, 2 * KIB * KIB, FEW_CALLS)
OPERATION(raw_16MiB, pairs, 16 * KIB * KIB, FEW_CALLS)
OPERATION(burst_64, burst, 64, CALLS)
OPERATION(burst_4KiB, burst, 4 * KIB, CALLS)
OPERATION(burst_64KiB, burst, 64 * KIB, FEW_CALLS)
OPERATION(calloc_64, zeroed, 64, CALLS)
OPERATION(calloc_16KiB, zeroed, 16 * KIB, CALLS)
OPERATION(aligned_100, aligned, 100, CALLS)
OPERATION(realloc_grow, grown, FEW_CALLS)
OPERATION(realloc_keep, kept, CALLS)
OPERATION(foreign_64, foreign, 64, CALLS)
OPERATION(foreign_4KiB, foreign, 4 * KIB, CALLS)
OPERATION(foreign_64KiB, foreign, 64 * KIB, FEW_CALLS)
OPERATION(orphaned_64, orphaned, 64, CALLS)

static void all_operations(void)
{
    void (*const operations[])(void) = {
        pair_16,     pair_64,      pair_256,      pair_1KiB,   pair_8KiB,    pair_32KiB,
        run_64KiB,   run_256KiB,   raw_2MiB,      raw_16MiB,   burst_64,     burst_4KiB,
        burst_64KiB, calloc_64,    calloc_16KiB,  aligned_100, realloc_grow, realloc_keep,
        foreign_64,  foreign_4KiB, foreign_64KiB, orphaned_64,
    };

    for (size_t index = 0; index < sizeof(operations) / sizeof(operations[0]); index++)
        operations[index]();
}

struct part {
    struct run *run;
    unsigned rounds;
    int thread;
};

static void *carry_out(void *part_given)
{
    const struct part *part = part_given;
    struct turn turn;

    run_start(part->run, &turn, part->thread);
    for (unsigned round = 0; round < part->rounds; round++)
        run_round(part->run, &turn);
    run_stop(part->run, &turn);
    return NULL;
}

static const struct workload *find_workload(const char *name)
{
    for (const struct workload_family *const *family = workload_registry; *family != NULL; family++)
        for (size_t index = 0; index < (*family)->count; index++)
            if (strcmp((*family)->workloads[index].name, name) == 0)
                return &(*family)->workloads[index];
    return NULL;
}

/* The first thread of the program takes part, as in a program that starts helpers. */
static void one_workload(const struct workload *workload, int threads, unsigned rounds)
{
    struct run *run = run_create(workload, threads);
    struct part parts[MOST_THREADS];
    pthread_t helpers[MOST_THREADS];

    for (int thread = 0; thread < threads; thread++)
        parts[thread] = (struct part){.run = run, .rounds = rounds, .thread = thread};
    for (int thread = 1; thread < threads; thread++)
        if (pthread_create(&helpers[thread], NULL, carry_out, &parts[thread]) != 0)
            bench_fail("no thread");
    carry_out(&parts[0]);
    for (int thread = 1; thread < threads; thread++)
        pthread_join(helpers[thread], NULL);
}

int main(int argc, char **argv)
{
    const struct workload *workload = argc == 4 ? find_workload(argv[1]) : NULL;
    int threads = argc == 4 ? atoi(argv[2]) : 0;
    int rounds = argc == 4 ? atoi(argv[3]) : 0;

    if (argc == 2 && strcmp(argv[1], "calls") == 0) {
        all_operations();
    } else if (workload != NULL && threads > 0 && threads <= MOST_THREADS && rounds > 0) {
        one_workload(workload, threads, (unsigned)rounds);
    } else {
        fprintf(stderr, "usage: tarn-counted calls | tarn-counted NAME THREADS ROUNDS\n");
        return EXIT_USAGE;
    }
    return 0;
}
