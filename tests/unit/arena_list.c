/*
 * arena/arena_list: where a claim is served from, the ledger, arenas that come and go, and many threads at
 * once.
 *
 * The list is the process's own, and where cmocka runs on Tarn it holds arenas already. Each test first takes
 * all that is free in these, and allocates nothing while it counts.
 */
#include "arena/arena_list.h"

#include "base/bits.h"
#include "unit.h"

#define THREADS     8U
#define ARENAS_MOST 64U

static struct reader reader;
static struct reader thread_readers[THREADS];

/* ---- slots held by the test that runs, by number of their arena ---- */

static uint64_t held[ARENAS_MOST][ARENA_WORDS];

static void keep(const struct span *span)
{
    must(span->arena->number < ARENAS_MOST);
    must((held[span->arena->number][span->word] & span->mask) == 0);
    held[span->arena->number][span->word] |= span->mask;
}

static void give(struct arena *arena, uint32_t word, uint64_t mask, uint64_t dirty)
{
    struct span span = {.arena = arena, .mask = mask, .dirty = dirty & mask, .word = word};
    must((held[arena->number][word] & mask) == mask);
    held[arena->number][word] &= ~mask;
    arena_list_release(&reader, &span);
}

static bool claim(uint32_t slots, uint32_t most, struct span *span)
{
    if (!arena_list_claim(&reader, slots, most, span))
        return false;
    keep(span);
    return true;
}

static int begin(void **state)
{
    (void)state;
    reader_publish(&reader);
    for (unsigned i = 0; i < THREADS; i++)
        reader_publish(&thread_readers[i]);
    return 0;
}

static int take_what_is_free(void **state)
{
    (void)state;
    struct span span;
    while (claim(1, WORD_SLOTS, &span))
        continue;
    return 0;
}

static int release_all(void **state)
{
    (void)state;
    for (uint32_t number = 0; number < ARENAS_MOST; number++)
        for (uint32_t word = 0; word < ARENA_WORDS; word++)
            if (held[number][word] != 0)
                give(arena_list_get(number), word, held[number][word], 0);
    return 0;
}

/* ---- arenas as the tests want them ---- */

static void take(struct arena *arena, uint32_t word, uint64_t mask)
{
    struct span span;
    assert_true(arena_list_extend(arena, word, mask, &span));
    keep(&span);
}

/* A new arena with exactly these slots free. */
static struct arena *arena_with(uint64_t word_0, uint64_t word_1, uint64_t word_2, uint64_t word_3)
{
    const uint64_t wanted[ARENA_WORDS] = {word_0, word_1, word_2, word_3};
    struct span span;
    assert_true(arena_list_claim_new(1, 1, &span));
    keep(&span);
    for (uint32_t word = 0; word < ARENA_WORDS; word++) {
        uint64_t mine = held[span.arena->number][word];
        uint64_t all = word == 0 ? ~bits_ones(ARENA_HEADER_SLOTS) : ~UINT64_C(0);
        if ((all & ~wanted[word] & ~mine) != 0)
            take(span.arena, word, all & ~wanted[word] & ~mine);
        if ((mine & wanted[word]) != 0)
            give(span.arena, word, mine & wanted[word], 0);
    }
    return span.arena;
}

/* What the ledger should say, from the bitmaps. */
static void check_ledger(void)
{
    struct ledger walked = {0, 0};
    for (uint32_t number = 0; number < arena_list_bound(); number++) {
        struct arena *arena = arena_list_get(number);
        if (arena == NULL)
            continue;
        walked.held_slots += ARENA_USABLE_SLOTS - arena_free_slots(arena);
        for (uint32_t word = 0; word < ARENA_WORDS; word++)
            walked.dirty_slots += bits_count(arena->dirty[word]);
    }
    struct ledger said = arena_list_ledger();
    assert_int_equal(said.held_slots, walked.held_slots);
    assert_int_equal(said.dirty_slots, walked.dirty_slots);
    assert_true(arena_list_is_valid());
}

/* ---- one thread ---- */

static void nothing_where_nothing_is_free(void **state)
{
    (void)state;
    struct span span;
    for (uint32_t slots = 1; slots <= SPAN_SLOTS_MOST; slots++)
        assert_false(arena_list_claim(&reader, slots, slots, &span));
    check_ledger();
}

