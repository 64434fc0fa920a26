/*
 * What the stress programs share; see stress.h.
 */
#include "stress.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "../tests/interface.h"

struct stress stress;

static uint64_t end_ns, begin_ns;

static void mailboxes_initialise(void);

/* ---- a run ---- */

/* Called when a check fails, in any state of the allocator: no stdio. */
static void explain(void)
{
    dprintf(STDERR_FILENO, "%s: seed %lu, %u threads: FAILED\n", stress.name, (unsigned long)stress.seed,
            stress.threads);
}

double stress_argument(int *argc, char **argv, const char *name, double absent)
{
    for (int i = 1; i + 1 < *argc; i++) {
        char *end;
        double value;

        if (strncmp(argv[i], "--", 2) != 0 || strcmp(argv[i] + 2, name) != 0)
            continue;
        value = strtod(argv[i + 1], &end);
        if (*end != '\0' || end == argv[i + 1] || value < 0) {
            fprintf(stderr, "--%s: %s is not a number\n", name, argv[i + 1]);
            exit(2);
        }
        for (int k = i; k + 2 <= *argc; k++)
            argv[k] = argv[k + 2]; /* the NULL at the end too */
        *argc -= 2;
        return value;
    }
    return absent;
}

void stress_begin(const char *name, int argc, char **argv)
{
    stress.name = name;
    stress.seed = (uint64_t)stress_argument(&argc, argv, "seed", 1);
    stress.seconds = stress_argument(&argc, argv, "seconds", 2);
    stress.threads = (unsigned)stress_argument(&argc, argv, "threads", 8);
    if (argc > 1 || stress.threads < 1 || stress.threads > 4096) {
        fprintf(stderr, "usage: %s [--seed N] [--seconds S] [--threads T]\n", name);
        exit(2);
    }
    must_explain = explain;
    mailboxes_initialise();
    begin_ns = now_ns();
    end_ns = begin_ns + (uint64_t)(stress.seconds * 1e9);
}

bool stress_is_over(void)
{
    return now_ns() >= end_ns;
}

struct task {
    pthread_t thread;
    uint64_t (*body)(unsigned number);
    unsigned number;
    uint64_t result;
};

static void *run_task(void *argument)
{
    struct task *task = argument;

    task->result = task->body(task->number);
    return NULL;
}

uint64_t stress_threads(uint64_t (*body)(unsigned number))
{
    static struct task tasks[4096];
    uint64_t sum = 0;

    for (unsigned i = 0; i < stress.threads; i++) {
        tasks[i] = (struct task){.body = body, .number = i};
        must(pthread_create(&tasks[i].thread, NULL, run_task, &tasks[i]) == 0);
    }
    for (unsigned i = 0; i < stress.threads; i++) {
        must(pthread_join(tasks[i].thread, NULL) == 0);
        sum += tasks[i].result;
    }
    return sum;
}

struct random stress_random(uint64_t number)
{
    struct random random = {stress.seed * 0x100000001b3u + number * 0x9e3779b97f4a7c15u};

    (void)random_next(&random);
    return random;
}

void stress_end(uint64_t blocks)
{
    printf("%s: seed %lu, %u threads, %.1f s, %lu blocks: ok\n", stress.name, (unsigned long)stress.seed,
           stress.threads, (double)(now_ns() - begin_ns) / 1e9, (unsigned long)blocks);
}

void stress_must_be_resident_below(size_t bytes)
{
    size_t resident = resident_bytes();

    if (STRESS_SANITIZED || resident < bytes)
        return;
    fprintf(stderr, "%s: %.1f MiB are resident, below %.1f is expected\n", stress.name,
            (double)resident / (double)MIB, (double)bytes / (double)MIB);
    must(resident < bytes);
}

/* ---- blocks ---- */

/* Of a large block only its beginning, its end and the first bytes of some pages between them are written and
 * checked. */
#define WHOLE_BYTES_MAX (4 * KIB)
#define EDGE_BYTES      512
#define PAGES_BETWEEN   8

/* The next place to check in a large block after `offset`, 0 at first; 0 when there is none. */
static size_t next_place(size_t size_bytes, size_t offset)
{
    size_t step = (size_bytes / PAGES_BETWEEN) & ~(size_t)15;

    do
        offset += step;
    while (offset < 2 * EDGE_BYTES);
    return offset + 2 * EDGE_BYTES < size_bytes ? offset : 0;
}

static void write_contents(struct block *block, size_t size_bytes, uint64_t tag)
{
    unsigned char *at = (unsigned char *)block;

    block->size_bytes = size_bytes;
    block->tag = tag;
    if (size_bytes <= WHOLE_BYTES_MAX) {
        pattern_write(block->bytes, size_bytes - BLOCK_BYTES_MIN, tag);
        return;
    }
    pattern_write(block->bytes, EDGE_BYTES, tag);
    pattern_write(at + size_bytes - EDGE_BYTES, EDGE_BYTES, tag + size_bytes);
    for (size_t offset = next_place(size_bytes, 0); offset != 0; offset = next_place(size_bytes, offset))
        pattern_write(at + offset, 32, tag + offset);
}

void block_verify(const struct block *block)
{
    const unsigned char *at = (const unsigned char *)block;
    size_t size_bytes = block->size_bytes;
    uint64_t tag = block->tag;

    must(size_bytes >= BLOCK_BYTES_MIN && size_bytes < ((size_t)1 << 40));
    if (size_bytes <= WHOLE_BYTES_MAX) {
        must(pattern_holds(block->bytes, size_bytes - BLOCK_BYTES_MIN, tag));
        return;
    }
    must(pattern_holds(block->bytes, EDGE_BYTES, tag));
    must(pattern_holds(at + size_bytes - EDGE_BYTES, EDGE_BYTES, tag + size_bytes));
    for (size_t offset = next_place(size_bytes, 0); offset != 0; offset = next_place(size_bytes, offset))
        must(pattern_holds(at + offset, 32, tag + offset));
}

