/* What the tests of the housekeeper share; see housekeeping.h. */
#include "housekeeping.h"

#include "arena/arena_list.h"
#include "base/bits.h"
#include "os/clock.h"
#include "os/map.h"
#include "os/settings.h"

#include <string.h>

struct reader housekeeping_section;
uint64_t housekeeping_ms;

static struct reader reader;
static struct settings defaults;

int housekeeping_begin(void **state)
{
    (void)state;
    reader_publish(&reader);
    reader_publish(&housekeeping_section);
    defaults = settings;
    housekeeping_ms = clock_now_ms() + 86400000;
    return 0;
}

int housekeeping_tidy_up(void **state)
{
    (void)state;
    settings = defaults;
    housekeeper_trim(0);
    tick_after(10000);
    return arena_list_ledger().dirty_slots == 0 ? 0 : -1;
}

void tick_after(uint64_t more_ms)
{
    housekeeping_ms += more_ms;
    housekeeper_tick(housekeeping_ms);
}

void tick(void)
{
    tick_after(housekeeper_interval_ms());
}

static uint32_t slots_per_page(void)
{
    return map_page_bytes() > SLOT_BYTES ? (uint32_t)(map_page_bytes() / SLOT_BYTES) : 1;
}

struct span claim_new(uint32_t slots)
{
    struct span span;
    uint32_t unit = slots_per_page();
    must(arena_list_claim_new(slots, slots, &span));
    if (unit > 1) { /* the header's page is another */
        give(&span, 0);
        must(arena_list_extend(span.arena, 0, bits_ones(slots) << unit, &span));
    }
    return span;
}

struct span dirty_span(uint32_t slots)
{
    struct span span = claim_new(slots);
    memset(span_start(&span), 'd', span_bytes(&span));
    return span;
}

struct span part(const struct span *span, uint64_t mask)
{
    return (struct span){.arena = span->arena, .mask = mask & span->mask, .word = span->word};
}

char *span_start(const struct span *span)
{
    return arena_slot_address(span->arena, span_first_slot(span));
}

size_t span_bytes(const struct span *span)
{
    return bits_count(span->mask) * SLOT_BYTES;
}

bool is_resident(const struct span *span)
{
    size_t resident = pages_resident(span_start(span), span_bytes(span));
    must(resident == 0 || resident == pages_of(span_bytes(span)));
    return resident > 0;
}

void give(const struct span *span, uint64_t dirty)
{
    struct span given = *span;
    given.dirty = dirty & given.mask;
    arena_list_release(&reader, &given);
    atomic_store(&given.arena->released_ms, housekeeping_ms);
}

struct arena *empty_arena(void)
{
    struct span span = claim_new(1);
    give(&span, 0);
    return span.arena;
}

struct arena *dirty_arena(void)
{
    struct span span = claim_new(32);
    struct arena *arena = span.arena;
    give(&span, span.mask);
    for (uint32_t word = 0; word < ARENA_WORDS; word++) {
        uint64_t all = word == 0 ? ~bits_ones(ARENA_HEADER_SLOTS) : UINT64_MAX;
        must(arena_list_extend(arena, word, all, &span));
        give(&span, all);
    }
    return arena;
}

/* Of the slots on one page. Beside the header nothing is excused, as those are cleared without purging. */
static uint32_t page_dirty_beside_used(struct arena *arena, uint32_t first, uint32_t slots)
{
    uint32_t word = first / WORD_SLOTS;
    uint64_t page = bits_ones(slots) << first % WORD_SLOTS & arena_usable_mask(word);
    uint64_t free = atomic_load(&arena->free[word]) & page;
    bool is_excused = first >= ARENA_HEADER_SLOTS && free != page;
    return is_excused ? bits_count(atomic_load(&arena->dirty[word]) & page) : 0;
}

uint32_t dirty_beside_used(void)
{
    uint32_t unit = slots_per_page();
    uint32_t dirty = 0;
    for (uint32_t number = 0; number < arena_list_bound(); number++) {
        struct arena *arena = arena_list_get(number);
        for (uint32_t first = 0; arena != NULL && first < ARENA_SLOTS; first += unit)
            dirty += page_dirty_beside_used(arena, first, unit);
    }
    return dirty;
}

unsigned count_listed(struct arena *const arenas[], unsigned count)
{
    unsigned listed = 0;
    for (uint32_t number = 0; number < arena_list_bound(); number++)
        for (unsigned i = 0; i < count; i++)
            listed += arena_list_get(number) == arenas[i];
    return listed;
}

unsigned count_mapped(struct arena *const arenas[], unsigned count)
{
    unsigned mapped = 0;
    for (unsigned i = 0; i < count; i++)
        mapped += page_is_mapped(arenas[i]);
    return mapped;
}
