/*
 * heap/park: heaps taken, left, reused, tended when nobody takes them, and harvested before memory is mapped.
 *
 * Other heaps of the process are running or parked too, where cmocka runs on Tarn: each test first takes all
 * that are parked.
 */
#include "heap/park.h"

#include "arena/arena_list.h"
#include "arena/housekeeper.h"
#include "heap/mailbox.h"
#include "heap/run.h"
#include "heap/slot_cache.h"
#include "os/map.h"
#include "os/settings.h"
#include "unit.h"

#define HEAPS_MOST 512U

static struct heap *taken[HEAPS_MOST];
static unsigned taken_count;
static struct heap *heap; /* acts as the calling thread's */

static unsigned count_parked(void)
{
    unsigned count = 0;
    for (uint32_t number = 0; number < park_bound(); number++)
        count += park_is_parked(number);
    return count;
}

static struct heap *take(void)
{
    struct heap *one = park_take();
    must(one != NULL && taken_count < HEAPS_MOST);
    one->budget_bytes = INT64_MAX;
    return taken[taken_count++] = one;
}

static void leave(struct heap *one)
{
    unsigned i = 0;
    while (taken[i] != one)
        i++;
    taken[i] = taken[--taken_count];
    one->budget_bytes = 0;
    park_leave(one);
}

static int take_all(void **state)
{
    (void)state;
    while (count_parked() > 0)
        take();
    heap = take();
    return 0;
}

static int leave_all(void **state)
{
    (void)state;
    while (taken_count > 0)
        leave(taken[0]);
    struct heap *last = park_take();
    park_settle_all(last);
    park_leave(last);
    return 0;
}

static struct pool *pool_of(const void *block)
{
    return pool_of_word(block, atomic_load(&arena_of(block)->slot_map[arena_slot_of(block)]));
}

static void give(struct block *block)
{
    heap_free_own(pool_of(block), block);
}

static struct block *block_of(struct heap *one, size_t bytes)
{
    struct block *block = heap_take_block(one, class_of_size(bytes));
    must(block != NULL);
    return block;
}

/* ---- taking and leaving ---- */

static void the_lowest_parked_heap_is_taken(void **state)
{
    (void)state;
    struct heap *a = take();
    struct heap *b = take();
    struct heap *c = take();
    assert_true(a->number < b->number && b->number < c->number);
    assert_int_equal(c->number, park_bound() - 1);
    leave(c);
    leave(a);
    leave(b);
    assert_int_equal(count_parked(), 3);
    assert_true(park_is_parked(b->number));
    assert_ptr_equal(take(), a);
    assert_ptr_equal(take(), b);
    assert_false(park_is_parked(b->number));
    assert_ptr_equal(take(), c);
    uint32_t bound = park_bound();
    assert_int_equal(take()->number, bound); /* none left: a new one */
    assert_int_equal(park_bound(), bound + 1);
}

static void heaps_are_where_their_number_says(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 40; i++) {
        struct heap *one = take();
        assert_int_equal((uintptr_t)one % HEAP_ALIGNMENT, 0);
        assert_ptr_equal(park_heap(one->number), one);
        assert_true(park_is_heap(one));
        assert_false(park_is_heap((char *)one + 16));
        assert_false(park_is_heap((char *)one - 16));
        assert_true(heap_is_valid(one));
        assert_int_equal(one->pool_slots, 0);
        assert_ptr_equal(one->reader, &one->own_reader);
        assert_int_equal(one->own_reader.sections % 2, 0);
    }
    assert_false(park_is_heap(&heap));
    assert_false(park_is_heap(NULL));
    assert_null(park_heap(HEAP_COUNT_MOST - 1));
}

/* The next thread goes on where the last one stopped: with its pools, and its empty slots. */
static void a_heap_is_left_warm(void **state)
{
    (void)state;
    struct heap *one = take();
    struct block *a = block_of(one, 3000);
    struct block *b = block_of(one, 3000);
    give(b);
    uint32_t pool_slots = one->pool_slots;
    leave(one);
    assert_ptr_equal(take(), one);
    assert_int_equal(one->pool_slots, pool_slots);
    assert_ptr_equal(block_of(one, 3000), b);
    assert_true(heap_is_valid(one));
    give(a);
    give(b);
}

static void what_a_leaving_thread_owes_is_posted(void **state)
{
    (void)state;
    struct heap *one = take();
    struct block *block = block_of(heap, 500);
    struct pool *pool = pool_of(block);
    uint32_t used = pool_used(pool);
    mailbox_send(one, pool_class(pool), block);
    leave(one);
    assert_int_equal(one->foreign_bytes, 0);
    assert_true(mailbox_is_waiting(heap));
    mailbox_drain(heap);
    assert_int_equal(pool_used(pool), used - 1);
}

