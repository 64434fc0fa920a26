/*
 * heap/mailbox: blocks freed elsewhere are used again there, or come home: whole, once, to whoever owns their
 * pool by then. The heaps are taken for the tests; but for the last tests one thread acts for all of them.
 */
#include "heap/mailbox.h"

#include "heap/park.h"
#include "heap/slot_cache.h"
#include "unit.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

#define HEAPS 100U /* more than a flush gathers messages for at once (BATCHES) */

static struct heap *heaps[HEAPS];
static struct heap *owner;
static struct heap *freer;

static int take_heaps(void **state)
{
    (void)state;
    for (unsigned i = 0; i < HEAPS; i++) {
        if ((heaps[i] = park_take()) == NULL)
            return -1;
        heaps[i]->budget_bytes = INT64_MAX;
    }
    owner = heaps[0];
    freer = heaps[1];
    return 0;
}

static int leave_heaps(void **state)
{
    (void)state;
    bool clean = true;
    for (unsigned i = 0; i < HEAPS; i++)
        mailbox_flush(heaps[i]);
    for (unsigned i = 0; i < HEAPS; i++) {
        mailbox_drain(heaps[i]);
        heap_close_empty_pools(heaps[i]);
        slot_cache_flush(heaps[i]);
        clean &= heaps[i]->pool_slots == 0 && heap_is_valid(heaps[i]);
        heaps[i]->budget_bytes = 0;
        park_leave(heaps[i]);
    }
    return clean ? 0 : -1;
}

static struct pool *pool_of(const void *block)
{
    return pool_of_word(block, atomic_load(&arena_of(block)->slot_map[arena_slot_of(block)]));
}

static struct block *take(struct heap *heap, size_t bytes)
{
    struct block *block = heap_take_block(heap, class_of_size(bytes));
    must(block != NULL);
    return block;
}

static void send(struct heap *heap, struct block *block)
{
    mailbox_send(heap, pool_class(pool_of(block)), block);
}

/* Bytes on the lists, by walking them. */
static size_t listed_bytes(const struct heap *heap)
{
    size_t bytes = 0;
    for (uint32_t class = 0; class < CLASS_COUNT; class ++)
        for (const struct block *block = heap->foreign[class].free; block != &pool_end; block = block->next) {
            must((const void *)block->canary == &heap->foreign[class]);
            bytes += heap->foreign[class].block_bytes;
        }
    return bytes;
}

/* ---- used again where they were freed ---- */

static void foreign_blocks_serve_their_class(void **state)
{
    (void)state;
    struct block *a = take(owner, 100);
    struct block *b = take(owner, 100);
    struct block *c = take(owner, 200);
    uint32_t used = pool_used(pool_of(a));
    send(freer, a);
    send(freer, b);
    send(freer, c);
    assert_int_equal(listed_bytes(freer), 112 + 112 + 208);
    assert_ptr_equal(take(freer, 100), b);
    assert_null(b->canary);
    assert_ptr_equal(heap_malloc_small(freer, 100), a);
    struct block *own = take(freer, 100); /* no more of them: from a pool of its own */
    assert_ptr_equal(pool_of(own)->heap, freer);
    assert_ptr_equal(take(freer, 200), c);
    assert_int_equal(pool_used(pool_of(a)), used); /* its owner never heard of it */
    assert_false(mailbox_is_waiting(owner));
    assert_true(heap_is_valid(freer));
    send(freer, a);
    send(freer, b);
    send(freer, c);
    heap_free_own(pool_of(own), own);
}

/* ---- plain and mixed heaps ---- */

/* `freer` frees so many bytes of that heap's blocks, and takes each again. */
static void exchange_many(struct heap *heap, size_t bytes)
{
    struct block *blocks[64];
    for (size_t i = 0; i < 64; i++)
        blocks[i] = take(heap, 1024);
    for (size_t i = 0; i < bytes / 1024; i++) {
        send(freer, blocks[i % 64]);
        blocks[i % 64] = take(freer, 1024);
    }
    for (size_t i = 0; i < 64; i++)
        send(freer, blocks[i]);
}

