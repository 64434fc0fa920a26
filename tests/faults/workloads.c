#include "workloads.h"

#include "faults.h"

#include "../unit/unit.h"
#include "tarn/tarn.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define HELD_MOST 4096U
#define PAGE      ((size_t)4096)

struct held {
    unsigned char *block;
    size_t bytes;
    uint64_t tag;
};

unsigned long workload_refusals;
static struct held held[HELD_MOST];
static uint64_t next_tag;

/* ---- contents ---- */

/* All of a small block; the first bytes and one word of each page of a large one. */
static void write_contents(const struct held *one, size_t from)
{
    if (from == 0)
        pattern_write(one->block, one->bytes < PAGE ? one->bytes : PAGE, one->tag);
    for (size_t at = (from + PAGE - 1) / PAGE * PAGE; at + sizeof one->tag <= one->bytes; at += PAGE)
        if (at >= PAGE)
            memcpy(one->block + at, &one->tag, sizeof one->tag);
}

static void verify_contents(const struct held *one, size_t bytes)
{
    must(pattern_holds(one->block, bytes < PAGE ? bytes / 8 * 8 : PAGE, one->tag));
    for (size_t at = PAGE; at + sizeof one->tag <= bytes; at += PAGE)
        must(memcmp(one->block + at, &one->tag, sizeof one->tag) == 0);
}

static bool was_refused(const void *block)
{
    if (block != NULL)
        return false;
    must(errno == ENOMEM);
    must(faults_so_far() > 0); /* nothing else may fail here */
    workload_refusals++;
    return true;
}

/* ---- what is done with the held blocks ---- */

static void hold(size_t place, void *block, size_t bytes, size_t alignment)
{
    struct held *one = &held[place];
    must(place < HELD_MOST && one->block == NULL);
    if (was_refused(block))
        return;
    must((uintptr_t)block % alignment == 0);
    must(tarn_malloc_usable_size(block) >= bytes);
    *one = (struct held){block, bytes, ++next_tag};
    write_contents(one, 0);
}

static void hold_malloc(size_t place, size_t bytes)
{
    errno = 0;
    hold(place, tarn_malloc(bytes), bytes, 16);
}

static void hold_calloc(size_t place, size_t bytes)
{
    errno = 0;
    void *block = tarn_calloc(1, bytes);
    must(block == NULL || all_zero(block, bytes));
    hold(place, block, bytes, 16);
}

static void hold_aligned(size_t place, size_t alignment, size_t bytes)
{
    errno = 0;
    hold(place, tarn_aligned_alloc(alignment, bytes), bytes, alignment);
}

static void resize(size_t place, size_t bytes)
{
    struct held *one = &held[place];
    if (one->block == NULL)
        return;
    errno = 0;
    unsigned char *resized = tarn_realloc(one->block, bytes);
    size_t kept = one->bytes < bytes ? one->bytes : bytes;
    if (was_refused(resized)) {
        verify_contents(one, one->bytes);
        return;
    }
    one->block = resized;
    verify_contents(one, kept);
    one->bytes = bytes;
    one->tag = ++next_tag;
    write_contents(one, 0);
}

static void drop(size_t place)
{
    struct held *one = &held[place];
    if (one->block == NULL)
        return;
    verify_contents(one, one->bytes);
    errno = EDOM;
    tarn_free(one->block);
    must(errno == EDOM);
    *one = (struct held){NULL, 0, 0};
}

static void drop_range(size_t first, size_t end, size_t step)
{
    for (size_t place = first; place < end; place += step)
        drop(place);
}

void workload_free_all(void)
{
    drop_range(0, HELD_MOST, 1);
}

/* ---- threads, one after the other ---- */

/* False when the C library could not make it: it asks calloc for the thread's descriptors. */
static bool run_thread(void *(*body)(void *argument), size_t first)
{
    pthread_t thread;
    int error = pthread_create(&thread, NULL, body, &held[first]);
    if (error != 0) {
        must((error == EAGAIN || error == ENOMEM) && faults_so_far() > 0);
        workload_refusals++;
        return false;
    }
    must(pthread_join(thread, NULL) == 0);
    return true;
}

