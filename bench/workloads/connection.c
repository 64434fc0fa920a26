/*
 * A connection per thread: a thread serves its connections alone, and all that a connection holds goes when
 * it closes. Web servers, databases and mail servers work like this. Nothing is shared, so an allocator that
 * keeps threads apart has nothing to do but to be quick; small objects of many ages lie between the buffers
 * of connections that live longer.
 *
 *      connection:  [read buffer, grows by realloc][object]…[object]      freed together, last made first
 *
 * Each thread has some connections open. An operation is a request on one of them, drawn at random: it may
 * need a larger buffer, it parses into a handful of objects that stay, and into some that go at once.
 */
#include "../support.h"
#include "../workload.h"

enum {
    OPEN_PER_THREAD = 24,
    FEWEST_REQUESTS = 2,
    MOST_REQUESTS = 20,
    STAYING_OBJECTS = 4, /* of each request */
    PASSING_OBJECTS = 6,
    SMALLEST_OBJECT_BYTES = 16,
    LARGEST_OBJECT_BYTES = 512,
    SMALLEST_BUFFER_BYTES = 2 * 1024,
    LARGEST_BUFFER_BYTES = 64 * 1024,
};

/* On the heap while it is open. */
struct connection {
    struct piece buffer;
    uint32_t requests_left;
    uint32_t count;
    struct piece objects[MOST_REQUESTS * STAYING_OBJECTS];
};

struct server_thread {
    struct connection *open[OPEN_PER_THREAD];
};

struct connections {
    int threads;
    struct size_table object_sizes;
    struct size_table buffer_sizes;
    struct server_thread *all; /* one for each thread */
};

static struct connection *connection_open(struct rng *rng)
{
    struct connection *connection = must_malloc(sizeof(*connection));

    connection->requests_left = FEWEST_REQUESTS + rng_below(rng, MOST_REQUESTS - FEWEST_REQUESTS + 1);
    connection->count = 0;
    connection->buffer = piece_make(SMALLEST_BUFFER_BYTES, rng_next(rng));
    return connection;
}

static void connection_close(struct connection *connection)
{
    while (connection->count > 0)
        piece_free(&connection->objects[--connection->count]);
    piece_free(&connection->buffer);
    free(connection);
}

/* What was read stays where it is in the buffer. */
static void buffer_reserve(struct piece *buffer, size_t size)
{
    if (size <= buffer->size)
        return;
    block_check(buffer->block, buffer->size, buffer->tag);
    buffer->block = must_realloc(buffer->block, size);
    if (word_get(buffer->block) != buffer->tag)
        block_is_wrong(buffer->block, size, 0);
    *buffer = piece_of(buffer->block, size, buffer->tag);
}

static void serve(const struct connections *connections, struct connection *connection, struct rng *rng)
{
    struct piece passing[PASSING_OBJECTS];

    buffer_reserve(&connection->buffer, size_table_draw(&connections->buffer_sizes, rng));
    for (int index = 0; index < PASSING_OBJECTS; index++)
        passing[index] = piece_draw(&connections->object_sizes, rng);
    for (int index = 0; index < STAYING_OBJECTS; index++)
        connection->objects[connection->count++] = piece_draw(&connections->object_sizes, rng);
    for (int index = PASSING_OBJECTS; index > 0; index--)
        piece_free(&passing[index - 1]);
    connection->requests_left--;
}

static void round_of_requests(void *state, struct turn *turn)
{
    struct connections *connections = state;
    struct server_thread *mine = &connections->all[turn->thread];

    for (uint64_t request = 0; request < turn->operations; request++) {
        struct connection **place = &mine->open[rng_below(&turn->rng, OPEN_PER_THREAD)];

        if (*place == NULL)
            *place = connection_open(&turn->rng);
        serve(connections, *place, &turn->rng);
        if ((*place)->requests_left > 0)
            continue;
        connection_close(*place);
        *place = NULL;
    }
}

static void *prepare(const struct workload *workload, int threads)
{
    struct connections *connections = must_malloc(sizeof(*connections));

    (void)workload;
    connections->threads = threads;
    size_table_fill(&connections->object_sizes, SMALLEST_OBJECT_BYTES, LARGEST_OBJECT_BYTES);
    size_table_fill(&connections->buffer_sizes, SMALLEST_BUFFER_BYTES, LARGEST_BUFFER_BYTES);
    connections->all = must_calloc((size_t)threads, sizeof(*connections->all));
    return connections;
}

static void finish(void *state)
{
    struct connections *connections = state;

    for (int thread = 0; thread < connections->threads; thread++)
        for (int index = 0; index < OPEN_PER_THREAD; index++)
            if (connections->all[thread].open[index] != NULL)
                connection_close(connections->all[thread].open[index]);
    free(connections->all);
    free(connections);
}

static const struct workload connection_workloads[] = {
    {
        .name = "connection",
        .operation = "request: 10 objects of 16 to 512 B, 4 of which stay until the connection closes",
        .threads = {{1, false}, {2, false}, {4, true}, {16, false}, {64, false}},
        .operations = 100000,
        .rounds = 3,
        .prepare = prepare,
        .round = round_of_requests,
        .finish = finish,
    },
};

const struct workload_family connection_family = {connection_workloads, WORKLOAD_COUNT(connection_workloads)};
