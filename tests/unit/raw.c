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
    kernel_calls = 0;
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
        size_t wanted = 512 * KIB + random_below(&random, 3 * MIB);
        if (*one != NULL && random_below(&random, 2) == 0) {
            must(raw_free(*one));
            *one = NULL;
            continue;
        }
        *one = *one == NULL ? take(wanted, 0) : raw_realloc(*one, wanted);
        must(*one != NULL);
        memset(*one, 'd', raw_bytes(*one));
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
        raw_drop_cache(); /* or what lies behind the block is its own tail */
        char *block = take(5 * MIB, 0);
        size_t have = raw_bytes(block);
        stamp(block, have, i);
        void *behind =
            mmap(block + have, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        char *moved = raw_realloc(block, 11 * MIB);
        must(moved != NULL && moved != block && kernel_calls > i);
        must(has_stamps(moved, have, i));
        must(raw_bytes(block) == 0 && !raw_free(block));
        stamp(moved, raw_bytes(moved), i);
        if (behind != MAP_FAILED)
            munmap(behind, page);
        must(raw_free(moved));
    }
}

/* ---- what is cut off stays where it is ---- */

static void must_be_cached(size_t bytes, size_t blocks)
{
    must(raw_totals().cached_bytes == bytes && raw_totals().cached_blocks == blocks);
}

static void freed_beside_its_tail_a_block_is_whole(void)
{
    char *block = take(6 * MIB, 0);
    size_t count = map_count();
    stamp(block, 6 * MIB, 20);
    must(raw_free(block));
    char *small = take(2 * MIB, 0);
    must(small == block && raw_bytes(small) == 2 * MIB);
    must_be_cached(4 * MIB, 1);
    for (size_t bytes = 7 * MIB / 4; bytes >= MIB; bytes -= MIB / 4) {
        must(raw_realloc(small, bytes) == small && raw_bytes(small) == bytes);
        must_be_cached(6 * MIB - bytes, 1);
        must(map_count() == count + 1);
    }
    must(raw_free(small));
    must_be_cached(6 * MIB, 1);
    must(map_count() == count && kernel_calls == 0);
    char *again = take(6 * MIB, 0);
    must(again == block && raw_bytes(again) == 6 * MIB && has_stamps(again, 6 * MIB, 20));
    must(raw_free(again));
}

static void a_block_takes_its_tail_back(void)
{
    char *block = take(8 * MIB, 0);
    size_t count = map_count();
    stamp(block, 8 * MIB, 21);
    must(raw_realloc(block, 8 * MIB - 64 * KIB) == block && raw_bytes(block) == 8 * MIB - 64 * KIB);
    must(raw_realloc(block, 8 * MIB - 128 * KIB + page) == block && raw_bytes(block) == 8 * MIB - 64 * KIB);
    must_be_cached(64 * KIB, 1);
    must(raw_realloc(block, 3 * MIB) == block && raw_bytes(block) == 3 * MIB);
    must_be_cached(5 * MIB, 1);
    must(raw_realloc(block, 4 * MIB) == block && raw_bytes(block) == 4 * MIB + MIB / 2);
    must_be_cached(7 * MIB / 2, 1);
    must(map_count() == count + 1);
    /* All of it, since more would not be had for nothing. */
    must(raw_realloc(block, 8 * MIB) == block && raw_bytes(block) == 8 * MIB);
    must_be_cached(0, 0);
    must(map_count() == count && kernel_calls == 0);
    must(has_stamps(block, 8 * MIB, 21) && pages_resident(block, 8 * MIB) == 8 * MIB / page);
    must(raw_realloc(block, MIB) == block);
    char *grown = raw_realloc(block, 12 * MIB); /* all of the tail, and more */
    must(grown != NULL && has_stamps(grown, MIB, 21) && raw_bytes(grown) >= 12 * MIB + 3 * MIB / 2);
    must_be_cached(0, 0);
    must(grown != block || has_stamps(grown, 8 * MIB, 21));
    must(raw_free(grown));
}

