#include "arena/arena_list.h"

#include "arena/summary.h"
#include "base/bits.h"
#include "base/counters.h"
#include "base/fatal.h"
#include "base/probe.h"
#include "base/published.h"
#include "os/clock.h"
#include "os/map.h"
#include "os/settings.h"

enum publishing { PUBLISHING_NOBODY, PUBLISHING, PUBLISHING_AGAIN };

#define ROWS            5U /* of 1, 4, 8, 16 and 32 slots */
#define FULLNESS_LEVELS 3U
#define BUCKET_ALL_FREE (ROWS * FULLNESS_LEVELS)
#define BUCKET_NONE     SUMMARY_BUCKETS /* in no set: nothing free, or not listed */

static struct summary summary;
static struct arena *_Atomic arenas[SUMMARY_MEMBERS];
static _Atomic uint64_t numbers_used[SUMMARY_MEMBERS / 64];
static _Atomic uint32_t bound;
static _Atomic uint64_t ledger_word; /* dirty slots << 32 | held slots */

struct ledger arena_list_ledger(void)
{
    uint64_t word = atomic_load_explicit(&ledger_word, memory_order_relaxed);
    return (struct ledger){.held_slots = (uint32_t)word, .dirty_slots = (uint32_t)(word >> 32)};
}

static void ledger_add(int32_t held, int32_t dirty)
{
    uint64_t change = ((uint64_t)(uint32_t)dirty << 32) + (uint64_t)(int64_t)held;
    counter_locked();
    atomic_fetch_add_explicit(&ledger_word, change, memory_order_relaxed);
}

struct arena *arena_list_get(uint32_t number)
{
    /* acquire: pairs with the release in list_arena; the header is initialised. */
    return atomic_load_explicit(&arenas[number], memory_order_acquire);
}

uint32_t arena_list_bound(void)
{
    return atomic_load_explicit(&bound, memory_order_acquire);
}

/* ---- publishing ---- */

static uint32_t fullness_of(uint32_t free_slots)
{
    if (free_slots < ARENA_SLOTS / 4)
        return 0;
    return free_slots < ARENA_SLOTS * 5 / 8 ? 1 : 2;
}

static uint32_t bucket_by_bitmap(struct arena *arena)
{
    struct arena_room room = arena_room(arena);
    if (room.free_slots == 0)
        return BUCKET_NONE;
    if (room.free_slots == ARENA_USABLE_SLOTS)
        return BUCKET_ALL_FREE;
    return fullness_of(room.free_slots) * ROWS +
           (room.row_log2 <= 1 ? 0 : room.row_log2 - 1); /* 2 is no row */
}

static void move_to_bucket(struct arena *arena, uint32_t bucket)
{
    uint32_t old = atomic_load_explicit(&arena->bucket, memory_order_relaxed);
    if (old == bucket)
        return;
    atomic_store_explicit(&arena->bucket, bucket, memory_order_seq_cst);
    /* Added before it is removed: in two sets for a moment it is a hint too many, in none it could not be
     * found. */
    if (bucket != BUCKET_NONE)
        summary_add(&summary, bucket, arena->number);
    if (old != BUCKET_NONE)
        summary_remove(&summary, old, arena->number);
}

/* Becomes the arena's publisher, or leaves a note for the one there is. */
static bool begin_publishing(struct arena *arena)
{
    uint32_t state = atomic_load_explicit(&arena->publishing, memory_order_seq_cst);
    for (;;) {
        uint32_t next = state == PUBLISHING_NOBODY ? PUBLISHING : PUBLISHING_AGAIN;
        if (state == PUBLISHING_AGAIN)
            return false;
        counter_locked();
        if (atomic_compare_exchange_weak_explicit(&arena->publishing, &state, next, memory_order_seq_cst,
                                                  memory_order_seq_cst))
            return next == PUBLISHING;
        counter_retry();
    }
}

static bool end_publishing(struct arena *arena)
{
    uint32_t state = PUBLISHING;
    counter_locked();
    if (atomic_compare_exchange_strong_explicit(&arena->publishing, &state, PUBLISHING_NOBODY,
                                                memory_order_seq_cst, memory_order_seq_cst))
        return true;
    atomic_store_explicit(&arena->publishing, PUBLISHING, memory_order_seq_cst);
    return false;
}

