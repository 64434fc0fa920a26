/*
 * What the tests of the housekeeper share: slots of arenas, made dirty and given back, and the time.
 *
 * The tests tell the housekeeper the time, from a day ahead on, so that heartbeats of the process itself,
 * where cmocka runs on Tarn, are never due.
 */
#ifndef TEST_UNIT_HOUSEKEEPING_H
#define TEST_UNIT_HOUSEKEEPING_H

#include "arena/housekeeper.h"
#include "unit.h"

extern struct reader housekeeping_section; /* open while a test wants a grace period to last */
extern uint64_t housekeeping_ms;

/* For cmocka: before all tests, and around each: no dirty slot, no empty arena, nothing retired, settings as
 * they were. */
int housekeeping_begin(void **state);
int housekeeping_tidy_up(void **state);

void tick_after(uint64_t more_ms);
/* The next tick that is due. */
void tick(void);

/* Slots of a new arena, from the beginning of a page on; the same, written to all over. */
struct span claim_new(uint32_t slots);
struct span dirty_span(uint32_t slots);
struct span part(const struct span *span, uint64_t mask);
char *span_start(const struct span *span);
size_t span_bytes(const struct span *span);

/* Whether its pages are resident: all of them, or none. */
bool is_resident(const struct span *span);

/* Back to the arena, now, by the time that the test tells; those of `dirty` as dirty. */
void give(const struct span *span, uint64_t dirty);

/* New arenas: wholly free; with all slots dirty (to which nothing is written). */
struct arena *empty_arena(void);
struct arena *dirty_arena(void);

/* Dirty slots of all arenas that cannot be purged: where a page holds several slots, one beside them is in
 * use. */
uint32_t dirty_beside_used(void);

unsigned count_listed(struct arena *const arenas[], unsigned count);
unsigned count_mapped(struct arena *const arenas[], unsigned count);

#endif
