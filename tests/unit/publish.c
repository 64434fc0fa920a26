/*
 * observe/publish: what is told of the tables is where they are; wishes are granted once, refused with a
 * reason, and cannot do harm whatever they hold.
 */
#include "observe/publish.h"

#include "base/published.h"
#include "heap/park.h"
#include "heap/thread.h"
#include "heap/tick.h"
#include "os/settings.h"
#include "tarn/tarn.h"

#include "unit.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void the_structure_leads_to_the_tables(void **state)
{
    const struct published *p = &published;
    (void)state;
    assert_int_equal(p->magic[0], PUBLISHED_MAGIC);
    assert_int_equal(p->magic[1], PUBLISHED_MAGIC_2);
    assert_int_equal(p->self, (uintptr_t)&published);
    assert_int_equal(p->bytes, sizeof published);
    assert_string_equal(p->library, tarn_version());
    struct heap *heap = thread_heap();
    assert_int_equal(*(const _Atomic uint32_t *)p->heap_count, park_bound());
    char *chunk = ((char **)p->heap_chunks)[heap->number / p->heaps_in_chunk];
    assert_ptr_equal(chunk + heap->number % p->heaps_in_chunk * HEAP_ALIGNMENT, heap);
    void *block = tarn_malloc(100);
    assert_ptr_equal(((struct arena **)p->arenas)[arena_of(block)->number], arena_of(block));
    assert_true(arena_of(block)->number < *(const _Atomic uint32_t *)p->arena_bound);
    tarn_free(block);
    assert_ptr_equal(p->settings, &settings);
}

static void wish(enum control_wish what, const char *name, const char *value)
{
    struct control *control = &published.control;
    control->wish = what;
    memset(control->name, 'x', sizeof control->name);
    memset(control->value, 'x', sizeof control->value);
    if (name != NULL)
        strcpy(control->name, name);
    if (value != NULL)
        strcpy(control->value, value);
    atomic_fetch_add(&control->wished, 1);
}

static void heartbeat(void)
{
    settings.verbosity = 0;
    tick_heartbeat(thread_heap(), 16);
    settings.verbosity = 1;
    assert_int_equal(atomic_load(&published.control.answered), atomic_load(&published.control.wished));
}

static void a_setting_is_changed_at_the_next_heartbeat(void **state)
{
    (void)state;
    wish(CONTROL_SET, "DIRTY_LIMIT", "8M");
    assert_int_equal(settings.dirty_limit_bytes, 4 * MIB);
    heartbeat();
    assert_int_equal(settings.dirty_limit_bytes, 8 * MIB);
    assert_string_equal(published.control.answer, "TARN_DIRTY_LIMIT=8.0 MiB, was 4.0 MiB");
    assert_int_equal(published.control.granted, 1);
    settings.dirty_limit_bytes = 5 * MIB;
    heartbeat(); /* the same wish is not granted again */
    assert_int_equal(settings.dirty_limit_bytes, 5 * MIB);
    settings.dirty_limit_bytes = 4 * MIB;
}

static void check_refused(const char *name, const char *value, const char *answer)
{
    wish(CONTROL_SET, name, value);
    heartbeat();
    assert_int_equal(published.control.granted, 0);
    assert_string_equal(published.control.answer, answer);
}

static void what_cannot_be_is_refused_with_the_reason(void **state)
{
    (void)state;
    check_refused("TARN_DIRT", "1", "there is no setting TARN_DIRT");
    check_refused("TARN_GUARD_SAMPLE", "1/2", "TARN_GUARD_SAMPLE cannot be changed while the process runs");
    check_refused(
        "TARN_PURGE_DELAY", "soon",
        "TARN_PURGE_DELAY=soon is not understood, expected a number with a unit such as 250ms from 0 "
        "ms to 86400000 ms");
    check_refused(NULL, NULL, "there is no setting xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"); /* without an end */
    wish((enum control_wish)77, "", "");
    heartbeat();
    assert_int_equal(published.control.granted, 0);
    assert_string_equal(published.control.answer, "this is not known here");
}

static void memory_is_given_back_on_wish(void **state)
{
    (void)state;
    void *blocks[400];
    for (size_t i = 0; i < 400; i++)
        memset(blocks[i] = tarn_malloc(30000), 1, 30000);
    for (size_t i = 0; i < 400; i++)
        tarn_free(blocks[i]);
    wish(CONTROL_TRIM, "", "");
    size_t before = resident_bytes();
    heartbeat();
    assert_int_equal(published.control.granted, 1);
    assert_string_equal(published.control.answer, "trimmed: memory was given back");
    assert_true(resident_bytes() + 4 * MIB < before);
}

static void fork_and_look(void *context)
{
    (void)context;
    tick_heartbeat(thread_heap(), 16);
    must(settings.purge_delay_ms == 1000);
    must(atomic_load(&published.control.answered) == atomic_load(&published.control.wished));
}

/* The wish was its parent's. */
static void a_child_grants_nothing_that_it_inherits(void **state)
{
    (void)state;
    wish(CONTROL_SET, "PURGE_DELAY", "5s");
    child_must_succeed(fork_and_look, NULL);
    heartbeat();
    assert_int_equal(settings.purge_delay_ms, 5000);
    settings.purge_delay_ms = 1000;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_structure_leads_to_the_tables),
        cmocka_unit_test(a_setting_is_changed_at_the_next_heartbeat),
        cmocka_unit_test(what_cannot_be_is_refused_with_the_reason),
        cmocka_unit_test(memory_is_given_back_on_wish),
        cmocka_unit_test(a_child_grants_nothing_that_it_inherits),
    };
    return cmocka_run_group_tests_name("publish", tests, NULL, NULL);
}
