/*
 * pool/pool: words in the slot map, carving that touches no page early, dirt, counts by state, and damage
 * that the validity check must see. The pools lie in an arena of the test's own, which is in no list; heaps
 * are only addresses here.
 */
#include "pool/pool.h"

#include "base/bits.h"
#include "os/map.h"
#include "os/settings.h"
#include "unit.h"

#define HEAP  ((void *)(uintptr_t)0x7e0000010000)
#define OTHER ((void *)(uintptr_t)0x7e0000020000)

static struct arena *arena;
static size_t page;

static int make_arena(void **state)
{
    (void)state;
    page = map_page_bytes();
    settings.check = false;
    arena = map_pages_aligned(ARENA_BYTES, ARENA_BYTES);
    if (arena == NULL)
        return -1;
    map_allow_huge(arena, ARENA_BYTES, false);
    arena_initialise(arena, 0);
    if (page > SLOT_BYTES) { /* the first pool lies on no page of the header */
        struct span beside;
        uint64_t mask = bits_ones((unsigned)(page / SLOT_BYTES)) & arena_usable_mask(0);
        return arena_claim_exactly(arena, 0, mask, &beside) ? 0 : -1;
    }
    return 0;
}

static int drop_arena(void **state)
{
    (void)state;
    map_unmap(arena, ARENA_BYTES);
    return 0;
}

/* `dirty` is a mask with bit 0 for the pool's first slot. */
static struct pool *open_pool(uint32_t class, uint64_t dirty)
{
    struct span span;
    uint32_t slots = class_pool_slots(class);
    assert_true(arena_claim(arena, slots, slots, &span));
    span.dirty = dirty << bits_lowest(span.mask) & span.mask;
    return pool_open(&span, class, HEAP);
}

static void close(struct pool *pool, uint64_t expected_dirty)
{
    struct span span;
    uint32_t first = pool->first_slot;
    uint64_t mask = bits_ones(pool->slots) << first % WORD_SLOTS;
    pool_close(pool, &span);
    assert_ptr_equal(span.arena, arena);
    assert_int_equal(span.word, first / WORD_SLOTS);
    assert_int_equal(span.mask, mask);
    assert_int_equal(span.dirty, expected_dirty << first % WORD_SLOTS);
    assert_int_equal(pool_state(pool), POOL_NONE);
    for (uint32_t slot = first; slot < first + pool->slots; slot++)
        assert_int_equal(arena->slot_map[slot], 0);
    span.dirty = 0;
    arena_release(&span);
}

/* Takes the first block off the list, as malloc does. */
static struct block *take(struct pool *pool)
{
    struct block *block = pool->free;
    assert_ptr_not_equal(block, &pool_end);
    assert_ptr_equal(block->canary, pool);
    block->canary = NULL;
    pool->free = block->next;
    owned_increment(&pool->count);
    return block;
}

static void put(struct pool *pool, struct block *block)
{
    block->canary = pool;
    block->next = pool->free;
    pool->free = block;
    assert_false(owned_decrement_is_zero(&pool->count));
}

/* ---- opening ---- */

static void check_words(struct pool *pool, void *heap)
{
    for (uint32_t slot = pool->first_slot; slot < pool->first_slot + pool->slots; slot++) {
        uint64_t word = arena->slot_map[slot];
        const char *inside = arena_slot_address(arena, slot) + 100;
        assert_false(word_is_run(word));
        assert_ptr_equal(pool_of_word(inside, word), pool);
        assert_ptr_equal(pool_word_heap(word), heap);
        uint64_t difference = word ^ (uint64_t)(uintptr_t)heap; /* as free looks at it */
        assert_int_equal(difference < POOL_WORD_CHECKED, !settings.check);
    }
    assert_ptr_equal(pool->heap, heap);
}