/* After a change of the arena's bitmap by this thread, within a read section. All loads and stores of the
 * bitmap, of `bucket` and of `publishing` are seq_cst: if this thread sees nobody publishing and the right
 * bucket, then a later publisher reads a bitmap that holds this thread's change (docs/models/publish.pml). */
static void publish(struct arena *arena)
{
    uint32_t bucket = bucket_by_bitmap(arena);
    if (atomic_load_explicit(&arena->publishing, memory_order_seq_cst) == PUBLISHING_NOBODY &&
        atomic_load_explicit(&arena->bucket, memory_order_seq_cst) == bucket)
        return;
    if (!begin_publishing(arena))
        return;
    do
        move_to_bucket(arena, bucket_by_bitmap(arena));
    while (!end_publishing(arena));
}

/* ---- claim and release ---- */

static uint32_t buckets_with_row(uint32_t slots)
{
    /* The shortest of ROWS that is long enough: 1 in 0, 2 to 4 in 1, 5 to 8 in 2, … */
    uint32_t row = slots <= 2 ? slots - 1 : bits_log2(slots - 1);
    uint32_t rows = (uint32_t)bits_ones(ROWS) & ~(uint32_t)bits_ones(row);
    uint32_t buckets = 1U << BUCKET_ALL_FREE;
    for (uint32_t level = 0; level < FULLNESS_LEVELS; level++)
        buckets |= rows << (level * ROWS);
    return buckets;
}

static void count_claim(const struct span *span)
{
    ledger_add((int32_t)bits_count(span->mask), -(int32_t)bits_count(span->dirty));
}

bool arena_list_claim(struct reader *reader, uint32_t slots, uint32_t most, struct span *span)
{
    uint32_t buckets = buckets_with_row(slots);
    bool claimed = false;
    reader_enter(reader);
    for (;;) {
        uint32_t bucket;
        uint32_t number = summary_find(&summary, buckets, &bucket);
        if (number == SUMMARY_NONE)
            break;
        struct arena *arena = arena_list_get(number);
        if (arena != NULL) {
            claimed = arena_claim(arena, slots, most, span);
            publish(arena);
        }
        if (claimed)
            break;
        /* Somebody was faster, or the arena has been retired. A hint that stays wrong because its publisher
         * is not running must not hold us up: look in the other buckets. */
        uint32_t again;
        if (summary_find(&summary, 1U << bucket, &again) == number)
            buckets &= ~(1U << bucket);
    }
    reader_leave(reader);
    if (claimed)
        count_claim(span);
    return claimed;
}

static uint32_t take_number(void)
{
    for (uint32_t word = 0; word < SUMMARY_MEMBERS / 64; word++) {
        uint64_t used = atomic_load_explicit(&numbers_used[word], memory_order_relaxed);
        while (~used != 0) {
            uint32_t bit = bits_lowest(~used);
            counter_locked();
            /* acquire: pairs with the release in give_number; the number's last arena is gone. */
            if (atomic_compare_exchange_weak_explicit(&numbers_used[word], &used, used | UINT64_C(1) << bit,
                                                      memory_order_acquire, memory_order_relaxed))
                return word * 64 + bit;
        }
    }
    return SUMMARY_NONE;
}

static void give_number(uint32_t number)
{
    counter_locked();
    atomic_fetch_and_explicit(&numbers_used[number / 64], ~(UINT64_C(1) << number % 64),
                              memory_order_release);
}

static void raise_bound(uint32_t number)
{
    uint32_t present = atomic_load_explicit(&bound, memory_order_relaxed);
    while (present <= number && !atomic_compare_exchange_weak_explicit(
                                    &bound, &present, number + 1, memory_order_release, memory_order_relaxed))
        ;
}

/* An inaccessible part in the middle of a mapping makes three of it. */
#define FORBIDDEN_MAPPINGS 2

