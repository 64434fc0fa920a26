/*
 * heap/heap: where the next block comes from, what becomes of full, partly used and empty pools, pools that
 * change hands, misuse, and any order of all of it against the equations of the room. The heaps are taken for
 * the tests; no thread runs on them.
 */
#include "heap/heap.h"

#include "arena/arena_list.h"
#include "arena/housekeeper.h"
#include "heap/park.h"
#include "heap/slot_cache.h"
#include "os/map.h"
#include "unit.h"

#include <stdio.h>
#include <string.h>

static struct heap *heap;

static int take_heap(void **state)
{
    (void)state;
    heap = park_take();
    if (heap == NULL)
        return -1;
    heap_close_empty_pools(heap);
    slot_cache_flush(heap);
    housekeeper_trim(0);            /* slots are clean, so that pools are carved by the page */
    heap->budget_bytes = INT64_MAX; /* no heartbeat of its own accord */
    return heap_is_valid(heap) ? 0 : -1;
}

static int leave_heap(void **state)
{
    (void)state;
    heap_close_empty_pools(heap);
    slot_cache_flush(heap);
    bool left_over = heap->pool_slots != 0 || heap->empty_slots != 0 || !heap_is_valid(heap);
    heap->budget_bytes = 0;
    park_leave(heap);
    return left_over ? -1 : 0;
}

static uint64_t word_of(const void *block)
{
    return atomic_load(&arena_of(block)->slot_map[arena_slot_of(block)]);
}

static struct pool *pool_of(const void *block)
{
    return pool_of_word(block, word_of(block));
}

static struct block *take(uint32_t class)
{
    struct block *block = heap_take_block(heap, class);
    must(block != NULL && (uintptr_t)block % BLOCK_ALIGNMENT == 0);
    must(block->canary == NULL);
    must(pool_class(pool_of(block)) == class && pool_word_heap(word_of(block)) == heap);
    return block;
}

static void give(struct block *block)
{
    heap_free_own(pool_of(block), block);
}

/* Slots in pools of the heap, from the slot maps; those of queued pools that hold nothing apart. */
static void check_slots(struct heap *of)
{
    uint32_t slots = 0;
    uint32_t empty = 0;
    for (uint32_t number = 0; number < arena_list_bound(); number++) {
        struct arena *arena = arena_list_get(number);
        for (uint32_t slot = ARENA_HEADER_SLOTS; arena != NULL && slot < ARENA_SLOTS; slot++) {
            uint64_t word = atomic_load(&arena->slot_map[slot]);
            if (word == 0 || word_is_run(word) || pool_word_heap(word) != of)
                continue;
            struct pool *pool = pool_of_word(arena_slot_address(arena, slot), word);
            slots++;
            empty += pool_state(pool) == POOL_QUEUED && pool_used(pool) == 0;
        }
    }
    assert_int_equal(of->pool_slots, slots);
    assert_int_equal(of->empty_slots, empty);
    assert_true(heap_is_valid(of));
}

/* Takes a pool's worth of blocks; returns their pool, which is full but for its state. */
static struct pool *fill_pool(uint32_t class, struct block **blocks)
{
    blocks[0] = take(class);
    struct pool *pool = pool_of(blocks[0]);
    for (uint32_t i = 1; i < pool->capacity; i++)
        blocks[i] = take(class);
    assert_ptr_equal(pool_of(blocks[pool->capacity - 1]), pool);
    return pool;
}

#define CLASS    (class_of_size(2048)) /* 32 blocks in 4 slots */
#define CAPACITY 32U

/* ---- one thing at a time ---- */

static void fresh_pools_serve_in_address_order(void **state)
{
    (void)state;
    for (uint32_t class = 0; class < CLASS_COUNT; class ++) {
        struct block *blocks[1024];
        struct pool *pool = fill_pool(class, blocks);
        for (uint32_t i = 0; i < pool->capacity; i++)
            assert_ptr_equal(blocks[i], pool_start(pool) + (size_t)i * class_bytes(class));
        assert_int_equal(pool_used(pool), pool->capacity);
        assert_true(heap_is_valid(heap));
        for (uint32_t i = 0; i < pool->capacity; i++)
            give(blocks[i]);
        assert_int_equal(pool_used(pool), 0);
        check_slots(heap);
    }
}