static void a_new_arena_is_listed(void **state)
{
    (void)state;
    struct span span;
    assert_true(arena_list_claim_new(16, 16, &span));
    keep(&span);
    assert_int_equal(bits_count(span.mask), 16);
    assert_int_equal(span.dirty, 0);
    assert_ptr_equal(arena_list_get(span.arena->number), span.arena);
    assert_true(span.arena->number < arena_list_bound());
    assert_int_equal(address_index_get(arena_slot_address(span.arena, 255)), ADDRESS_ARENA);
    assert_true(all_zero(arena_slot_address(span.arena, span_first_slot(&span)), 16 * SLOT_BYTES));
    check_ledger();
}

/* All claims of one slot until there is none: the arenas must serve in this order, each to its last slot. */
static void check_order(struct arena *const order[], const uint32_t free_slots[], unsigned count)
{
    struct span span;
    for (unsigned i = 0; i < count; i++) {
        for (uint32_t slot = 0; slot < free_slots[i]; slot++) {
            assert_true(claim(1, 1, &span));
            assert_ptr_equal(span.arena, order[i]);
        }
    }
    assert_false(claim(1, 1, &span));
}

static void the_fullest_arena_serves_first(void **state)
{
    (void)state;
    const uint64_t all = UINT64_MAX;
    struct arena *empty = arena_with(all << ARENA_HEADER_SLOTS, all, all, all);
    struct arena *thin = arena_with(0xff00, all, all, all);
    struct arena *half = arena_with(0, 0, bits_ones(36), all);
    struct arena *full = arena_with(0, 0, 0, bits_ones(40));
    check_ledger();
    check_order((struct arena *const[]){full, half, thin, empty}, (const uint32_t[]){40, 100, 200, 254}, 4);
    check_ledger();
}

/* The fullest arena that has a row of that length; single slots in plenty are no help. */
static void rows_come_from_where_there_are_rows(void **state)
{
    (void)state;
    const uint64_t pairs = 0x3333333333333333;
    struct arena *split = arena_with(0, pairs, pairs, pairs);
    struct arena *eight = arena_with(0, 0xff00ff00ff00ff00, 0, 0xff00ff00ff00ff00);
    struct arena *wide = arena_with(0, UINT64_MAX, UINT64_MAX, UINT64_MAX);
    struct span span;
    assert_true(claim(1, 1, &span));
    assert_true(span.arena == eight || span.arena == split);
    give(span.arena, span.word, span.mask, 0);
    for (uint32_t slots = 3; slots <= 8; slots++) {
        assert_true(claim(slots, slots, &span));
        assert_ptr_equal(span.arena, eight);
        give(span.arena, span.word, span.mask, 0);
    }
    for (uint32_t slots = 9; slots <= SPAN_SLOTS_MOST; slots++) {
        assert_true(claim(slots, slots, &span));
        assert_ptr_equal(span.arena, wide);
        assert_int_equal(span.mask, bits_ones(slots) << bits_lowest(span.mask));
        give(span.arena, span.word, span.mask, 0);
    }
    check_ledger();
}

/* As full as the other, but with nothing in a row: it is not looked at for rows. */
static void arenas_without_a_row_are_passed_over(void **state)
{
    (void)state;
    const uint64_t pairs = 0x3333333333333333;
    struct arena *split = arena_with(0, pairs, pairs, pairs);
    struct arena *four = arena_with(0, pairs, pairs, 0x33333333333333f3);
    struct span span;
    for (uint32_t slots = 3; slots <= 4; slots++) {
        assert_true(claim(slots, slots, &span));
        assert_ptr_equal(span.arena, four);
        give(four, span.word, span.mask, 0);
    }
    assert_false(claim(5, 5, &span));
    assert_true(claim(2, 2, &span) && (span.arena == split || span.arena == four));
}