static void an_exchange_of_blocks_makes_a_heap_mixed(void **state)
{
    (void)state;
    struct block *block = take(owner, 100);
    send(freer, block); /* the first look at the bound is no reason */
    assert_false(freer->mixed);
    exchange_many(owner, 2 * KEPT_SLOTS_LEAST * SLOT_BYTES);
    assert_true(freer->mixed);
    assert_true(heap_is_valid(freer));
    exchange_many(owner, 4 * KEPT_SLOTS_LEAST * SLOT_BYTES);
    assert_true(freer->mixed);
    mailbox_flush(freer);
    send(freer, take(freer, 500)); /* so that own blocks lie on a list when it is looked at */
    exchange_many(freer, KEPT_SLOTS_LEAST * SLOT_BYTES + 32 * KIB); /* the bound is reached once */
    assert_false(freer->mixed);
    assert_true(heap_is_valid(freer));
}

/* Own blocks would lie on the lists of a thread that has freed all and sleeps, and each keep a pool. */
static void a_heap_that_is_only_emptied_is_plain(void **state)
{
    (void)state;
    heap_set_mixed(freer, true);
    static struct block *blocks[2][1024];
    for (size_t i = 0; i < 1024; i++) {
        blocks[0][i] = take(owner, 1024);
        blocks[1][i] = take(freer, 1024);
    }
    freer->foreign_bytes_most = 0; /* as if it had been looked at just now */
    send(freer, blocks[0][0]);
    for (size_t i = 1; i < 1024; i++)
        send(freer, blocks[0][i]);
    assert_false(freer->mixed);
    for (size_t i = 0; i < 1024; i++)
        heap_free_own(pool_of(blocks[1][i]), blocks[1][i]);
    assert_true(heap_is_valid(freer));
}

static void a_mixed_heap_treats_all_alike(void **state)
{
    (void)state;
    heap_set_mixed(freer, true);
    assert_true(heap_is_valid(freer));
    struct block *first = take(freer, 300);
    struct pool *pool = pool_of(first);
    assert_ptr_equal(pool->heap, freer);
    assert_ptr_equal(freer->bins[pool_class(pool)].current, &freer->foreign[pool_class(pool)]);
    size_t filled = listed_bytes(freer);
    assert_true(filled >= 320 && filled < KIB * 8);
    assert_int_equal(pool_used(pool), 1 + filled / 320);
    struct block *second = take(freer, 300);
    assert_ptr_equal(second, (char *)first + 320); /* in the order of their addresses, as from the pool */
    struct block *other = take(owner, 300);
    send(freer, second);
    send(freer, other);
    assert_ptr_equal(take(freer, 300), other);
    assert_ptr_equal(take(freer, 300), second);
    assert_true(freer->foreign_bytes >= listed_bytes(freer));
    send(freer, first);
    send(freer, second);
    send(freer, other);
    mailbox_flush(freer); /* home, the own ones too */
    assert_int_equal(listed_bytes(freer), 0);
    assert_int_equal(pool_used(pool), 0);
    assert_true(!mailbox_is_waiting(freer) && mailbox_drain(owner));
    assert_true(heap_is_valid(freer) && heap_is_valid(owner));
    heap_set_mixed(freer, false);
}

/* Blocks larger than what is moved at once are moved one by one. */
static void a_mixed_heap_fills_its_lists_with_little(void **state)
{
    (void)state;
    heap_set_mixed(freer, true);
    for (uint32_t class = 0; class < CLASS_COUNT; ++class) {
        struct block *block = take(freer, class_bytes(class));
        size_t listed = 0;
        for (struct block *one = freer->foreign[class].free; one != &pool_end; one = one->next)
            listed++;
        assert_true(listed <= 15 && listed * class_bytes(class) <= 8 * KIB);
        assert_int_equal(pool_used(pool_of(block)), listed + 1);
        send(freer, block);
    }
    assert_true(heap_is_valid(freer));
    heap_set_mixed(freer, false);
}

/* ---- home again ---- */

