/*
 * api/stats: every field and every class of the structure is what the one collection says, and so are both
 * texts. (How the numbers hang together, and under load: tests/interface/stats.c.)
 */
#include "observe/statistics.h"
#include "tarn/tarn.h"

#include "unit.h"

#include <stdio.h>
#include <string.h>

static struct statistics collected;
static struct tarn_stats_result stats;
static char json[65536];
static char metrics[65536];

static void *held[40];

/* Some of everything; then nothing changes any more. */
static int prepare(void **state)
{
    (void)state;
    for (size_t i = 0; i < 30; i++)
        held[i] = tarn_malloc(1 + i * i * 40);
    for (size_t i = 30; i < 40; i++)
        held[i] = tarn_malloc((i - 29) * 200000);
    for (size_t i = 0; i < 40; i += 3)
        tarn_free(held[i]);
    must(tarn_stats(&stats, sizeof stats) == 0);
    must(tarn_stats_json(json, sizeof json) < sizeof json);
    must(tarn_stats_openmetrics(metrics, sizeof metrics) < sizeof metrics);
    statistics_collect(&collected);
    return 0;
}

static void check(const char *name, unsigned long long value, unsigned long long expected)
{
    char line[128];
    assert_int_equal(value, expected);
    snprintf(line, sizeof line, "\n  \"%s\": %llu,\n", name, expected);
    assert_non_null(strstr(json, line));
    snprintf(line, sizeof line, "\ntarn_%s %llu\n", name, expected);
    const char *gauge = strstr(metrics, line);
    snprintf(line, sizeof line, "\ntarn_%s_total %llu\n", name, expected);
    assert_true((gauge != NULL) != (strstr(metrics, line) != NULL));
}

#define CHECK_FIELD(field, expected)                                                                         \
    check(#field, (unsigned long long)stats.field, (unsigned long long)(expected))

static void every_field(void **state)
{
    const struct statistics *s = &collected;
    (void)state;
    CHECK_FIELD(arenas, s->arenas);
    CHECK_FIELD(arena_bytes, s->arena_bytes);
    CHECK_FIELD(header_bytes, s->header_slots * SLOT_BYTES);
    CHECK_FIELD(pool_bytes, s->pool_slots * SLOT_BYTES);
    CHECK_FIELD(run_bytes, s->run_slots * SLOT_BYTES);
    CHECK_FIELD(free_bytes, s->free_slots * SLOT_BYTES);
    CHECK_FIELD(dirty_bytes, s->dirty_slots * SLOT_BYTES);
    CHECK_FIELD(kept_bytes, s->kept_slots * SLOT_BYTES);
    CHECK_FIELD(used_bytes, s->block_bytes_used);
    CHECK_FIELD(runs, s->runs);
    CHECK_FIELD(raw_blocks, s->raw.live_blocks);
    CHECK_FIELD(raw_bytes, s->raw.live_bytes);
    CHECK_FIELD(raw_cached_blocks, s->raw.cached_blocks);
    CHECK_FIELD(raw_cached_bytes, s->raw.cached_bytes);
    CHECK_FIELD(guarded_blocks, s->guard.live_blocks);
    CHECK_FIELD(guarded_bytes, s->guard.live_bytes);
    CHECK_FIELD(heaps, s->heaps);
    CHECK_FIELD(heaps_parked, s->heaps_parked);
    CHECK_FIELD(allocations, s->calls);
    CHECK_FIELD(allocated_bytes, s->asked_bytes);
    CHECK_FIELD(refills, s->refills);
    CHECK_FIELD(remote_blocks, s->sent_blocks);
    CHECK_FIELD(purged_bytes, s->housekeeper.purged_bytes);
    CHECK_FIELD(purge_calls, s->housekeeper.purge_calls);
    CHECK_FIELD(retired_arenas, s->housekeeper.retired_arenas);
    CHECK_FIELD(unmapped_arenas, s->housekeeper.unmapped_arenas);
    assert_true(stats.runs > 0 && stats.raw_blocks > 0 && stats.refills > 0);
}

static void every_class(void **state)
{
    char line[256];
    (void)state;
    assert_int_equal(stats.class_count, CLASS_COUNT);
    for (uint32_t class = 0; class < CLASS_COUNT; ++class) {
        const struct tarn_class_stats *one = &stats.classes[class];
        const struct class_statistics *expected = &collected.classes[class];
        assert_int_equal(one->block_bytes, class_bytes(class));
        assert_int_equal(one->pools, expected->pools);
        assert_int_equal(one->blocks_used, expected->blocks_used);
        assert_int_equal(one->blocks_capacity, expected->blocks_capacity);
        assert_int_equal(one->allocations, expected->calls);
        snprintf(line, sizeof line, "{\"block_bytes\": %zu, \"pools\": %zu, \"blocks_used\": %zu, ",
                 one->block_bytes, one->pools, one->blocks_used);
        assert_int_equal(strstr(json, line) != NULL, one->pools > 0 || one->allocations > 0);
        snprintf(line, sizeof line, "\ntarn_class_blocks_used{block_bytes=\"%zu\"} %zu\n", one->block_bytes,
                 one->blocks_used);
        assert_non_null(strstr(metrics, line));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field),
        cmocka_unit_test(every_class),
    };
    return cmocka_run_group_tests_name("stats", tests, prepare, NULL);
}