/* ---- tending ---- */

static void tend(void)
{
    heap->tick_ms += housekeeper_interval_ms();
    park_tend(heap);
}

/* Something of everything that can be given back. */
static struct heap *parked_with_reserves(struct block **kept)
{
    struct heap *one = take();
    *kept = block_of(one, 3000);
    give(block_of(one, 10000));
    give(block_of(one, 16));
    must(run_free(one, run_malloc(one, 100000)));
    must(one->pool_slots > class_pool_slots(class_of_size(3000)) && one->run_slots > 0);
    leave(one);
    return one;
}

static void check_settled(const struct heap *one, uint32_t pool_slots)
{
    assert_int_equal(one->pool_slots, pool_slots);
    assert_int_equal(one->empty_slots, 0);
    assert_int_equal(one->span_slots, 0);
    assert_int_equal(one->run_slots, 0);
}

static void a_heap_parked_for_a_tick_is_settled(void **state)
{
    (void)state;
    struct block *kept;
    struct heap *another = take();
    struct heap *one = parked_with_reserves(&kept);
    uint32_t slots = one->pool_slots;
    heap->tick_ms = 1000000;
    tend();
    assert_int_equal(one->pool_slots, slots); /* it might be taken any moment */
    another->tick_ms = heap->tick_ms - 1;     /* its thread read the clock a little earlier */
    for (unsigned i = 0; i < 3; i++) {
        park_tend(heap); /* not a tick later yet */
        park_tend(another);
    }
    assert_int_equal(one->pool_slots, slots);
    tend();
    check_settled(one, pool_of(kept)->slots);
    assert_true(park_is_parked(one->number));
    assert_ptr_equal(one->reader, &one->own_reader);
    /* Later, what has been posted to it is taken in. */
    mailbox_send_now(pool_of(kept), kept);
    tend();
    assert_false(mailbox_is_waiting(one));
    check_settled(one, 0);
}

/* Memory that comes home to a heap without a thread is given back at once. */
static void what_is_posted_to_a_parked_heap_is_settled(void **state)
{
    (void)state;
    struct heap *one = take();
    struct block *blocks[3] = {block_of(one, 900), block_of(one, 900), block_of(one, 12000)};
    leave(one);
    for (unsigned i = 0; i < 3; i++)
        mailbox_send(heap, pool_class(pool_of(blocks[i])), blocks[i]);
    mailbox_flush(heap);
    assert_false(mailbox_is_waiting(one));
    assert_true(park_is_parked(one->number));
    check_settled(one, 0);
    assert_ptr_equal(one->reader, &one->own_reader);
}

static void a_running_heap_is_left_alone(void **state)
{
    (void)state;
    struct heap *one = take();
    struct block *block = block_of(one, 200);
    struct pool *pool = pool_of(block);
    mailbox_send_now(pool, block);
    park_posted_to(heap, one);
    heap->tick_ms = 2000000;
    tend();
    tend();
    park_settle_all(heap);
    assert_false(park_harvest(heap, class_of_size(200)));
    assert_true(mailbox_is_waiting(one));
    assert_ptr_equal(pool->heap, one);
    mailbox_drain(one);
}

static void in_need_all_are_settled_at_once(void **state)
{
    (void)state;
    struct block *kept[5];
    struct heap *parked[5];
    for (unsigned i = 0; i < 5; i++)
        parked[i] = take();
    for (unsigned i = 0; i < 5; i++) {
        kept[i] = block_of(parked[i], 6000);
        give(block_of(parked[i], 30000));
        leave(parked[i]);
    }
    park_settle_all(heap);
    for (unsigned i = 0; i < 5; i++) {
        check_settled(parked[i], pool_of(kept[i])->slots);
        assert_true(park_is_parked(parked[i]->number));
    }
    for (unsigned i = 0; i < 5; i++)
        mailbox_send_now(pool_of(kept[i]), kept[i]);
    park_settle_all(heap);
    for (unsigned i = 0; i < 5; i++)
        check_settled(parked[i], 0);
}

/* ---- harvest ---- */

static void harvest_adopts_a_pool(void **state)
{
    (void)state;
    uint32_t class = class_of_size(5000);
    struct heap *one = take();
    struct block *kept = block_of(one, 5000);
    struct pool *pool = pool_of(kept);
    struct block *other = block_of(one, 100);
    leave(one);
    assert_true(park_harvest(heap, class));
    assert_ptr_equal(pool->heap, heap);
    assert_ptr_equal(heap->bins[class].first, pool);
    assert_ptr_equal(pool_of(other)->heap, one);
    assert_true(park_is_parked(one->number));
    assert_ptr_equal(pool_of(block_of(heap, 5000)), pool);
    assert_true(heap_is_valid(heap) && heap_is_valid(one));
}

