/*
 * heap/run: lengths, the promise of zeroes, runs that are kept, resizing where they stand, and threads that
 * free what others allocated.
 */
#include "heap/run.h"

#include "arena/arena_list.h"
#include "base/bits.h"
#include "heap/park.h"
#include "heap/slot_cache.h"
#include "unit.h"

#include <string.h>

static struct heap *heap;

static int take_heap(void **state)
{
    (void)state;
    heap = park_take();
    return heap != NULL ? 0 : -1;
}

static int leave_heap(void **state)
{
    (void)state;
    run_flush(heap);
    bool clean = heap->run_slots == 0;
    slot_cache_flush(heap);
    clean &= heap_is_valid(heap) && heap->span_slots == 0;
    park_leave(heap);
    return clean ? 0 : -1;
}

static uint64_t word_at(const void *pointer)
{
    return atomic_load(&arena_of(pointer)->slot_map[arena_slot_of(pointer)]);
}

static char *take(size_t bytes)
{
    char *run = run_malloc(heap, bytes);
    must(run != NULL && (uintptr_t)run % SLOT_BYTES == 0);
    must(run_bytes(run) == bits_align_up(bytes, SLOT_BYTES));
    return run;
}

/* ---- tests ---- */

static void runs_of_every_length(void **state)
{
    (void)state;
    for (uint32_t slots = 1; slots <= SPAN_SLOTS_MOST; slots++) {
        for (size_t bytes = (slots - 1) * SLOT_BYTES + 1; bytes <= slots * SLOT_BYTES;
             bytes += SLOT_BYTES - 1) {
            char *run = take(bytes);
            assert_int_equal(run_bytes(run), slots * SLOT_BYTES);
            assert_int_equal(word_at(run), run_word(arena_slot_of(run), slots));
            for (uint32_t slot = 1; slot < slots; slot++) {
                assert_int_equal(word_at(run + slot * SLOT_BYTES), 0);
                assert_int_equal(run_bytes(run + slot * SLOT_BYTES), 0);
            }
            assert_int_equal(run_bytes(run + 16), 0);
            memset(run, 'r', slots * SLOT_BYTES);
            assert_true(run_free(heap, run));
            assert_int_equal(run_bytes(run), 0);
            assert_false(run_free(heap, run));
        }
    }
}

static void what_is_no_run_is_not_freed(void **state)
{
    (void)state;
    char *run = take(100000);
    assert_false(run_free(heap, run + SLOT_BYTES));
    assert_false(run_free(heap, run + 16));
    struct block *block = heap_take_block(heap, class_of_size(100));
    assert_int_equal(run_bytes(arena_slot_address(arena_of(block), arena_slot_of(block))), 0);
    assert_false(run_free(heap, arena_slot_address(arena_of(block), arena_slot_of(block))));
    heap_free_own(pool_of_word(block, word_at(block)), block);
    heap_close_empty_pools(heap);
    assert_true(run_free(heap, run));
}

/* The one of the same length that was freed last comes back first: it is warm. */
static void freed_runs_are_kept_for_their_length(void **state)
{
    (void)state;
    char *a = take(40000);
    char *b = take(40000);
    char *c = take(70000);
    assert_true(run_free(heap, a) && run_free(heap, b) && run_free(heap, c));
    assert_int_equal(heap->run_slots, 3 + 3 + 5);
    assert_ptr_equal(run_malloc(heap, 40000), b);
    assert_ptr_equal(take(40000), a);
    assert_ptr_equal(take(70000), c);
    assert_int_equal(heap->run_slots, 0);
    assert_true(run_free(heap, a) && run_free(heap, b) && run_free(heap, c));
}

