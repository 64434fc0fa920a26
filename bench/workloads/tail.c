/*
 * Random sizes with a tail, random lifetimes. Sizes follow a power law from 16 B to 256 KiB: half of the
 * blocks are below 32 B, one in a thousand is above 16 KiB, and every doubling holds about the same number of
 * bytes. Lifetimes have a tail as well: most blocks die soon, some stay for the whole run. Such mixtures are
 * what fragments memory.
 *
 *      slot[i] ← new block, old block → check, free       i is skewed: low slots die young, high ones late
 *
 * The slots are shared. With many threads a block is freed by whichever thread drew its slot. A slot is
 * exchanged atomically: acquire and release, since the thread that takes a block out reads what the other
 * wrote.
 */
#include "../support.h"
#include "../workload.h"

#include <stdatomic.h>
#include <stdlib.h>

enum {
    SLOTS = 32768,
    SMALLEST_BYTES = 16,
    LARGEST_BYTES = 256 * 1024,
    UNIT_LOG2 = 32,
};

/* What stands at the start of a block, so that one pointer is all that has to be exchanged. */
struct head {
    uint64_t tag;
    uint32_t size; /* of the body behind the head */
};

struct tail {
    _Atomic(struct head *) slots[SLOTS];
};

/* A power law with exponent 1, cut at the largest size: smallest / u, with u drawn evenly above smallest /
 * largest. */
static uint32_t draw_size(struct rng *rng)
{
    const uint64_t lowest = ((uint64_t)SMALLEST_BYTES << UNIT_LOG2) / LARGEST_BYTES;
    uint64_t u = lowest + ((rng_next(rng) >> 32) * (((uint64_t)1 << UNIT_LOG2) - lowest) >> 32);

    return (uint32_t)(((uint64_t)SMALLEST_BYTES << UNIT_LOG2) / u);
}

static struct head *head_make(struct rng *rng)
{
    uint32_t size = draw_size(rng);
    struct head *head = must_malloc(sizeof(*head) + size);

    head->tag = rng_next(rng);
    head->size = size;
    block_write(head + 1, size, head->tag);
    return head;
}

static void head_free(struct head *head)
{
    if (head == NULL)
        return;
    block_check(head + 1, head->size, head->tag);
    free(head);
}

static void round_of_blocks(void *state, struct turn *turn)
{
    struct tail *tail = state;

    for (uint64_t count = 0; count < turn->operations; count++) {
        struct head *head = head_make(&turn->rng);
        uint32_t slot = rng_below_skewed(&turn->rng, SLOTS);

        head_free(atomic_exchange_explicit(&tail->slots[slot], head, memory_order_acq_rel));
    }
}

static void *prepare(const struct workload *workload, int threads)
{
    (void)workload;
    (void)threads;
    return must_calloc(1, sizeof(struct tail));
}

static void finish(void *state)
{
    struct tail *tail = state;

    for (int slot = 0; slot < SLOTS; slot++)
        head_free(atomic_load_explicit(&tail->slots[slot], memory_order_acquire));
    free(tail);
}

static const struct workload tail_workloads[] = {
    {
        .name = "tail",
        .operation = "block of 16 B to 256 KiB by a power law, put in the place of an older one",
        .threads = {{1, true}, {2, false}, {4, true}, {16, false}, {64, false}},
        .operations = 300000,
        .rounds = 3,
        .prepare = prepare,
        .round = round_of_blocks,
        .finish = finish,
    },
};

const struct workload_family tail_family = {tail_workloads, WORKLOAD_COUNT(tail_workloads)};