static void the_hot_path_finds_the_class(void **state)
{
    (void)state;
    for (size_t bytes = 0; bytes <= CLASS_BYTES_MOST; bytes += bytes < 1200 ? 1 : 97) {
        int64_t budget = heap->budget_bytes;
        struct block *block =
            bytes <= DIRECT_BYTES_MOST ? heap_malloc_small(heap, bytes) : heap_malloc_medium(heap, bytes);
        assert_non_null(block);
        assert_int_equal(pool_class(pool_of(block)), class_of_size(bytes == 0 ? 1 : bytes));
        assert_null(block->canary);
        give(block);
        struct block *again =
            bytes <= DIRECT_BYTES_MOST ? heap_malloc_small(heap, bytes) : heap_malloc_medium(heap, bytes);
        assert_ptr_equal(again, block); /* what was freed last is warm */
        give(again);
        /* Larger ones count as if they were smaller. */
        assert_true(budget - heap->budget_bytes >=
                    (int64_t)(bytes <= DIRECT_BYTES_MOST ? bytes : MEDIUM_BUDGET_BYTES));
        heap->budget_bytes = INT64_MAX;
    }
    assert_true(heap_is_valid(heap));
}

static void a_used_up_budget_leads_to_the_heartbeat(void **state)
{
    (void)state;
    give(heap_malloc_small(heap, 100)); /* so that the list is not empty */
    heap->budget_bytes = 150;
    give(heap_malloc_small(heap, 100));
    assert_int_equal(heap->budget_bytes, 50);
    heap->heartbeat_ms = 0;
    give(heap_malloc_small(heap, 100));
    assert_true(heap->heartbeat_ms > 0 && heap->budget_bytes > 0);
    heap->budget_bytes = INT64_MAX;
    give(heap_malloc_medium(heap, 2000));
    heap->budget_bytes = MEDIUM_BUDGET_BYTES + 100;
    heap->heartbeat_ms = 0;
    give(heap_malloc_medium(heap, 2000));
    assert_int_equal(heap->heartbeat_ms, 0);
    give(heap_malloc_medium(heap, 2000));
    assert_true(heap->heartbeat_ms > 0 && heap->budget_bytes > 0);
}

static void full_pools_are_found_by_their_first_free(void **state)
{
    (void)state;
    struct block *a[CAPACITY];
    struct block *b[CAPACITY];
    struct pool *first = fill_pool(CLASS, a);
    struct pool *second = fill_pool(CLASS, b);
    struct block *other = take(CLASS);
    struct pool *third = pool_of(other);
    assert_ptr_not_equal(third, first);
    assert_int_equal(pool_state(first), POOL_FULL);
    assert_int_equal(pool_used(first), CAPACITY);
    assert_null(heap->bins[CLASS].first);
    give(a[7]); /* no other waits: it serves next, and the one that served waits */
    assert_int_equal(pool_state(first), POOL_CURRENT);
    assert_ptr_equal(heap->bins[CLASS].current, first);
    assert_int_equal(pool_state(third), POOL_QUEUED);
    assert_int_equal(pool_used(third), 1);
    assert_int_equal(pool_used(first), CAPACITY - 1);
    give(b[7]); /* another waits: it waits behind that */
    assert_int_equal(pool_state(second), POOL_QUEUED);
    assert_ptr_equal(heap->bins[CLASS].first, third);
    assert_ptr_equal(heap->bins[CLASS].last, second);
    assert_int_equal(pool_used(second), CAPACITY - 1);
    give(b[8]);
    assert_int_equal(pool_used(second), CAPACITY - 2);
    check_slots(heap);
    give(other);
    for (uint32_t i = 0; i < CAPACITY; i++) {
        if (i != 7)
            give(a[i]);
        if (i != 7 && i != 8)
            give(b[i]);
    }
}