static void blocks_come_home(void **state)
{
    (void)state;
    struct block *blocks[5];
    for (unsigned i = 0; i < 5; i++)
        blocks[i] = take(owner, 1000);
    struct pool *pool = pool_of(blocks[0]);
    for (unsigned i = 0; i < 4; i++)
        send(freer, blocks[i]);
    assert_int_equal(pool_used(pool), 5);
    assert_false(mailbox_drain(owner));
    mailbox_flush(freer);
    assert_int_equal(freer->foreign_bytes, 0);
    assert_int_equal(listed_bytes(freer), 0);
    assert_true(mailbox_is_waiting(owner));
    assert_int_equal(pool_used(pool), 5); /* what is on its way is used */
    heap_close_empty_pools(owner);
    assert_int_equal(pool_state(pool), POOL_CURRENT);
    assert_true(mailbox_drain(owner));
    assert_false(mailbox_is_waiting(owner));
    assert_false(mailbox_drain(owner));
    assert_int_equal(pool_used(pool), 1);
    for (unsigned i = 0; i < 4; i++)
        assert_true(pool_list_has(pool, blocks[i]));
    assert_true(heap_is_valid(owner));
    heap_free_own(pool, blocks[4]);
}

/* A thread without a heap posts at once; the owner finds it when it needs blocks. */
static void a_refill_takes_what_has_come(void **state)
{
    (void)state;
    struct block *blocks[64];
    unsigned count = 0;
    blocks[count++] = take(owner, 8000);
    struct pool *pool = pool_of(blocks[0]);
    while (pool_used(pool) < pool->capacity)
        blocks[count++] = take(owner, 8000);
    mailbox_send_now(pool, blocks[3]);
    mailbox_send_now(pool, blocks[7]);
    assert_true(mailbox_is_waiting(owner));
    assert_int_equal(pool_used(pool), pool->capacity);
    struct block *one = take(owner, 8000);
    struct block *two = take(owner, 8000);
    assert_true((one == blocks[3] && two == blocks[7]) || (one == blocks[7] && two == blocks[3]));
    assert_false(mailbox_is_waiting(owner));
    assert_int_equal(pool_used(pool), pool->capacity);
    while (count > 0)
        heap_free_own(pool, blocks[--count]);
}

#define MANY 6000U

static struct block *many[MANY];

/* More pools than a flush can gather at once, all sizes. */
static void many_pools_in_any_order(void **state)
{
    (void)state;
    struct random random = {1};
    for (unsigned i = 0; i < MANY; i++) {
        many[i] = take(owner, 1 + random_below(&random, i % 50 == 0 ? 20000 : 700));
        memset(many[i], 0x5a, 16);
    }
    for (unsigned i = MANY; i > 1; i--) {
        size_t other = random_below(&random, i);
        struct block *block = many[i - 1];
        many[i - 1] = many[other];
        many[other] = block;
    }
    for (unsigned i = 0; i < MANY; i++)
        send(freer, many[i]);
    mailbox_flush(freer);
    mailbox_drain(owner);
    assert_true(heap_is_valid(owner));
    heap_close_empty_pools(owner);
    assert_int_equal(owner->pool_slots, 0);
}

/* More owners than a flush can gather at once: each gets its own back. */
static void many_owners(void **state)
{
    (void)state;
    struct block *blocks[HEAPS][8];
    for (unsigned k = 0; k < 8; k++)
        for (unsigned i = 0; i < HEAPS; i++)
            blocks[i][k] = take(heaps[i], (size_t)100 << k % 3);
    for (unsigned k = 0; k < 8; k++)
        for (unsigned i = 0; i < HEAPS; i++)
            if (heaps[i] != freer)
                send(freer, blocks[i][k]);
    mailbox_flush(freer);
    for (unsigned i = 0; i < HEAPS; i++) {
        if (heaps[i] == freer)
            continue;
        assert_true(mailbox_drain(heaps[i]));
        for (unsigned k = 0; k < 8; k++)
            assert_true(pool_list_has(pool_of(blocks[i][k]), blocks[i][k]));
        heap_close_empty_pools(heaps[i]);
        assert_int_equal(heaps[i]->pool_slots, 0);
    }
    for (unsigned k = 0; k < 8; k++)
        heap_free_own(pool_of(blocks[1][k]), blocks[1][k]);
}

