/*
 * observe/arena_walk: every listed arena once; also while others map and unmap arenas.
 */
#include "observe/arena_walk.h"

#include "arena/arena_list.h"
#include "heap/thread.h"
#include "tarn/tarn.h"
#include "unit.h"

struct seen {
    size_t arenas;
    size_t in_use;
    const struct arena *last;
};

static void look(void *context, struct arena *arena)
{
    struct seen *seen = context;
    must(arena_is_marked(arena) && arena != seen->last);
    seen->arenas++;
    seen->in_use += arena_free_slots(arena) < ARENA_USABLE_SLOTS;
    seen->last = arena;
}

static void each_arena_is_met_once(void **state)
{
    (void)state;
    static void *blocks[2000];
    struct seen before = {0};
    struct seen seen = {0};
    arena_walk(look, &before);
    for (size_t i = 0; i < 2000; i++) /* 32 KiB each: 16 arenas at least */
        assert_non_null(blocks[i] = tarn_malloc(32000));
    arena_walk(look, &seen);
    assert_in_range(seen.arenas, 16, 18 + before.arenas);
    assert_true(seen.in_use >= 16);
    for (size_t i = 0; i < 2000; i++)
        tarn_free(blocks[i]);
}

static void churn_or_walk(void *context, unsigned index)
{
    (void)context;
    for (unsigned turn = 0; turn < TURNS(400); turn++) {
        struct seen seen = {0};
        if (index == 0) {
            arena_walk(look, &seen);
            continue;
        }
        void *blocks[300];
        for (size_t i = 0; i < 300; i++)
            must((blocks[i] = tarn_malloc(32000)) != NULL);
        for (size_t i = 0; i < 300; i++)
            tarn_free(blocks[i]);
        if (turn % 16 == 0)
            tarn_malloc_trim(0);
    }
}

static void arenas_come_and_go_meanwhile(void **state)
{
    (void)state;
    threads_run(3, churn_or_walk, NULL);
    assert_int_equal(thread_heap()->reader->sections % 2, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_arena_is_met_once),
        cmocka_unit_test(arenas_come_and_go_meanwhile),
    };
    return cmocka_run_group_tests_name("arena_walk", tests, NULL, NULL);
}