static void the_ledger_counts_dirt(void **state)
{
    (void)state;
    struct arena *arena = arena_with(0, 0, 0, 0);
    struct ledger before = arena_list_ledger();
    struct span span;
    give(arena, 1, 0xfff, 0xf0f);
    assert_int_equal(arena_list_ledger().held_slots, before.held_slots - 12);
    assert_int_equal(arena_list_ledger().dirty_slots, before.dirty_slots + 8);
    check_ledger();
    assert_true(claim(1, 3, &span));
    assert_int_equal(span.dirty, 7);
    assert_int_equal(arena_list_ledger().held_slots, before.held_slots - 9);
    assert_int_equal(arena_list_ledger().dirty_slots, before.dirty_slots + 5);
    take(arena, 1, 0xff8);
    assert_int_equal(arena_list_ledger().held_slots, before.held_slots);
    assert_int_equal(arena_list_ledger().dirty_slots, before.dirty_slots);
    check_ledger();
}

static void extending_takes_all_or_nothing(void **state)
{
    (void)state;
    struct arena *arena = arena_with(0, 0xf0, 0, 0);
    struct span span;
    assert_false(arena_list_extend(arena, 1, 0x1f0, &span));
    assert_false(arena_list_extend(arena, 1, 0x08, &span));
    assert_int_equal(arena_free_slots(arena), 4);
    take(arena, 1, 0x70);
    assert_int_equal(arena->free[1], 0x80);
    check_ledger();
}

static const uint64_t all_bits[ARENA_WORDS] = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX};

static void the_housekeeper_holds_what_is_free(void **state)
{
    (void)state;
    struct arena *arena = arena_with(0, 0xff, 0, 0);
    uint64_t taken[ARENA_WORDS];
    uint64_t dirty[ARENA_WORDS];
    struct span span;
    give(arena, 2, 0xff, 0x0f);
    struct ledger before = arena_list_ledger();
    const uint64_t want[ARENA_WORDS] = {UINT64_MAX, 0, 0xfff, UINT64_MAX};
    assert_int_equal(arena_list_hold_free(arena, want, taken, dirty), 8);
    assert_true(taken[0] == 0 && taken[1] == 0 && taken[2] == 0xff && taken[3] == 0);
    assert_true(dirty[0] == 0 && dirty[1] == 0 && dirty[2] == 0x0f && dirty[3] == 0);
    assert_int_equal(arena_list_ledger().held_slots, before.held_slots + 8);
    assert_int_equal(arena_list_ledger().dirty_slots, before.dirty_slots - 4);
    check_ledger();
    assert_true(claim(1, 64, &span)); /* what is not held can be claimed, and nothing else */
    assert_int_equal(span.mask, 0xff);
    assert_int_equal(span.word, 1);
    assert_false(claim(1, 1, &span));
    dirty[2] = 0x03;
    arena_list_unhold(arena, taken, dirty);
    assert_int_equal(arena_list_ledger().dirty_slots, before.dirty_slots - 2);
    check_ledger();
    assert_true(claim(1, 1, &span));
    assert_int_equal(span.dirty, 1);
    assert_ptr_equal(span.arena, arena);
}

static void an_arena_goes_and_comes_back(void **state)
{
    (void)state;
    struct arena *arena = arena_with(UINT64_MAX << ARENA_HEADER_SLOTS, UINT64_MAX, UINT64_MAX, UINT64_MAX);
    uint64_t taken[ARENA_WORDS];
    uint64_t dirty[ARENA_WORDS];
    struct span span;
    struct ledger before = arena_list_ledger();
    assert_int_equal(arena_list_hold_free(arena, all_bits, taken, dirty), ARENA_USABLE_SLOTS);
    arena_list_retire(arena);
    assert_null(arena_list_get(arena->number));
    assert_int_equal(address_index_get(arena), ADDRESS_NOTHING);
    assert_int_equal(arena_list_ledger().held_slots, before.held_slots);
    assert_false(claim(1, 1, &span));
    check_ledger();

    arena_list_revive(arena);
    assert_ptr_equal(arena_list_get(arena->number), arena);
    assert_int_equal(address_index_get(arena), ADDRESS_ARENA);
    assert_int_equal(arena_free_slots(arena), ARENA_USABLE_SLOTS);
    assert_int_equal(arena_list_ledger().held_slots, before.held_slots);
    check_ledger();
    check_order(&arena, (const uint32_t[]){ARENA_USABLE_SLOTS}, 1);
}