/* Where a block could begin, the cache keeps it apart; a block that grows takes it all the same. */
static void a_tail_may_begin_a_granule(void)
{
    char *both = take(2 * GRANULE_BYTES, 0);
    size_t count = map_count();
    stamp(both, 2 * GRANULE_BYTES, 22);
    must(raw_free(both));
    char *first = take(GRANULE_BYTES, 0);
    char *second = take(GRANULE_BYTES, 0);
    must(first == both && second == both + GRANULE_BYTES);
    must(raw_free(first) && raw_free(second));
    must_be_cached(2 * GRANULE_BYTES, 2);
    must(take(GRANULE_BYTES, 0) == second && take(GRANULE_BYTES, 0) == first);
    must(raw_free(second));
    must(raw_realloc(first, 7 * MIB) == first && raw_bytes(first) == 63 * MIB / 8);
    must(has_stamps(first, raw_bytes(first), 22));
    must(map_count() == count + 1 && kernel_calls == 0);
    must(raw_realloc(first, GRANULE_BYTES) == first);
    must_be_cached(GRANULE_BYTES, 1);
    /* A live one is not touched. */
    second = take(GRANULE_BYTES, 0);
    must(second == both + GRANULE_BYTES);
    char *moved = raw_realloc(first, 7 * MIB);
    must(moved != NULL && moved != first && has_stamps(moved, GRANULE_BYTES, 22));
    must(has_stamps(second, GRANULE_BYTES, 22 + GRANULE_BYTES));
    must(raw_free(moved) && raw_free(second));
}

/* An alignment that this block does not have: none that is cached is taken as it is. */
static size_t more_aligned_than(const char *block)
{
    return 2 * ((uintptr_t)block & -(uintptr_t)block);
}

static void pages_are_moved_from_where_no_block_begins(void)
{
    char *whole = take(8 * MIB, 0);
    char *cut = take(6 * MIB, 0);
    stamp(whole, 8 * MIB, 23);
    stamp(cut, 6 * MIB, UINT64_C(24) << 32);
    must(raw_realloc(cut, 2 * MIB) == cut);
    must(raw_free(whole));
    must_be_cached(12 * MIB, 2);
    /* The end of the 4 MiB behind the block, not of the 8 MiB. */
    char *first = take(3 * MIB, more_aligned_than(whole));
    must(has_stamps(first, 3 * MIB, (UINT64_C(24) << 32) + 3 * MIB));
    must(pages_resident(first, 3 * MIB) == 3 * MIB / page);
    must_be_cached(9 * MIB, 2);
    must(page_is_mapped(cut + 3 * MIB - page) && !page_is_mapped(cut + 3 * MIB));
    /* What is left there, and then the end of the other. */
    char *second = take(3 * MIB, more_aligned_than(whole));
    must(has_stamps(second, MIB, (UINT64_C(24) << 32) + 2 * MIB));
    must(has_stamps(second + MIB, 2 * MIB, 23 + 6 * MIB));
    must_be_cached(6 * MIB, 1);
    must(!page_is_mapped(cut + 2 * MIB) && !page_is_mapped(whole + 6 * MIB));
    char *third = take(6 * MIB, 0);
    must(third == whole && has_stamps(third, 6 * MIB, 23));
    must(has_stamps(cut, 2 * MIB, UINT64_C(24) << 32));
    must(raw_free(first) && raw_free(second) && raw_free(third) && raw_free(cut));
}

