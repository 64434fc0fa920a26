/*
 * A server with a shared cache: what most programs that complain about their allocator do.
 *
 * A request makes some objects of its own (parsed headers, strings, a buffer), looks two keys up in a cache
 * that all threads share, copies what it finds into its reply, and frees all of its objects at the end. A key
 * that is missing is put in the cache, and one hit in eight replaces the value, so cached values are freed by
 * whichever thread came across them, long after another one made them.
 *
 *      request: [line][header]…[buffer][reply]      made and freed by one thread, within microseconds
 *                        │ copy
 *      cache:   stripe lock ─ slot → value          made by one thread, freed by another, after milliseconds
 *
 * A slot, its key and its value are written under the lock of its stripe. Values are made and freed outside
 * of it.
 */
#include "../support.h"
#include "../workload.h"

#include <pthread.h>
#include <stdlib.h>

enum {
    CACHE_SLOTS = 16384, /* a power of two */
    STRIPES = 256,       /* a power of two */
    KEYS = 4 * CACHE_SLOTS,
    LOOKUPS_PER_REQUEST = 2,
    FEWEST_OBJECTS = 5,
    MOST_OBJECTS = 16,
    SMALLEST_OBJECT_BYTES = 16,
    LARGEST_OBJECT_BYTES = 1024,
    SMALLEST_VALUE_BYTES = 32,
    LARGEST_VALUE_BYTES = 4096,
    SMALLEST_BUFFER_BYTES = 2048,
    LARGEST_BUFFER_BYTES = 16384,
    REQUESTS_PER_BUFFER = 4,   /* one in so many needs a buffer */
    REQUESTS_PER_ALIGNED = 16, /* one in so many needs an aligned object */
    HITS_PER_REPLACEMENT = 8,
    ALIGNED_BYTES = 64,
    LINE_BYTES = 64,
};

struct slot {
    uint32_t key; /* meaningful where value is not null */
    uint32_t size;
    void *value;
};

struct stripe {
    _Alignas(LINE_BYTES) pthread_mutex_t lock;
};

struct server {
    struct size_table object_sizes;
    struct size_table value_sizes;
    struct size_table buffer_sizes;
    struct stripe stripes[STRIPES];
    struct slot slots[CACHE_SLOTS];
};

static uint64_t value_tag(uint32_t key, uint32_t size)
{
    return mix64(((uint64_t)key << 32) | size);
}

static void *value_make(uint32_t key, uint32_t size)
{
    void *value = must_malloc(size);

    block_write(value, size, value_tag(key, size));
    return value;
}

static struct slot *slot_of(struct server *server, uint32_t key, pthread_mutex_t **lock)
{
    uint64_t hash = mix64(key);

    *lock = &server->stripes[hash & (STRIPES - 1)].lock;
    return &server->slots[hash & (CACHE_SLOTS - 1)];
}

/* Copies the value of `key` into `reply` and returns its size, or 0 when it is not there. */
static uint32_t cache_copy(struct server *server, uint32_t key, void *reply)
{
    pthread_mutex_t *lock;
    struct slot *slot = slot_of(server, key, &lock);
    uint32_t size = 0;

    pthread_mutex_lock(lock);
    if (slot->value != NULL && slot->key == key) {
        size = slot->size;
        memcpy(reply, slot->value, size);
    }
    pthread_mutex_unlock(lock);
    return size;
}

static void cache_put(struct server *server, uint32_t key, uint32_t size)
{
    void *value = value_make(key, size);
    pthread_mutex_t *lock;
    struct slot *slot = slot_of(server, key, &lock);
    struct slot old;

    pthread_mutex_lock(lock);
    old = *slot;
    *slot = (struct slot){.key = key, .size = size, .value = value};
    pthread_mutex_unlock(lock);
    if (old.value == NULL)
        return;
    block_check(old.value, old.size, value_tag(old.key, old.size));
    free(old.value);
}

static void look_up(struct server *server, struct rng *rng)
{
    uint32_t key = rng_below_skewed(rng, KEYS);
    void *reply = must_malloc(LARGEST_VALUE_BYTES);
    uint32_t size = cache_copy(server, key, reply);

    if (size > 0)
        block_check(reply, size, value_tag(key, size));
    if (size == 0 || rng_below(rng, HITS_PER_REPLACEMENT) == 0)
        cache_put(server, key, size_table_draw(&server->value_sizes, rng));
    free(reply);
}

static struct piece aligned_object(size_t size, uint64_t tag)
{
    return piece_of(must_aligned(ALIGNED_BYTES, size), size, tag);
}

static void serve(struct server *server, struct rng *rng)
{
    struct piece objects[MOST_OBJECTS + 2];
    uint64_t tag = rng_next(rng);
    uint32_t wanted = FEWEST_OBJECTS + rng_below(rng, MOST_OBJECTS - FEWEST_OBJECTS + 1);
    uint32_t count = 0;

    while (count < wanted / 2)
        objects[count++] = piece_make(size_table_draw(&server->object_sizes, rng), tag++);
    if (rng_below(rng, REQUESTS_PER_BUFFER) == 0)
        objects[count++] = piece_make(size_table_draw(&server->buffer_sizes, rng), tag++);
    if (rng_below(rng, REQUESTS_PER_ALIGNED) == 0)
        objects[count++] = aligned_object(size_table_draw(&server->object_sizes, rng), tag++);
    for (int lookup = 0; lookup < LOOKUPS_PER_REQUEST; lookup++)
        look_up(server, rng);
    while (count < wanted)
        objects[count++] = piece_make(size_table_draw(&server->object_sizes, rng), tag++);
    /* What was made last goes first, as scopes close; the objects of the parser go in the order they came. */
    while (count > wanted / 2)
        piece_free(&objects[--count]);
    for (uint32_t index = 0; index < count; index++)
        piece_free(&objects[index]);
}

static void *prepare(const struct workload *workload, int threads)
{
    struct server *server = must_calloc(1, sizeof(*server));

    (void)workload;
    (void)threads;
    size_table_fill(&server->object_sizes, SMALLEST_OBJECT_BYTES, LARGEST_OBJECT_BYTES);
    size_table_fill(&server->value_sizes, SMALLEST_VALUE_BYTES, LARGEST_VALUE_BYTES);
    size_table_fill(&server->buffer_sizes, SMALLEST_BUFFER_BYTES, LARGEST_BUFFER_BYTES);
    for (int stripe = 0; stripe < STRIPES; stripe++)
        pthread_mutex_init(&server->stripes[stripe].lock, NULL);
    return server;
}

static void round_of_requests(void *state, struct turn *turn)
{
    for (uint64_t request = 0; request < turn->operations; request++)
        serve(state, &turn->rng);
}

static void finish(void *state)
{
    struct server *server = state;

    for (int index = 0; index < CACHE_SLOTS; index++) {
        struct slot *slot = &server->slots[index];

        if (slot->value == NULL)
            continue;
        block_check(slot->value, slot->size, value_tag(slot->key, slot->size));
        free(slot->value);
    }
    free(server);
}

static const struct workload server_workloads[] = {
    {
        .name = "server",
        .operation = "request: about 13 objects of 16 B to 16 KiB, 2 look-ups in a shared cache",
        .threads = {{1, true}, {2, false}, {4, true}, {16, true}, {64, false}},
        .operations = 40000,
        .rounds = 3,
        .prepare = prepare,
        .round = round_of_requests,
        .finish = finish,
    },
};

const struct workload_family server_family = {server_workloads, WORKLOAD_COUNT(server_workloads)};
