/* Statistics for programs: a structure, JSON, OpenMetrics. All are one collection (observe/statistics), and
 * the texts are written from the structure. */
#include "api/names.h"
#include "observe/statistics.h"
#include "tarn/tarn.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

static_assert(CLASS_COUNT <= TARN_STATS_CLASSES, "there is room for every class");

static void fill_in_classes(struct tarn_stats_result *out, const struct statistics *s)
{
    out->class_count = CLASS_COUNT;
    for (uint32_t class = 0; class < CLASS_COUNT; ++class) {
        const struct class_statistics *from = &s->classes[class];
        out->classes[class] = (struct tarn_class_stats){.block_bytes = class_bytes(class),
                                                        .pools = from->pools,
                                                        .blocks_used = from->blocks_used,
                                                        .blocks_capacity = from->blocks_capacity,
                                                        .allocations = from->calls};
    }
}

static void fill_in(struct tarn_stats_result *out)
{
    struct statistics s;
    statistics_collect(&s);
    *out = (struct tarn_stats_result){.version = TARN_STATS_VERSION,
                                      .arenas = s.arenas,
                                      .arena_bytes = s.arena_bytes,
                                      .header_bytes = s.header_slots * SLOT_BYTES,
                                      .pool_bytes = s.pool_slots * SLOT_BYTES,
                                      .run_bytes = s.run_slots * SLOT_BYTES,
                                      .free_bytes = s.free_slots * SLOT_BYTES,
                                      .dirty_bytes = s.dirty_slots * SLOT_BYTES,
                                      .kept_bytes = s.kept_slots * SLOT_BYTES,
                                      .used_bytes = s.block_bytes_used,
                                      .runs = s.runs,
                                      .raw_blocks = s.raw.live_blocks,
                                      .raw_bytes = s.raw.live_bytes,
                                      .raw_cached_blocks = s.raw.cached_blocks,
                                      .raw_cached_bytes = s.raw.cached_bytes,
                                      .guarded_blocks = s.guard.live_blocks,
                                      .guarded_bytes = s.guard.live_bytes,
                                      .heaps = s.heaps,
                                      .heaps_parked = s.heaps_parked,
                                      .allocations = s.calls,
                                      .allocated_bytes = s.asked_bytes,
                                      .refills = s.refills,
                                      .remote_blocks = s.sent_blocks,
                                      .purged_bytes = s.housekeeper.purged_bytes,
                                      .purge_calls = s.housekeeper.purge_calls,
                                      .retired_arenas = s.housekeeper.retired_arenas,
                                      .unmapped_arenas = s.housekeeper.unmapped_arenas};
    fill_in_classes(out, &s);
}

EXPORT int tarn_stats(struct tarn_stats_result *stats, size_t bytes)
{
    struct tarn_stats_result all;
    if (stats == NULL || bytes == 0)
        return EINVAL;
    fill_in(&all);
    memcpy(stats, &all, bytes < sizeof all ? bytes : sizeof all);
    return 0;
}

/* ---- texts ---- */

/* As much of the text as there is room for; the length is that of all. */
struct page {
    char *text;
    size_t bytes;
    size_t length;
};

__attribute__((format(printf, 2, 3))) static void add(struct page *page, const char *format, ...)
{
    va_list list;
    size_t room = page->length < page->bytes ? page->bytes - page->length : 0;
    va_start(list, format);
    int length = vsnprintf(room > 0 ? page->text + page->length : NULL, room, format, list);
    va_end(list);
    if (length > 0)
        page->length += (size_t)length;
}

/* The fields of the structure, once for both forms. */
struct field {
    const char *name; /* in JSON; with tarn_ before it, in OpenMetrics */
    const char *help;
    size_t offset;
    const char *unit; /* OpenMetrics wants the name to end with it */
    enum { GAUGE, COUNTER } kind;
};

#define FIELD(member, kind, unit, help)                                                                      \
    {                                                                                                        \
#member, help, offsetof(struct tarn_stats_result, member), unit, kind                                \
    }

