/*
 * Threads come and go: a server with a thread per connection, or a program that runs each job on a fresh
 * thread.
 *
 * A thread lives for some hundred allocations. Most of what it makes it frees itself; the rest, its result,
 * outlives it and is freed by a later thread, when the maker has long gone. What an allocator keeps per
 * thread must be handed on, or memory grows with the number of threads that ever lived; and it must be cheap
 * to set up, since a short life has little time to earn it back.
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
    WIDEST = 16,
};

struct piece {
    void *block;
    uint32_t size;
    uint64_t tag;
};

struct result {
    struct piece pieces[RESULTS];
};

struct churn {
    int width; /* threads alive at a time */
    uint64_t operations;
    struct size_table sizes;
    _Atomic(struct result *) mailboxes[MAILBOXES];
};

struct job {
    struct churn *churn;
    uint64_t seed;
    pthread_t thread;
};

static struct piece piece_make(const struct churn *churn, struct rng *rng)
{
    struct piece piece = {.size = size_table_draw(&churn->sizes, rng), .tag = rng_next(rng)};

    piece.block = must_malloc(piece.size);
    block_write(piece.block, piece.size, piece.tag);
    return piece;
}

static void piece_free(const struct piece *piece)
{
    block_check(piece->block, piece->size, piece->tag);
    free(piece->block);
}

static void result_free(struct result *result)
{
    if (result == NULL)
        return;
    for (int index = 0; index < RESULTS; index++)
        piece_free(&result->pieces[index]);
    free(result);
}

static void *live(void *argument)
{
    struct job *job = argument;
    struct churn *churn = job->churn;
    struct rng rng = rng_seed(job->seed);
    _Atomic(struct result *) *mailbox = &churn->mailboxes[rng_below(&rng, MAILBOXES)];
    struct piece pieces[LIVE_BLOCKS];
    struct result *result;

    result_free(atomic_exchange_explicit(mailbox, NULL, memory_order_acq_rel));
    for (int index = 0; index < LIVE_BLOCKS; index++)
        pieces[index] = piece_make(churn, &rng);
    for (int count = LIVE_BLOCKS; count < BLOCKS_PER_THREAD; count++) {
        struct piece *piece = &pieces[rng_below(&rng, LIVE_BLOCKS)];

        piece_free(piece);
        *piece = piece_make(churn, &rng);
    }
    result = must_malloc(sizeof(*result));
    for (int index = 0; index < RESULTS; index++)
        result->pieces[index] = pieces[index];
    for (int index = RESULTS; index < LIVE_BLOCKS; index++)
        piece_free(&pieces[index]);
    result_free(atomic_exchange_explicit(mailbox, result, memory_order_acq_rel));
    return NULL;
}

static void round_of_lives(void *state, struct turn *turn)
{
    struct churn *churn = state;
    struct job jobs[WIDEST];
    uint64_t width = (uint64_t)churn->width;

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
    churn->width = *(const int *)workload->parameters;
    churn->operations = workload->operations;
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

static const int four_alive = 4;
static const int sixteen_alive = WIDEST;

static const struct workload churn_workloads[] = {
    {
        .name = "churn/4-alive",
        .operation = "thread that lives for 400 blocks of 16 B to 4 KiB, 32 of them freed by a later thread",
        .threads = {{1, true}},
        .operations = 500,
        .rounds = 3,
        .parameters = &four_alive,
        .prepare = prepare,
        .round = round_of_lives,
        .finish = finish,
    },
    {
        .name = "churn/16-alive",
        .operation = "thread that lives for 400 blocks of 16 B to 4 KiB, 32 of them freed by a later thread",
        .threads = {{1, true}},
        .operations = 500,
        .rounds = 3,
        .parameters = &sixteen_alive,
        .prepare = prepare,
        .round = round_of_lives,
        .finish = finish,
    },
};

const struct workload_family churn_family = {churn_workloads, 2};