static void harvest_finds_a_heap_every_time(void **state)
{
    (void)state;
    uint32_t class = class_of_size(7000);
    struct heap *one = take();
    for (unsigned i = 0; i < 6; i++) {
        struct block *kept = block_of(one, 7000);
        leave(one);
        assert_true(park_harvest(heap, class));
        assert_ptr_equal(pool_of(kept)->heap, heap);
        assert_ptr_equal(take(), one);
    }
}

static void harvest_gains_slots_and_blocks(void **state)
{
    (void)state;
    struct heap *one = take();
    struct block *kept = block_of(one, 400);
    void *long_run = run_malloc(one, 200000);
    assert_true(run_free(one, run_malloc(one, 60000)));
    assert_true(run_free(one, long_run));
    struct ledger before = arena_list_ledger();
    leave(one); /* the long run's 13 slots go back at once, the short one's four stay for the next thread */
    assert_true(arena_list_ledger().held_slots <= before.held_slots - 13);
    before = arena_list_ledger();
    assert_true(park_harvest(heap, CLASS_COUNT));
    assert_true(arena_list_ledger().held_slots < before.held_slots);
    assert_false(park_harvest(heap, CLASS_COUNT)); /* it has nothing more */
    assert_ptr_equal(pool_of(kept)->heap, one);
    mailbox_send_now(pool_of(kept), kept);
    assert_true(park_harvest(heap, CLASS_COUNT));
    assert_false(park_harvest(heap, CLASS_COUNT));
}

/* ---- need and threads ---- */

static void take_without_memory(void *context)
{
    (void)context;
    limit_address_space(0);
    unsigned more = 0;
    while (park_take() != NULL)
        more++;
    must(more < 64); /* what was left of the last chunk */
    uint32_t bound = park_bound();
    must(park_take() == NULL && park_bound() == bound);
    park_leave(park_heap(bound - 1));
    must(park_take() == park_heap(bound - 1));
}

static void without_memory(void **state)
{
    (void)state;
    child_must_succeed(take_without_memory, NULL);
}

static _Atomic unsigned runners[HEAPS_MOST];

static void come_and_go(void *context, unsigned index)
{
    struct random random = {index};
    (void)context;
    for (unsigned i = 0; i < 4000; i++) {
        struct heap *one = park_take();
        must(one != NULL && one->number < HEAPS_MOST);
        must(runners[one->number]++ == 0);
        struct block *block = block_of(one, 16 + random_below(&random, 2000));
        if (i % 7 == 0) {
            one->tick_ms = i * 1000;
            park_tend(one);
        }
        if (i % 11 == 0)
            park_harvest(one, class_of_size(1 + random_below(&random, 2000)));
        if (i % 3 == 0)
            mailbox_send_now(pool_of(block), block);
        else
            give(block);
        must(runners[one->number]-- == 1);
        park_leave(one);
    }
}

static void threads_never_share_a_heap(void **state)
{
    (void)state;
    threads_run(8, come_and_go, NULL);
    assert_true(park_bound() < HEAPS_MOST);
    park_settle_all(heap);
    park_settle_all(heap);
    for (uint32_t number = 0; number < park_bound(); number++) {
        if (!park_is_parked(number))
            continue;
        assert_true(heap_is_valid(park_heap(number)));
        assert_int_equal(park_heap(number)->empty_slots, 0);
    }
}

static void what_is_wrong_is_seen(void **state)
{
    (void)state;
    struct heap *one = take();
    leave(one);
    assert_true(park_is_valid());
    one->reader = heap->reader; /* lent, and not given back */
    assert_false(park_is_valid());
    one->reader = &one->own_reader;
    one->number++;
    assert_false(park_is_valid());
    one->number--;
    assert_true(park_is_valid());
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, take_all, leave_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_lowest_parked_heap_is_taken),
        TEST(heaps_are_where_their_number_says),
        TEST(a_heap_is_left_warm),
        TEST(what_a_leaving_thread_owes_is_posted),
        TEST(a_heap_parked_for_a_tick_is_settled),
        TEST(what_is_posted_to_a_parked_heap_is_settled),
        TEST(a_running_heap_is_left_alone),
        TEST(in_need_all_are_settled_at_once),
        TEST(harvest_adopts_a_pool),
        TEST(harvest_finds_a_heap_every_time),
        TEST(harvest_gains_slots_and_blocks),
        TEST(what_is_wrong_is_seen),
        TEST(without_memory),
        TEST(threads_never_share_a_heap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