static void an_arena_goes_for_good(void **state)
{
    (void)state;
    struct arena *arena = arena_with(UINT64_MAX << ARENA_HEADER_SLOTS, UINT64_MAX, UINT64_MAX, UINT64_MAX);
    uint32_t number = arena->number;
    uint64_t taken[ARENA_WORDS];
    uint64_t dirty[ARENA_WORDS];
    struct span span;
    assert_int_equal(arena_list_hold_free(arena, all_bits, taken, dirty), ARENA_USABLE_SLOTS);
    arena_list_retire(arena);
    arena_list_unmap(arena);
    assert_false(page_is_mapped(arena));
    assert_false(page_is_mapped((char *)arena + ARENA_BYTES - 1));
    assert_null(arena_list_get(number));
    check_ledger();
    assert_true(arena_list_claim_new(1, 1, &span)); /* its number serves again */
    keep(&span);
    assert_int_equal(span.arena->number, number);
    check_ledger();
}

static void claim_without_memory(void *context)
{
    const uint32_t *number = context;
    struct span span;
    uint32_t held_before = arena_list_ledger().held_slots;
    limit_address_space(0);
    must(!arena_list_claim_new(1, 1, &span));
    must(!arena_list_claim(&reader, 1, 1, &span));
    must(arena_list_ledger().held_slots == held_before);
    lift_limit();
    must(arena_list_claim_new(1, 1, &span));
    must(span.arena->number == *number);
    must(arena_list_is_valid());
}

/* The number taken for an arena that could not be mapped is given back. */
static void without_memory_for_an_arena(void **state)
{
    (void)state;
    struct arena *arena = arena_with(0, 0, 0, 0);
    uint32_t next = arena->number + 1;
    while (arena_list_get(next) != NULL)
        next++;
    child_must_succeed(claim_without_memory, &next);
}

/* A thread that was publishing when the process forked does not exist in the child, and left its arena
 * wrongly sorted. */
static void repair_after_fork(void *context)
{
    struct arena *arena = context;
    struct span span;
    atomic_store(&arena->publishing, 1);
    give(arena, 3, UINT64_MAX, 0);
    must(!claim(1, 1, &span));
    must(!arena_list_is_valid());
    arena_list_after_fork_child();
    must(arena->publishing == 0);
    must(arena_list_is_valid());
    for (unsigned i = 0; i < WORD_SLOTS; i++)
        must(claim(1, 1, &span) && span.arena == arena);
    must(!claim(1, 1, &span));
    must(arena_list_is_valid());
    /* Nor does a hint that stays wrong hold anybody up. */
    give(arena, 3, 1, 0);
    atomic_store(&arena->publishing, 1);
    must(arena_list_extend(arena, 3, 1, &span));
    must(!claim(1, 1, &span));
}

static void a_fork_repairs_what_was_half_done(void **state)
{
    (void)state;
    child_must_succeed(repair_after_fork, arena_with(0, 0, 0, 0));
}

/* ---- threads ---- */

#define HELD_MOST 8U

/* Not atomic on purpose: claim and release must order them. */
static unsigned char holder[ARENAS_MOST][ARENA_SLOTS];
static bool left_dirty[ARENAS_MOST][ARENA_SLOTS];

static void take_over(const struct span *span, unsigned thread)
{
    must(span->arena->number < ARENAS_MOST);
    for (uint64_t rest = span->mask; rest != 0; rest &= rest - 1) {
        uint32_t slot = span->word * WORD_SLOTS + bits_lowest(rest);
        bool dirty = (span->dirty >> slot % WORD_SLOTS & 1) != 0;
        must(holder[span->arena->number][slot] == 0 && left_dirty[span->arena->number][slot] == dirty);
        holder[span->arena->number][slot] = (unsigned char)(thread + 1);
    }
}

static void hand_over(struct span *span, unsigned thread, uint64_t dirty)
{
    span->dirty = dirty & span->mask;
    for (uint64_t rest = span->mask; rest != 0; rest &= rest - 1) {
        uint32_t slot = span->word * WORD_SLOTS + bits_lowest(rest);
        must(holder[span->arena->number][slot] == thread + 1);
        holder[span->arena->number][slot] = 0;
        left_dirty[span->arena->number][slot] = (span->dirty >> slot % WORD_SLOTS & 1) != 0;
    }
    arena_list_release(&thread_readers[thread], span);
    span->mask = 0;
}

