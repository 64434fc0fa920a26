/*
 * heap/slot_cache: slots kept and served again, within bounds, aged and given back; and where slots come from
 * when no arena has any. Each test takes all free slots of the process first and makes one arena, so that it
 * knows where claims are served from.
 */
#include "heap/slot_cache.h"

#include "arena/arena_list.h"
#include "arena/housekeeper.h"
#include "base/bits.h"
#include "heap/park.h"
#include "heap/run.h"
#include "os/map.h"
#include "unit.h"

static struct heap *heap;
static struct arena *arena; /* all slots of words 1 to 3 are free and clean; those of word 0 are held */

static struct span others[4096];
static unsigned other_count;

static void hold(const struct span *span)
{
    must(other_count < sizeof others / sizeof others[0]);
    others[other_count++] = *span;
}

static int begin(void **state)
{
    (void)state;
    if ((heap = park_take()) == NULL)
        return -1;
    park_settle_all(heap);
    heap_close_empty_pools(heap);
    slot_cache_flush(heap);
    housekeeper_trim(0);
    heap->claim_batch = 1;
    heap->span_slots_most = 0;
    heap->budget_bytes = INT64_MAX;
    struct span span;
    while (arena_list_claim(heap->reader, 1, WORD_SLOTS, &span))
        hold(&span);
    if (!arena_list_claim_new(32, 32, &span))
        return -1;
    hold(&span);
    arena = span.arena;
    while (span.word == 0 && arena_list_claim(heap->reader, 1, WORD_SLOTS, &span) && span.word == 0)
        hold(&span);
    arena_list_release(heap->reader, &span); /* word 1 */
    return arena_free_slots(arena) == 3 * WORD_SLOTS ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    slot_cache_flush(heap);
    bool clean =
        heap->span_slots == 0 && slot_cache_is_valid(heap) && arena_free_slots(arena) == 3 * WORD_SLOTS;
    while (other_count > 0)
        arena_list_release(heap->reader, &others[--other_count]);
    heap->pool_slots = 0;
    heap->budget_bytes = 0;
    park_leave(heap);
    return clean ? 0 : -1;
}

static struct span take(uint32_t slots)
{
    struct span span;
    assert_true(slot_cache_take(heap, slots, CLASS_COUNT, &span));
    assert_int_equal(span.mask, bits_ones(slots) << bits_lowest(span.mask));
    assert_int_equal(span.dirty & ~span.mask, 0);
    assert_int_equal(span.arena->free[span.word] & span.mask, 0);
    assert_true(slot_cache_is_valid(heap));
    return span;
}

/* Exactly these slots, claimed past the cache, as if from a pool that was closed. */
static struct span claim(uint32_t word, uint64_t mask)
{
    struct span span;
    assert_true(arena_list_extend(arena, word, mask, &span));
    return span;
}

static void put(struct span span, bool dirty)
{
    span.dirty = dirty ? span.mask : 0;
    slot_cache_put(heap, &span);
    assert_true(slot_cache_is_valid(heap));
}

static unsigned groups(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < SPANS_KEPT; i++)
        count += heap->spans[i].mask != 0;
    return count;
}

static uint32_t held(void)
{
    return arena_list_ledger().held_slots;
}

/* ---- taking ---- */

static void single_slots_are_claimed_in_growing_batches(void **state)
{
    (void)state;
    static const uint32_t kept_after[] = {0, 1, 0, 3, 2, 1, 0, 7, 6, 5, 4, 3, 2, 1, 0, 7};
    uint32_t before = held();
    struct span spans[16];
    uint32_t claimed = 0;
    for (unsigned i = 0; i < 16; i++) {
        uint32_t kept = heap->span_slots;
        spans[i] = take(1);
        assert_int_equal(heap->span_slots, kept_after[i]);
        claimed += kept > 0 ? 0 : kept_after[i] + 1;
        assert_int_equal(held() - before, claimed);
        for (unsigned k = 0; k < i; k++)
            assert_true(spans[k].word != spans[i].word || (spans[k].mask & spans[i].mask) == 0);
    }
    for (unsigned i = 0; i < 16; i++)
        put(spans[i], false);
}

static void rows_are_claimed_one_at_a_time(void **state)
{
    (void)state;
    uint32_t before = held();
    struct span eight = take(8);
    struct span sixteen = take(16);
    assert_int_equal(heap->span_slots, 0);
    assert_int_equal(held() - before, 24);
    put(eight, true);
    assert_int_equal(heap->span_slots, 8);
    assert_int_equal(take(4).mask, eight.mask & eight.mask >> 4); /* the lower half */
    assert_int_equal(held() - before, 24);
    struct span rest = take(4);
    assert_int_equal(heap->span_slots, 0);
    put(rest, true);
    eight.mask &= ~rest.mask;
    arena_list_release(heap->reader, &(struct span){.arena = arena, .mask = eight.mask, .word = eight.word});
    arena_list_release(heap->reader, &sixteen);
}