static void kept_runs_are_bounded(void **state)
{
    (void)state;
    char *runs[40];
    for (unsigned i = 0; i < 40; i++)
        runs[i] = take(SLOT_BYTES * (1 + i % 5));
    for (unsigned i = 0; i < 40; i++) {
        assert_true(run_free(heap, runs[i]));
        assert_true(heap->run_slots <= SPAN_SLOTS_MOST);
        uint32_t slots = 0;
        for (unsigned k = 0; k < RUNS_KEPT; k++)
            slots += heap->runs[k].run != NULL ? heap->runs[k].slots : 0;
        assert_int_equal(heap->run_slots, slots);
    }
    /* So many short ones that the places run out first. */
    for (unsigned i = 0; i < 40; i++)
        runs[i] = take(SLOT_BYTES);
    slot_cache_flush(heap);
    struct ledger before = arena_list_ledger();
    for (unsigned i = 0; i < 40; i++) {
        assert_true(run_free(heap, runs[i]));
        assert_true(heap->run_slots <= RUNS_KEPT);
    }
    run_flush(heap);
    slot_cache_flush(heap);
    assert_int_equal(arena_list_ledger().held_slots, before.held_slots - 40);
    char *longest = take(RUN_BYTES_MOST);
    assert_true(run_free(heap, longest));
    assert_int_equal(heap->run_slots, SPAN_SLOTS_MOST);
    assert_ptr_equal(take(RUN_BYTES_MOST), longest);
    assert_true(run_free(heap, longest));
    run_flush(heap);
    assert_int_equal(heap->run_slots, 0);
    assert_true(slot_cache_is_valid(heap));
}

/* ---- resizing ---- */

static void shorter_where_it_stands(void **state)
{
    (void)state;
    char *run = take(20 * SLOT_BYTES);
    pattern_write(run, 20 * SLOT_BYTES, 1);
    struct ledger before = arena_list_ledger();
    assert_true(run_resize(heap, run, 20 * SLOT_BYTES - 5));
    assert_int_equal(run_bytes(run), 20 * SLOT_BYTES);
    assert_true(run_resize(heap, run, 3 * SLOT_BYTES + 1));
    assert_int_equal(run_bytes(run), 4 * SLOT_BYTES);
    assert_true(pattern_holds(run, 4 * SLOT_BYTES, 1));
    slot_cache_flush(heap);
    assert_int_equal(arena_list_ledger().held_slots, before.held_slots - 16);
    assert_true(run_free(heap, run));
}

static void longer_where_slots_behind_are_free(void **state)
{
    (void)state;
    char *run = take(16 * SLOT_BYTES);
    pattern_write(run, 16 * SLOT_BYTES, 2);
    assert_true(run_resize(heap, run, 4 * SLOT_BYTES));
    slot_cache_flush(heap); /* the rest is free now, and dirty */
    assert_true(run_resize(heap, run, 9 * SLOT_BYTES));
    assert_int_equal(run_bytes(run), 9 * SLOT_BYTES);
    assert_true(pattern_holds(run, 4 * SLOT_BYTES, 2));
    memset(run, 'w', 9 * SLOT_BYTES);
    struct span span; /* what follows is still free */
    uint32_t next = arena_slot_of(run) + 9;
    assert_true(arena_list_extend(arena_of(run), next / WORD_SLOTS, UINT64_C(1) << next % WORD_SLOTS, &span));
    assert_false(run_resize(heap, run, 10 * SLOT_BYTES)); /* and now taken */
    assert_int_equal(run_bytes(run), 9 * SLOT_BYTES);
    arena_list_release(heap->reader, &span);
    assert_true(run_resize(heap, run, 10 * SLOT_BYTES));
    assert_true(run_free(heap, run));
    run_flush(heap);
    slot_cache_flush(heap);
    /* All ten slots came back: they can be claimed again, dirty. */
    assert_true(arena_list_extend(arena_of(run), next / WORD_SLOTS,
                                  bits_ones(10) << arena_slot_of(run) % WORD_SLOTS, &span));
    assert_int_equal(span.dirty, span.mask);
    arena_list_release(heap->reader, &span);
}

