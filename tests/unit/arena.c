/*
 * arena/arena: claims of every length, dirty slots first, exact bookkeeping of dirt, and claims by many
 * threads that never overlap. The arenas are the tests' own and in no list.
 */
#include "arena/arena.h"

#include "base/bits.h"
#include "os/map.h"
#include "unit.h"

static struct arena *arena;

static int make_arena(void **state)
{
    (void)state;
    arena = map_pages_aligned(ARENA_BYTES, ARENA_BYTES);
    if (arena == NULL)
        return -1;
    arena_initialise(arena, 7);
    return 0;
}

static int drop_arena(void **state)
{
    (void)state;
    map_unmap(arena, ARENA_BYTES);
    return 0;
}

static uint64_t usable(uint32_t word)
{
    return word == 0 ? ~UINT64_C(3) : UINT64_MAX;
}

static void release_with(struct span span, uint64_t dirty)
{
    span.dirty = dirty & span.mask;
    arena_release(&span);
}

/* Takes exactly these slots and gives them back as dirty as asked for. */
static void make_dirty(uint32_t word, uint64_t mask)
{
    struct span span;
    assert_true(arena_claim_exactly(arena, word, mask, &span));
    release_with(span, mask);
}

static void a_fresh_arena_is_free_and_clean(void **state)
{
    (void)state;
    assert_int_equal(arena->number, 7);
    assert_int_equal(arena_free_slots(arena), ARENA_USABLE_SLOTS);
    for (uint32_t word = 0; word < ARENA_WORDS; word++) {
        assert_int_equal(arena->free[word], usable(word));
        assert_int_equal(arena->dirty[word], 0);
    }
    assert_true(arena_is_valid(arena));
}

static void addresses_and_slots(void **state)
{
    (void)state;
    for (uint32_t slot = 0; slot < ARENA_SLOTS; slot++) {
        char *address = arena_slot_address(arena, slot);
        assert_ptr_equal(address, (char *)arena + slot * 16 * KIB);
        assert_int_equal(arena_slot_of(address), slot);
        assert_int_equal(arena_slot_of(address + SLOT_BYTES - 1), slot);
        assert_ptr_equal(arena_of(address + SLOT_BYTES - 1), arena);
    }
    for (uint32_t slots = 1; slots <= SPAN_SLOTS_MOST; slots++) {
        for (uint32_t first = ARENA_HEADER_SLOTS; first < ARENA_SLOTS; first++) {
            uint64_t word = run_word(first, slots);
            assert_true(word_is_run(word));
            assert_int_equal(run_word_slots(word), slots);
            assert_int_equal(word >> 32, first);
        }
    }
    assert_false(word_is_run(0));
}

/* Rows of one length until there is none left: each lies in one word, none overlaps, the lowest comes first.
 */
static void rows_of_every_length(void **state)
{
    (void)state;
    for (uint32_t slots = 1; slots <= SPAN_SLOTS_MOST; slots++) {
        uint64_t taken[ARENA_WORDS] = {3};
        struct span spans[ARENA_SLOTS];
        uint32_t count = 0;
        uint32_t next = ARENA_HEADER_SLOTS;
        while (arena_claim(arena, slots, slots, &spans[count])) {
            const struct span *span = &spans[count++];
            if (next % WORD_SLOTS + slots > WORD_SLOTS)
                next = (next / WORD_SLOTS + 1) * WORD_SLOTS;
            assert_ptr_equal(span->arena, arena);
            assert_int_equal(span_first_slot(span), next);
            assert_int_equal(span->mask, bits_ones(slots) << next % WORD_SLOTS);
            assert_int_equal(span->dirty, 0);
            assert_int_equal(taken[span->word] & span->mask, 0);
            taken[span->word] |= span->mask;
            next += slots;
        }
        assert_int_equal(count, (WORD_SLOTS - ARENA_HEADER_SLOTS) / slots + 3 * (WORD_SLOTS / slots));
        assert_int_equal(arena_free_slots(arena), ARENA_USABLE_SLOTS - count * slots);
        assert_true(1U << arena_room(arena).row_log2 < slots || arena_free_slots(arena) == 0);
        while (count > 0)
            arena_release(&spans[--count]);
        assert_int_equal(arena_free_slots(arena), ARENA_USABLE_SLOTS);
        assert_int_equal(arena_room(arena).row_log2, ROW_LOG2_MOST);
    }
    assert_true(arena_is_valid(arena));
}