static void an_open_pool_is_current_and_empty(void **state)
{
    (void)state;
    for (uint32_t class = 0; class < CLASS_COUNT; class ++) {
        struct pool *before = open_pool(0, 0); /* so that the pool is not always the first of the arena */
        struct pool *pool = open_pool(class, 0);
        assert_int_equal(pool->block_bytes, class_bytes(class));
        assert_int_equal(pool_class(pool), class);
        assert_int_equal(pool->slots, class_pool_slots(class));
        assert_int_equal(pool->capacity, pool->slots * SLOT_BYTES / pool->block_bytes);
        assert_int_equal(pool_state(pool), POOL_CURRENT);
        assert_int_equal(pool_used(pool), 0);
        assert_int_equal(pool_carved(pool), 0);
        assert_ptr_equal(pool->free, &pool_end);
        assert_ptr_equal(pool_arena(pool), arena);
        assert_ptr_equal(pool_start(pool), arena_slot_address(arena, pool->first_slot));
        assert_true(pool_is_valid(pool));
        check_words(pool, HEAP);
        pool_set_owner(pool, OTHER);
        check_words(pool, OTHER);
        check_words(before, HEAP);
        close(pool, 0);
        close(before, 0);
    }
    assert_null(pool_end.canary);
    assert_null(pool_end.next);
}

static void checked_words_are_near_no_owner(void **state)
{
    (void)state;
    settings.check = true;
    struct pool *pool = open_pool(class_of_size(3000), 0);
    check_words(pool, HEAP);
    pool_set_owner(pool, OTHER);
    check_words(pool, OTHER);
    close(pool, 0);
}

/* ---- carving ---- */

static void check_residency(const struct pool *pool, uint32_t touched)
{
    /* A block's first bytes hold its place in the list; nothing else may have been touched. */
    const char *start = pool_start(pool);
    size_t resident = 0;
    size_t last = SIZE_MAX;
    for (uint32_t i = 0; i < touched; i++) {
        const char *block = start + (size_t)i * pool->block_bytes;
        resident += (uintptr_t)block / page != last;
        last = (uintptr_t)block / page;
        assert_true(page_is_resident(block));
    }
    assert_int_equal(pages_resident(start, pool->slots * SLOT_BYTES), resident);
}

/* Of the page in which a block ends that begins there, seen from the pool's start. */
static size_t first_page_end(struct pool *pool, size_t block_begin)
{
    char *end = pool_start(pool) + block_begin + pool->block_bytes;
    return (size_t)((char *)bits_align_up((uintptr_t)end, page) - pool_start(pool));
}

static void carving_touches_a_page_at_a_time(void **state)
{
    (void)state;
    for (uint32_t class = 0; class < CLASS_COUNT; class ++) {
        struct pool *pool = open_pool(class, 0);
        check_residency(pool, 0);
        uint32_t taken = 0;
        while (pool_carve(pool)) {
            uint32_t end = pool_carved(pool);
            assert_true(end > taken && end <= pool->capacity);
            /* Up to the end of the page in which the first of them ends, and no further. */
            size_t limit = first_page_end(pool, (size_t)taken * pool->block_bytes);
            assert_true((size_t)end * pool->block_bytes <= limit);
            assert_true(end == pool->capacity || (size_t)(end + 1) * pool->block_bytes > limit);
            check_residency(pool, end);
            assert_true(pool_is_valid(pool));
            for (; taken < end; taken++)
                assert_ptr_equal(take(pool), pool_start(pool) + (size_t)taken * pool->block_bytes);
            assert_ptr_equal(pool->free, &pool_end);
            assert_int_equal(pool_used(pool), taken);
        }
        assert_int_equal(taken, pool->capacity);
        assert_false(pool_carve(pool));
        map_purge(pool_start(pool), bits_align_up(pool->slots * SLOT_BYTES, page));
        owned_write(&pool->count, 1);
        size_t used_slots = ((size_t)pool->capacity * pool->block_bytes + SLOT_BYTES - 1) / SLOT_BYTES;
        close(pool, bits_ones((unsigned)used_slots));
    }
}

