/*
 * tarn_stats and its texts: the sums hold when nobody allocates, and within what is under way when threads
 * do; the texts say what the structure says, in the room that they get.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include "tarn/tarn.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_BYTES = 64 * KIB, THREADS_MOST = 64, HELD = 100, LOOKS = 40 };

static struct tarn_stats_result stats;

static void collect(void)
{
    memset(&stats, 0xff, sizeof stats);
    must(tarn_stats(&stats, sizeof stats) == 0);
}

static size_t in_classes(void)
{
    size_t bytes = 0;

    for (size_t i = 0; i < stats.class_count; i++)
        bytes += stats.classes[i].block_bytes * stats.classes[i].blocks_capacity;
    return bytes;
}

static size_t used_in_classes(void)
{
    size_t bytes = 0;

    for (size_t i = 0; i < stats.class_count; i++)
        bytes += stats.classes[i].block_bytes * stats.classes[i].blocks_used;
    return bytes;
}

static size_t parts(void)
{
    return stats.header_bytes + stats.pool_bytes + stats.run_bytes + stats.free_bytes + stats.kept_bytes;
}

static void the_sums_hold_when_nobody_allocates(void **state)
{
    void *held[HELD];

    (void)state;
    for (size_t i = 0; i < HELD; i++)
        held[i] = tarn_malloc(opaque_size(1 + i * 997));
    collect();
    assert_int_equal(stats.version, TARN_STATS_VERSION);
    assert_int_equal(parts(), stats.arena_bytes);
    assert_true(in_classes() <= stats.pool_bytes);
    assert_int_equal(used_in_classes(), stats.used_bytes);
    assert_true(stats.dirty_bytes <= stats.free_bytes);
    assert_true(stats.heaps_parked < stats.heaps);
    assert_true(stats.allocations >= HELD / 2 && stats.allocated_bytes > 0);
    for (size_t i = 0; i < stats.class_count; i++)
        assert_true(stats.classes[i].blocks_used <= stats.classes[i].blocks_capacity);
    for (size_t i = 0; i < HELD; i++)
        tarn_free(held[i]);
}

static void a_block_is_seen_to_come_and_go(void **state)
{
    size_t used, raw;
    void *block, *large;

    (void)state;
    collect();
    used = stats.used_bytes;
    raw = stats.raw_bytes;
    block = tarn_malloc(opaque_size(5000));
    large = tarn_malloc(opaque_size(3 * MIB));
    collect();
    assert_in_range(stats.used_bytes - used, 5000, 8192);
    assert_in_range(stats.raw_bytes - raw, 3 * MIB, 3 * MIB + 256 * KIB);
    tarn_free(block);
    tarn_free(large);
    collect();
    assert_int_equal(stats.raw_bytes, raw);
}

static void older_programs_get_what_they_know(void **state)
{
    struct tarn_stats_result part;

    (void)state;
    memset(&part, 0x55, sizeof part);
    assert_int_equal(tarn_stats(&part, 2 * sizeof(size_t)), 0);
    assert_int_equal(part.version, TARN_STATS_VERSION);
    assert_int_equal(part.arena_bytes, 0x5555555555555555);
    assert_int_equal(tarn_stats(NULL, sizeof part), EINVAL);
    assert_int_equal(tarn_stats(&part, 0), EINVAL);
}

/* ---- under load ---- */

static atomic_bool stop;

static void *work(void *argument)
{
    struct random random = {(uintptr_t)argument};
    void *held[HELD] = {NULL};

    while (!atomic_load(&stop)) {
        size_t at = random_below(&random, HELD);

        tarn_free(held[at]);
        held[at] = tarn_malloc(1 + random_size(&random) % (64 * KIB));
    }
    for (size_t at = 0; at < HELD; at++)
        tarn_free(held[at]);
    return NULL;
}

/* Slots that change hands while an arena is looked at may be seen in two states, or in none: an arena's worth
 * for each thread at most. What is kept is the rest, so that the sum never falls short. */
static void check_under_load(unsigned count)
{
    pthread_t threads[THREADS_MOST];

    atomic_store(&stop, false);
    for (uintptr_t i = 0; i < count; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, (void *)(i + 1)), 0);
    for (unsigned look = 0; look < LOOKS; look++) {
        collect();
        assert_true(parts() >= stats.arena_bytes);
        assert_true(parts() <= stats.arena_bytes + count * 4 * MIB);
        assert_true(used_in_classes() == stats.used_bytes);
        assert_true(in_classes() <= stats.pool_bytes);
        sleep_ms(1);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    collect();
    assert_int_equal(parts(), stats.arena_bytes);
}

static void the_sums_hold_under_load(void **state)
{
    (void)state;
    check_under_load(2);
    check_under_load(8);
    check_under_load(THREADS_MOST);
}

/* ---- texts ---- */

static char text[TEXT_BYTES];

static bool has_line(const char *line)
{
    const char *found = strstr(text, line);

    return found != NULL && strstr(found + 1, line) == NULL;
}

static void json_says_the_same(void **state)
{
    char line[128];
    size_t length = tarn_stats_json(text, sizeof text);

    (void)state;
    assert_true(length < sizeof text);
    assert_int_equal(length, strlen(text));
    collect();
    snprintf(line, sizeof line, "\"arena_bytes\": %zu,\n", stats.arena_bytes);
    assert_true(has_line(line));
    snprintf(line, sizeof line, "\"used_bytes\": %zu,\n", stats.used_bytes);
    assert_true(has_line(line));
    assert_memory_equal(text, "{\n", 2);
    assert_string_equal(text + length - 2, "}\n");
}

static void openmetrics_says_the_same(void **state)
{
    char line[128];
    size_t length = tarn_stats_openmetrics(text, sizeof text);

    (void)state;
    assert_true(length < sizeof text);
    collect();
    snprintf(line, sizeof line, "\ntarn_arena_bytes %zu\n", stats.arena_bytes);
    assert_true(has_line(line));
    assert_true(has_line("\n# TYPE tarn_allocations counter\n"));
    assert_string_equal(text + length - 6, "# EOF\n");
}

static void a_text_ends_where_the_room_does(void **state)
{
    char small[40];
    size_t length = tarn_stats_json(NULL, 0);

    (void)state;
    memset(small, 'x', sizeof small);
    assert_true(tarn_stats_json(small, 20) >= length / 2);
    assert_int_equal(strlen(small), 19);
    assert_int_equal(small[20], 'x');
    assert_true(tarn_stats_openmetrics(small, 1) > 0);
    assert_int_equal(small[0], '\0');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sums_hold_when_nobody_allocates),
        cmocka_unit_test(a_block_is_seen_to_come_and_go),
        cmocka_unit_test(older_programs_get_what_they_know),
        cmocka_unit_test(the_sums_hold_under_load),
        cmocka_unit_test(json_says_the_same),
        cmocka_unit_test(openmetrics_says_the_same),
        cmocka_unit_test(a_text_ends_where_the_room_does),
    };

    return cmocka_run_group_tests_name("stats", tests, NULL, NULL);
}