static void dirty_slots_are_used_first(void **state)
{
    (void)state;
    put(claim(1, 0x0f), false);
    put(claim(2, 0xf0), true);
    put(claim(1, 0xf0), true);
    struct span span = take(2);
    assert_true(span.dirty == span.mask);
    put(span, true);
    for (unsigned i = 0; i < 4; i++) {
        span = take(2);
        assert_int_equal(span.dirty, span.mask);
        arena_list_release(heap->reader, &span);
    }
    span = take(2);
    assert_int_equal(span.dirty, 0);
    put(span, false);
}

/* ---- keeping ---- */

static void groups_of_one_word_are_one(void **state)
{
    (void)state;
    put(claim(1, 0x3), true);
    put(claim(1, 0x30), false);
    put(claim(2, 0x3), false);
    put(claim(1, 0xc), false);
    assert_int_equal(groups(), 2);
    assert_int_equal(heap->span_slots, 8);
    struct span six = take(6); /* 0x3f of word 1, put in three times */
    assert_int_equal(six.word, 1);
    assert_int_equal(six.mask, 0x3f);
    assert_int_equal(six.dirty, 0x3);
    put(six, false);
}

static void what_is_kept_is_bounded(void **state)
{
    (void)state;
    assert_int_equal(heap_may_keep_slots(heap), KEPT_SLOTS_LEAST);
    for (unsigned i = 0; i < 16; i++) {
        put(claim(1 + i % 3, UINT64_C(0xf) << 4 * (i / 3)), true);
        assert_true(heap->span_slots <= KEPT_SLOTS_LEAST);
    }
    assert_true(heap->span_slots >= KEPT_SLOTS_LEAST / 2);
    heap->pool_slots = 100;
    for (unsigned i = 0; i < 16; i++)
        if ((arena->free[3] >> 4 * i & 0xf) == 0xf)
            put(claim(3, UINT64_C(0xf) << 4 * i), true);
    assert_int_equal(heap_may_keep_slots(heap), 50);
    assert_true(heap->span_slots > KEPT_SLOTS_LEAST && heap->span_slots <= 50);
    heap->pool_slots = 1000;
    assert_int_equal(heap_may_keep_slots(heap), KEPT_SLOTS_MOST);
}

static void large_groups_are_not_kept(void **state)
{
    (void)state;
    put(claim(1, 0xff), false);
    uint32_t before = held();
    put(claim(2, 0x1ff), true); /* more than half of what may be kept */
    assert_int_equal(held(), before);
    assert_int_equal(heap->span_slots, 8);
    assert_int_equal(arena->dirty[2], 0x1ff);
}

static void the_smallest_group_makes_way(void **state)
{
    (void)state;
    struct arena *more[3] = {arena, NULL, NULL};
    struct span span;
    for (unsigned i = 1; i < 3; i++) {
        assert_true(arena_list_claim_new(1, 1, &span));
        hold(&span);
        more[i] = span.arena;
    }
    heap->pool_slots = 128;
    for (unsigned i = 0; i < SPANS_KEPT; i++) {
        uint64_t mask = i == 5 ? 0x100 : 0x300;
        assert_true(arena_list_extend(more[i / 3], 1 + i % 3, mask, &span));
        put(span, true);
    }
    assert_int_equal(groups(), SPANS_KEPT);
    assert_true(arena_list_extend(more[2], 3, 0xf00, &span));
    put(span, true);
    assert_int_equal(groups(), SPANS_KEPT);
    assert_int_equal(heap->span_slots, 7 * 2 + 4);
    assert_int_equal(more[1]->free[3] & 0x100, 0x100); /* the one of a single slot */
    slot_cache_flush(heap);
    assert_int_equal(heap->span_slots, 0);
    assert_int_equal(groups(), 0);
}

static void what_was_not_needed_ages(void **state)
{
    (void)state;
    put(claim(1, 0x0f), true);
    put(claim(2, 0x0f), true);
    slot_cache_age(heap); /* begins to watch */
    assert_int_equal(heap->span_slots, 8);
    struct span span = take(3);
    put(span, true);
    slot_cache_age(heap); /* five of them were never needed: the first group of four goes */
    assert_int_equal(heap->span_slots, 4);
    slot_cache_age(heap);
    assert_int_equal(heap->span_slots, 0);
    heap->claim_batch = 8;
    slot_cache_age(heap);
    assert_int_equal(heap->claim_batch, 1);
}

