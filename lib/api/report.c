/* What the allocator tells of itself: mallinfo, malloc_info, malloc_stats, and what is printed at exit. */
#include "api/report.h"

#include "api/names.h"
#include "arena/arena.h"
#include "base/counters.h"
#include "base/text.h"
#include "observe/statistics.h"
#include "os/settings.h"
#include "tarn/tarn.h"

#include <errno.h>
#include <limits.h>
#include <unistd.h>

EXPORT struct tarn_mallinfo2_result tarn_mallinfo2(void)
{
    struct statistics s;
    statistics_collect(&s);
    struct tarn_mallinfo2_result info = {0};
    info.arena = s.arena_bytes;
    info.ordblks = s.free_slots;
    info.hblks = s.raw.live_blocks;
    info.hblkhd = s.raw.live_bytes;
    info.uordblks = s.block_bytes_used + s.run_slots * SLOT_BYTES;
    info.fordblks = info.arena - info.uordblks;
    info.keepcost = (s.dirty_slots + s.kept_slots) * SLOT_BYTES + s.raw.cached_bytes;
    return info;
}

static int clamp(size_t number)
{
    return number > INT_MAX ? INT_MAX : (int)number;
}

EXPORT struct tarn_mallinfo_result tarn_mallinfo(void)
{
    struct tarn_mallinfo2_result all = tarn_mallinfo2();
    return (struct tarn_mallinfo_result){
        .arena = clamp(all.arena),
        .ordblks = clamp(all.ordblks),
        .hblks = clamp(all.hblks),
        .hblkhd = clamp(all.hblkhd),
        .uordblks = clamp(all.uordblks),
        .fordblks = clamp(all.fordblks),
        .keepcost = clamp(all.keepcost),
    };
}

/* ---- for scripts ---- */

static void xml_setting(const char *name, const char *value, void *stream)
{
    fprintf(stream, "<setting name=\"%s\" value=\"%s\"/>\n", name, value);
}

static void xml_classes(FILE *stream, const struct statistics *s)
{
    for (uint32_t class = 0; class < CLASS_COUNT; class++) {
        const struct class_statistics *c = &s->classes[class];
        if (c->pools > 0)
            fprintf(stream, "<class size=\"%u\" pools=\"%zu\" used=\"%zu\" capacity=\"%zu\"/>\n", class_bytes(class),
                    c->pools, c->blocks_used, c->blocks_capacity);
    }
}

static void xml_totals(FILE *stream, const struct statistics *s)
{
    const struct housekeeper_totals *h = &s->housekeeper;
    fprintf(stream, "<arenas count=\"%zu\" bytes=\"%zu\"/>\n", s->arenas, s->arena_bytes);
    fprintf(stream, "<slots size=\"%zu\" header=\"%zu\" pools=\"%zu\" runs=\"%zu\" free=\"%zu\" dirty=\"%zu\" kept=\"%zu\"/>\n",
            (size_t)SLOT_BYTES, s->header_slots, s->pool_slots, s->run_slots, s->free_slots, s->dirty_slots,
            s->kept_slots);
    fprintf(stream, "<blocks used_bytes=\"%zu\"/>\n<runs count=\"%zu\"/>\n", s->block_bytes_used, s->runs);
    fprintf(stream, "<raw count=\"%zu\" bytes=\"%zu\" cached_count=\"%zu\" cached_bytes=\"%zu\"/>\n",
            s->raw.live_blocks, s->raw.live_bytes, s->raw.cached_blocks, s->raw.cached_bytes);
    fprintf(stream, "<heaps count=\"%zu\" parked=\"%zu\"/>\n", s->heaps, s->heaps_parked);
    fprintf(stream, "<released purged_bytes=\"%llu\" purge_calls=\"%llu\" retired_arenas=\"%llu\" unmapped_arenas=\"%llu\"/>\n",
            (unsigned long long)h->purged_bytes, (unsigned long long)h->purge_calls,
            (unsigned long long)h->retired_arenas, (unsigned long long)h->unmapped_arenas);
}

EXPORT int tarn_malloc_info(int options, FILE *stream)
{
    if (options != 0 || stream == NULL) {
        errno = EINVAL;
        return -1;
    }
    struct statistics s;
    statistics_collect(&s);
    fprintf(stream, "<malloc version=\"tarn-%s\">\n", tarn_version());
    settings_each(xml_setting, stream);
    xml_totals(stream, &s);
    xml_classes(stream, &s);
    fprintf(stream, "</malloc>\n");
    return ferror(stream) ? -1 : 0;
}