static void pages_never_touched_are_not_moved(void)
{
    size_t dirty;
    char *block = raw_malloc(8 * MIB, 0, &dirty); /* take() would look at all of it */
    must(block != NULL);
    block[0] = 'b';
    must(raw_free(block));
    char *other = raw_malloc(6 * MIB, more_aligned_than(block), &dirty);
    must(other != NULL && dirty == 0);
    must(kernel_calls == 0 && pages_resident(other, 6 * MIB) == 0);
    must_be_cached(8 * MIB, 1); /* stays, and serves whole */
    must(raw_malloc(8 * MIB, 0, &dirty) == block && block[0] == 'b');
    memset(block, 't', 8 * MIB);
    must(raw_free(block) && raw_free(other)); /* touched since: moved */
    raw_drop_cache();
    block = take(8 * MIB, 0);
    must(raw_free(block));
    other = raw_malloc(6 * MIB, more_aligned_than(block), &dirty);
    must(other != NULL && dirty == 6 * MIB && raw_free(other));
}

/* Advice about huge pages makes two mappings of one, where it is given to a part of it: here to a block, up
 * to where another begins, through pages that came from a block too small for advice. */
static void advice_makes_a_border(void)
{
    settings.huge_pages = HUGE_PAGES_RAW;
    char *block = take(16 * MIB, 16 * GRANULE_BYTES);
    must(raw_realloc(block, 3328 * KIB) == block);
    raw_drop_cache();
    char *source = take(1536 * KIB, 0);
    stamp(source, 1536 * KIB, 25);
    stamp(block, 3328 * KIB, UINT64_C(26) << 32);
    must(raw_free(source));
    must(raw_realloc(block, 4608 * KIB) == block);
    must(has_stamps(block + 3328 * KIB, 1280 * KIB, 25 + 256 * KIB));
    must(raw_bytes(block) == 5184 * KIB);
    must(raw_free(block));
    must(take(GRANULE_BYTES, 0) == block);
    char *other = take(1088 * KIB, 0);
    must(other == block + GRANULE_BYTES);
    must(raw_realloc(block, 3584 * KIB) == block);
    must(raw_realloc(block, 3712 * KIB) == block && raw_bytes(block) == GRANULE_BYTES);
    must(raw_free(other));
    void *behind =
        mmap(block + 5184 * KIB, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    must(behind == block + 5184 * KIB);
    char *moved = raw_realloc(block, 6 * MIB);
    must(moved != NULL && moved != block);
    must(kernel_faults == 0);
    must(has_stamps(moved, 3328 * KIB, UINT64_C(26) << 32));
    must(has_stamps(moved + 3328 * KIB, 1280 * KIB, 25 + 256 * KIB));
    munmap(behind, page);
    must(raw_free(moved));
}

/* A block of five parts: four freed ones and what is fresh. */
static char *put_together(char *const *sources, uint64_t tag)
{
    for (unsigned i = 0; i < 4; i++)
        must(raw_free(sources[i]));
    char *block = take(GRANULE_BYTES, 0);
    must_be_cached(0, 0);
    stamp(block, GRANULE_BYTES, tag);
    return block;
}

/* Where the kernel could not move the two as one, the cache keeps the other, and the block moves. */
static void a_tail_of_too_many_parts(void)
{
    char *sources[8];
    for (unsigned i = 0; i < 8; i++) {
        sources[i] = take(704 * KIB, 0);
        memset(sources[i], 's', 704 * KIB);
    }
    char *high = put_together(sources, UINT64_C(28) << 32);
    char *low = put_together(sources + 4, UINT64_C(29) << 32);
    must(low + GRANULE_BYTES == high);
    must(raw_free(high));
    char *grown = raw_realloc(low, 5 * MIB);
    must(grown != NULL && has_stamps(grown, GRANULE_BYTES, UINT64_C(29) << 32));
    must((grown == low) == map_moves_several());
    /* Either the pages that were there, or those of the other's end. */
    size_t from = grown == low ? 0 : 3 * MIB;
    must(has_stamps(grown + GRANULE_BYTES, MIB, (UINT64_C(28) << 32) + from));
    must(raw_free(grown));
}

/* Without memory for more, what has been joined stays with the block. */
static void joined_in_vain(void)
{
    char *block = take(8 * MIB, 0);
    size_t count = map_count();
    stamp(block, 8 * MIB, 27);
    must(raw_realloc(block, 3 * MIB) == block);
    limit_address_space(MIB);
    must(raw_realloc(block, 64 * MIB) == NULL);
    lift_limit();
    must(raw_bytes(block) == 8 * MIB && raw_totals().live_bytes == 8 * MIB && map_count() == count);
    must_be_cached(0, 0);
    must(has_stamps(block, 8 * MIB, 27));
    must(raw_free(block));
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
    char *blocks[3] = {take(8 * MIB, 0), take(9 * MIB, 0), take(37 * MIB, 0)};
    must(raw_free(blocks[0]));
    must(raw_totals().cached_bytes == 8 * MIB);
    must(raw_free(blocks[2])); /* more than four times the 9 MiB that are still in use */
    must(raw_totals().cached_bytes == 8 * MIB && page_is_mapped(blocks[0]) && !page_is_mapped(blocks[2]));
    must(raw_free(blocks[1]));
    must(raw_totals().cached_bytes == 9 * MIB && raw_totals().cached_blocks == 1);
    must(!page_is_mapped(blocks[0]) && page_is_mapped(blocks[1]));
    raw_drop_cache();
    /* Four times what is in use, and no more than four times the setting. */
    char *small[2] = {take(9 * MIB, 0), take(36 * MIB, 0)};
    must(raw_free(small[1]));
    must(raw_totals().cached_bytes == 36 * MIB);
    char *more[2] = {take(36 * MIB, 36 * MIB), take(41 * MIB, 0)};
    must(raw_free(more[1]));
    must(raw_totals().cached_bytes == 0);
    must(raw_free(more[0]) && raw_free(small[0]));
    raw_drop_cache();
    /* What is kept is bounded by what is still in use also when the block itself is too large to be kept. */
    char *last[2] = {take(30 * MIB, 0), take(36 * MIB, 0)};
    must(raw_free(last[1]));
    must(raw_totals().cached_bytes == 36 * MIB);
    must(raw_free(last[0]));
    must(raw_totals().cached_bytes == 0 && !page_is_mapped(last[0]) && !page_is_mapped(last[1]));
    /* Above the setting it makes way for other memory, as much as that is. */
    char *way[5] = {take(20 * MIB, 0), take(8 * MIB, 0), take(8 * MIB, 0), take(8 * MIB, 0),
                    take(8 * MIB, 0)};
    for (unsigned i = 1; i < 5; i++)
        must(raw_free(way[i]));
    must(raw_totals().cached_bytes == 32 * MIB);
    raw_make_way(4 * MIB);
    must(raw_totals().cached_bytes == 24 * MIB && !page_is_mapped(way[1]) && page_is_mapped(way[2]));
    raw_make_way(100 * MIB);
    must(raw_totals().cached_bytes == 8 * MIB && page_is_mapped(way[4]));
    raw_make_way(100 * MIB);
    must(raw_totals().cached_bytes == 8 * MIB);
    must(raw_free(way[0]));
    raw_drop_cache();
    raw_make_way(1);
    /* A quarter of what is live, if that is more; but nothing where nothing is wanted. */
    char *large = take(200 * MIB, 0);
    char *others[2] = {take(2 * MIB, 0), take(45 * MIB, 0)};
    must(raw_free(others[1]));
    must(raw_totals().cached_bytes == 45 * MIB);
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

/* Where the kernel must be known, there are no more mappings than are counted. */
static void check_mappings(size_t others)
{
    must(map_moves_several() || UNIT_SANITIZED || mappings() <= others + map_count());
}

/* Growing, shrinking, freeing in any order, with huge pages asked for, forbidden and left alone. */
static void any_order(void)
{
    struct random random = {11};
    char *held[5] = {NULL};
    size_t bytes[5];
    size_t others = mappings() - map_count();
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
        if (step % 16 == 0)
            check_mappings(others);
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
        must(raw_bytes(held[i]) < wanted + wanted / 8 + 64 * KIB + page);
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

/* What somebody else has freed in between is not taken whole for a small block. */
static void take_small_and_large(void *context, unsigned index)
{
    size_t dirty;
    (void)context;
    (void)index;
    for (unsigned step = 0; step < TURNS(4000); step++) {
        char *small = raw_malloc(600 * KIB, 0, &dirty);
        must(small != NULL && raw_bytes(small) < 664 * KIB + page);
        char *large = raw_malloc(8 * MIB, 0, &dirty);
        must(large != NULL && raw_free(large) && raw_free(small));
    }
}

static void small_blocks_are_small(void **state)
{
    (void)state;
    page = map_page_bytes();
    size_t cache_bytes = settings.raw_cache_bytes;
    settings.raw_cache_bytes = 9 * MIB; /* so that often nothing is cached */
    threads_run(4, take_small_and_large, NULL);
    settings.raw_cache_bytes = cache_bytes;
    raw_drop_cache();
}

static void what_is_wrong_is_seen(void)
{
    char *block = take(MIB, 0);
    char *other = take(MIB, 0);
    must(raw_is_valid());
    uintptr_t entry = address_index_get(block);
    must(address_index_set(block, address_index_get(other))); /* two entries of one record */
    must(!raw_is_valid());
    must(address_index_set(block, ADDRESS_NOTHING)); /* a block that nobody finds */
    must(!raw_is_valid());
    must(address_index_set(block, entry));
    must(raw_is_valid());
    must(raw_free(block) && raw_is_valid() && raw_free(other) && raw_is_valid());
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
IN_CHILD(freed_beside_its_tail_a_block_is_whole)
IN_CHILD(a_block_takes_its_tail_back)
IN_CHILD(pages_never_touched_are_not_moved)
IN_CHILD(a_tail_may_begin_a_granule)
IN_CHILD(pages_are_moved_from_where_no_block_begins)
IN_CHILD(advice_makes_a_border)
IN_CHILD(a_tail_of_too_many_parts)
IN_CHILD(joined_in_vain)
IN_CHILD(what_is_no_block_is_not_resized)
IN_CHILD(without_memory)
IN_CHILD(with_little_memory)
IN_CHILD(the_cache_goes_in_need)
IN_CHILD(the_cache_is_bounded)
IN_CHILD(the_cache_ages)
IN_CHILD(what_is_wrong_is_seen)
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
        cmocka_unit_test(freed_beside_its_tail_a_block_is_whole_in_child),
        cmocka_unit_test(a_block_takes_its_tail_back_in_child),
        cmocka_unit_test(pages_never_touched_are_not_moved_in_child),
        cmocka_unit_test(a_tail_may_begin_a_granule_in_child),
        cmocka_unit_test(pages_are_moved_from_where_no_block_begins_in_child),
        cmocka_unit_test(advice_makes_a_border_in_child),
        cmocka_unit_test(a_tail_of_too_many_parts_in_child),
        cmocka_unit_test(joined_in_vain_in_child),
        cmocka_unit_test(what_is_no_block_is_not_resized_in_child),
        cmocka_unit_test(without_memory_in_child),
        cmocka_unit_test(with_little_memory_in_child),
        cmocka_unit_test(the_cache_goes_in_need_in_child),
        cmocka_unit_test(the_cache_is_bounded_in_child),
        cmocka_unit_test(the_cache_ages_in_child),
        cmocka_unit_test(what_is_wrong_is_seen_in_child),
        cmocka_unit_test(any_order_in_child),
        cmocka_unit_test(of_many_frees_one_wins),
        cmocka_unit_test(small_blocks_are_small),
        cmocka_unit_test(threads_do_not_disturb_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
