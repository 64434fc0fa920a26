/*
 * heap/inspect: whole lists pass, whatever the order of calls that made them; a pointer that was no block,
 * and words that were written to, are found; no more is looked at than was asked for.
 */
#include "heap/inspect.h"

#include "heap/thread.h"
#include "tarn/tarn.h"
#include "unit.h"

#include <string.h>

#define BLOCKS 2000U

static char *blocks[BLOCKS];

static void make(size_t bytes)
{
    for (size_t i = 0; i < BLOCKS; i++)
        must((blocks[i] = tarn_malloc(bytes)) != NULL);
}

static void give(size_t step)
{
    for (size_t i = 0; i < BLOCKS; i += step) {
        tarn_free(blocks[i]);
        blocks[i] = NULL;
    }
}

static void allocate(void *context, unsigned index)
{
    (void)index;
    make(*(const size_t *)context);
}

static void whole_lists_pass(void **state)
{
    (void)state;
    size_t sizes[] = {16, 48, 100, 1024, 4000, 20000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int foreign = 0; foreign < 2; foreign++) {
            if (foreign)
                threads_run(1, allocate, &sizes[i]);
            else
                make(sizes[i]);
            give(3);
            inspect_lists(thread_heap(), UINT32_MAX);
            give(1);
            inspect_lists(thread_heap(), UINT32_MAX);
        }
    }
    heap_set_mixed(thread_heap(), true);
    make(64);
    give(2);
    inspect_lists(thread_heap(), UINT32_MAX);
    heap_set_mixed(thread_heap(), false);
    give(1);
}

/* What is done to the second of many blocks of 48 bytes, and how many blocks are looked at. */
struct damage {
    ptrdiff_t freed_at; /* offset of the pointer that is freed */
    ptrdiff_t written;  /* offset of what is written after that, or -1 */
    uint32_t most;
};

static void do_damage(void *context)
{
    const struct damage *damage = context;
    make(48);
    for (size_t i = 0; i < BLOCKS; i++)
        memset(blocks[i], 0, 48);
    tarn_free(blocks[1] + damage->freed_at);
    if (damage->written >= 0)
        memset(blocks[1] + damage->written, 0x41, 8);
    tarn_free(blocks[BLOCKS - 1]);
    tarn_free(blocks[BLOCKS - 2]);
    inspect_lists(thread_heap(), damage->most);
}

static void damage_is_found(void **state)
{
    (void)state;
    static const char invalid[] =
        "tarn: fatal: invalid pointer was passed to free: no live block begins at 0x";
    static const char written[] = "tarn: fatal: heap corruption: freed memory was written to at 0x";
    const struct {
        struct damage damage;
        const char *line;
    } cases[] = {
        {{16, -1, 100000}, invalid},
        {{8, -1, 100000}, invalid},
        {{0, 0, 100000}, written},
        {{0, 8, 100000}, written},
        {{0, 0, 0}, ""},
        {{0, -1, 100000}, ""},
    };
    static struct outcome outcome;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct damage damage = cases[i].damage;
        child_run(do_damage, &damage, &outcome);
        if (strncmp(outcome.output, cases[i].line, strlen(cases[i].line)) != 0 ||
            (outcome.length > 0) != (cases[i].line[0] != '\0'))
            fail_msg("case %zu: %s", i, outcome.output);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_lists_pass),
        cmocka_unit_test(damage_is_found),
    };
    return cmocka_run_group_tests_name("inspect", tests, NULL, NULL);
}