size_t block_random_size(struct random *random)
{
    return BLOCK_BYTES_MIN + random_size(random);
}

/* The low bits of a tag: the binary logarithm of the alignment that the block was asked for, 0 for none. */
#define ALIGNMENT_LOG2_MASK ((uint64_t)63)

static void *allocate(struct random *random, size_t size_bytes, uint64_t *alignment_log2)
{
    size_t kind = random_below(random, 16);
    void *block;

    *alignment_log2 = 0;

    if (kind < 11)
        return malloc(size_bytes);
    if (kind < 14) {
        block = calloc(1, size_bytes);
        if (block != NULL)
            must(all_zero(block, size_bytes < 64 * KIB ? size_bytes : 64 * KIB));
        return block;
    }
    if (kind < 15) {
        block = malloc(size_bytes / 3 + 1);
        if (block != NULL) {
            void *resized = realloc(block, size_bytes);

            if (resized == NULL) {
                int error = errno;

                free(block);
                errno = error;
            }
            block = resized;
        }
        return block;
    }
    *alignment_log2 = 4 + random_below(random, 12);
    block = aligned_alloc((size_t)1 << *alignment_log2, size_bytes);
    must((uintptr_t)block % ((size_t)1 << *alignment_log2) == 0);
    return block;
}

struct block *block_try_make(struct random *random, size_t size_bytes)
{
    uint64_t alignment_log2;
    struct block *block;

    errno = 0;
    block = allocate(random, size_bytes, &alignment_log2);
    if (block == NULL) {
        must(errno == ENOMEM);
        return NULL;
    }
    must((uintptr_t)block % 16 == 0);
    must(malloc_usable_size(block) >= size_bytes);
    write_contents(block, size_bytes, (random_next(random) & ~ALIGNMENT_LOG2_MASK) | alignment_log2);
    return block;
}

struct block *block_make(struct random *random, size_t size_bytes)
{
    struct block *block = block_try_make(random, size_bytes);

    must(block != NULL);
    return block;
}

struct block *block_resize(struct block *block, size_t size_bytes)
{
    size_t old_bytes = block->size_bytes, kept_bytes = old_bytes < size_bytes ? old_bytes : size_bytes;
    uint64_t tag = block->tag;
    struct block *resized;

    block_verify(block);
    resized = realloc(block, size_bytes);
    if (resized == NULL) {
        must(errno == ENOMEM);
        return block;
    }
    must(resized->size_bytes == old_bytes && resized->tag == tag);
    kept_bytes -= BLOCK_BYTES_MIN;
    if (old_bytes > WHOLE_BYTES_MAX && kept_bytes > EDGE_BYTES)
        kept_bytes = EDGE_BYTES;
    must(pattern_holds(resized->bytes, kept_bytes, tag));
    if (size_bytes >= old_bytes)
        block_verify(resized);
    write_contents(resized, size_bytes, (tag + ALIGNMENT_LOG2_MASK + 1) & ~ALIGNMENT_LOG2_MASK);
    return resized;
}

void block_free(struct block *block, struct random *random)
{
    size_t size_bytes;
    uint64_t alignment_log2;

    if (block == NULL)
        return;
    block_verify(block);
    size_bytes = block->size_bytes;
    alignment_log2 = block->tag & ALIGNMENT_LOG2_MASK;
    block->size_bytes = 0; /* a second free of the same block fails its check */
    if (random_below(random, 4) != 0)
        free(block);
    else if (alignment_log2 != 0)
        free_aligned_sized(block, (size_t)1 << alignment_log2, size_bytes);
    else
        free_sized(block, size_bytes);
}

/* ---- mailboxes ---- */

#define QUEUED_MAX 32

struct mailbox {
    _Atomic(struct block *) place;
    pthread_mutex_t lock;
    size_t count;
    struct block *queue[QUEUED_MAX];
};

static struct mailbox mailboxes[MAILBOXES];

static void mailboxes_initialise(void)
{
    for (size_t i = 0; i < MAILBOXES; i++)
        must(pthread_mutex_init(&mailboxes[i].lock, NULL) == 0);
}

/* The queue gives back a random one, so that blocks stay for different times; the full queue gives one
 * always. */
static struct block *exchange_with_lock(struct mailbox *mailbox, struct random *random, struct block *block)
{
    struct block *taken = NULL;

    must(pthread_mutex_lock(&mailbox->lock) == 0);
    if (mailbox->count == QUEUED_MAX || (mailbox->count > 0 && random_below(random, 4) != 0)) {
        size_t at = random_below(random, mailbox->count);

        taken = mailbox->queue[at];
        mailbox->queue[at] = mailbox->queue[--mailbox->count];
    }
    if (block != NULL)
        mailbox->queue[mailbox->count++] = block;
    must(pthread_mutex_unlock(&mailbox->lock) == 0);
    return taken;
}

struct block *mailbox_exchange(size_t number, struct random *random, struct block *block)
{
    struct mailbox *mailbox = &mailboxes[number % MAILBOXES];

    if (random_below(random, 2) == 0)
        return exchange_with_lock(mailbox, random, block);
    return atomic_exchange_explicit(&mailbox->place, block, memory_order_acq_rel);
}

void mailbox_free_all(struct random *random)
{
    for (size_t i = 0; i < MAILBOXES; i++) {
        block_free(atomic_exchange(&mailboxes[i].place, NULL), random);
        while (mailboxes[i].count > 0)
            block_free(mailboxes[i].queue[--mailboxes[i].count], random);
    }
}