/* ---- bounds ---- */

static void lists_are_bounded_in_bytes(void **state)
{
    (void)state;
    size_t most = heap_may_keep_slots(freer) * SLOT_BYTES;
    size_t peak = 0;
    for (unsigned round = 0; round < 6; round++) {
        for (unsigned i = 0; i < 1500; i++)
            many[i] = take(owner, 250);
        for (unsigned i = 0; i < 1500; i++) {
            send(freer, many[i]);
            size_t bytes = i % 16 == 0 ? listed_bytes(freer) : 0;
            peak = bytes > peak ? bytes : peak;
            assert_true(bytes <= most);
        }
        /* Take some or all of them out again, and flush now and then: the count must follow. */
        while (round % 3 != 0 && freer->foreign[class_of_size(250)].free != &pool_end) {
            struct block *block = take(freer, 250);
            mailbox_send_now(pool_of(block), block);
        }
        if (round % 2 != 0)
            mailbox_flush(freer);
        assert_true(freer->foreign_bytes >= listed_bytes(freer));
        mailbox_drain(owner);
    }
    assert_true(peak > most / 2);
}

/* What is used again at once is never sent home, however often. */
static void what_is_taken_does_not_count(void **state)
{
    (void)state;
    struct block *block = take(owner, 3000);
    size_t most = heap_may_keep_slots(freer) * SLOT_BYTES;
    for (size_t bytes = 0; bytes < 3 * most; bytes += 3072) {
        send(freer, block);
        assert_ptr_equal(take(freer, 3000), block);
    }
    assert_false(mailbox_is_waiting(owner));
    send(freer, block);
}

static void a_flush_forgets_what_was_taken(void **state)
{
    (void)state;
    struct block *a = take(owner, 64);
    struct block *b = take(owner, 512);
    send(freer, a);
    send(freer, b);
    assert_ptr_equal(take(freer, 64), a);
    mailbox_flush(freer);
    assert_int_equal(freer->foreign_bytes, 0);
    for (uint32_t class = 0; class < CLASS_COUNT; class ++)
        assert_int_equal(owned_read(&freer->foreign[class].taken), 0);
    send(freer, a);
}

/* ---- pools that change hands ---- */

static void what_is_in_an_inbox_is_posted_on(void **state)
{
    (void)state;
    struct heap *heir = heaps[2];
    struct block *a = take(owner, 4000);
    struct block *b = take(owner, 4000);
    struct block *c = take(owner, 4000);
    struct pool *pool = pool_of(a);
    send(freer, a);
    send(freer, b);
    mailbox_flush(freer);
    assert_ptr_equal(heap_give_pool(owner, pool_class(pool)), pool);
    heap_adopt_pool(heir, pool);
    assert_true(mailbox_drain(owner));
    assert_false(mailbox_is_waiting(owner));
    assert_int_equal(pool_used(pool), 3);
    assert_true(mailbox_drain(heir));
    assert_int_equal(pool_used(pool), 1);
    assert_true(heap_is_valid(heir) && heap_is_valid(owner));
    heap_free_own(pool, c);
}

static void what_is_not_posted_goes_to_the_new_owner(void **state)
{
    (void)state;
    struct heap *heir = heaps[2];
    struct block *a = take(owner, 4000);
    struct block *b = take(owner, 3000);
    struct pool *pool = pool_of(a);
    send(freer, a);
    send(freer, b);
    assert_ptr_equal(heap_give_pool(owner, pool_class(pool)), pool);
    heap_adopt_pool(heir, pool);
    mailbox_flush(freer);
    assert_true(mailbox_drain(heir));
    assert_int_equal(pool_used(pool), 0);
    assert_true(mailbox_drain(owner));
    assert_true(heap_is_valid(heir) && heap_is_valid(owner));
}

