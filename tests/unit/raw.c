/*
 * raw/raw: blocks of their own mappings, their cache, growing where they stand and by moving, failure, and
 * threads.
 *
 * Each test but those of threads runs in a child. The program runs twice, with mremap(2) as the running
 * kernel has it, and as kernels before 6.17 had it (kernel.h): no call may be made that these would fail
 * half-way.
 */
#include "raw/raw.h"

#include "arena/address_index.h"
#include "heap/thread.h"
#include "kernel.h"
#include "os/clock.h"
#include "os/map.h"
#include "os/settings.h"
#include "unit.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

static size_t page;

struct body {
    void (*run)(void);
};

static void run_body(void *context)
{
    const struct body *body = context;
    kernel_faults = 0; /* but for the one by which the library found out */
    size_t dirty;
    /* What is mapped once, and stays: a heap, records, leaves of the index for the addresses that come next.
     */
    must(thread_heap() != NULL);
    char *block = raw_malloc(MIB, 0, &dirty);
    must(block != NULL && raw_free(block));
    for (unsigned leaf = 0; leaf < 4; leaf++)
        must(address_index_set(block - leaf * (UINT64_C(32) << 30), ADDRESS_NOTHING));
    raw_drop_cache();
    size_t count = map_count();
    body->run();
    raw_drop_cache();
    must(map_count() == count);
    must(raw_totals().live_blocks == 0 && raw_totals().live_bytes == 0);
    must(raw_totals().cached_blocks == 0 && raw_totals().cached_bytes == 0);
    must(kernel_faults == 0);
}

static void run_in_child(void (*run)(void))
{
    page = map_page_bytes();
    child_must_succeed(run_body, &(struct body){run});
}

/* A stamp at the start of each page: quick to write and to look at. */
static void stamp(char *block, size_t bytes, uint64_t tag)
{
    for (size_t at = 0; at + sizeof tag <= bytes; at += page)
        *(uint64_t *)(void *)(block + at) = tag + at;
}

static bool has_stamps(const char *block, size_t bytes, uint64_t tag)
{
    for (size_t at = 0; at + sizeof tag <= bytes; at += page)
        if (*(const uint64_t *)(const void *)(block + at) != tag + at)
            return false;
    return true;
}

static char *take(size_t bytes, size_t alignment)
{
    size_t dirty = SIZE_MAX;
    char *block = raw_malloc(bytes, alignment, &dirty);
    must(block != NULL);
    must((uintptr_t)block % GRANULE_BYTES == 0);
    size_t have = raw_bytes(block);
    must(have >= bytes && have % page == 0 && dirty <= have);
    must(all_zero(block + dirty, have - dirty));
    return block;
}

/* ---- tests ---- */

static void fresh_blocks(void)
{
    static const size_t sizes[] = {1, 512 * KIB + 1, MIB, 4 * MIB - 1, 4 * MIB, 4 * MIB + 1, 33 * MIB};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t dirty = 1;
        errno = EDOM;
        char *block = raw_malloc(sizes[i], 16, &dirty);
        must(block != NULL && dirty == 0 && errno == EDOM);
        must((uintptr_t)block % (4 * MIB) == 0);
        size_t have = raw_bytes(block);
        must(have >= sizes[i] && have < sizes[i] + page);
        must(all_zero(block, have));
        stamp(block, have, 1);
        block[have - 1] = 'e';
        must(raw_bytes(block + page) == 0 && raw_bytes(block + GRANULE_BYTES) == 0 && raw_bytes(&page) == 0);
        must(raw_totals().live_blocks == 1 && raw_totals().live_bytes == have);
        must(raw_free(block));
        must(errno == EDOM);
        must(raw_bytes(block) == 0 && !raw_free(block));
        must(raw_totals().live_blocks == 0 && raw_totals().cached_bytes == have);
        must(raw_drop_cache() == have && raw_drop_cache() == 0);
        must(!page_is_mapped(block) && !page_is_mapped(block + have - 1));
    }
}

static void large_alignments(void)
{
    for (size_t alignment = 8 * MIB; alignment <= 256 * MIB; alignment *= 2) {
        char *block = take(MIB, alignment);
        must((uintptr_t)block % alignment == 0);
        char *second = take(5 * MIB, alignment);
        must((uintptr_t)second % alignment == 0);
        must(raw_free(block) && raw_free(second));
    }
}