static void not_beyond_a_word_or_the_longest(void **state)
{
    (void)state;
    char *run = take(SPAN_SLOTS_MOST * SLOT_BYTES);
    assert_false(run_resize(heap, run, RUN_BYTES_MOST + 1));
    assert_false(run_resize(heap, run, 0));
    assert_false(run_resize(heap, run + SLOT_BYTES, SLOT_BYTES));
    assert_int_equal(run_bytes(run), RUN_BYTES_MOST);
    assert_true(run_free(heap, run));
    /* The last slot of a word, and the first of the next free: contiguous, and yet not one claim. */
    struct span span;
    assert_true(arena_list_claim_new(32, 32, &span));
    struct arena *arena = span.arena;
    arena_list_release(heap->reader, &span);
    assert_true(arena_list_extend(arena, 1, UINT64_C(1) << 63, &span));
    char *last = arena_slot_address(arena, 127);
    atomic_store(&arena->slot_map[127], run_word(127, 1));
    assert_false(run_resize(heap, last, 2 * SLOT_BYTES));
    assert_int_equal(run_bytes(last), SLOT_BYTES);
    assert_int_equal(arena->free[2], UINT64_MAX);
    assert_true(run_free(heap, last));
}

static void without_memory_body(void *context)
{
    unsigned count = 0;
    (void)context;
    limit_address_space(0);
    while (run_malloc(heap, RUN_BYTES_MOST) != NULL)
        count++;
    must(count < 1000 && run_malloc(heap, RUN_BYTES_MOST) == NULL);
    must(heap_is_valid(heap));
}

static void without_memory(void **state)
{
    (void)state;
    child_must_succeed(without_memory_body, NULL);
}

/* ---- threads ---- */

#define THREADS 4U
#define PLACES  64U

static _Atomic(char *) places[PLACES];

/* Each puts runs of its own in places where others find, check and free them. */
static void pass_on(void *context, unsigned index)
{
    struct random random = {index};
    struct heap *own = park_take();
    (void)context;
    for (unsigned i = 0; i < 20000; i++) {
        size_t bytes = 1 + random_below(&random, 10 * SLOT_BYTES);
        char *run = run_malloc(own, bytes);
        must(run != NULL);
        *(size_t *)(void *)run = bytes;
        run[bytes - 1] = 'e';
        char *found = atomic_exchange(&places[random_below(&random, PLACES)], bytes >= 9 ? run : NULL);
        if (bytes < 9)
            must(run_free(own, run));
        if (found == NULL)
            continue;
        size_t found_bytes = *(size_t *)(void *)found;
        must(found[found_bytes - 1] == 'e');
        must(run_bytes(found) == bits_align_up(found_bytes, SLOT_BYTES));
        must(run_free(own, found));
    }
    park_leave(own);
}

static void any_thread_frees(void **state)
{
    (void)state;
    threads_run(THREADS, pass_on, NULL);
    for (unsigned i = 0; i < PLACES; i++)
        assert_true(places[i] == NULL || run_free(heap, places[i]));
    assert_true(arena_list_is_valid());
}

static void what_is_wrong_with_kept_runs_is_seen(void **state)
{
    (void)state;
    char *run = take(40000);
    assert_true(run_free(heap, run) && run_is_valid(heap));
    heap->run_slots++;
    assert_false(run_is_valid(heap));
    heap->run_slots--;
    _Atomic uint64_t *word = run_word_of(run);
    atomic_store(word, run_word(arena_slot_of(run), 3));
    assert_false(run_is_valid(heap));
    atomic_store(word, 0);
    struct arena *arena = arena_of(run);
    uint32_t slot = arena_slot_of(run);
    atomic_fetch_or(&arena->free[slot / WORD_SLOTS], UINT64_C(1) << slot % WORD_SLOTS);
    assert_false(run_is_valid(heap));
    atomic_fetch_and(&arena->free[slot / WORD_SLOTS], ~(UINT64_C(1) << slot % WORD_SLOTS));
    assert_true(run_is_valid(heap));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, take_heap, leave_heap)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(runs_of_every_length),
        TEST(what_is_no_run_is_not_freed),
        TEST(freed_runs_are_kept_for_their_length),
        TEST(kept_runs_are_bounded),
        TEST(shorter_where_it_stands),
        TEST(longer_where_slots_behind_are_free),
        TEST(not_beyond_a_word_or_the_longest),
        TEST(without_memory),
        TEST(what_is_wrong_with_kept_runs_is_seen),
        TEST(any_thread_frees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