/* Where a page is larger than what is to spare, there is no guard. */
static void forbid(struct arena *arena, size_t begin, size_t end)
{
    begin = bits_align_up(begin, map_page_bytes());
    if (begin >= end || !map_forbid((char *)arena + begin, end - begin))
        return;
    arena->forbidden++;
    map_count_add(FORBIDDEN_MAPPINGS);
}

static struct arena *map_arena(void)
{
    uint32_t number = take_number();
    if (number == SUMMARY_NONE)
        return NULL;
    struct arena *arena = map_pages_aligned(ARENA_BYTES, ARENA_BYTES);
    if (arena == NULL) {
        give_number(number);
        return NULL;
    }
    if (!address_index_set(arena, ADDRESS_ARENA)) {
        map_unmap(arena, ARENA_BYTES);
        give_number(number);
        return NULL;
    }
    if (SETTING(huge_pages) == HUGE_PAGES_ALWAYS || SETTING(huge_pages) == HUGE_PAGES_NEVER)
        map_allow_huge(arena, ARENA_BYTES, SETTING(huge_pages) == HUGE_PAGES_ALWAYS);
    PROBE_1(arena_map, arena);
    arena_initialise(arena, number);
    if (TARN_HARDENED) {
        forbid(arena, sizeof *arena, ARENA_HEADER_SLOTS * SLOT_BYTES);
        forbid(arena, ARENA_END_SLOT * SLOT_BYTES, ARENA_BYTES);
    }
    atomic_store_explicit(&arena->bucket, BUCKET_NONE, memory_order_relaxed);
    return arena;
}

static void list_arena(struct arena *arena)
{
    raise_bound(arena->number);
    /* release: pairs with the acquire in arena_list_get; publishes the header. */
    atomic_store_explicit(&arenas[arena->number], arena, memory_order_release);
}

bool arena_list_claim_new(uint32_t slots, uint32_t most, struct span *span)
{
    struct arena *arena = map_arena();
    if (arena == NULL)
        return false;
    bool claimed = arena_claim(arena, slots, most, span); /* nobody else knows it yet */
    count_claim(span);
    /* From here on others may fill and empty it, but not retire it: this thread holds slots of it. */
    list_arena(arena);
    publish(arena);
    return claimed;
}

bool arena_list_extend(struct arena *arena, uint32_t word, uint64_t mask, struct span *span)
{
    if (!arena_claim_exactly(arena, word, mask, span))
        return false;
    count_claim(span);
    publish(arena);
    return true;
}

void arena_list_release(struct reader *reader, const struct span *span)
{
    reader_enter(reader);
    ledger_add(-(int32_t)bits_count(span->mask), (int32_t)bits_count(span->dirty));
    atomic_store_explicit(&span->arena->released_ms, clock_now_ms(), memory_order_relaxed);
    arena_release(span);
    publish(span->arena);
    reader_leave(reader);
}

/* ---- for the housekeeper ---- */

uint32_t arena_list_hold_free(struct arena *arena, const uint64_t want[ARENA_WORDS],
                              uint64_t held[ARENA_WORDS], uint64_t dirty[ARENA_WORDS])
{
    uint32_t count = 0;
    uint32_t dirty_count = 0;
    for (uint32_t word = 0; word < ARENA_WORDS; word++) {
        held[word] = 0;
        dirty[word] = 0;
        if (want[word] == 0)
            continue;
        counter_locked();
        /* as the CAS in claim_in_word */
        held[word] =
            atomic_fetch_and_explicit(&arena->free[word], ~want[word], memory_order_seq_cst) & want[word];
        dirty[word] =
            atomic_fetch_and_explicit(&arena->dirty[word], ~held[word], memory_order_relaxed) & held[word];
        count += bits_count(held[word]);
        dirty_count += bits_count(dirty[word]);
    }
    ledger_add((int32_t)count, -(int32_t)dirty_count);
    publish(arena);
    return count;
}

void arena_list_unhold(struct arena *arena, const uint64_t held[ARENA_WORDS],
                       const uint64_t dirty[ARENA_WORDS])
{
    for (uint32_t word = 0; word < ARENA_WORDS; word++) {
        if (held[word] == 0)
            continue;
        struct span span = {.arena = arena, .mask = held[word], .dirty = dirty[word], .word = word};
        ledger_add(-(int32_t)bits_count(span.mask), (int32_t)bits_count(span.dirty));
        arena_release(&span);
    }
    publish(arena);
}