/* The thread that freed the block becomes the owner of its pool. */
static void what_became_ones_own(void **state)
{
    (void)state;
    struct block *a = take(owner, 4000);
    struct block *b = take(owner, 4000);
    struct pool *pool = pool_of(a);
    send(freer, a);
    assert_ptr_equal(heap_give_pool(owner, pool_class(pool)), pool);
    heap_adopt_pool(freer, pool);
    mailbox_flush(freer); /* at once, without a message */
    assert_false(mailbox_is_waiting(freer));
    assert_int_equal(pool_used(pool), 1);
    assert_true(pool_list_has(pool, a));
    heap_free_own(pool, b);
}

/* ---- misuse ---- */

static void overwrite_and_flush(void *context)
{
    memset(context, 0x11, 8);
    mailbox_flush(freer);
}

static void overwrite_and_take(void *context)
{
    memset(context, 0x11, 8);
    (void)take(freer, 100);
}

static void written_to_while_on_the_list(void **state)
{
    (void)state;
    char line[256];
    struct block *block = take(owner, 100);
    send(freer, block);
    snprintf(line, sizeof line,
             "tarn: fatal: heap corruption: freed memory was written to at %p (112-byte class)",
             (void *)block);
    child_must_die(overwrite_and_flush, block, line);
    child_must_die(overwrite_and_take, block, line);
}

static void drain_overwritten(void *context)
{
    memset(context, 0x12, 8);
    mailbox_drain(owner);
}

static void drain_freed_again(void *context)
{
    struct block *block = context;
    heap_free_own(pool_of(block), block); /* by its owner, who does not see that it is on its way */
    mailbox_drain(owner);
}

static void drain_freed_again_elsewhere(void *context)
{
    struct block *block = context;
    mailbox_send(heaps[2], pool_class(pool_of(block)), block);
    mailbox_drain(owner);
}

static void spoilt_on_the_way(void **state)
{
    (void)state;
    char line[256];
    struct block *block = take(owner, 100);
    struct block *other = take(owner, 100);
    mailbox_send(freer, pool_class(pool_of(block)), block);
    mailbox_flush(freer);
    snprintf(line, sizeof line,
             "tarn: fatal: heap corruption: freed memory was written to at %p (112-byte class)",
             (void *)block);
    child_must_die(drain_overwritten, block, line);
    snprintf(line, sizeof line, "tarn: fatal: double free of %p (112-byte class)", (void *)block);
    child_must_die(drain_freed_again, block, line);
    child_must_die(drain_freed_again_elsewhere, block, line);
    mailbox_drain(owner);
    heap_free_own(pool_of(other), other);
}

/* ---- threads ---- */

#define SENDERS 4U
#define RING    512U
#define BLOCKS  150000U

static struct block *_Atomic ring[RING]; /* the owner puts where it finds NULL */

static void own(void)
{
    struct heap *heap = park_take();
    struct random random = {9};
    must(heap != NULL);
    for (unsigned i = 0; i < BLOCKS; i++) {
        size_t bytes = 32 + random_below(&random, 400);
        struct block *block = heap_take_block(heap, class_of_size(bytes));
        must(block != NULL);
        pattern_write(block, 32, (uintptr_t)block);
        struct block *expected = NULL;
        for (unsigned place = i; !atomic_compare_exchange_strong(&ring[place % RING], &expected, block);
             place++) {
            expected = NULL;
            if (place % RING == 0)
                sched_yield();
        }
        if (i % 64 == 0)
            mailbox_drain(heap);
    }
    park_leave(heap);
}

static _Atomic unsigned received;

static void send_back(unsigned index)
{
    struct heap *heap = park_take();
    must(heap != NULL);
    for (unsigned place = index; received < BLOCKS; place++) {
        struct block *block = atomic_exchange(&ring[place % RING], NULL);
        if (block == NULL) {
            if (place % RING == 0)
                sched_yield();
            continue;
        }
        received++;
        must(pattern_holds(block, 32, (uintptr_t)block));
        if (index == 0)
            mailbox_send_now(pool_of(block), block);
        else
            send(heap, block);
    }
    park_leave(heap);
}

