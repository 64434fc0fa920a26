/*
 * One-way traffic: some threads make messages, others read and free them. Logging, message brokers, and
 * stages of a pipeline work like this. No thread ever frees a block of its own, so whatever an allocator
 * keeps per thread runs dry on one side and overflows on the other, and every block must find its way back.
 *
 *      producers ─ batch ─→ [ bounded queue, one lock ] ─ batch ─→ consumers
 *
 * The queue is bounded as real ones are: a producer that runs ahead waits. Messages travel in batches, so
 * that the price of the lock and of waking a thread does not hide the price of the blocks.
 */
#include "../support.h"
#include "../workload.h"

#include <pthread.h>
#include <stdlib.h>

enum { QUEUE_MESSAGES = 4096, BATCH_MESSAGES = 64 };

struct message_kind {
    uint32_t smallest_bytes;
    uint32_t largest_bytes;
};

struct message {
    uint64_t tag;
    void *payload;
    uint32_t size;
};

/* All of it under the lock, except the table of sizes, which never changes. */
struct pipe_state {
    pthread_mutex_t lock;
    pthread_cond_t has_room;
    pthread_cond_t has_messages;
    uint64_t put;        /* messages that ever entered */
    uint64_t taken;      /* messages that ever left; put − taken are inside */
    uint64_t operations; /* messages of one round */
    struct message *queue[QUEUE_MESSAGES];
    struct size_table sizes;
};

/* A message is two blocks, a fixed part and its payload, as in most brokers. */
static struct message *message_make(const struct pipe_state *pipe, struct rng *rng)
{
    struct message *message = must_malloc(sizeof(*message));

    message->tag = rng_next(rng);
    message->size = size_table_draw(&pipe->sizes, rng);
    message->payload = must_malloc(message->size);
    block_write(message->payload, message->size, message->tag);
    return message;
}

static void message_free(struct message *message)
{
    block_check(message->payload, message->size, message->tag);
    free(message->payload);
    free(message);
}

static void put_batch(struct pipe_state *pipe, struct message **batch, uint64_t count)
{
    pthread_mutex_lock(&pipe->lock);
    while (pipe->put - pipe->taken + count > QUEUE_MESSAGES)
        pthread_cond_wait(&pipe->has_room, &pipe->lock);
    for (uint64_t index = 0; index < count; index++)
        pipe->queue[pipe->put++ % QUEUE_MESSAGES] = batch[index];
    pthread_cond_signal(&pipe->has_messages);
    pthread_mutex_unlock(&pipe->lock);
}

/* Returns 0 when all messages of the round, `target` of them since the start, have been taken. */
static uint64_t take_batch(struct pipe_state *pipe, struct message **batch, uint64_t target)
{
    uint64_t count = 0;

    pthread_mutex_lock(&pipe->lock);
    while (pipe->put == pipe->taken && pipe->taken < target)
        pthread_cond_wait(&pipe->has_messages, &pipe->lock);
    while (count < BATCH_MESSAGES && pipe->taken < pipe->put)
        batch[count++] = pipe->queue[pipe->taken++ % QUEUE_MESSAGES];
    pthread_cond_signal(&pipe->has_room);
    if (pipe->taken == target)
        pthread_cond_broadcast(&pipe->has_messages);
    pthread_mutex_unlock(&pipe->lock);
    return count;
}

static void produce(struct pipe_state *pipe, struct rng *rng, uint64_t messages)
{
    struct message *batch[BATCH_MESSAGES];

    while (messages > 0) {
        uint64_t count = messages < BATCH_MESSAGES ? messages : BATCH_MESSAGES;

        for (uint64_t index = 0; index < count; index++)
            batch[index] = message_make(pipe, rng);
        put_batch(pipe, batch, count);
        messages -= count;
    }
}

static void consume(struct pipe_state *pipe, uint64_t target)
{
    struct message *batch[BATCH_MESSAGES];
    uint64_t count;

    while ((count = take_batch(pipe, batch, target)) > 0)
        for (uint64_t index = 0; index < count; index++)
            message_free(batch[index]);
}

/* The even threads produce, the odd ones consume. */
static void round_of_messages(void *state, struct turn *turn)
{
    struct pipe_state *pipe = state;
    uint64_t producers = (uint64_t)turn->threads / 2;
    uint64_t producer = (uint64_t)turn->thread / 2;
    uint64_t share = pipe->operations / producers + (producer < pipe->operations % producers ? 1 : 0);

    if (turn->thread % 2 == 0)
        produce(pipe, &turn->rng, share);
    else
        consume(pipe, pipe->operations * (turn->round + 1));
}

static void *prepare(const struct workload *workload, int threads)
{
    const struct message_kind *kind = workload->parameters;
    struct pipe_state *pipe = must_calloc(1, sizeof(*pipe));

    (void)threads;
    pipe->operations = workload->operations;
    size_table_fill(&pipe->sizes, kind->smallest_bytes, kind->largest_bytes);
    pthread_mutex_init(&pipe->lock, NULL);
    pthread_cond_init(&pipe->has_room, NULL);
    pthread_cond_init(&pipe->has_messages, NULL);
    return pipe;
}

static void finish(void *state)
{
    struct pipe_state *pipe = state;

    if (pipe->put != pipe->taken)
        bench_fail("%llu messages were lost", (unsigned long long)(pipe->put - pipe->taken));
    free(pipe);
}

static const struct message_kind small_messages = {16, 128};
static const struct message_kind mixed_messages = {16, 8192};

static const struct workload pipe_workloads[] = {
    {
        .name = "pipe/small",
        .operation = "message of 16 to 128 B, made by one thread and freed by another",
        .threads = {{2, true}, {8, true}},
        .operations = 250000,
        .rounds = 3,
        .parameters = &small_messages,
        .prepare = prepare,
        .round = round_of_messages,
        .finish = finish,
    },
    {
        .name = "pipe/mixed",
        .operation = "message of 16 B to 8 KiB, made by one thread and freed by another",
        .threads = {{2, true}, {8, true}},
        .operations = 120000,
        .rounds = 3,
        .parameters = &mixed_messages,
        .prepare = prepare,
        .round = round_of_messages,
        .finish = finish,
    },
};

const struct workload_family pipe_family = {pipe_workloads, 2};