static size_t place_of(void *argument)
{
    return (size_t)((struct held *)argument - held);
}

/* ---- the workloads ---- */

static void work_small(void)
{
    for (size_t i = 0; i < 4000; i++)
        hold_malloc(i, 1 + i * 37 % 1024);
    drop_range(0, 4000, 2);
    for (size_t i = 0; i < 4000; i += 2)
        hold_malloc(i, 1 + i * 53 % 2048);
    for (size_t i = 0; i < 4000; i += 5)
        resize(i, 1 + i * 71 % 3000);
    drop_range(1, 4000, 3);
}

static void work_medium(void)
{
    for (size_t i = 0; i < 600; i++)
        hold_malloc(i, 1025 + i * 5003 % 31000);
    drop_range(0, 600, 2);
    for (size_t i = 0; i < 600; i += 2)
        hold_malloc(i, 1025 + i * 7001 % 31000);
    for (size_t i = 0; i < 600; i += 3)
        resize(i, 1025 + i * 9001 % 31000);
}

static void work_runs(void)
{
    for (size_t i = 0; i < 20; i++)
        hold_malloc(i, 33 * KIB + i * 37 % 20 * 24 * KIB);
    for (size_t i = 0; i < 20; i += 3)
        resize(i, 40 * KIB + i * 11 % 20 * 22 * KIB);
    drop_range(0, 20, 2);
    for (size_t i = 0; i < 20; i += 2)
        hold_malloc(i, 500 * KIB);
    for (size_t i = 1; i < 20; i += 4)
        resize(i, i % 8 == 1 ? 20 * KIB : MIB); /* out of the runs, below and above */
}

/* Freed blocks leave touched pages in the cache, which are moved into the next ones; those that grow move on,
 * when others lie behind them. */
static void work_raw(void)
{
    for (size_t i = 0; i < 8; i++)
        hold_malloc(i, 520 * KIB + i * 100 * KIB);
    drop_range(1, 8, 2);
    hold_malloc(20, 2 * MIB);
    for (size_t i = 0; i < 8; i += 2)
        resize(i, MIB + i * 150 * KIB);
    hold_calloc(21, MIB);
    for (size_t i = 0; i < 8; i += 2)
        resize(i, 700 * KIB + i * 10 * KIB);
    hold_malloc(22, MIB);
    resize(20, 4 * MIB + 64 * KIB);
    resize(0, 300 * KIB); /* a run */
    resize(2, 100);       /* a block of a pool */
    resize(2, 2 * MIB);
    drop(20);
    drop(21);
    hold_malloc(23, 2 * MIB);
    resize(22, 2 * MIB);
}

static void work_aligned(void)
{
    for (size_t i = 0; i < 20; i++)
        hold_aligned(i, (size_t)16 << i, 100 + i * 9000);
    drop_range(0, 20, 2);
    for (size_t i = 0; i < 20; i += 2)
        hold_aligned(i, (size_t)16 << i, 530 * KIB);
    hold_aligned(20, 16 * MIB, MIB);
    for (size_t i = 0; i < 20; i += 3)
        resize(i, 50 * KIB + i * 30 * KIB);
}

/* The second time over memory that was used. */
static void work_calloc(void)
{
    for (unsigned round = 0; round < 2; round++) {
        for (size_t i = 0; i < 100; i++)
            hold_calloc(i, 1 + i * i * i % 50000);
        for (size_t i = 300; i < 305; i++)
            hold_calloc(i, 100 * KIB + (i - 300) * 200 * KIB);
        drop_range(0, 310, 1);
    }
}

static void *leave_blocks(void *argument)
{
    size_t first = place_of(argument);
    for (size_t i = 0; i < 60; i++)
        hold_malloc(first + i, 1 + i * i * i % 30000);
    hold_malloc(first + 60, 100 * KIB);
    hold_malloc(first + 61, 600 * KIB);
    drop_range(first, first + 62, 3);
    return NULL;
}

static void *drop_blocks(void *argument)
{
    size_t first = place_of(argument);
    drop_range(first, first + 64, 1);
    return NULL;
}

