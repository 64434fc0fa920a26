/*
 * api/release: free of each kind of block, by its thread and by others; sizes and alignments that fit and
 * that do not; misuse, with its exact line; and TARN_CHECK, under which every free is looked at. All of it
 * with a plain heap, and again with a mixed one.
 */
#include "api/release.h"

#include "api/classify.h"
#include "heap/mailbox.h"
#include "heap/thread.h"
#include "heap/tick.h"
#include "os/clock.h"
#include "os/settings.h"
#include "raw/raw.h"
#include "tarn/tarn.h"
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

static struct settings defaults;

static int keep_settings(void **state)
{
    (void)state;
    defaults = settings;
    return 0;
}

static int restore_settings(void **state)
{
    (void)state;
    settings = defaults;
    return 0;
}

static int keep_settings_and_be_mixed(void **state)
{
    heap_set_mixed(thread_heap(), true);
    return keep_settings(state);
}

static int restore_settings_and_be_plain(void **state)
{
    heap_set_mixed(thread_heap(), false);
    tick_reclaim(thread_heap());
    return heap_is_valid(thread_heap()) ? restore_settings(state) : -1;
}

static const size_t sizes[] = {0, 16, 100, 1024, 1025, 20000, 32768, 40000, 512 * KIB, 600 * KIB, 5 * MIB};
#define SIZES (sizeof sizes / sizeof sizes[0])

/* ---- what frees do ---- */

static void freed_blocks_are_had_again(void **state)
{
    (void)state;
    thread_heap()->tick_ms = clock_now_ms(); /* so that no tick comes between */
    for (size_t i = 0; i < SIZES; i++) {
        void *block = tarn_malloc(sizes[i]);
        assert_non_null(block);
        errno = EDOM;
        tarn_free(block);
        assert_int_equal(errno, EDOM);
        void *again = tarn_malloc(sizes[i]);
        assert_ptr_equal(again, block); /* the last freed is the first used, on every path */
        tarn_cfree(again);
        assert_int_equal(errno, EDOM);
    }
    tarn_free(NULL);
    tarn_cfree(NULL);
    tarn_free_sized(NULL, 100);
    tarn_free_aligned_sized(NULL, 64, 100);
    assert_int_equal(tarn_malloc_usable_size(NULL), 0);
}

/* To its pool, or with a mixed heap on the list that the blocks of others go on. */
static void own_blocks_go_where_they_belong(void **state)
{
    (void)state;
    struct heap *heap = thread_heap();
    for (size_t i = 0; sizes[i] <= CLASS_BYTES_MOST; i++) {
        struct block *block = tarn_malloc(sizes[i]);
        assert_non_null(block);
        struct classified found = classify(block);
        const void *list = found.pool;
        if (heap->mixed)
            list = &heap->foreign[pool_class(found.pool)];
        assert_ptr_equal(found.heap, heap);
        tarn_free_sized(block, sizes[i]);
        assert_ptr_equal(block->canary, list);
    }
}

static void usable_size_may_be_used(void **state)
{
    (void)state;
    for (size_t i = 0; i < SIZES; i++) {
        void *block = tarn_malloc(sizes[i]);
        size_t usable = tarn_malloc_usable_size(block);
        assert_true(usable >= sizes[i] && usable >= 16);
        assert_int_equal(usable, classify(block).bytes);
        memset(block, 'u', usable);
        tarn_free(block);
    }
}

static void *blocks[SIZES * 20];

static void free_some(void *context, unsigned index)
{
    (void)context;
    for (size_t i = index; i < SIZES * 20; i += 4) {
        errno = EDOM;
        must(pattern_holds(blocks[i], sizes[i % SIZES], i));
        tarn_free(blocks[i]);
        must(errno == EDOM);
    }
}

