/*
 * Threads come and go: a server with a thread per connection, or a program that runs each job on a fresh
 * thread. Between 1 and 64 of them are alive at a time, the latest included.
 *
 * A thread lives for some hundred allocations. Most of what it makes it frees itself; the rest, its result,
 * outlives it and is freed by a later thread, when the maker has long gone. What an allocator keeps per
 * thread must be handed on, or memory grows with the number of threads that ever lived; and it must be cheap
 * to set up, since a short life has little time to earn it back. The clean rows leave nothing: what they cost
 * beside the threads themselves is the setting up and the clearing away.
 *
 *      main thread keeps `width` threads alive:  start ─ … ─ join the oldest ─ start ─ …
 *      each thread:  take what is in a mailbox, check and free it ─ work ─ leave the results in the mailbox
 *
 * A mailbox is exchanged atomically: acquire and release on both sides, since the taker reads what the leaver
 * wrote.
 */
#include "../support.h"
#include "../workload.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum {
    MAILBOXES = 64,
    LIVE_BLOCKS = 64, /* that a thread has at a time */
    BLOCKS_PER_THREAD = 400,
    RESULTS = 32,
    SMALLEST_BYTES = 16,
    LARGEST_BYTES = 4096,
    WIDEST = 64,
};

struct result {
    struct piece pieces[RESULTS];
};

struct churn_kind {
    int width;  /* threads alive at a time */
    bool clean; /* nothing survives its thread */
};

struct churn {
    struct churn_kind kind;
    struct size_table sizes;
    _Atomic(struct result *) mailboxes[MAILBOXES];
};

struct job {
    struct churn *churn;
    uint64_t seed;
    pthread_t thread;
};

static void result_free(struct result *result)
{
    if (result == NULL)
        return;
    for (int index = 0; index < RESULTS; index++)
        piece_free(&result->pieces[index]);
    free(result);
}

/* The first pieces survive their thread. */
static struct result *result_make(const struct piece *pieces)
{
    struct result *result = must_malloc(sizeof(*result));

    for (int index = 0; index < RESULTS; index++)
        result->pieces[index] = pieces[index];
    return result;
}

static void *live(void *argument)
{
    struct job *job = argument;
    struct churn *churn = job->churn;
    struct rng rng = rng_seed(job->seed);
    _Atomic(struct result *) *mailbox = &churn->mailboxes[rng_below(&rng, MAILBOXES)];
    struct piece pieces[LIVE_BLOCKS];
    int kept = churn->kind.clean ? 0 : RESULTS;

    result_free(atomic_exchange_explicit(mailbox, NULL, memory_order_acq_rel));
    for (int index = 0; index < LIVE_BLOCKS; index++)
        pieces[index] = piece_draw(&churn->sizes, &rng);
    for (int count = LIVE_BLOCKS; count < BLOCKS_PER_THREAD; count++) {
        struct piece *piece = &pieces[rng_below(&rng, LIVE_BLOCKS)];

        piece_free(piece);
        *piece = piece_draw(&churn->sizes, &rng);
    }
    for (int index = kept; index < LIVE_BLOCKS; index++)
        piece_free(&pieces[index]);
    if (kept > 0)
        result_free(atomic_exchange_explicit(mailbox, result_make(pieces), memory_order_acq_rel));
    return NULL;
}

static void round_of_lives(void *state, struct turn *turn)
{
    struct churn *churn = state;
    struct job jobs[WIDEST];
    uint64_t width = (uint64_t)churn->kind.width;

    for (uint64_t started = 0; started < turn->operations + width; started++) {
        struct job *job = &jobs[started % width];

        if (started >= width)
            pthread_join(job->thread, NULL);
        if (started >= turn->operations)
            continue;
        *job = (struct job){.churn = churn, .seed = rng_next(&turn->rng)};
        if (pthread_create(&job->thread, NULL, live, job) != 0)
            bench_fail("no thread could be started");
    }
}

static void *prepare(const struct workload *workload, int threads)
{
    struct churn *churn = must_calloc(1, sizeof(*churn));

    (void)threads;
    churn->kind = *(const struct churn_kind *)workload->parameters;
    size_table_fill(&churn->sizes, SMALLEST_BYTES, LARGEST_BYTES);
    return churn;
}

static void finish(void *state)
{
    struct churn *churn = state;

    for (int mailbox = 0; mailbox < MAILBOXES; mailbox++)
        result_free(atomic_load_explicit(&churn->mailboxes[mailbox], memory_order_acquire));
    free(churn);
}

#define CHURN_ROW(title, alive, is_clean, fate, wanted)                                                      \
    {                                                                                                        \
        .name = "churn/" title, .operation = "thread that lives for 400 blocks of 16 B to 4 KiB, " fate,     \
        .threads = {{1, wanted}}, .operations = 500, .rounds = 3,                                            \
        .parameters = &(const struct churn_kind){.width = (alive), .clean = (is_clean)}, .prepare = prepare, \
        .round = round_of_lives, .finish = finish                                                            \
    }

#define LEAVING_ROW(title, alive, wanted)                                                                    \
    CHURN_ROW(title, alive, false, "32 of them freed by a later thread", wanted)

#define CLEAN_ROW(title, alive) CHURN_ROW("clean-" title, alive, true, "all freed by itself", false)

static const struct workload churn_workloads[] = {
    LEAVING_ROW("1-alive", 1, false),
    LEAVING_ROW("2-alive", 2, false),
    LEAVING_ROW("4-alive", 4, true),
    LEAVING_ROW("16-alive", 16, true),
    LEAVING_ROW("64-alive", WIDEST, false),
    CLEAN_ROW("1-alive", 1),
    CLEAN_ROW("2-alive", 2),
    CLEAN_ROW("4-alive", 4),
    CLEAN_ROW("16-alive", 16),
    CLEAN_ROW("64-alive", WIDEST),
};

const struct workload_family churn_family = {churn_workloads, WORKLOAD_COUNT(churn_workloads)};