static void work_threads(void)
{
    for (size_t i = 0; i < 6; i++)
        run_thread(leave_blocks, i * 64);
    run_thread(drop_blocks, 0);
    for (size_t i = 64; i < 384; i += 2)
        drop(i);
}

static void *take_some(void *argument)
{
    size_t first = place_of(argument);
    for (size_t i = 0; i < 600; i++)
        hold_malloc(first + i, 1000);
    return NULL;
}

static void *drop_some(void *argument)
{
    size_t first = place_of(argument);
    drop_range(first, first + 600, 1);
    hold_malloc(first, 1000);
    return NULL;
}

/* A thread that frees before it allocates; one whose first call is the free of a run, of a raw block. */
static void work_remote(void)
{
    take_some(&held[0]);
    run_thread(drop_some, 0);
    hold_malloc(1300, 200 * KIB);
    hold_malloc(1301, 2 * MIB);
    run_thread(drop_blocks, 1300);
    run_thread(take_some, 600);
    drop_range(600, 1200, 1);
    hold_malloc(1400, 1000);
}

static void *take_much(void *argument)
{
    size_t first = place_of(argument);
    for (size_t i = 0; i < 150; i++)
        hold_malloc(first + i, 20000);
    return NULL;
}

/* What threads left behind is taken over by those that come. */
static void work_parking(void)
{
    for (size_t i = 0; i < 4; i++)
        run_thread(take_much, i * 150);
    drop_range(0, 600, 2);
    for (size_t i = 600; i < 800; i++)
        hold_malloc(i, 20000);
    run_thread(take_much, 1000);
    drop_range(1, 600, 2);
    take_much(&held[1200]);
}

static void work_trim(void)
{
    for (unsigned round = 0; round < 2; round++) {
        for (size_t i = 0; i < 180; i++)
            hold_malloc(i, 25000);
        hold_malloc(180, MIB);
        drop_range(round, 181, 1);
        tarn_malloc_trim(round * MIB);
        drop_range(0, 181, 1);
    }
    for (size_t i = 0; i < 180; i++)
        hold_malloc(i, 25000);
}

static void *ask(void *argument)
{
    struct tarn_mallinfo2_result info = tarn_mallinfo2();
    must(info.uordblks > 0 || faults_so_far() > 0);
    hold_malloc(place_of(argument), 5000);
    return NULL;
}

static void work_statistics(void)
{
    for (size_t i = 0; i < 6; i++) {
        run_thread(ask, i * 100);
        hold_malloc(i * 100 + 1, 700 * KIB);
        ask(&held[i * 100 + 2]);
    }
    tarn_malloc_trim(0);
}

static void use_all_paths(void)
{
    resize(1, MIB);
    drop(3);
    hold_malloc(30, MIB);
    hold_calloc(31, 600 * KIB);
    for (size_t i = 300; i < 340; i++)
        hold_malloc(i, 1 + i * 211 % 60000);
    run_thread(leave_blocks, 400);
    tarn_malloc_trim(0);
    workload_free_all();
}

static void work_fork(void)
{
    for (size_t i = 0; i < 8; i++)
        hold_malloc(i, 100 * KIB * i + 10);
    run_thread(leave_blocks, 100);
    drop_range(0, 8, 2);
    pid_t child = fork();
    must(child >= 0);
    if (child == 0) {
        use_all_paths();
        _exit(0);
    }
    must(wait_for_child(child, 60) == 0);
    hold_malloc(0, 2 * MIB);
    resize(7, MIB);
}

void (*workload_named(const char *name))(void)
{
    static const struct {
        const char *name;
        void (*body)(void);
    } workloads[] = {
        {"small", work_small},     {"medium", work_medium},         {"runs", work_runs},
        {"raw", work_raw},         {"aligned", work_aligned},       {"calloc", work_calloc},
        {"threads", work_threads}, {"remote", work_remote},         {"parking", work_parking},
        {"trim", work_trim},       {"statistics", work_statistics}, {"fork", work_fork},
    };
    for (size_t i = 0; i < sizeof workloads / sizeof workloads[0]; i++)
        if (strcmp(workloads[i].name, name) == 0)
            return workloads[i].body;
    return NULL;
}