static void batches_of_single_slots(void **state)
{
    (void)state;
    struct span span;
    assert_true(arena_claim(arena, 1, 5, &span));
    assert_int_equal(span.mask, 0x7c);
    release_with(span, 0);
    /* Every other slot of the word taken: a batch takes what is there, in any order, and not from the next
     * word. */
    assert_true(arena_claim_exactly(arena, 0, 0x5555555555555554, &span));
    assert_true(arena_claim(arena, 1, 4, &span));
    assert_int_equal(span.mask, 0x2a8);
    assert_true(arena_claim(arena, 1, 64, &span));
    assert_int_equal(span.word, 0);
    assert_int_equal(span.mask, 0xaaaaaaaaaaaaa800);
    assert_true(arena_claim(arena, 1, 3, &span));
    assert_int_equal(span.word, 1);
    assert_int_equal(span.mask, 7);
}

static void exact_claims_take_all_or_nothing(void **state)
{
    (void)state;
    struct span span;
    assert_false(arena_claim_exactly(arena, 0, 3, &span));
    assert_true(arena_claim_exactly(arena, 2, 0xf0, &span));
    assert_int_equal(span.mask, 0xf0);
    assert_int_equal(span.word, 2);
    assert_int_equal(arena->free[2], ~UINT64_C(0xf0));
    assert_false(arena_claim_exactly(arena, 2, 0x180, &span));
    assert_int_equal(arena->free[2], ~UINT64_C(0xf0));
    make_dirty(2, 0x300);
    assert_true(arena_claim_exactly(arena, 2, 0x700, &span));
    assert_int_equal(span.dirty, 0x300);
    assert_int_equal(arena->dirty[2], 0);
}

static void single_slots_come_dirty_first(void **state)
{
    (void)state;
    struct span span;
    make_dirty(0, UINT64_C(1) << 40 | UINT64_C(1) << 50 | UINT64_C(1) << 60);
    assert_true(arena_claim(arena, 1, 2, &span));
    assert_int_equal(span.mask, UINT64_C(1) << 40 | UINT64_C(1) << 50);
    assert_int_equal(span.dirty, span.mask);
    assert_int_equal(arena->dirty[0], UINT64_C(1) << 60);
    assert_true(arena_claim(arena, 1, 8, &span));
    assert_int_equal(span.mask, UINT64_C(1) << 60);
    assert_true(arena_claim(arena, 1, 2, &span));
    assert_int_equal(span.mask, 0xc);
    assert_int_equal(span.dirty, 0);
}

static void rows_come_wholly_dirty_first(void **state)
{
    (void)state;
    struct span span;
    make_dirty(0, UINT64_C(0xf) << 20 | UINT64_C(1) << 3);
    assert_true(arena_claim(arena, 4, 4, &span));
    assert_int_equal(span.mask, UINT64_C(0xf) << 20);
    assert_int_equal(span.dirty, span.mask);
    /* No row is wholly dirty any more: the lowest, and it says which of its slots are. */
    assert_true(arena_claim(arena, 4, 4, &span));
    assert_int_equal(span.mask, 0x3c);
    assert_int_equal(span.dirty, 0x8);
    assert_int_equal(arena->dirty[0], 0);
}

static void dirt_stays_with_its_slots(void **state)
{
    (void)state;
    struct span span;
    assert_true(arena_claim(arena, 8, 8, &span));
    release_with(span, span.mask & 0xcc);
    assert_int_equal(arena->dirty[0], span.mask & 0xcc);
    assert_true(arena_is_valid(arena));
    assert_true(arena_claim_exactly(arena, 0, span.mask, &span));
    assert_int_equal(span.dirty, span.mask & 0xcc);
    assert_int_equal(arena->dirty[0], 0);
    release_with(span, 0);
    assert_true(arena_claim_exactly(arena, 0, span.mask, &span));
    assert_int_equal(span.dirty, 0);
}

static void rows_are_found_where_they_are(void **state)
{
    (void)state;
    struct random random = {1};
    for (unsigned round = 0; round < 300; round++) {
        uint64_t sets[ARENA_WORDS];
        for (uint32_t word = 0; word < ARENA_WORDS; word++) {
            sets[word] = random_next(&random) & random_next(&random) & usable(word);
            sets[word] |= usable(word) & bits_ones((unsigned)random_below(&random, 33))
                                             << random_below(&random, 64);
            arena->free[word] = sets[word];
        }
        uint32_t count = 0;
        for (uint32_t word = 0; word < ARENA_WORDS; word++)
            count += bits_count(sets[word]);
        assert_int_equal(arena_free_slots(arena), count);
        struct arena_room room = arena_room(arena);
        assert_int_equal(room.free_slots, count);
        for (uint32_t slots = 1; slots <= SPAN_SLOTS_MOST; slots++) {
            bool has = false;
            for (uint32_t word = 0; word < ARENA_WORDS; word++)
                has |= bits_run_starts(sets[word], slots) != 0;
            if (bits_is_power_of_two(slots))
                assert_int_equal(count > 0 && bits_log2(slots) <= room.row_log2, has);
            struct span span;
            assert_int_equal(arena_claim(arena, slots, slots, &span), has);
            if (has)
                arena_release(&span);
        }
    }
}

