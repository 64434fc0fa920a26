/*
 * One-way traffic: some threads make messages, others read and free them. Logging, message brokers, and
 * stages of a pipeline work like this. No thread ever frees a block of its own, so whatever an allocator
 * keeps per thread runs dry on one side and overflows on the other, and every block must find its way back.
 *
 *      producers ─ batch ─→ [ bounded queue, one lock ] ─ batch ─→ consumers
 *
 * As many produce as consume; or one alone consumes, as a logger does; or one alone produces, as what accepts
 * work; or three produce for each that consumes. Large messages are fewer, and few of them wait.
 *
 * The queue is bounded as real ones are: a producer that runs ahead waits. Messages travel in batches, so
 * that the price of the lock and of waking a thread does not hide the price of the blocks.
 */
#include "../support.h"
#include "../workload.h"

#include <pthread.h>
#include <stdlib.h>

enum { QUEUE_MESSAGES = 4096, BATCH_MESSAGES = 64 };

enum shape { EVEN, GATHER, SPREAD, UNEVEN };

struct message_kind {
    uint32_t smallest_bytes;
    uint32_t largest_bytes;
    uint32_t queue_messages; /* at most QUEUE_MESSAGES */
    uint32_t batch_messages; /* at most BATCH_MESSAGES */
};

struct pipe_row {
    const struct message_kind *kind;
    enum shape shape;
};

struct message {
    uint64_t tag;
    void *payload;
    uint32_t size;
};

/* All of it under the lock, except what never changes. */
struct pipe_state {
    pthread_mutex_t lock;
    pthread_cond_t has_room;
    pthread_cond_t has_messages;
    uint64_t put;   /* messages that ever entered */
    uint64_t taken; /* messages that ever left; put − taken are inside */
    struct message *queue[QUEUE_MESSAGES];

    /* never changes */
    struct message_kind kind;
    uint64_t producers;  /* the first of the threads; the others consume */
    uint64_t operations; /* messages of one round */
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
    while (pipe->put - pipe->taken + count > pipe->kind.queue_messages)
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
    while (count < pipe->kind.batch_messages && pipe->taken < pipe->put)
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
        uint64_t count = messages < pipe->kind.batch_messages ? messages : pipe->kind.batch_messages;

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

static uint64_t producers_of(enum shape shape, uint64_t threads)
{
    switch (shape) {
    case GATHER:
        return threads - 1;
    case SPREAD:
        return 1;
    case UNEVEN:
        return threads * 3 / 4;
    case EVEN:
        break;
    }
    return threads / 2;
}

static void round_of_messages(void *state, struct turn *turn)
{
    struct pipe_state *pipe = state;
    uint64_t producers = pipe->producers;
    uint64_t thread = (uint64_t)turn->thread;
    uint64_t share = pipe->operations / producers + (thread < pipe->operations % producers ? 1 : 0);

    if (thread < producers)
        produce(pipe, &turn->rng, share);
    else
        consume(pipe, pipe->operations * (turn->round + 1));
}

static void *prepare(const struct workload *workload, int threads)
{
    const struct pipe_row *row = workload->parameters;
    struct pipe_state *pipe = must_calloc(1, sizeof(*pipe));

    pipe->kind = *row->kind;
    pipe->producers = producers_of(row->shape, (uint64_t)threads);
    pipe->operations = workload->operations;
    size_table_fill(&pipe->sizes, pipe->kind.smallest_bytes, pipe->kind.largest_bytes);
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

static const struct message_kind small_messages = {16, 128, QUEUE_MESSAGES, BATCH_MESSAGES};
static const struct message_kind mixed_messages = {16, 8192, QUEUE_MESSAGES, BATCH_MESSAGES};
static const struct message_kind large_messages = {64 * 1024, 1024 * 1024, 64, 4};

#define PIPE_ROW(title, size_title, row_kind, row_shape, count, ...)                                         \
    {                                                                                                        \
        .name = "pipe/" title,                                                                               \
        .operation = "message of " size_title ", made by one thread and freed by another",                   \
        .threads = {__VA_ARGS__}, .operations = (count), .rounds = 3,                                        \
        .parameters = &(const struct pipe_row){.kind = &(row_kind), .shape = (row_shape)},                   \
        .prepare = prepare, .round = round_of_messages, .finish = finish                                     \
    }

#define SMALL_ROW(title, shape, ...)                                                                         \
    PIPE_ROW(title, "16 to 128 B", small_messages, shape, 250000, __VA_ARGS__)
#define MIXED_ROW(title, shape, ...)                                                                         \
    PIPE_ROW(title, "16 B to 8 KiB", mixed_messages, shape, 120000, __VA_ARGS__)
#define LARGE_ROW(title, shape, ...)                                                                         \
    PIPE_ROW(title, "64 KiB to 1 MiB", large_messages, shape, 2000, __VA_ARGS__)

/* With two threads every shape is the even one. */
static const struct workload pipe_workloads[] = {
    SMALL_ROW("small", EVEN, {2, true}, {4, false}, {8, true}, {16, false}, {64, false}),
    MIXED_ROW("mixed", EVEN, {2, true}, {4, false}, {8, true}, {16, false}, {64, false}),
    LARGE_ROW("large", EVEN, {2, false}, {4, false}, {16, false}, {64, false}),
    SMALL_ROW("gather-small", GATHER, {4, false}, {16, false}, {64, false}),
    MIXED_ROW("gather-mixed", GATHER, {4, false}, {16, false}, {64, false}),
    LARGE_ROW("gather-large", GATHER, {4, false}, {16, false}, {64, false}),
    SMALL_ROW("spread-small", SPREAD, {4, false}, {16, false}, {64, false}),
    MIXED_ROW("spread-mixed", SPREAD, {4, false}, {16, false}, {64, false}),
    LARGE_ROW("spread-large", SPREAD, {4, false}, {16, false}, {64, false}),
    SMALL_ROW("uneven-small", UNEVEN, {16, false}, {64, false}),
    MIXED_ROW("uneven-mixed", UNEVEN, {16, false}, {64, false}),
    LARGE_ROW("uneven-large", UNEVEN, {16, false}, {64, false}),
};

const struct workload_family pipe_family = {pipe_workloads, WORKLOAD_COUNT(pipe_workloads)};