/* Queued pools come before pages that were never touched, and those before a fresh pool. */
static void refill_prefers_what_was_used(void **state)
{
    (void)state;
    uint32_t class = map_page_bytes() < 4 * SLOT_BYTES ? CLASS : class_of_size(4096); /* of several pages */
    struct block *a[CAPACITY];
    struct block *b[CAPACITY];
    struct pool *first = fill_pool(class, a);
    struct pool *second = fill_pool(class, b);
    struct block *c[CAPACITY];
    c[0] = take(class);
    struct pool *third = pool_of(c[0]);
    uint32_t at_hand = pool_carved(third) - pool_used(third);
    assert_true(pool_carved(third) < CAPACITY);
    give(a[3]); /* serves next; the third waits */
    give(b[3]); /* waits behind it */
    give(b[5]);
    assert_ptr_equal(take(class), a[3]);
    for (uint32_t i = 1; i <= at_hand; i++)
        assert_ptr_equal(pool_of(c[i] = take(class)), third);
    assert_ptr_equal(take(class), b[5]);
    assert_ptr_equal(take(class), b[3]);
    for (uint32_t i = at_hand + 1; i < CAPACITY; i++)
        assert_ptr_equal(pool_of(c[i] = take(class)), third);
    assert_int_equal(pool_state(first), POOL_FULL);
    assert_int_equal(pool_state(second), POOL_FULL);
    check_slots(heap);
    for (uint32_t i = 0; i < CAPACITY; i++) {
        give(a[i]);
        give(b[i]);
        give(c[i]);
    }
}

/* With everything taken, a block that comes back is the next to go. */
static void a_block_of_a_full_pool_serves_at_once(void **state)
{
    (void)state;
    struct block *a[CAPACITY];
    struct block *b[CAPACITY];
    struct pool *first = fill_pool(CLASS, a);
    struct pool *second = fill_pool(CLASS, b);
    give(a[9]);
    assert_ptr_equal(heap->bins[CLASS].current, first); /* so that the hot path finds it */
    assert_true(heap_is_valid(heap));
    assert_ptr_equal(take(CLASS), a[9]);
    give(b[4]);
    give(a[2]);
    assert_true(heap_is_valid(heap));
    heap->empty_slots++; /* that check sees */
    assert_false(heap_is_valid(heap));
    heap->empty_slots--;
    struct block *one = take(CLASS);
    struct block *two = take(CLASS);
    assert_true((one == b[4] && two == a[2]) || (one == a[2] && two == b[4]));
    assert_int_equal(pool_used(first), CAPACITY);
    assert_int_equal(pool_used(second), CAPACITY);
    check_slots(heap);
    for (uint32_t i = 0; i < CAPACITY; i++) {
        give(a[i]);
        give(b[i]);
    }
}

/* But pools that wait come before it. */
static void pools_that_wait_come_first(void **state)
{
    (void)state;
    struct block *a[CAPACITY];
    struct block *b[CAPACITY];
    struct block *c[CAPACITY];
    fill_pool(CLASS, a);
    struct pool *second = fill_pool(CLASS, b);
    fill_pool(CLASS, c);
    give(b[0]); /* serves next */
    give(a[1]); /* serves before it, and that one waits */
    give(c[2]); /* waits behind it */
    assert_ptr_equal(take(CLASS), a[1]);
    assert_ptr_equal(take(CLASS), b[0]);
    assert_ptr_equal(take(CLASS), c[2]);
    assert_int_equal(pool_used(second), CAPACITY);
    check_slots(heap);
    for (uint32_t i = 0; i < CAPACITY; i++) {
        give(a[i]);
        give(b[i]);
        give(c[i]);
    }
}

static void empty_pools_are_kept_within_bounds(void **state)
{
    (void)state;
    static struct block *blocks[20][CAPACITY];
    for (unsigned i = 0; i < 20; i++)
        fill_pool(CLASS, blocks[i]);
    assert_int_equal(heap->pool_slots, 80);
    for (unsigned i = 0; i < 20; i++) {
        for (uint32_t k = 0; k < CAPACITY; k++)
            give(blocks[i][k]);
        check_slots(heap);
        /* The current pool may be empty besides. */
        assert_true(heap->empty_slots <= KEPT_SLOTS_MOST && heap->span_slots <= KEPT_SLOTS_MOST);
    }
    assert_true(heap->empty_slots > 0);
    struct block *again = take(CLASS); /* without carving or claiming anew */
    assert_int_equal(pool_carved(pool_of(again)), CAPACITY);
    give(again);
    heap_close_queued_empty_pools(heap);
    assert_int_equal(heap->empty_slots, 0);
    check_slots(heap);
}