static void blocks_are_freed_by_other_threads(void **state)
{
    (void)state;
    struct pool *pool = NULL;
    uint32_t used = 0;
    for (size_t i = 0; i < SIZES * 20; i++) {
        if (i == 5)
            used = pool_used(pool = classify(blocks[2]).pool);
        assert_non_null(blocks[i] = tarn_malloc(sizes[i % SIZES]));
        pattern_write(blocks[i], sizes[i % SIZES], i);
    }
    size_t raw = raw_totals().live_blocks;
    threads_run(4, free_some, NULL);
    assert_int_equal(raw_totals().live_blocks, raw - 2 * 20);
    tick_reclaim(thread_heap());
    assert_true(pool_state(pool) == POOL_NONE || pool_used(pool) < used + 20);
    assert_true(heap_is_valid(thread_heap()));
    for (size_t i = 0; i < SIZES * 20; i++)
        if (classify(blocks[i]).kind == KIND_POOL) /* of those pools that are still there */
            assert_true(heap_marks_free(((struct block *)blocks[i])->canary, classify(blocks[i]).pool));
}

/* ---- sizes ---- */

static void every_size_is_freed_with_its_size(void **state)
{
    (void)state;
    for (size_t bytes = 0; bytes <= 700 * KIB; bytes += bytes < 1100 ? 1 : bytes < 40000 ? 51 : 4099) {
        tarn_free_sized(tarn_malloc(bytes), bytes);
        tarn_free_aligned_sized(tarn_aligned_alloc(32, bytes), 32, bytes);
        release_sized(tarn_malloc(bytes), bytes, "test");
    }
    for (size_t alignment = 1; alignment <= 8 * MIB; alignment *= 2)
        tarn_free_aligned_sized(tarn_aligned_alloc(alignment, 100), alignment, 100);
}

static void sizes_of_small_runs(void **state)
{
    (void)state;
    settings.run_threshold_bytes = 1024;
    settings.raw_threshold_bytes = 64 * KIB;
    for (size_t bytes = 1000; bytes <= 80 * KIB; bytes += 37) {
        void *block = tarn_malloc(bytes);
        assert_non_null(block);
        tarn_free_sized(block, bytes);
    }
}

/* realloc leaves a block where it is when it is not much too large: the new size must be good for a free,
 * too. */
static void sizes_after_realloc(void **state)
{
    (void)state;
    struct random random = {1};
    for (unsigned i = 0; i < 3000; i++) {
        void *block = tarn_malloc(random_size(&random));
        size_t bytes = 1 + random_size(&random);
        block = tarn_realloc(block, bytes);
        assert_non_null(block);
        tarn_free_sized(block, bytes);
    }
}

struct sized {
    void *block;
    size_t bytes;
    size_t alignment;
};

static void free_with_size(void *context)
{
    const struct sized *wrong = context;
    tarn_free_sized(wrong->block, wrong->bytes);
}

static void free_with_alignment(void *context)
{
    const struct sized *wrong = context;
    tarn_free_aligned_sized(wrong->block, wrong->alignment, wrong->bytes);
}

static void check_wrong_size(size_t bytes, size_t wrong_bytes)
{
    char line[256];
    struct sized wrong = {.block = tarn_malloc(bytes), .bytes = wrong_bytes};
    snprintf(line, sizeof line, "tarn: fatal: free_sized of %p with size %zu, but the block has %zu bytes",
             wrong.block, wrong_bytes, tarn_malloc_usable_size(wrong.block));
    child_must_die(free_with_size, &wrong, line);
    tarn_free(wrong.block);
}

static void wrong_sizes(void **state)
{
    (void)state;
    check_wrong_size(100, 113);
    check_wrong_size(100, 50);
    check_wrong_size(1024, 100);
    check_wrong_size(2000, SIZE_MAX);
    check_wrong_size(40000, 49153);
    check_wrong_size(40000, 20000);
    check_wrong_size(3 * MIB, 3 * MIB + 1);
    check_wrong_size(3 * MIB, 100);
}