/* ---- for people: written line by line without allocating ---- */

static void line_bytes(const char *name, size_t bytes)
{
    struct text line = {0};
    text_string(&line, "tarn:   ");
    size_t start = line.length;
    text_bytes(&line, bytes);
    text_pad(&line, start, 12);
    text_string(&line, "  ");
    text_string(&line, name);
    text_write_line(&line, STDERR_FILENO);
}

static void line_number(const char *name, uint64_t number)
{
    struct text line = {0};
    text_string(&line, "tarn:   ");
    size_t start = line.length;
    text_decimal(&line, number);
    text_pad(&line, start, 12);
    text_string(&line, "  ");
    text_string(&line, name);
    text_write_line(&line, STDERR_FILENO);
}

static void cell(struct text *line, uint64_t number, size_t width)
{
    size_t start = line->length;
    text_decimal(line, number);
    text_pad(line, start, width);
}

static void print_classes(const struct statistics *s)
{
    struct text line = {0};
    text_string(&line, "tarn:   block size     pools      used  capacity   KiB used");
    text_write_line(&line, STDERR_FILENO);
    for (uint32_t class = 0; class < CLASS_COUNT; class++) {
        const struct class_statistics *c = &s->classes[class];
        if (c->pools == 0)
            continue;
        text_string(&line, "tarn:   ");
        cell(&line, class_bytes(class), 10);
        cell(&line, c->pools, 10);
        cell(&line, c->blocks_used, 10);
        cell(&line, c->blocks_capacity, 10);
        cell(&line, c->blocks_used * class_bytes(class) / 1024, 11);
        text_write_line(&line, STDERR_FILENO);
    }
}

static void print_totals(const struct statistics *s)
{
    line_bytes("in live blocks of pools", s->block_bytes_used);
    line_bytes("in pools", s->pool_slots * SLOT_BYTES);
    line_bytes("in runs", s->run_slots * SLOT_BYTES);
    line_bytes("in raw blocks", s->raw.live_bytes);
    line_bytes("free and perhaps resident (dirty)", s->dirty_slots * SLOT_BYTES);
    line_bytes("empty, kept by heaps", s->kept_slots * SLOT_BYTES);
    line_bytes("in cached raw mappings", s->raw.cached_bytes);
    line_bytes("mapped for arenas", s->arena_bytes);
    line_bytes("purged since the start", s->housekeeper.purged_bytes);
    line_number("arenas", s->arenas);
    line_number("arenas unmapped since the start", s->housekeeper.unmapped_arenas);
    line_number("heaps", s->heaps);
    line_number("heaps parked", s->heaps_parked);
}

static void print_counters(void)
{
    if (!TARN_COUNTERS)
        return;
    for (int kind = 0; kind < COUNTER_KINDS; kind++)
        line_number(counter_names[kind], atomic_load_explicit(&counters[kind], memory_order_relaxed));
}

EXPORT void tarn_malloc_stats(void)
{
    struct statistics s;
    statistics_collect(&s);
    struct text line = {0};
    text_string(&line, "tarn: ");
    text_string(&line, tarn_version());
    text_string(&line, ", process ");
    text_decimal(&line, (uint64_t)getpid());
    text_write_line(&line, STDERR_FILENO);
    print_totals(&s);
    print_classes(&s);
    print_counters();
}

static void print_setting(const char *name, const char *value, void *context)
{
    struct text line = {0};
    (void)context;
    text_string(&line, "tarn:   ");
    text_string(&line, name);
    text_string(&line, "=");
    text_string(&line, value);
    text_write_line(&line, STDERR_FILENO);
}

void report_start(void)
{
    struct text line = {0};
    text_string(&line, "tarn: ");
    text_string(&line, tarn_version());
    text_string(&line, TARN_OVERRIDE ? " serves malloc of process " : " is loaded into process ");
    text_decimal(&line, (uint64_t)getpid());
    text_write_line(&line, STDERR_FILENO);
    settings_each(print_setting, NULL);
}

EXPORT int tarn_mallopt(int parameter, int value)
{
    (void)value;
    return parameter >= -8 && parameter <= 1;
}

EXPORT const char *tarn_version(void)
{
    return TARN_VERSION;
}

ALSO_AS(mallinfo, struct tarn_mallinfo_result, void)
ALSO_AS(mallinfo2, struct tarn_mallinfo2_result, void)
ALSO_AS(malloc_info, int, int, FILE *)
ALSO_AS(malloc_stats, void, void)
ALSO_AS(mallopt, int, int, int)
