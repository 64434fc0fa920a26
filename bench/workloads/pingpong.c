/*
 * Ownership that goes to and fro: threads work in pairs, each hands batches of blocks to its partner, and
 * each frees what the other made. Both sides make as much as they free, so each could live on what comes
 * back to it; an allocator that returns every block to its maker pays for the way back in both directions at
 * once.
 *
 *      thread 2k   ─ batch ─→ [ a few places ] ─→   thread 2k + 1
 *                  ←─ [ a few places ] ←─ batch ─
 *
 * Each way has one writer and one reader. The semaphores count free and filled places and order what is in
 * them.
 */
#include "../support.h"
#include "../workload.h"

#include <semaphore.h>

enum { BATCH_BLOCKS = 128, PLACES = 4, LINE_BYTES = 64 };

struct block_sizes {
    uint32_t smallest_bytes;
    uint32_t largest_bytes;
};

struct batch {
    struct piece pieces[BATCH_BLOCKS];
};

struct way {
    _Alignas(LINE_BYTES) sem_t room;
    sem_t filled;
    uint64_t put;   /* writer's */
    uint64_t taken; /* reader's */
    struct batch places[PLACES];
};

struct pingpong {
    int threads;
    uint64_t batches; /* that each thread makes in a round */
    struct size_table sizes;
    struct way *ways; /* the one with a thread's number is the one it writes */
};

static void wait_for(sem_t *semaphore)
{
    while (sem_wait(semaphore) != 0)
        continue;
}

static void batch_send(struct way *way, const struct size_table *sizes, struct rng *rng)
{
    struct batch *batch = &way->places[way->put++ % PLACES];

    wait_for(&way->room);
    for (int index = 0; index < BATCH_BLOCKS; index++)
        batch->pieces[index] = piece_draw(sizes, rng);
    sem_post(&way->filled);
}

static void batch_receive(struct way *way)
{
    struct batch *batch = &way->places[way->taken++ % PLACES];

    wait_for(&way->filled);
    for (int index = 0; index < BATCH_BLOCKS; index++)
        piece_free(&batch->pieces[index]);
    sem_post(&way->room);
}

static void round_of_batches(void *state, struct turn *turn)
{
    struct pingpong *pingpong = state;

    for (uint64_t count = 0; count < pingpong->batches; count++) {
        batch_send(&pingpong->ways[turn->thread], &pingpong->sizes, &turn->rng);
        batch_receive(&pingpong->ways[turn->thread ^ 1]);
    }
}

static void *prepare(const struct workload *workload, int threads)
{
    const struct block_sizes *sizes = workload->parameters;
    struct pingpong *pingpong = must_malloc(sizeof(*pingpong));

    pingpong->threads = threads;
    pingpong->batches = workload->operations / BATCH_BLOCKS / (uint64_t)threads;
    size_table_fill(&pingpong->sizes, sizes->smallest_bytes, sizes->largest_bytes);
    pingpong->ways = must_aligned(LINE_BYTES, (size_t)threads * sizeof(*pingpong->ways));
    for (int thread = 0; thread < threads; thread++) {
        struct way *way = &pingpong->ways[thread];

        sem_init(&way->room, 0, PLACES);
        sem_init(&way->filled, 0, 0);
        way->put = 0;
        way->taken = 0;
    }
    return pingpong;
}

static void finish(void *state)
{
    struct pingpong *pingpong = state;

    for (int thread = 0; thread < pingpong->threads; thread++)
        if (pingpong->ways[thread].put != pingpong->ways[thread].taken)
            bench_fail("a batch of thread %d was lost", thread);
    free(pingpong->ways);
    free(pingpong);
}

static const struct block_sizes small_blocks = {16, 256};
static const struct block_sizes mixed_blocks = {16, 8192};

static const struct workload pingpong_workloads[] = {
    {
        .name = "pingpong/small",
        .operation = "block of 16 to 256 B, made by one of a pair of threads and freed by the other",
        .threads = {{2, true}, {4, false}, {16, false}, {64, false}},
        .operations = 64 * 64 * BATCH_BLOCKS,
        .rounds = 3,
        .parameters = &small_blocks,
        .prepare = prepare,
        .round = round_of_batches,
        .finish = finish,
    },
    {
        .name = "pingpong/mixed",
        .operation = "block of 16 B to 8 KiB, made by one of a pair of threads and freed by the other",
        .threads = {{2, false}, {4, false}, {16, false}, {64, false}},
        .operations = 64 * 32 * BATCH_BLOCKS,
        .rounds = 3,
        .parameters = &mixed_blocks,
        .prepare = prepare,
        .round = round_of_batches,
        .finish = finish,
    },
};

const struct workload_family pingpong_family = {pingpong_workloads, WORKLOAD_COUNT(pingpong_workloads)};
