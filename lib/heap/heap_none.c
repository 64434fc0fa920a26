/* The heap of a thread that has none: every bin leads to pool_none, whose list is empty, so that the hot path of
 * malloc finds its way into the slow one without asking "am I initialised". Statically initialised, since it serves
 * before any constructor has run; never written. */
#include "heap/heap.h"

#define TIMES_4(x)  x, x, x, x
#define TIMES_64(x) TIMES_4(TIMES_4(TIMES_4(x)))

struct pool pool_none = {.free = &pool_end};

struct heap heap_none = {
    .direct = {TIMES_64(&pool_none), &pool_none},
    .bins = {TIMES_64({.current = &pool_none}), TIMES_4({.current = &pool_none}), TIMES_4({.current = &pool_none})},
    .reader = &heap_none.own_reader,
};

static_assert(DIRECT_ENTRIES == 65, "each entry of direct is set above");
static_assert(CLASS_COUNT == 72, "each bin is set above");

THREAD_LOCAL struct heap *heap_self = &heap_none;