static void damage_is_seen(void **state)
{
    (void)state;
    atomic_fetch_or(&arena->free[0], 2);
    assert_false(arena_is_valid(arena));
    atomic_store(&arena->free[0], usable(0));
    atomic_fetch_and(&arena->free[3], ~(UINT64_C(1) << 63));
    atomic_fetch_or(&arena->dirty[3], UINT64_C(1) << 63);
    assert_false(arena_is_valid(arena));
    atomic_store(&arena->dirty[3], 0);
    assert_true(arena_is_valid(arena));
    atomic_store(&arena->slot_map[100], run_word(100, 1));
    assert_false(arena_is_valid(arena));
    atomic_store(&arena->slot_map[100], 0);
    assert_true(arena_is_valid(arena));
}

/* ---- threads ---- */

#define THREADS 8U

/* Who holds a slot, 0 nobody; and whether its last holder gave it back dirty. Not atomic on purpose: the
 * claim and the release must order them, and ThreadSanitizer sees when they do not. */
static unsigned holder[ARENA_SLOTS];
static bool left_dirty[ARENA_SLOTS];

static void take_over(const struct span *span, unsigned thread)
{
    for (uint64_t rest = span->mask; rest != 0; rest &= rest - 1) {
        uint32_t slot = span->word * WORD_SLOTS + bits_lowest(rest);
        must(slot >= ARENA_HEADER_SLOTS && holder[slot] == 0);
        must(left_dirty[slot] == ((span->dirty >> slot % WORD_SLOTS & 1) != 0));
        holder[slot] = thread + 1;
    }
}

static void hand_over(struct span *span, unsigned thread, uint64_t dirty)
{
    span->dirty = dirty & span->mask;
    for (uint64_t rest = span->mask; rest != 0; rest &= rest - 1) {
        uint32_t slot = span->word * WORD_SLOTS + bits_lowest(rest);
        must(holder[slot] == thread + 1);
        holder[slot] = 0;
        left_dirty[slot] = (span->dirty >> slot % WORD_SLOTS & 1) != 0;
    }
    arena_release(span);
}

#define HELD 6U

static bool claim_somehow(struct random *random, const struct span *behind, struct span *span)
{
    switch (random_below(random, 3)) {
    case 0:
        return arena_claim(arena, 1, 1 + (uint32_t)random_below(random, 8), span);
    case 1: {
        uint32_t slots = 1 + (uint32_t)random_below(random, SPAN_SLOTS_MOST);
        return arena_claim(arena, slots, slots, span);
    }
    default: {
        uint64_t mask = behind->mask << 1 & ~behind->mask;
        return mask != 0 && arena_claim_exactly(arena, behind->word, mask, span);
    }
    }
}

static void claim_and_release(void *context, unsigned index)
{
    (void)context;
    struct random random = {index};
    struct span held[HELD] = {{.arena = NULL}};
    for (unsigned step = 0; step < 30000; step++) {
        struct span *span = &held[random_below(&random, HELD)];
        if (span->mask != 0) {
            hand_over(span, index, random_next(&random));
            span->mask = 0;
        }
        if (claim_somehow(&random, &held[random_below(&random, HELD)], span))
            take_over(span, index);
        else
            span->mask = 0;
    }
    for (unsigned i = 0; i < HELD; i++)
        if (held[i].mask != 0)
            hand_over(&held[i], index, 0);
}

static void claims_at_once_never_overlap(void **state)
{
    (void)state;
    threads_run(THREADS, claim_and_release, NULL);
    assert_int_equal(arena_free_slots(arena), ARENA_USABLE_SLOTS);
    assert_true(arena_is_valid(arena));
    for (uint32_t slot = ARENA_HEADER_SLOTS; slot < ARENA_SLOTS; slot++)
        assert_int_equal(arena->dirty[slot / WORD_SLOTS] >> slot % WORD_SLOTS & 1, left_dirty[slot]);
}

#define WITH_ARENA(name) cmocka_unit_test_setup_teardown(name, make_arena, drop_arena)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_ARENA(a_fresh_arena_is_free_and_clean),
        WITH_ARENA(addresses_and_slots),
        WITH_ARENA(rows_of_every_length),
        WITH_ARENA(batches_of_single_slots),
        WITH_ARENA(exact_claims_take_all_or_nothing),
        WITH_ARENA(single_slots_come_dirty_first),
        WITH_ARENA(rows_come_wholly_dirty_first),
        WITH_ARENA(dirt_stays_with_its_slots),
        WITH_ARENA(rows_are_found_where_they_are),
        WITH_ARENA(damage_is_seen),
        WITH_ARENA(claims_at_once_never_overlap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