static void pools_with_blocks_serve_before_empty_ones(void **state)
{
    (void)state;
    struct block *a[CAPACITY];
    struct block *b[CAPACITY];
    struct block *c[CAPACITY];
    struct block *d[CAPACITY];
    struct pool *first = fill_pool(CLASS, a);
    fill_pool(CLASS, b);
    struct pool *third = fill_pool(CLASS, c);
    struct pool *fourth = fill_pool(CLASS, d);
    struct block *last = take(CLASS);
    struct pool *fifth = pool_of(last);
    give(b[0]); /* serves next; the fifth waits */
    for (uint32_t i = 0; i < CAPACITY; i++)
        give(a[i]);
    give(c[0]);
    give(d[0]);
    assert_int_equal(pool_used(first), 0);
    assert_ptr_equal(heap->bins[CLASS].first, fifth);
    assert_ptr_equal(fifth->next, third);
    assert_ptr_equal(third->next, fourth);
    assert_ptr_equal(fourth->next, first);
    assert_ptr_equal(heap->bins[CLASS].last, first);
    check_slots(heap);
    give(last);
    for (uint32_t i = 1; i < CAPACITY; i++) {
        give(b[i]);
        give(c[i]);
        give(d[i]);
    }
}

/* The pool that served is put among them empty, when another takes its place. */
static void an_empty_pool_is_noticed_when_it_serves_no_longer(void **state)
{
    (void)state;
    struct block *a[CAPACITY];
    struct pool *first = fill_pool(CLASS, a);
    struct block *other = take(CLASS);
    struct pool *second = pool_of(other);
    give(other);
    assert_int_equal(pool_state(second), POOL_CURRENT);
    assert_int_equal(heap->empty_slots, 0);
    give(a[0]);
    assert_int_equal(pool_state(first), POOL_CURRENT);
    assert_ptr_equal(heap->bins[CLASS].last, second);
    assert_int_equal(heap->empty_slots, second->slots);
    check_slots(heap);
    for (uint32_t i = 1; i < CAPACITY; i++)
        give(a[i]);
}

static void pools_change_hands(void **state)
{
    (void)state;
    struct heap *other = park_take();
    struct block *a[CAPACITY];
    struct pool *pool = fill_pool(CLASS, a);
    assert_null(heap_give_pool(heap, class_of_size(4096)));
    give(a[1]);
    assert_ptr_equal(heap_give_pool(heap, CLASS), pool);
    assert_null(heap_give_pool(heap, CLASS));
    assert_int_equal(heap->pool_slots, 0);
    heap_adopt_pool(other, pool);
    assert_int_equal(other->pool_slots, pool->slots);
    assert_ptr_equal(pool->heap, other);
    for (uint32_t slot = pool->first_slot; slot < pool->first_slot + pool->slots; slot++)
        assert_ptr_equal(pool_word_heap(pool_arena(pool)->slot_map[slot]), other);
    check_slots(heap);
    check_slots(other);
    assert_ptr_equal(heap_take_block(other, CLASS), a[1]);
    for (uint32_t i = 0; i < CAPACITY; i++)
        give(a[i]);
    check_slots(other);
    heap_close_empty_pools(other);
    assert_int_equal(other->pool_slots, 0);
    park_leave(other);
}

static void marks_of_free_blocks(void **state)
{
    (void)state;
    struct block *block = take(CLASS);
    struct pool *pool = pool_of(block);
    struct heap *other = park_take();
    assert_true(heap_marks_free(pool, pool));
    assert_false(heap_marks_free(pool + 1, pool));
    assert_false(heap_marks_free(NULL, pool));
    for (uint32_t class = 0; class < CLASS_COUNT; class ++) {
        assert_true(heap_marks_free((const struct pool *)&other->foreign[class], pool));
        assert_false(heap_marks_free((const struct pool *)((uintptr_t)&other->foreign[class] + 8), pool));
    }
    assert_false(heap_marks_free((const struct pool *)&other->foreign_bytes, pool));
    assert_false(heap_marks_free((const struct pool *)&other->bins[3], pool));
    /* Looks like a heap's, but none is there. */
    uintptr_t offset = (uintptr_t)&other->foreign[3] % HEAP_ALIGNMENT;
    assert_false(heap_marks_free((const struct pool *)(HEAP_ALIGNMENT * 5 + offset), pool));
    /* A small number of the program's own, as a heap at 0 would have it. */
    assert_false(heap_marks_free((const struct pool *)(uintptr_t)offset, pool));
    park_leave(other);
    give(block);
}

/* ---- misuse ---- */

static void free_too_many(void *context)
{
    heap_blocks_came_back(heap, context, 3);
}

