#include "arena/arena.h"

#include "base/counters.h"
#include "base/fatal.h"

void arena_initialise(struct arena *arena, uint32_t number)
{
    atomic_store_explicit(&arena->mark, arena_mark(arena), memory_order_relaxed);
    arena->number = number;
    for (uint32_t word = 0; word < ARENA_WORDS; word++)
        atomic_store_explicit(&arena->free[word], arena_usable_mask(word), memory_order_relaxed);
}

/* Up to `most` of the set bits, lowest first. */
static uint64_t lowest_bits(uint64_t set, uint32_t most)
{
    uint64_t chosen = 0;
    for (; most > 0 && set != 0; most--) {
        chosen |= set & -set;
        set &= set - 1;
    }
    return chosen;
}

static uint64_t choose(uint64_t available, uint64_t dirty, uint32_t slots, uint32_t most)
{
    if (slots == 1) {
        uint64_t preferred = available & dirty;
        return lowest_bits(preferred != 0 ? preferred : available, most);
    }
    uint64_t starts = bits_run_starts(available & dirty, slots);
    if (starts == 0)
        starts = bits_run_starts(available, slots);
    return starts == 0 ? 0 : bits_ones(slots) << bits_lowest(starts);
}

static void take_dirty_bits(struct arena *arena, struct span *span)
{
    span->dirty = atomic_load_explicit(&arena->dirty[span->word], memory_order_relaxed) & span->mask;
    if (span->dirty == 0)
        return;
    counter_locked();
    /* relaxed: a dirty bit is written by the holder of its slot only. */
    atomic_fetch_and_explicit(&arena->dirty[span->word], ~span->dirty, memory_order_relaxed);
}

static bool claim_in_word(struct arena *arena, uint32_t word, uint32_t slots, uint32_t most,
                          struct span *span)
{
    uint64_t available = atomic_load_explicit(&arena->free[word], memory_order_relaxed);
    for (;;) {
        uint64_t dirty = atomic_load_explicit(&arena->dirty[word], memory_order_relaxed);
        uint64_t mask = choose(available, dirty, slots, most);
        if (mask == 0)
            return false;
        counter_locked();
        /* acquire: pairs with the release in arena_release; what the last holder did to the pages is done.
         * The word read is the whole truth about its slots: a bit that went and came back is as free as
         * before, so ABA is harmless. */
        if (atomic_compare_exchange_weak_explicit(&arena->free[word], &available, available & ~mask,
                                                  memory_order_seq_cst, memory_order_relaxed)) {
            *span = (struct span){.arena = arena, .mask = mask, .word = word};
            take_dirty_bits(arena, span);
            return true;
        }
        counter_retry();
    }
}

bool arena_claim(struct arena *arena, uint32_t slots, uint32_t most, struct span *span)
{
    for (uint32_t word = 0; word < ARENA_WORDS; word++)
        if (claim_in_word(arena, word, slots, most, span))
            return true;
    return false;
}

bool arena_claim_exactly(struct arena *arena, uint32_t word, uint64_t mask, struct span *span)
{
    uint64_t available = atomic_load_explicit(&arena->free[word], memory_order_relaxed);
    while ((available & mask) == mask) {
        counter_locked();
        if (atomic_compare_exchange_weak_explicit(&arena->free[word], &available, available & ~mask,
                                                  memory_order_seq_cst, memory_order_relaxed)) {
            *span = (struct span){.arena = arena, .mask = mask, .word = word};
            take_dirty_bits(arena, span);
            return true;
        }
        counter_retry();
    }
    return false;
}

void arena_release(const struct span *span)
{
    struct arena *arena = span->arena;
    CHECK((span->dirty & ~span->mask) == 0);
    CHECK((atomic_load_explicit(&arena->free[span->word], memory_order_relaxed) & span->mask) == 0);
    if (span->dirty != 0) {
        counter_locked();
        atomic_fetch_or_explicit(&arena->dirty[span->word], span->dirty, memory_order_relaxed);
    }
    counter_locked();
    /* release: pairs with the acquire in claim_in_word; hands over pages, descriptors and the dirty bits.
     * seq_cst: comes before the look at `publishing` in arena_list_publish. */
    atomic_fetch_or_explicit(&arena->free[span->word], span->mask, memory_order_seq_cst);
}

static void free_words(struct arena *arena, uint64_t words[ARENA_WORDS])
{
    for (uint32_t word = 0; word < ARENA_WORDS; word++)
        words[word] = atomic_load_explicit(&arena->free[word], memory_order_seq_cst);
}

static uint32_t count_words(const uint64_t words[ARENA_WORDS])
{
    uint32_t count = 0;
    for (uint32_t word = 0; word < ARENA_WORDS; word++)
        count += bits_count(words[word]);
    return count;
}

uint32_t arena_free_slots(struct arena *arena)
{
    uint64_t words[ARENA_WORDS];
    free_words(arena, words);
    return count_words(words);
}

/* All words side by side, without a branch: this runs with every claim and release. */
struct arena_room arena_room(struct arena *arena)
{
    uint64_t starts[ARENA_WORDS];
    free_words(arena, starts);
    struct arena_room room = {.free_slots = count_words(starts)};
    for (uint32_t log2 = 0; log2 < ROW_LOG2_MOST; log2++) {
        uint64_t longer = 0;
        for (uint32_t word = 0; word < ARENA_WORDS; word++) {
            starts[word] &= starts[word] >> (1U << log2);
            longer |= starts[word];
        }
        room.row_log2 += longer != 0;
    }
    return room;
}

/* Holds at any moment for words that nobody is claiming: run by the tests, and by the housekeeper in checked
 * builds on arenas that it holds wholly. */
bool arena_is_valid(struct arena *arena)
{
    for (uint32_t slot = 0; slot < ARENA_SLOTS; slot++) {
        uint64_t bit = UINT64_C(1) << slot % WORD_SLOTS;
        bool is_free = (atomic_load(&arena->free[slot / WORD_SLOTS]) & bit) != 0;
        bool is_dirty = (atomic_load(&arena->dirty[slot / WORD_SLOTS]) & bit) != 0;
        if ((slot < ARENA_HEADER_SLOTS || slot >= ARENA_END_SLOT) && (is_free || is_dirty))
            return false;
        if (is_dirty && !is_free)
            return false;
        if (is_free && atomic_load(&arena->slot_map[slot]) != 0)
            return false;
    }
    return true;
}