/* ---- where no arena has any ---- */

static void take_all_there_is(void)
{
    struct span span;
    while (arena_list_claim(heap->reader, 1, WORD_SLOTS, &span))
        hold(&span);
}

static int end_with_all_held(void **state)
{
    struct span span = {.arena = arena, .mask = UINT64_MAX};
    (void)state;
    slot_cache_flush(heap);
    while (other_count > 0 && others[other_count - 1].arena == arena && others[other_count - 1].word > 0)
        arena_list_release(heap->reader, &others[--other_count]);
    for (span.word = 1; span.word < ARENA_WORDS; span.word++)
        must(arena->free[span.word] == UINT64_MAX);
    return end(state);
}

static void a_pool_of_a_parked_heap_will_do(void **state)
{
    (void)state;
    uint32_t class = class_of_size(4000);
    struct heap *other = park_take();
    struct block *block = heap_take_block(other, class);
    park_leave(other);
    take_all_there_is();
    struct span span;
    uint32_t before = held();
    assert_false(slot_cache_take(heap, class_pool_slots(class), class, &span));
    assert_non_null(heap->bins[class].first);
    assert_true(held() <= before); /* no new arena */
    struct block *own = heap_take_block(heap, class);
    assert_ptr_equal(arena_of(own), arena_of(block));
    assert_int_equal(arena_slot_of(own) / 16, arena_slot_of(block) / 16);
    struct pool *pool = heap->bins[class].own;
    heap_free_own(pool, own);
    heap_free_own(pool, block);
    heap_close_empty_pools(heap);
}

/* The same, as malloc meets it. */
static void a_block_of_a_parked_heap_will_do(void **state)
{
    (void)state;
    uint32_t class = class_of_size(4000);
    struct heap *other = park_take();
    struct block *block = heap_take_block(other, class);
    park_leave(other);
    take_all_there_is();
    uint32_t before = held();
    struct block *own = heap_take_block(heap, class);
    assert_non_null(own);
    assert_true(held() <= before);
    struct pool *pool = heap->bins[class].own;
    assert_int_equal(pool_used(pool), 2);
    heap_free_own(pool, own);
    heap_free_own(pool, block);
    heap_close_empty_pools(heap);
}

/* Slots that this heap keeps in empty pools are taken before anything is claimed. */
static void own_empty_pools_are_taken_apart(void **state)
{
    (void)state;
    uint32_t class = class_of_size(1500);
    static struct block *blocks[2000];
    unsigned count = 0;
    while (heap->pool_slots < 12)
        blocks[count++] = heap_take_block(heap, class);
    while (count > 0) {
        struct block *block = blocks[--count];
        uint64_t word = arena_of(block)->slot_map[arena_slot_of(block)];
        heap_free_own(pool_of_word(block, word), block);
    }
    assert_true(heap->empty_slots >= 4);
    slot_cache_flush(heap);
    uint32_t before = held();
    struct span span = take(4);
    assert_true(held() <= before);
    assert_int_equal(heap->empty_slots, 0);
    assert_int_equal(span.dirty, span.mask);
    put(span, true);
    heap_close_empty_pools(heap);
}

/* So are freed runs that it keeps. */
static void own_kept_runs_are_taken_apart(void **state)
{
    (void)state;
    void *run = run_malloc(heap, 8 * SLOT_BYTES);
    assert_non_null(run);
    assert_true(run_free(heap, run));
    assert_int_equal(heap->run_slots, 8);
    uint32_t before = held();
    struct span span = take(4);
    assert_ptr_equal(arena_slot_address(span.arena, span_first_slot(&span)), run);
    assert_true(held() <= before);
    assert_int_equal(heap->run_slots, 0);
    put(span, true);
}

static void retired_arenas_come_back_first(void **state)
{
    (void)state;
    static struct reader section;
    reader_publish(&section);
    struct span spans[2];
    for (unsigned i = 0; i < 2; i++)
        assert_true(arena_list_claim_new(1, 1, &spans[i]));
    for (unsigned i = 0; i < 2; i++)
        arena_list_release(heap->reader, &spans[i]);
    reader_enter(&section);
    assert_false(housekeeper_reclaim()); /* both retired, neither unmapped */
    uint64_t revived = housekeeper_totals().revived_arenas;
    take_all_there_is();
    size_t mappings_before = map_count();
    struct span span = take(32);
    assert_true(span.arena == spans[0].arena || span.arena == spans[1].arena);
    assert_int_equal(housekeeper_totals().revived_arenas, revived + 1);
    assert_int_equal(map_count(), mappings_before);
    reader_leave(&section);
    arena_list_release(heap->reader, &span);
}