static void cached_pages_serve_again(void)
{
    char *block = take(6 * MIB, 0);
    memset(block, 'd', 6 * MIB);
    must(raw_free(block));
    must(pages_resident(block, 6 * MIB) == 6 * MIB / page);
    size_t dirty = 0;
    char *again = raw_malloc(6 * MIB, 0, &dirty);
    must(again == block && dirty > 0 && raw_totals().cached_blocks == 0);
    must(raw_free(again));
    /* A smaller one takes a part of it, and the rest stays for others. */
    char *small = take(2 * MIB, 0);
    must(small == block && raw_bytes(small) < 3 * MIB);
    must(raw_totals().cached_bytes >= 3 * MIB);
    /* A larger one is put together from what is there: the pages need not be faulted in. */
    must(raw_free(small));
    char *large = take(8 * MIB, 0);
    must(pages_resident(large, raw_bytes(large)) >= 6 * MIB / page);
    must(raw_totals().cached_bytes == 0);
    must(raw_free(large));
}

static void what_is_not_dirty_is_zero(void)
{
    struct random random = {3};
    char *held[4] = {NULL};
    for (unsigned step = 0; step < TURNS(400); step++) {
        char **one = &held[random_below(&random, 4)];
        if (*one == NULL) {
            *one = take(512 * KIB + random_below(&random, 3 * MIB), 0);
            memset(*one, 'd', raw_bytes(*one));
        } else {
            must(raw_free(*one));
            *one = NULL;
        }
    }
    for (unsigned i = 0; i < 4; i++)
        must(held[i] == NULL || raw_free(held[i]));
}

static void realloc_keeps_contents(void)
{
    char *block = take(MIB, 0);
    stamp(block, MIB, 5);
    size_t bytes = MIB;
    size_t have = raw_bytes(block);
    static const size_t sizes[] = {2 * MIB, 3 * MIB + 1, 9 * MIB,   8 * MIB, 30 * MIB,
                                   7 * MIB, MIB,         600 * KIB, 5 * MIB};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char *resized = raw_realloc(block, sizes[i]);
        must(resized != NULL && (uintptr_t)resized % GRANULE_BYTES == 0);
        must(resized == block || raw_bytes(block) == 0);
        must(raw_bytes(resized) >= sizes[i]);
        must(sizes[i] <= have || raw_bytes(resized) >= sizes[i] + sizes[i] / 8); /* it will grow again */
        have = raw_bytes(resized);
        must(sizes[i] > bytes || raw_bytes(resized) < sizes[i] + 64 * KIB + page);
        must(raw_totals().live_bytes == raw_bytes(resized) && raw_totals().live_blocks == 1);
        must(has_stamps(resized, bytes < sizes[i] ? bytes : sizes[i], 5));
        block = resized;
        bytes = sizes[i];
        stamp(block, bytes, 5);
        block[raw_bytes(block) - 1] = 'e';
    }
    must(raw_free(block));
}