static void wrong_alignments(void **state)
{
    (void)state;
    char line[256];
    struct sized wrong = {.block = tarn_malloc(100), .bytes = 100};
    wrong.alignment = ((uintptr_t)wrong.block & -(uintptr_t)wrong.block) * 2; /* one more than it has */
    snprintf(line, sizeof line,
             "tarn: fatal: free_aligned_sized of %p with alignment %zu, but the block does not have it",
             wrong.block, wrong.alignment);
    child_must_die(free_with_alignment, &wrong, line);
    wrong.alignment = 24;
    snprintf(line, sizeof line,
             "tarn: fatal: free_aligned_sized of %p with alignment 24, but the block does not have it",
             wrong.block);
    child_must_die(free_with_alignment, &wrong, line);
    wrong.alignment = 16;
    wrong.bytes = 200;
    snprintf(line, sizeof line,
             "tarn: fatal: free_aligned_sized of %p with size 200, but the block has 112 bytes", wrong.block);
    child_must_die(free_with_alignment, &wrong, line);
    tarn_free(wrong.block);
}

/* ---- misuse ---- */

static void free_pointer(void *context)
{
    tarn_free(context);
}

static void free_twice(void *context)
{
    tarn_free(context);
    tarn_free(opaque(context));
}

static void free_later_again(void *context)
{
    void *others[20];
    for (unsigned i = 0; i < 20; i++)
        others[i] = tarn_malloc(100);
    tarn_free(context);
    for (unsigned i = 0; i < 20; i++)
        tarn_free(others[i]);
    tarn_free(opaque(context));
}

static void double_frees(void **state)
{
    (void)state;
    char line[256];
    void *block = tarn_malloc(100);
    snprintf(line, sizeof line, "tarn: fatal: double free of %p (112-byte class)", block);
    child_must_die(free_twice, block, line);
    child_must_die(free_later_again, block, line);
    tarn_free(block);
    static const size_t large[] = {100000, MIB};
    for (unsigned i = 0; i < 2; i++) {
        block = tarn_malloc(large[i]);
        snprintf(line, sizeof line,
                 "tarn: fatal: invalid pointer %p passed to free: no live block begins there", block);
        child_must_die(free_twice, block, line);
        tarn_free(block);
    }
}

static pthread_barrier_t made;
static pthread_barrier_t done;
static void *foreign_block;

static void *lend_a_block(void *argument)
{
    (void)argument;
    foreign_block = tarn_malloc(200);
    pthread_barrier_wait(&made);
    pthread_barrier_wait(&done);
    return NULL;
}

