/*
 * False sharing: small objects of different threads in one cache line. Each thread writes only its own
 * objects, many times each; where an allocator has put objects of two threads in one line, that line travels
 * between the processors at every write.
 *
 * Active: the threads make small objects of their own at the same time, and the allocator alone decides where
 * they lie. Passive: thread 0 made small objects next to each other and has handed them out; each thread
 * frees what it was given and makes its own, and an allocator that gives it the same place again lets lines
 * stay shared that one thread's program has split. In the passive rows the given object is not written, only
 * the one that comes after it.
 *
 *      given, passive:   [ thread 0 | thread 1 | thread 2 | thread 3 | thread 0 | … ]      16 bytes each
 *
 * `given` is written by thread 0 before the barrier and read by all after it.
 */
#include "../support.h"
#include "../workload.h"

#include <pthread.h>
#include <stdatomic.h>

enum { OBJECT_BYTES = 16, WRITES_PER_OBJECT = 1000, MOST_GIVEN = 131072 };

struct sharing {
    bool passive;
    uint64_t objects; /* of each thread in a round */
    pthread_barrier_t given_out;
    struct piece given[MOST_GIVEN];
};

/* Writes that the compiler may not join. */
static void object_use(void *block)
{
    _Atomic uint64_t *word = block;

    atomic_store_explicit(word, 0, memory_order_relaxed);
    for (uint64_t count = 1; count <= WRITES_PER_OBJECT; count++) {
        uint64_t before = atomic_load_explicit(word, memory_order_relaxed);

        atomic_store_explicit(word, before + 1, memory_order_relaxed);
    }
    if (atomic_load_explicit(word, memory_order_relaxed) != WRITES_PER_OBJECT)
        block_is_wrong(block, OBJECT_BYTES, 0);
}

static void give_out(struct sharing *sharing, uint64_t count)
{
    if (count > MOST_GIVEN)
        bench_fail("there are no places for %llu objects", (unsigned long long)count);
    for (uint64_t index = 0; index < count; index++)
        sharing->given[index] = piece_make(OBJECT_BYTES, index);
}

static void round_of_objects(void *state, struct turn *turn)
{
    struct sharing *sharing = state;
    uint64_t threads = (uint64_t)turn->threads;

    if (sharing->passive) {
        if (turn->thread == 0)
            give_out(sharing, sharing->objects * threads);
        pthread_barrier_wait(&sharing->given_out);
    }
    for (uint64_t count = 0; count < sharing->objects; count++) {
        void *block;

        if (sharing->passive)
            piece_free(&sharing->given[count * threads + (uint64_t)turn->thread]);
        block = must_malloc(OBJECT_BYTES);
        object_use(block);
        free(block);
    }
}

static void *prepare(const struct workload *workload, int threads)
{
    struct sharing *sharing = must_malloc(sizeof(*sharing));

    sharing->passive = *(const bool *)workload->parameters;
    sharing->objects = workload->operations / (uint64_t)threads;
    pthread_barrier_init(&sharing->given_out, NULL, (unsigned)threads);
    return sharing;
}

static void finish(void *state)
{
    struct sharing *sharing = state;

    pthread_barrier_destroy(&sharing->given_out);
    free(sharing);
}

static const bool active = false;
static const bool passive = true;

static const struct workload sharing_workloads[] = {
    {
        .name = "sharing/active",
        .operation = "object of 16 B, written 1,000 times by the thread that made it, then freed",
        .threads = {{1, false}, {2, false}, {4, false}, {16, false}, {64, false}},
        .operations = 64 * 2048,
        .rounds = 3,
        .parameters = &active,
        .prepare = prepare,
        .round = round_of_objects,
        .finish = finish,
    },
    {
        .name = "sharing/passive",
        .operation = "object of 16 B, written 1,000 times, made after a neighbour of others was freed",
        .threads = {{1, false}, {2, false}, {4, false}, {16, false}, {64, false}},
        .operations = 64 * 2048,
        .rounds = 3,
        .parameters = &passive,
        .prepare = prepare,
        .round = round_of_objects,
        .finish = finish,
    },
};

const struct workload_family sharing_family = {sharing_workloads, WORKLOAD_COUNT(sharing_workloads)};