/* Something stands behind the block: it has to move, by its pages. */
static void a_block_in_a_corner_moves(void)
{
    for (unsigned i = 0; i < 3; i++) {
        char *block = take(5 * MIB, 0);
        size_t have = raw_bytes(block);
        stamp(block, have, i);
        void *behind =
            mmap(block + have, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        char *moved = raw_realloc(block, 11 * MIB);
        must(moved != NULL && moved != block);
        must(has_stamps(moved, have, i));
        must(raw_bytes(block) == 0 && !raw_free(block));
        stamp(moved, raw_bytes(moved), i);
        if (behind != MAP_FAILED)
            munmap(behind, page);
        must(raw_free(moved));
    }
}

static void what_is_no_block_is_not_resized(void)
{
    char *block = take(5 * MIB, 0);
    must(raw_realloc(block + GRANULE_BYTES, MIB) == NULL);
    must(raw_realloc(block - GRANULE_BYTES, MIB) == NULL);
    must(raw_realloc((char *)(uintptr_t)GRANULE_BYTES, MIB) == NULL);
    must(raw_free(block));
    must(raw_realloc(block, MIB) == NULL);
}

static void without_memory(void)
{
    char *block = take(3 * MIB, 0);
    size_t have = raw_bytes(block);
    stamp(block, have, 8);
    size_t dirty;
    errno = EDOM;
    limit_address_space(MIB);
    must(raw_malloc(64 * MIB, 0, &dirty) == NULL);
    must(raw_realloc(block, 64 * MIB) == NULL);
    must(raw_realloc(block, SIZE_MAX / 2) == NULL);
    must(errno == EDOM);
    must(raw_bytes(block) == have && has_stamps(block, have, 8));
    must(raw_totals().live_bytes == have && raw_totals().live_blocks == 1);
    lift_limit();
    must(raw_free(block) && !raw_free(block));
}

/* Room for the size that is asked for, though not for the eighth more that is usual, nor where the block is.
 */
static void with_little_memory(void)
{
    char *block = take(8 * MIB, 0);
    size_t have = raw_bytes(block);
    stamp(block, have, 9);
    void *behind =
        mmap(block + have, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    limit_address_space(17 * MIB);
    char *moved = raw_realloc(block, 16 * MIB);
    must(moved != NULL && has_stamps(moved, have, 9));
    must(raw_bytes(moved) < 17 * MIB);
    lift_limit();
    if (behind != MAP_FAILED)
        munmap(behind, page);
    must(raw_free(moved));
}

/* What is cached is given up when it is in the way. */
static void the_cache_goes_in_need(void)
{
    char *block = take(32 * MIB, 0);
    must(raw_free(block));
    must(raw_totals().cached_bytes == 32 * MIB);
    limit_address_space(24 * MIB);
    char *other = take(36 * MIB, 8 * MIB); /* nothing cached can be made into this */
    must(raw_totals().cached_bytes == 0);
    lift_limit();
    must(raw_free(other));
}

static void the_cache_is_bounded(void)
{
    settings.raw_cache_bytes = 10 * MIB;
    char *blocks[3] = {take(8 * MIB, 0), take(9 * MIB, 0), take(12 * MIB, 0)};
    must(raw_free(blocks[0]));
    must(raw_totals().cached_bytes == 8 * MIB);
    must(raw_free(blocks[2])); /* too large for the cache, and a quarter of what is live is less */
    must(raw_totals().cached_bytes == 8 * MIB && page_is_mapped(blocks[0]) && !page_is_mapped(blocks[2]));
    must(raw_free(blocks[1]));
    must(raw_totals().cached_bytes == 9 * MIB && raw_totals().cached_blocks == 1);
    must(!page_is_mapped(blocks[0]) && page_is_mapped(blocks[1]));
    /* A quarter of what is live, if that is more; but nothing where nothing is wanted. */
    char *large = take(60 * MIB, 0);
    char *others[2] = {take(2 * MIB, 8 * MIB), take(12 * MIB, 0)};
    must(raw_free(others[1]));
    must(raw_totals().cached_bytes >= 12 * MIB);
    settings.raw_cache_bytes = 0;
    raw_drop_cache();
    must(raw_free(others[0]));
    must(!page_is_mapped(others[0]));
    must(raw_free(large));
}

static void the_cache_ages(void)
{
    settings.purge_delay_ms = 1000;
    uint64_t before_ms = clock_now_ms();
    char *block = take(8 * MIB, 0);
    must(raw_free(block));
    raw_age(before_ms + 999);
    must(raw_totals().cached_blocks == 1);
    raw_age(clock_now_ms() + 1000);
    must(raw_totals().cached_blocks == 0 && !page_is_mapped(block));
    raw_age(clock_now_ms() + 5000);
}

/* Growing, shrinking, freeing in any order, with huge pages asked for, forbidden and left alone. */
static void any_order(void)
{
    struct random random = {11};
    char *held[5] = {NULL};
    size_t bytes[5];
    for (unsigned step = 0; step < TURNS(1500); step++) {
        settings.huge_pages = (enum huge_pages)(step / TURNS(400));
        unsigned i = (unsigned)random_below(&random, 5);
        size_t wanted = 512 * KIB + random_below(&random, 9 * MIB);
        size_t choice = random_below(&random, 4);
        if (held[i] == NULL) {
            held[i] = take(wanted, 0);
            bytes[i] = wanted;
        } else if (choice == 0) {
            must(has_stamps(held[i], bytes[i], i));
            must(raw_free(held[i]));
            held[i] = NULL;
            continue;
        } else {
            held[i] = raw_realloc(held[i], wanted);
            must(held[i] != NULL && has_stamps(held[i], bytes[i] < wanted ? bytes[i] : wanted, i));
            bytes[i] = wanted;
        }
        stamp(held[i], bytes[i], i);
    }
    for (unsigned i = 0; i < 5; i++)
        must(held[i] == NULL || raw_free(held[i]));
}

/* ---- threads ---- */

#define FREERS 2U

static char *shared_block;
static _Atomic unsigned winners;
static struct meeting meeting;

static void free_it_too(void *context, unsigned index)
{
    (void)context;
    for (unsigned i = 0; i < TURNS(3000); i++) {
        if (index == 0)
            shared_block = take(MIB, 0);
        meet(&meeting, FREERS);
        winners += raw_free(shared_block);
        meet(&meeting, FREERS);
        if (index == 0)
            must(atomic_exchange(&winners, 0) == 1);
    }
}

static void of_many_frees_one_wins(void **state)
{
    (void)state;
    page = map_page_bytes();
    threads_run(FREERS, free_it_too, NULL);
}

static void work(void *context, unsigned index)
{
    struct random random = {index};
    char *held[3] = {NULL};
    size_t bytes[3];
    size_t dirty;
    (void)context;
    for (unsigned step = 0; step < TURNS(400); step++) {
        unsigned i = (unsigned)random_below(&random, 3);
        size_t wanted = 512 * KIB + random_below(&random, 3 * MIB);
        uint64_t tag = index * 16 + i;
        if (held[i] == NULL) {
            held[i] = raw_malloc(wanted, 0, &dirty);
        } else {
            must(has_stamps(held[i], bytes[i], tag));
            if (random_below(&random, 3) == 0) {
                must(raw_free(held[i]));
                held[i] = NULL;
                continue;
            }
            held[i] = raw_realloc(held[i], wanted);
        }
        must(held[i] != NULL && raw_bytes(held[i]) >= wanted);
        bytes[i] = wanted;
        stamp(held[i], wanted, tag);
    }
    for (unsigned i = 0; i < 3; i++)
        must(held[i] == NULL || raw_free(held[i]));
}

static void threads_do_not_disturb_each_other(void **state)
{
    (void)state;
    page = map_page_bytes();
    struct raw_totals before = raw_totals();
    threads_run(4, work, NULL);
    assert_int_equal(raw_totals().live_bytes, before.live_bytes);
    assert_int_equal(raw_totals().live_blocks, before.live_blocks);
    assert_true(raw_totals().cached_bytes <= settings.raw_cache_bytes);
    raw_drop_cache();
    assert_int_equal(raw_totals().cached_blocks, 0);
}

#define IN_CHILD(name)                                                                                       \
    static void name##_in_child(void **state)                                                                \
    {                                                                                                        \
        (void)state;                                                                                         \
        run_in_child(name);                                                                                  \
    }

IN_CHILD(fresh_blocks)
IN_CHILD(large_alignments)
IN_CHILD(cached_pages_serve_again)
IN_CHILD(what_is_not_dirty_is_zero)
IN_CHILD(realloc_keeps_contents)
IN_CHILD(a_block_in_a_corner_moves)
IN_CHILD(what_is_no_block_is_not_resized)
IN_CHILD(without_memory)
IN_CHILD(with_little_memory)
IN_CHILD(the_cache_goes_in_need)
IN_CHILD(the_cache_is_bounded)
IN_CHILD(the_cache_ages)
IN_CHILD(any_order)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fresh_blocks_in_child),
        cmocka_unit_test(large_alignments_in_child),
        cmocka_unit_test(cached_pages_serve_again_in_child),
        cmocka_unit_test(what_is_not_dirty_is_zero_in_child),
        cmocka_unit_test(realloc_keeps_contents_in_child),
        cmocka_unit_test(a_block_in_a_corner_moves_in_child),
        cmocka_unit_test(what_is_no_block_is_not_resized_in_child),
        cmocka_unit_test(without_memory_in_child),
        cmocka_unit_test(with_little_memory_in_child),
        cmocka_unit_test(the_cache_goes_in_need_in_child),
        cmocka_unit_test(the_cache_is_bounded_in_child),
        cmocka_unit_test(the_cache_ages_in_child),
        cmocka_unit_test(any_order_in_child),
        cmocka_unit_test(of_many_frees_one_wins),
        cmocka_unit_test(threads_do_not_disturb_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