/* Pages larger than slots: a pool may begin inside one. */
static void carving_ends_with_a_page_of_the_system(void **state)
{
    (void)state;
    open_pool(0, 0);
    struct pool *pool = open_pool(class_of_size(2048), 0);
    assert_true(pool_carve(pool));
    check_residency(pool, pool_carved(pool));
    assert_int_equal(pages_resident(pool_start(pool), pool->slots * SLOT_BYTES), 1);
}

static void pages_touched_before_are_carved_at_once(void **state)
{
    (void)state;
    uint32_t class = class_of_size(1000);
    struct pool *pool = open_pool(class, bits_ones(class_pool_slots(class)));
    assert_true(pool_carve(pool));
    assert_int_equal(pool_carved(pool), pool->capacity);
    assert_true(pool_is_valid(pool));
    for (uint32_t i = 0; i < pool->capacity; i++)
        assert_ptr_equal(take(pool), pool_start(pool) + (size_t)i * pool->block_bytes);
    assert_false(pool_carve(pool));

    struct pool *partly = open_pool(class, bits_ones(class_pool_slots(class)) >> 1);
    assert_true(pool_carve(partly));
    assert_int_equal(pool_carved(partly), first_page_end(partly, 0) / partly->block_bytes);
}

/* Carves once more, takes those blocks, and lets go of them. Returns where the last of them ends: in the page
 * where the first of them does. */
static size_t carve_and_take(struct pool *pool, size_t reached)
{
    size_t limit = first_page_end(pool, reached);
    assert_true(pool_carve(pool));
    for (; reached + pool->block_bytes <= limit; reached += pool->block_bytes)
        take(pool);
    assert_ptr_equal(pool->free, &pool_end);
    owned_write(&pool->count, 1);
    return reached;
}

static uint64_t slots_reached(size_t bytes)
{
    return bits_ones((unsigned)((bytes + SLOT_BYTES - 1) / SLOT_BYTES));
}

static void dirt_is_what_was_carved_or_dirty_before(void **state)
{
    (void)state;
    uint32_t class = class_of_size(6000); /* 8 slots */
    close(open_pool(class, 0), 0);
    close(open_pool(class, 0xa0), 0xa0);
    struct pool *pool = open_pool(class, 0x40);
    size_t reached = carve_and_take(pool, 0); /* one block, where pages are of 4 KiB */
    close(pool, 0x40 | slots_reached(reached));
    pool = open_pool(class, 0);
    for (reached = 0; reached <= SLOT_BYTES;) /* there three blocks reach into the second slot */
        reached = carve_and_take(pool, reached);
    close(pool, slots_reached(reached));
}

/* ---- what is known of a pool ---- */

/* All multiples of 16 in the pools of all classes, with nothing carved, a page, and everything; and what
 * other threads find, who do not look at what is carved. */
static void check_blocks(const struct pool *pool)
{
    const char *start = pool_start(pool);
    uint32_t count = 0;
    for (size_t offset = 0; offset < pool->slots * SLOT_BYTES; offset += BLOCK_ALIGNMENT) {
        bool begins = offset % pool->block_bytes == 0 && offset / pool->block_bytes < pool->capacity;
        bool is_block = begins && offset / pool->block_bytes < pool_carved(pool);
        uint64_t word = arena->slot_map[arena_slot_of(start + offset)];
        uint32_t class = UINT32_MAX;
        assert_int_equal(pool_is_block(pool, start + offset), is_block);
        assert_int_equal(pool_word_has_block(start + offset, word, &class), begins);
        assert_int_equal(class, pool_class(pool));
        count += is_block;
    }
    assert_int_equal(count, pool_carved(pool));
}

static void only_starts_of_carved_blocks_are_blocks(void **state)
{
    (void)state;
    for (uint32_t class = 0; class < CLASS_COUNT; class ++) {
        struct pool *pool = open_pool(class, 0);
        check_blocks(pool);
        pool_carve(pool);
        check_blocks(pool);
        atomic_store(&pool->carved, pool->capacity);
        check_blocks(pool);
        atomic_store(&pool->carved, 0);
        pool->free = &pool_end;
        close(pool, 0);
    }
}