static bool claim_somewhere(struct reader *own, struct random *random, const struct span *behind,
                            struct span *span)
{
    uint32_t slots = random_below(random, 3) == 0 ? 1 + (uint32_t)random_below(random, SPAN_SLOTS_MOST) : 1;
    uint32_t most = slots == 1 ? 1 + (uint32_t)random_below(random, 8) : slots;
    uint64_t next = behind->mask << 1 & ~behind->mask;
    if (next != 0 && random_below(random, 4) == 0)
        return arena_list_extend(behind->arena, behind->word, next, span);
    return arena_list_claim(own, slots, most, span) || arena_list_claim_new(slots, most, span);
}

static void claim_and_release(void *context, unsigned index)
{
    (void)context;
    struct random random = {index + 1};
    struct reader *own = &thread_readers[index];
    struct span mine[HELD_MOST] = {{.arena = NULL}};
    for (unsigned step = 0; step < 15000; step++) {
        struct span *span = &mine[random_below(&random, HELD_MOST)];
        if (span->mask != 0)
            hand_over(span, index, random_next(&random));
        if (claim_somewhere(own, &random, &mine[random_below(&random, HELD_MOST)], span))
            take_over(span, index);
        else
            span->mask = 0;
    }
    for (unsigned i = 0; i < HELD_MOST; i++)
        if (mine[i].mask != 0)
            hand_over(&mine[i], index, random_next(&random));
}

static void threads_claim_and_release_at_once(void **state)
{
    (void)state;
    threads_run(THREADS, claim_and_release, NULL);
    check_ledger();
    /* All that is free must be found: no arena has been lost from the summary. */
    struct span span;
    while (claim(1, WORD_SLOTS, &span))
        for (uint64_t rest = span.mask; rest != 0; rest &= rest - 1)
            assert_int_equal(holder[span.arena->number][span.word * WORD_SLOTS + bits_lowest(rest)], 0);
    for (uint32_t number = 0; number < arena_list_bound(); number++)
        if (arena_list_get(number) != NULL)
            assert_int_equal(arena_free_slots(arena_list_get(number)), 0);
    assert_int_equal(arena_list_ledger().dirty_slots, 0);
}

static void what_is_wrong_is_seen(void **state)
{
    (void)state;
    struct arena *arena = arena_with(0xff00, 0, 0, 0);
    uint32_t bucket = atomic_load(&arena->bucket);
    assert_true(arena_list_is_valid());
    atomic_fetch_or(&arena->dirty[0],
                    arena->free[0] & -arena->free[0]); /* dirt that the ledger does not know */
    assert_false(arena_list_is_valid());
    atomic_store(&arena->dirty[0], 0);
    atomic_store(&arena->bucket, bucket + 1); /* not where its number is, nor what its bitmap says */
    assert_false(arena_list_is_valid());
    atomic_store(&arena->bucket, bucket);
    assert_true(address_index_set(arena, ADDRESS_NOTHING)); /* a listed arena that is not ours */
    assert_false(arena_list_is_valid());
    assert_true(address_index_set(arena, ADDRESS_ARENA));
    assert_true(arena_list_is_valid());
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, take_what_is_free, release_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_where_nothing_is_free),        TEST(a_new_arena_is_listed),
        TEST(the_fullest_arena_serves_first),       TEST(rows_come_from_where_there_are_rows),
        TEST(arenas_without_a_row_are_passed_over), TEST(the_ledger_counts_dirt),
        TEST(extending_takes_all_or_nothing),       TEST(the_housekeeper_holds_what_is_free),
        TEST(an_arena_goes_and_comes_back),         TEST(an_arena_goes_for_good),
        TEST(without_memory_for_an_arena),          TEST(a_fork_repairs_what_was_half_done),
        TEST(threads_claim_and_release_at_once),    TEST(what_is_wrong_is_seen),
    };
    return cmocka_run_group_tests(tests, begin, NULL);
}