static void free_of_an_empty_pool(void *context)
{
    struct pool *pool = context;
    struct block *block = pool->free;
    give(block); /* again; the count comes to 0 */
}

static void more_came_back_than_went(void **state)
{
    (void)state;
    char line[256];
    struct block *one = take(CLASS);
    struct block *two = take(CLASS);
    struct pool *pool = pool_of(one);
    snprintf(line, sizeof line,
             "tarn: fatal: heap corruption: more blocks were freed than allocated in the pool of %p "
             "(2048-byte class)",
             (void *)pool_start(pool));
    child_must_die(free_too_many, pool, line);
    give(one);
    give(two);
    child_must_die(free_of_an_empty_pool, pool, line);
}

static void take_overwritten(void *context)
{
    struct block *block = context;
    block->canary = (const struct pool *)(uintptr_t)0x41414141;
    take(CLASS);
}

static void take_overwritten_hot(void *context)
{
    struct block *block = context;
    memset(block, 0, 8);
    (void)heap_malloc_medium(heap, 2048);
}

static void freed_memory_was_written_to(void **state)
{
    (void)state;
    char line[256];
    struct block *block = take(CLASS);
    give(block);
    snprintf(line, sizeof line,
             "tarn: fatal: heap corruption: freed memory was written to at %p (2048-byte class)",
             (void *)block);
    child_must_die(take_overwritten, block, line);
    child_must_die(take_overwritten_hot, block, line);
}

static void take_without_memory(void *context)
{
    (void)context;
    limit_address_space(0);
    struct block *last = NULL;
    unsigned count = 0;
    for (struct block *block; (block = heap_take_block(heap, CLASS)) != NULL; count++) {
        block->next = last;
        last = block;
    }
    must(heap_take_block(heap, CLASS) == NULL);
    must(heap_is_valid(heap));
    while (last != NULL) {
        struct block *next = last->next;
        give(last);
        last = next;
    }
    must(heap_is_valid(heap));
    while (count-- > 0)
        must(heap_take_block(heap, CLASS) != NULL);
}

static void without_memory(void **state)
{
    (void)state;
    child_must_succeed(take_without_memory, NULL);
}

/* ---- any order ---- */

#define HELD 3000U

static void any_order(void **state)
{
    (void)state;
    static struct block *held[HELD];
    static size_t bytes[HELD];
    struct random random = {5};
    for (unsigned step = 0; step < 120000; step++) {
        unsigned i = (unsigned)random_below(&random, step / 20000 % 2 == 0 ? HELD : HELD / 8);
        if (held[i] != NULL) {
            must(pattern_holds(held[i], bytes[i] < 64 ? bytes[i] : 64, i));
            give(held[i]);
            held[i] = NULL;
        } else {
            bytes[i] = 1 + (random_below(&random, 20) == 0 ? random_below(&random, CLASS_BYTES_MOST)
                                                           : random_below(&random, 600));
            held[i] = bytes[i] <= DIRECT_BYTES_MOST ? heap_malloc_small(heap, bytes[i])
                                                    : heap_malloc_medium(heap, bytes[i]);
            must(held[i] != NULL && pool_class(pool_of(held[i])) == class_of_size(bytes[i]));
            pattern_write(held[i], bytes[i] < 64 ? bytes[i] : 64, i);
        }
        if (step % 4000 == 0)
            check_slots(heap);
    }
    for (unsigned i = 0; i < HELD; i++)
        if (held[i] != NULL)
            give(held[i]);
    check_slots(heap);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, take_heap, leave_heap)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(fresh_pools_serve_in_address_order),
        TEST(the_hot_path_finds_the_class),
        TEST(a_used_up_budget_leads_to_the_heartbeat),
        TEST(full_pools_are_found_by_their_first_free),
        TEST(refill_prefers_what_was_used),
        TEST(a_block_of_a_full_pool_serves_at_once),
        TEST(pools_that_wait_come_first),
        TEST(empty_pools_are_kept_within_bounds),
        TEST(pools_with_blocks_serve_before_empty_ones),
        TEST(an_empty_pool_is_noticed_when_it_serves_no_longer),
        TEST(pools_change_hands),
        TEST(marks_of_free_blocks),
        TEST(more_came_back_than_went),
        TEST(freed_memory_was_written_to),
        TEST(without_memory),
        TEST(any_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