static void used_is_counted_by_state(void **state)
{
    (void)state;
    struct pool *pool = open_pool(class_of_size(512), 0);
    pool_set_state(pool, POOL_CURRENT);
    owned_write(&pool->count, 6);
    assert_int_equal(pool_used(pool), 5);
    pool_set_state(pool, POOL_QUEUED);
    assert_int_equal(pool_used(pool), 6);
    pool_set_state(pool, POOL_FULL);
    owned_write(&pool->count, 1);
    assert_int_equal(pool_used(pool), pool->capacity);
    assert_int_equal(pool_used_of(pool, 7), 7);
    pool_set_state(pool, POOL_NONE);
    assert_int_equal(pool_used(pool), 0);
    /* A reader between two writes of the owner: never more than there is. */
    pool_set_state(pool, POOL_CURRENT);
    owned_write(&pool->count, 0);
    assert_int_equal(pool_used(pool), pool->capacity);
}

static void the_list_knows_its_blocks(void **state)
{
    (void)state;
    struct pool *pool = open_pool(class_of_size(256), 0);
    pool_carve(pool);
    struct block *taken[3] = {take(pool), take(pool), take(pool)};
    for (unsigned i = 0; i < 3; i++)
        assert_false(pool_list_has(pool, taken[i]));
    put(pool, taken[1]);
    assert_true(pool_list_has(pool, taken[1]));
    assert_false(pool_list_has(pool, taken[0]));
    assert_true(pool_list_has(pool, (struct block *)(void *)(pool_start(pool) + 3 * 256)));
    assert_false(pool_list_has(pool, &pool_end));
    assert_true(pool_is_valid(pool));
    taken[1]->next = taken[1]; /* a ring must not hold the search up */
    assert_false(pool_list_has(pool, taken[0]));
}

static void damage_is_seen(void **state)
{
    (void)state;
    struct pool *pool = open_pool(class_of_size(128), 0);
    pool_carve(pool);
    struct block *first = take(pool);
    struct block *second = take(pool);
    put(pool, second);
    assert_true(pool_is_valid(pool));

    second->canary = NULL;
    assert_false(pool_is_valid(pool));
    second->canary = pool;

    struct block *next = second->next;
    second->next = second;
    assert_false(pool_is_valid(pool));
    second->next = next;

    owned_write(&pool->count, owned_read(&pool->count) + 1);
    assert_false(pool_is_valid(pool));
    owned_write(&pool->count, owned_read(&pool->count) - 2);
    assert_false(pool_is_valid(pool));
    owned_write(&pool->count, owned_read(&pool->count) + 1);

    /* As many as there should be, but one of them is no block. */
    struct block *inside = (struct block *)(void *)((char *)first + 16);
    *inside = (struct block){pool, next->next};
    second->next = inside;
    assert_false(pool_is_valid(pool));
    second->next = next;
    assert_true(pool_is_valid(pool));

    /* More carved than there are, and used so that the sum is right. */
    uint32_t carved = pool_carved(pool);
    uint32_t count = owned_read(&pool->count);
    atomic_store(&pool->carved, pool->capacity + 1);
    assert_false(pool_is_valid(pool));
    owned_write(&pool->count, count + pool->capacity + 1 - carved);
    assert_false(pool_is_valid(pool));
    atomic_store(&pool->carved, carved);
    owned_write(&pool->count, count);
    assert_true(pool_is_valid(pool));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_arena, drop_arena)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_open_pool_is_current_and_empty),
        TEST(checked_words_are_near_no_owner),
        TEST(carving_touches_a_page_at_a_time),
        TEST(carving_ends_with_a_page_of_the_system),
        TEST(pages_touched_before_are_carved_at_once),
        TEST(dirt_is_what_was_carved_or_dirty_before),
        TEST(only_starts_of_carved_blocks_are_blocks),
        TEST(used_is_counted_by_state),
        TEST(the_list_knows_its_blocks),
        TEST(damage_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