static void own_or_send(void *context, unsigned index)
{
    (void)context;
    if (index == SENDERS)
        own();
    else
        send_back(index);
}

static void threads_lose_nothing(void **state)
{
    (void)state;
    threads_run(SENDERS + 1, own_or_send, NULL);
    /* The threads' heaps are parked, and what was posted after that waits: settled, none of them holds a
     * block. */
    park_settle_all(owner);
    for (uint32_t number = 0; number < park_bound(); number++) {
        if (!park_is_parked(number))
            continue;
        struct heap *heap = park_heap(number);
        assert_false(mailbox_is_waiting(heap));
        assert_int_equal(heap->foreign_bytes, 0);
        assert_true(heap_is_valid(heap));
        for (uint32_t class = 0; class < CLASS_COUNT; class ++)
            assert_null(heap->bins[class].first);
        assert_int_equal(heap->empty_slots, 0);
    }
}

/* ---- the check itself ---- */

static void what_is_wrong_on_a_list_is_seen(void **state)
{
    (void)state;
    struct block *a = take(owner, 100);
    struct block *b = take(owner, 100);
    struct foreign *foreign = &freer->foreign[class_of_size(100)];
    send(freer, a);
    send(freer, b);
    assert_ptr_equal(take(freer, 100), b);
    assert_true(mailbox_is_valid(freer) && mailbox_is_valid(owner));
    freer->foreign_bytes -= 16;
    assert_false(mailbox_is_valid(freer));
    freer->foreign_bytes += 16;
    a->canary = NULL;
    assert_false(mailbox_is_valid(freer));
    a->canary = (const struct pool *)foreign;
    foreign->free = (struct block *)(void *)((char *)a + 16); /* where none begins */
    *foreign->free = *a;
    assert_false(mailbox_is_valid(freer));
    foreign->free = a;
    a->next = a; /* a list without an end */
    assert_false(mailbox_is_valid(freer));
    a->next = &pool_end;
    assert_true(mailbox_is_valid(freer));
    send(freer, b);
}

static void what_is_wrong_in_an_inbox_is_seen(void **state)
{
    (void)state;
    struct block *a = take(owner, 100);
    struct block *b = take(owner, 100);
    send(freer, a);
    send(freer, b);
    mailbox_flush(freer);
    struct block *last = atomic_load(&owner->inbox);
    struct block *first = last->next;
    assert_true(mailbox_is_valid(owner) && first != last && first->next == last);
    const struct pool *pool = first->canary;
    first->canary = NULL;
    assert_false(mailbox_is_valid(owner));
    first->canary = pool;
    first->next = first; /* the ring is not closed */
    assert_false(mailbox_is_valid(owner));
    first->next = last;
    last->next = last; /* one block short */
    assert_false(mailbox_is_valid(owner));
    last->next = first;
    assert_true(mailbox_is_valid(owner) && mailbox_drain(owner));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, take_heaps, leave_heaps)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(foreign_blocks_serve_their_class),
        TEST(an_exchange_of_blocks_makes_a_heap_mixed),
        TEST(a_heap_that_is_only_emptied_is_plain),
        TEST(a_mixed_heap_treats_all_alike),
        TEST(a_mixed_heap_fills_its_lists_with_little),
        TEST(blocks_come_home),
        TEST(a_refill_takes_what_has_come),
        TEST(many_pools_in_any_order),
        TEST(many_owners),
        TEST(lists_are_bounded_in_bytes),
        TEST(what_is_taken_does_not_count),
        TEST(a_flush_forgets_what_was_taken),
        TEST(what_is_in_an_inbox_is_posted_on),
        TEST(what_is_not_posted_goes_to_the_new_owner),
        TEST(what_became_ones_own),
        TEST(written_to_while_on_the_list),
        TEST(spoilt_on_the_way),
        TEST(what_is_wrong_on_a_list_is_seen),
        TEST(what_is_wrong_in_an_inbox_is_seen),
        TEST(threads_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