static const struct field fields[] = {
    FIELD(arenas, GAUGE, NULL, "Arenas of 4 MiB."),
    FIELD(arena_bytes, GAUGE, "bytes", "Addresses mapped for arenas."),
    FIELD(header_bytes, GAUGE, "bytes", "Of these, headers."),
    FIELD(pool_bytes, GAUGE, "bytes", "Of these, in pools."),
    FIELD(run_bytes, GAUGE, "bytes", "Of these, in runs."),
    FIELD(free_bytes, GAUGE, "bytes", "Of these, free."),
    FIELD(dirty_bytes, GAUGE, "bytes", "Of the free ones, perhaps resident."),
    FIELD(kept_bytes, GAUGE, "bytes", "Empty, kept by threads."),
    FIELD(used_bytes, GAUGE, "bytes", "In live blocks of pools."),
    FIELD(runs, GAUGE, NULL, "Live runs."),
    FIELD(raw_blocks, GAUGE, NULL, "Live raw blocks."),
    FIELD(raw_bytes, GAUGE, "bytes", "In live raw blocks."),
    FIELD(raw_cached_blocks, GAUGE, NULL, "Freed raw blocks kept for the next."),
    FIELD(raw_cached_bytes, GAUGE, "bytes", "In these."),
    FIELD(guarded_blocks, GAUGE, NULL, "Live guarded blocks."),
    FIELD(guarded_bytes, GAUGE, "bytes", "In these."),
    FIELD(heaps, GAUGE, NULL, "Heaps."),
    FIELD(heaps_parked, GAUGE, NULL, "Heaps whose thread has ended."),
    FIELD(allocations, COUNTER, NULL, "Calls of malloc and its relatives; estimated."),
    FIELD(allocated_bytes, COUNTER, "bytes", "Asked for by these; estimated."),
    FIELD(refills, COUNTER, NULL, "Times that a list of a thread was empty."),
    FIELD(remote_blocks, COUNTER, NULL, "Blocks sent to the thread that owns them."),
    FIELD(purged_bytes, COUNTER, "bytes", "Free memory given back."),
    FIELD(purge_calls, COUNTER, NULL, "Calls of madvise for that."),
    FIELD(retired_arenas, COUNTER, NULL, "Empty arenas taken off the list."),
    FIELD(unmapped_arenas, COUNTER, NULL, "Arenas given back whole."),
};

#define FIELDS (sizeof fields / sizeof fields[0])

static_assert(sizeof(size_t) == sizeof(unsigned long long), "every field is read as one type");

static unsigned long long value_of(const struct tarn_stats_result *stats, const struct field *field)
{
    unsigned long long value;
    memcpy(&value, (const char *)stats + field->offset, sizeof value);
    return value;
}

static void add_json_classes(struct page *page, const struct tarn_stats_result *stats)
{
    const char *separator = "";
    add(page, "  \"classes\": [");
    for (size_t i = 0; i < stats->class_count; i++) {
        const struct tarn_class_stats *class = &stats->classes[i];
        if (class->pools == 0 && class->allocations == 0)
            continue;
        add(page,
            "%s\n    {\"block_bytes\": %zu, \"pools\": %zu, \"blocks_used\": %zu, \"blocks_capacity\": %zu, "
            "\"allocations\": %llu}",
            separator, class->block_bytes, class->pools, class->blocks_used, class->blocks_capacity,
            class->allocations);
        separator = ",";
    }
    add(page, "\n  ]\n");
}

EXPORT size_t tarn_stats_json(char *buffer, size_t bytes)
{
    struct tarn_stats_result stats;
    struct page page = {.text = buffer, .bytes = bytes};
    fill_in(&stats);
    add(&page, "{\n  \"tarn\": \"%s\",\n  \"version\": %zu,\n", tarn_version(), stats.version);
    for (size_t i = 0; i < FIELDS; i++)
        add(&page, "  \"%s\": %llu,\n", fields[i].name, value_of(&stats, &fields[i]));
    add_json_classes(&page, &stats);
    add(&page, "}\n");
    return page.length;
}

static void add_family(struct page *page, const char *name, const char *kind, const char *unit,
                       const char *help)
{
    add(page, "# TYPE tarn_%s %s\n", name, kind);
    if (unit != NULL)
        add(page, "# UNIT tarn_%s %s\n", name, unit);
    add(page, "# HELP tarn_%s %s\n", name, help);
}

static void add_class_family(struct page *page, const struct tarn_stats_result *stats, const char *name,
                             const char *help, size_t offset, bool counts)
{
    add_family(page, name, counts ? "counter" : "gauge", NULL, help);
    for (size_t i = 0; i < stats->class_count; i++) {
        unsigned long long value;
        memcpy(&value, (const char *)&stats->classes[i] + offset, sizeof value);
        add(page, "tarn_%s%s{block_bytes=\"%zu\"} %llu\n", name, counts ? "_total" : "",
            stats->classes[i].block_bytes, value);
    }
}

EXPORT size_t tarn_stats_openmetrics(char *buffer, size_t bytes)
{
    struct tarn_stats_result stats;
    struct page page = {.text = buffer, .bytes = bytes};
    fill_in(&stats);
    for (size_t i = 0; i < FIELDS; i++) {
        bool counts = fields[i].kind == COUNTER;
        add_family(&page, fields[i].name, counts ? "counter" : "gauge", fields[i].unit, fields[i].help);
        add(&page, "tarn_%s%s %llu\n", fields[i].name, counts ? "_total" : "", value_of(&stats, &fields[i]));
    }
    add_class_family(&page, &stats, "class_blocks_used", "Blocks in use, by block size.",
                     offsetof(struct tarn_class_stats, blocks_used), false);
    add_class_family(&page, &stats, "class_blocks_capacity", "Blocks in pools, by block size.",
                     offsetof(struct tarn_class_stats, blocks_capacity), false);
    add_class_family(&page, &stats, "class_allocations", "Calls, by block size; estimated.",
                     offsetof(struct tarn_class_stats, allocations), true);
    add(&page, "# EOF\n");
    return page.length;
}