void arena_list_retire(struct arena *arena)
{
    PROBE_1(arena_retire, arena);
    CHECK(arena_free_slots(arena) == 0);
    ledger_add(-(int32_t)ARENA_USABLE_SLOTS, 0);
    address_index_set(arena, ADDRESS_NOTHING);
    /* seq_cst: before the grace period is sampled. */
    atomic_store_explicit(&arenas[arena->number], NULL, memory_order_seq_cst);
}

void arena_list_revive(struct arena *arena)
{
    uint64_t all[ARENA_WORDS];
    const uint64_t clean[ARENA_WORDS] = {0};
    for (uint32_t word = 0; word < ARENA_WORDS; word++)
        all[word] = arena_usable_mask(word);
    PROBE_1(arena_revive, arena);
    address_index_set(arena, ADDRESS_ARENA);
    ledger_add((int32_t)ARENA_USABLE_SLOTS, 0);
    list_arena(arena);
    arena_list_unhold(arena, all, clean);
}

void arena_list_unmap(struct arena *arena)
{
    PROBE_1(arena_unmap, arena);
    uint32_t number = arena->number;
    map_count_add(-FORBIDDEN_MAPPINGS * (long)arena->forbidden);
    map_unmap(arena, ARENA_BYTES);
    give_number(number);
}

void arena_list_forget_publisher(struct arena *arena)
{
    if (atomic_load(&arena->publishing) == PUBLISHING_NOBODY)
        return;
    for (uint32_t bucket = 0; bucket < SUMMARY_BUCKETS; bucket++)
        summary_remove(&summary, bucket, arena->number);
    atomic_store(&arena->bucket, BUCKET_NONE);
    atomic_store(&arena->publishing, PUBLISHING_NOBODY);
}

/* Threads that were publishing, or inside the summary, are gone: what they left half done is made whole. A
 * header is written only where it must be, since a write copies its page. */
void arena_list_after_fork_child(void)
{
    for (uint32_t number = 0; number < arena_list_bound(); number++) {
        struct arena *arena = arena_list_get(number);
        if (arena == NULL)
            continue;
        arena_list_forget_publisher(arena);
        publish(arena);
        if (atomic_load(&arena->bucket) != BUCKET_NONE)
            summary_add(&summary, atomic_load(&arena->bucket), number);
    }
}

void arena_list_publish(struct published *out)
{
    out->arenas = (uintptr_t)arenas;
    out->arena_bound = (uintptr_t)&bound;
}

static bool is_listed_right(struct arena *arena, uint32_t number)
{
    uint32_t bucket = atomic_load(&arena->bucket);
    uint32_t buckets = bucket == BUCKET_NONE ? 0 : 1U << bucket;
    return arena->number == number && arena_is_valid(arena) && bucket == bucket_by_bitmap(arena) &&
           summary_buckets_of(&summary, number) == buckets &&
           atomic_load(&arena->publishing) == PUBLISHING_NOBODY && address_index_get(arena) == ADDRESS_ARENA;
}

static uint32_t count_dirty(const struct arena *arena)
{
    uint32_t count = 0;
    for (uint32_t word = 0; word < ARENA_WORDS; word++)
        count += bits_count(atomic_load(&arena->dirty[word]));
    return count;
}

bool arena_list_is_valid(void)
{
    struct ledger counted = {0, 0};
    for (uint32_t number = 0; number < arena_list_bound(); number++) {
        struct arena *arena = arena_list_get(number);
        if (arena == NULL) {
            if (summary_buckets_of(&summary, number) != 0)
                return false;
            continue;
        }
        if (!is_listed_right(arena, number))
            return false;
        counted.held_slots += ARENA_USABLE_SLOTS - arena_free_slots(arena);
        counted.dirty_slots += count_dirty(arena);
    }
    struct ledger ledger = arena_list_ledger();
    return summary_is_valid(&summary, arena_list_bound()) && counted.held_slots == ledger.held_slots &&
           counted.dirty_slots == ledger.dirty_slots;
}
