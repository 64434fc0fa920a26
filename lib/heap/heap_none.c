/* The heap of a thread that has none: every bin leads to pool_none, whose list is empty, so that the hot path
 * of malloc finds its way into the slow one without asking "am I initialised". Statically initialised, since
 * it serves before any constructor has run; never written. */
#include "heap/heap.h"

#define TIMES_4(...) __VA_ARGS__, __VA_ARGS__, __VA_ARGS__, __VA_ARGS__
#define NO_POOL                                                                                              \
    {                                                                                                        \
        .current = &pool_none, .own = &pool_none                                                             \
    }
#define TIMES_16(...) TIMES_4(__VA_ARGS__), TIMES_4(__VA_ARGS__), TIMES_4(__VA_ARGS__), TIMES_4(__VA_ARGS__)
#define TIMES_64(...)                                                                                        \
    TIMES_16(__VA_ARGS__), TIMES_16(__VA_ARGS__), TIMES_16(__VA_ARGS__), TIMES_16(__VA_ARGS__)

struct pool pool_none = {.free = &pool_end};

struct heap heap_none = {
    .direct = {TIMES_64(&pool_none), &pool_none},
    .bins = {TIMES_16(NO_POOL), TIMES_16(NO_POOL), TIMES_16(NO_POOL), NO_POOL, NO_POOL, NO_POOL},
    .run_slots = SPAN_SLOTS_MOST, /* no room for another */
    .reader = &heap_none.own_reader,
};

static_assert(DIRECT_ENTRIES == 65, "each entry of direct is set above");
static_assert(CLASS_COUNT == 51, "each bin is set above");

THREAD_LOCAL struct heap *heap_self = &heap_none;
THREAD_LOCAL uint64_t heap_own_word = (uintptr_t)&heap_none;