static char *reserve;
static unsigned asked;

static bool give_reserve(void)
{
    asked++;
    if (reserve == NULL)
        return false;
    map_unmap(reserve, 16 * MIB);
    reserve = NULL;
    return true;
}

static unsigned ways_made;

static void make_way(size_t bytes)
{
    must(bytes == ARENA_BYTES);
    ways_made++;
}

static void take_in_need(void *context)
{
    struct span span;
    (void)context;
    take_all_there_is();
    reserve = map_pages(16 * MIB);
    must(reserve != NULL);
    slot_cache_last_resort = give_reserve;
    slot_cache_make_way = make_way;
    limit_address_space(0);
    must(slot_cache_take(heap, 32, CLASS_COUNT, &span));
    must(reserve == NULL && asked == 1);
    must(ways_made >= 1); /* an arena was to be mapped */
    take_all_there_is();
    while (slot_cache_take(heap, 32, CLASS_COUNT, &span))
        continue;
    must(asked >= 2);
    must(slot_cache_is_valid(heap));
}

static void in_need_other_layers_are_asked(void **state)
{
    (void)state;
    child_must_succeed(take_in_need, NULL);
}

#define PARKED 21U

/* One of many parked heaps has slots to spare, further away than a harvest looks. */
static void take_from_far_away(void *context)
{
    struct heap *parked[PARKED];
    struct heap *rich = NULL;
    for (unsigned i = 0; i < PARKED; i++)
        must((parked[i] = park_take()) != NULL);
    rich = parked[*(const unsigned *)context];
    void *run = run_malloc(rich, 8 * SLOT_BYTES);
    must(run != NULL);
    slot_cache_flush(rich);
    take_all_there_is();
    must(run_free(rich, run));
    for (unsigned i = 0; i < PARKED; i++)
        park_leave(parked[i]);
    limit_address_space(0);
    struct span span;
    must(slot_cache_take(heap, 8, CLASS_COUNT, &span));
}

static void in_need_all_parked_heaps_are_asked(void **state)
{
    (void)state;
    for (unsigned i = 0; i < PARKED; i += PARKED / 2)
        child_must_succeed(take_from_far_away, &i);
}

/* ---- any order ---- */

static void any_order(void **state)
{
    (void)state;
    struct random random = {4};
    struct span mine[12] = {{.arena = NULL}};
    for (unsigned step = 0; step < 20000; step++) {
        struct span *one = &mine[random_below(&random, 12)];
        heap->pool_slots = (uint32_t)(step / 1000 % 5 * 50);
        if (one->mask != 0) {
            put(*one, random_below(&random, 2) == 0);
            one->mask = 0;
        } else {
            *one = take(1U << random_below(&random, 5));
        }
        if (step % 97 == 0)
            slot_cache_age(heap);
        for (unsigned i = 0; i < SPANS_KEPT; i++)
            for (unsigned k = 0; k < 12; k++)
                assert_true(heap->spans[i].arena != mine[k].arena || heap->spans[i].word != mine[k].word ||
                            (heap->spans[i].mask & mine[k].mask) == 0);
    }
    for (unsigned k = 0; k < 12; k++)
        if (mine[k].mask != 0)
            put(mine[k], false);
    slot_cache_flush(heap);
    assert_true(arena_list_is_valid());
}

#define TEST(name)     cmocka_unit_test_setup_teardown(name, begin, end)
#define TEST_ALL(name) cmocka_unit_test_setup_teardown(name, begin, end_with_all_held)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(single_slots_are_claimed_in_growing_batches),
        TEST(rows_are_claimed_one_at_a_time),
        TEST(dirty_slots_are_used_first),
        TEST(groups_of_one_word_are_one),
        TEST(what_is_kept_is_bounded),
        TEST(large_groups_are_not_kept),
        TEST(the_smallest_group_makes_way),
        TEST(what_was_not_needed_ages),
        TEST_ALL(a_pool_of_a_parked_heap_will_do),
        TEST_ALL(a_block_of_a_parked_heap_will_do),
        TEST(own_empty_pools_are_taken_apart),
        TEST(own_kept_runs_are_taken_apart),
        TEST_ALL(retired_arenas_come_back_first),
        TEST(in_need_other_layers_are_asked),
        TEST(in_need_all_parked_heaps_are_asked),
        TEST(any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