/* The block of a running thread, freed twice by one that does not own it: it lies on this one's list. */
static void double_frees_elsewhere(void **state)
{
    (void)state;
    char line[256];
    pthread_t thread;
    assert_int_equal(pthread_barrier_init(&made, NULL, 2), 0);
    assert_int_equal(pthread_barrier_init(&done, NULL, 2), 0);
    assert_int_equal(pthread_create(&thread, NULL, lend_a_block, NULL), 0);
    pthread_barrier_wait(&made);
    assert_ptr_not_equal(classify(foreign_block).heap, thread_heap());
    snprintf(line, sizeof line, "tarn: fatal: double free of %p (208-byte class)", foreign_block);
    child_must_die(free_twice, foreign_block, line);
    tarn_free(foreign_block);
    child_must_die(free_pointer, foreign_block, line);
    mailbox_flush(thread_heap());
    pthread_barrier_wait(&done);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

/* Whatever stands where an arena would have its slot map. */
static void invalid_pointers_into_any_contents(void **state)
{
    (void)state;
    char line[256];
    char *raw = tarn_malloc(9 * MIB);
    static const int fills[] = {0, 1, 0x7f, 0x80, 0xff};
    for (unsigned i = 0; i < sizeof fills / sizeof fills[0]; i++) {
        memset(raw, fills[i], 9 * MIB);
        for (size_t offset = 5 * SLOT_BYTES; offset < 6 * MIB; offset += MIB + 16) {
            snprintf(line, sizeof line,
                     "tarn: fatal: invalid pointer %p passed to free: no live block begins there",
                     (void *)(raw + offset));
            child_must_die(free_pointer, raw + offset, line);
        }
    }
    tarn_free(raw);
}

static void invalid_pointers(void **state)
{
    (void)state;
    char line[256];
    char *run = tarn_malloc(100000);
    char *raw = tarn_malloc(9 * MIB);
    memset(raw, 0x10, 9 * MIB); /* as if there were slots and pools of 288-byte blocks */
    char *like_a_block = raw + 28 * SLOT_BYTES + 3 * 288;
    char *pointers[] = {run + 16,     run + SLOT_BYTES, run + 99984,  raw + 16,
                        like_a_block, raw + 4 * MIB,    raw - 4 * MIB};
    for (unsigned i = 0; i < sizeof pointers / sizeof pointers[0]; i++) {
        if (classify(pointers[i]).kind != KIND_INVALID)
            continue; /* something of the process's stands there */
        snprintf(line, sizeof line,
                 "tarn: fatal: invalid pointer %p passed to free: no live block begins there",
                 (void *)pointers[i]);
        child_must_die(free_pointer, pointers[i], line);
    }
    tarn_free(run);
    tarn_free(raw);
}

/* ---- TARN_CHECK ---- */

/* Pools that are opened from now on are checked; frees of their blocks take the slow path. */
static void checked_pools_notice_all(void **state)
{
    (void)state;
    char line[256];
    settings.check = true;
    tick_reclaim(thread_heap());
    char *held[100];
    for (unsigned i = 0; i < 100; i++)
        assert_non_null(held[i] =
                            tarn_malloc(5000)); /* more than a pool: the last come from one that is new */
    for (size_t offset = 16; offset < 5120; offset += 1024) {
        snprintf(line, sizeof line,
                 "tarn: fatal: invalid pointer %p passed to free: no live block begins there",
                 (void *)(held[99] + offset));
        child_must_die(free_pointer, held[99] + offset, line);
    }
    snprintf(line, sizeof line, "tarn: fatal: double free of %p (5120-byte class)", (void *)held[99]);
    child_must_die(free_twice, held[99], line);
    for (unsigned i = 0; i < 100; i++)
        tarn_free(held[i]);
    assert_true(heap_is_valid(thread_heap()));
    char *again = tarn_malloc(5000);
    assert_non_null(again);
    tarn_free_sized(again, 5000);
}

/* The first block that was not carved yet looks like one to nobody. */
static void checked_pools_know_what_is_carved(void **state)
{
    (void)state;
    char line[256];
    settings.check = true;
    (void)tarn_malloc_trim(0);
    char *block = tarn_malloc(7000);
    struct pool *pool = classify(block).pool;
    assert_true(pool_carved(pool) < pool->capacity);
    char *next = pool_start(pool) + (size_t)pool_carved(pool) * pool->block_bytes;
    snprintf(line, sizeof line, "tarn: fatal: invalid pointer %p passed to free: no live block begins there",
             (void *)next);
    child_must_die(free_pointer, next, line);
    tarn_free(block);
}

/* A heap that was busy and grows idle must not keep the cache for long. */
static void a_freed_raw_block_brings_the_heartbeat_near(void **state)
{
    (void)state;
    struct heap *heap = thread_heap();
    void *block = tarn_malloc(60 << 20);
    assert_non_null(block);
    heap->budget_bytes = TICK_BUDGET_MOST_BYTES;
    tarn_free(block);
    assert_true(heap->budget_bytes <= TICK_BUDGET_SOON_BYTES);
}

#define BOTH(name)                                                                                           \
    {#name ", plain heap", name, keep_settings, restore_settings, NULL},                                     \
    {                                                                                                        \
#name ", mixed heap", name, keep_settings_and_be_mixed, restore_settings_and_be_plain, NULL          \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(freed_blocks_are_had_again),
        BOTH(own_blocks_go_where_they_belong),
        BOTH(usable_size_may_be_used),
        BOTH(blocks_are_freed_by_other_threads),
        BOTH(every_size_is_freed_with_its_size),
        BOTH(sizes_of_small_runs),
        BOTH(sizes_after_realloc),
        BOTH(a_freed_raw_block_brings_the_heartbeat_near),
        BOTH(wrong_sizes),
        BOTH(wrong_alignments),
        BOTH(double_frees),
        BOTH(double_frees_elsewhere),
        BOTH(invalid_pointers),
        BOTH(invalid_pointers_into_any_contents),
        BOTH(checked_pools_notice_all),
        BOTH(checked_pools_know_what_is_carved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
