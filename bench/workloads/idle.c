/*
 * Memory, not time: many threads that have worked and now wait, as the pool of a server does at night; then
 * they end. What an allocator keeps for each of them is multiplied by their number, and none of them calls
 * it any more to give something back; at their end it has to be collected.
 *
 *      every thread:   work, free all  ─  sleep        ─  end
 *      main thread:                          ↑ read          ↑ read
 *
 * Resident memory above the start, the threads' stacks included. Before both readings the main thread idles
 * and does a little work, so what is given back with a delay or at the next call is given back. A row of
 * memory only: its time is that of the idling.
 */
#include "../process.h"
#include "../support.h"
#include "../workload.h"

#include <pthread.h>

enum {
    LIVE_BLOCKS = 1000,
    BLOCKS_PER_THREAD = 8000,
    SMALLEST_BYTES = 16,
    LARGEST_BYTES = 16 * 1024,
    MOST_WORKERS = 64,
};

struct worker {
    struct idle *idle;
    struct rng rng;
    pthread_t thread;
};

/* The readings are the main thread's. */
struct idle {
    int count;
    pthread_barrier_t worked;
    pthread_barrier_t night_over;
    struct size_table sizes;
    struct worker workers[MOST_WORKERS];
    long start_kib;
    long idle_kib;
    long ended_kib;
};

static void work(const struct size_table *sizes, struct rng *rng)
{
    struct piece *pieces = must_calloc(LIVE_BLOCKS, sizeof(*pieces));

    for (int count = 0; count < BLOCKS_PER_THREAD; count++) {
        struct piece *piece = &pieces[rng_below(rng, LIVE_BLOCKS)];

        piece_free(piece);
        *piece = piece_draw(sizes, rng);
    }
    for (int index = 0; index < LIVE_BLOCKS; index++)
        piece_free(&pieces[index]);
    free(pieces);
}

static void *live(void *argument)
{
    struct worker *worker = argument;

    work(&worker->idle->sizes, &worker->rng);
    pthread_barrier_wait(&worker->idle->worked);
    pthread_barrier_wait(&worker->idle->night_over);
    return NULL;
}

static void work_sleep_end(void *state, struct turn *turn)
{
    struct idle *idle = state;

    if (turn->round == 0)
        return; /* no warm-up: the memory would already be there */
    idle->start_kib = process_usage_now().rss_kib;
    for (int index = 0; index < idle->count; index++) {
        struct worker *worker = &idle->workers[index];

        *worker = (struct worker){.idle = idle, .rng = rng_seed(rng_next(&turn->rng))};
        if (pthread_create(&worker->thread, NULL, live, worker) != 0)
            bench_fail("no thread could be started");
    }
    pthread_barrier_wait(&idle->worked);
    let_time_pass(&turn->rng);
    idle->idle_kib = process_usage_now().rss_kib;
    pthread_barrier_wait(&idle->night_over);
    for (int index = 0; index < idle->count; index++)
        pthread_join(idle->workers[index].thread, NULL);
    let_time_pass(&turn->rng);
    idle->ended_kib = process_usage_now().rss_kib;
}

static void *prepare(const struct workload *workload, int threads)
{
    struct idle *idle = must_malloc(sizeof(*idle));

    (void)threads;
    memset(idle, 0, sizeof(*idle)); /* resident before the start is read */
    idle->count = *(const int *)workload->parameters;
    size_table_fill(&idle->sizes, SMALLEST_BYTES, LARGEST_BYTES);
    pthread_barrier_init(&idle->worked, NULL, (unsigned)idle->count + 1);
    pthread_barrier_init(&idle->night_over, NULL, (unsigned)idle->count + 1);
    return idle;
}

static size_t report(const void *state, struct figure *figures)
{
    const struct idle *idle = state;
    const double kib = 1024;

    figures[0] = (struct figure){"held_by_idle_threads", kib * (double)(idle->idle_kib - idle->start_kib)};
    figures[1] = (struct figure){"held_after_threads", kib * (double)(idle->ended_kib - idle->start_kib)};
    return 2;
}

static void finish(void *state)
{
    struct idle *idle = state;

    pthread_barrier_destroy(&idle->worked);
    pthread_barrier_destroy(&idle->night_over);
    free(idle);
}

#define IDLE_ROW(title, count)                                                                               \
    {                                                                                                        \
        .name = "idle/" title, .operation = title " threads work, free all, sleep, end",                     \
        .threads = {{1, false}}, .memory_only = true, .operations = 1, .rounds = 1,                          \
        .parameters = &(const int){count}, .prepare = prepare, .round = work_sleep_end, .finish = finish,    \
        .report = report                                                                                     \
    }

static const struct workload idle_workloads[] = {IDLE_ROW("1", 1), IDLE_ROW("4", 4), IDLE_ROW("16", 16),
                                                 IDLE_ROW("64", MOST_WORKERS)};

const struct workload_family idle_family = {idle_workloads, WORKLOAD_COUNT(idle_workloads)};
