/*
 * How long a fork takes, and the allocator's part of it: tarn-fork is linked with Tarn, tarn-fork-libc with
 * nothing, so that the C library's own malloc is measured in the same way.
 *
 *   tarn-fork [FORKS]      200 in each situation, when not given
 *
 * Handlers of this program run just before and just after the library's. What was registered first runs last
 * before a fork and first after it: hence one set is registered before all constructors and one in main. (The
 * C library takes the locks of its malloc inside of fork, where handlers do not see it: compare the whole
 * call.)
 */
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "rng.h"
#include "support.h"

enum {
    THREADS = 16,
    ARENAS = 1000,
    RUN_BYTES = 250 << 10,
    RUNS = ARENAS * 15,
    RAW_BLOCKS = 64,
    PLACES = 256
};
enum { FORKS = 200, FORKS_MOST = 100000 };

/* ---- the clock ---- */

/* Of one fork. In shared memory: the child writes too. */
struct times {
    uint64_t begin, prepared, parent_begin, parent_end, child_begin, child_end, end;
    uint64_t prepare_begin;
};

static struct times *times;

static uint64_t now(void)
{
    struct timespec time;

    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* One function for each end of each handler: they get no argument. */
static void prepare_begin(void)
{
    times->prepare_begin = now();
}

static void prepare_end(void)
{
    times->prepared = now();
}

static void parent_begin(void)
{
    times->parent_begin = now();
}

static void parent_end(void)
{
    times->parent_end = now();
}

static void child_begin(void)
{
    times->child_begin = now();
}

static void child_end(void)
{
    times->child_end = now();
}

static void register_first(void)
{
    if (pthread_atfork(prepare_end, parent_begin, child_begin) != 0)
        abort();
}

__attribute__((section(".preinit_array"), used)) static void (*const preinit)(void) = register_first;

/* ---- situations ---- */

static _Atomic(void *) places[PLACES];
static atomic_bool stop;

/* Mostly small, some large; freed by whoever comes by. One thread trims now and then. */
static void *be_busy(void *argument)
{
    struct rng rng = rng_seed((uintptr_t)argument);

    for (uint64_t i = 0; !atomic_load(&stop); i++) {
        uint64_t draw = rng_next(&rng);
        size_t bytes = draw % 64 == 0 ? (size_t)(draw >> 32) % (3 << 20) : (size_t)(draw >> 32) % 2000;
        char *block = must_malloc(bytes + 1);

        *block = 1;
        free(atomic_exchange(&places[draw / 64 % PLACES], block));
        if ((uintptr_t)argument == 1 && i % 20000 == 19999)
            (void)malloc_trim(0);
    }
    return NULL;
}

static void *runs[RUNS];

static void make_arenas(void)
{
    void *raw[RAW_BLOCKS];

    for (size_t i = 0; i < RUNS; i++) {
        runs[i] = must_malloc(RUN_BYTES);
        *(char *)runs[i] = 1;
    }
    for (size_t i = 0; i < RAW_BLOCKS; i++) {
        raw[i] = must_malloc((600 + i) << 10);
        memset(raw[i], 1, 4096);
    }
    for (size_t i = 0; i < RAW_BLOCKS; i++)
        free(raw[i]);
}

static void free_arenas(void)
{
    for (size_t i = 0; i < RUNS; i++)
        free(runs[i]);
    (void)malloc_trim(0);
}

/* ---- measuring ---- */

static int compare_numbers(const void *one, const void *other)
{
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;

    return (a > b) - (a < b);
}

static void print_column(uint64_t *samples, size_t count)
{
    qsort(samples, count, sizeof *samples, compare_numbers);
    printf(" %9.1f %9.1f", (double)samples[count / 2] / 1e3, (double)samples[count - 1] / 1e3);
}

static void fork_once(void)
{
    int status;
    pid_t pid;

    times->begin = now();
    pid = fork();
    if (pid == 0)
        _exit(0);
    times->end = now();
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
        bench_fail("a child failed");
}

static void measure(const char *situation, size_t forks)
{
    static uint64_t samples[4][FORKS_MOST];

    for (size_t i = 0; i < forks; i++) {
        fork_once();
        samples[0][i] = times->prepared - times->prepare_begin;
        samples[1][i] = times->parent_end - times->parent_begin;
        samples[2][i] = times->child_end - times->child_begin;
        samples[3][i] = times->end - times->begin;
    }
    printf("%-36s", situation);
    for (size_t column = 0; column < 4; column++)
        print_column(samples[column], forks);
    printf("\n");
    (void)fflush(stdout);
}

static void measure_busy(const char *situation, size_t forks)
{
    pthread_t threads[THREADS];

    atomic_store(&stop, false);
    for (size_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, be_busy, (void *)(uintptr_t)(i + 1)) != 0)
            bench_fail("no thread");
    measure(situation, forks);
    atomic_store(&stop, true);
    for (size_t i = 0; i < THREADS; i++)
        (void)pthread_join(threads[i], NULL);
}

int main(int argc, char **argv)
{
    size_t forks = argc > 1 ? (size_t)strtoul(argv[1], NULL, 10) : FORKS;

    if (forks < 1 || forks > FORKS_MOST)
        bench_fail("usage: %s [FORKS, at most %d]", argv[0], FORKS_MOST);
    times = mmap(NULL, sizeof *times, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (times == MAP_FAILED || pthread_atfork(prepare_begin, parent_end, child_end) != 0)
        bench_fail("no memory");
    /* The C library would map each run by itself. */
    (void)mallopt(M_MMAP_THRESHOLD, 512 << 10);
    printf("%-36s %19s %19s %19s %19s\n", "microseconds: median, most", "prepare", "parent", "child", "fork");
    measure("one thread", forks);
    measure_busy("16 busy threads", forks);
    make_arenas();
    measure("1,000 arenas, 64 pieces cached", forks);
    measure_busy("the same, 16 busy threads", forks);
    free_arenas();
    return 0;
}
