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
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

/* A copy of stderr made at the start, since many programs close stderr in their own exit handlers. Written
 * once, before there is a second thread. */
static int kept_stderr = STDERR_FILENO;

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
    info.uordblks += s.guard.live_bytes;
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
    for (uint32_t class = 0; class < CLASS_COUNT; ++class) {
        const struct class_statistics *c = &s->classes[class];
        if (c->pools > 0)
            fprintf(stream, "<class size=\"%u\" pools=\"%zu\" used=\"%zu\" capacity=\"%zu\"/>\n",
                    class_bytes(class), c->pools, c->blocks_used, c->blocks_capacity);
    }
}

static void xml_totals(FILE *stream, const struct statistics *s)
{
    const struct housekeeper_totals *h = &s->housekeeper;
    fprintf(stream, "<arenas count=\"%zu\" bytes=\"%zu\"/>\n", s->arenas, s->arena_bytes);
    fprintf(stream,
            "<slots size=\"%zu\" header=\"%zu\" pools=\"%zu\" runs=\"%zu\" free=\"%zu\" dirty=\"%zu\" "
            "kept=\"%zu\"/>\n",
            (size_t)SLOT_BYTES, s->header_slots, s->pool_slots, s->run_slots, s->free_slots, s->dirty_slots,
            s->kept_slots);
    fprintf(stream, "<blocks used_bytes=\"%zu\"/>\n<runs count=\"%zu\"/>\n", s->block_bytes_used, s->runs);
    fprintf(stream, "<raw count=\"%zu\" bytes=\"%zu\" cached_count=\"%zu\" cached_bytes=\"%zu\"/>\n",
            s->raw.live_blocks, s->raw.live_bytes, s->raw.cached_blocks, s->raw.cached_bytes);
    fprintf(stream, "<guarded count=\"%zu\" bytes=\"%zu\" waiting=\"%zu\"/>\n", s->guard.live_blocks,
            s->guard.live_bytes, s->guard.waiting);
    fprintf(stream, "<heaps count=\"%zu\" parked=\"%zu\"/>\n", s->heaps, s->heaps_parked);
    fprintf(stream,
            "<released purged_bytes=\"%llu\" purge_calls=\"%llu\" retired_arenas=\"%llu\" "
            "unmapped_arenas=\"%llu\"/>\n",
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

static void line_bytes(int to, const char *name, size_t bytes)
{
    struct text line = {0};
    text_string(&line, "tarn:   ");
    size_t start = line.length;
    text_bytes(&line, bytes);
    text_pad(&line, start, 12);
    text_string(&line, "  ");
    text_string(&line, name);
    text_write_line(&line, to);
}

static void line_number(int to, const char *name, uint64_t number)
{
    struct text line = {0};
    text_string(&line, "tarn:   ");
    size_t start = line.length;
    text_decimal(&line, number);
    text_pad(&line, start, 12);
    text_string(&line, "  ");
    text_string(&line, name);
    text_write_line(&line, to);
}

static void cell(struct text *line, uint64_t number, size_t width)
{
    size_t start = line->length;
    text_decimal(line, number);
    text_pad(line, start, width);
}

static void print_classes(int to, const struct statistics *s)
{
    struct text line = {0};
    text_string(&line, "tarn:   block size     pools      used  capacity   KiB used");
    text_write_line(&line, to);
    for (uint32_t class = 0; class < CLASS_COUNT; ++class) {
        const struct class_statistics *c = &s->classes[class];
        if (c->pools == 0)
            continue;
        text_string(&line, "tarn:   ");
        cell(&line, class_bytes(class), 10);
        cell(&line, c->pools, 10);
        cell(&line, c->blocks_used, 10);
        cell(&line, c->blocks_capacity, 10);
        cell(&line, c->blocks_used * class_bytes(class) / 1024, 11);
        text_write_line(&line, to);
    }
}

static void print_totals(int to, const struct statistics *s)
{
    line_bytes(to, "in live blocks of pools", s->block_bytes_used);
    line_bytes(to, "in pools", s->pool_slots * SLOT_BYTES);
    line_bytes(to, "in runs", s->run_slots * SLOT_BYTES);
    line_bytes(to, "in raw blocks", s->raw.live_bytes);
    if (settings.guard_interval > 0)
        line_bytes(to, "in guarded blocks", s->guard.live_bytes);
    line_bytes(to, "free and perhaps resident (dirty)", s->dirty_slots * SLOT_BYTES);
    line_bytes(to, "empty, kept by heaps", s->kept_slots * SLOT_BYTES);
    line_bytes(to, "in cached raw mappings", s->raw.cached_bytes);
    line_bytes(to, "mapped for arenas", s->arena_bytes);
    line_bytes(to, "purged since the start", s->housekeeper.purged_bytes);
    line_number(to, "arenas", s->arenas);
    line_number(to, "arenas unmapped since the start", s->housekeeper.unmapped_arenas);
    line_number(to, "heaps", s->heaps);
    line_number(to, "heaps parked", s->heaps_parked);
}

static void print_counters(int to)
{
    if (!TARN_COUNTERS)
        return;
    for (int kind = 0; kind < COUNTER_KINDS; kind++)
        line_number(to, counter_names[kind], atomic_load_explicit(&counters[kind], memory_order_relaxed));
}

static void print_statistics(int to)
{
    struct statistics s;
    statistics_collect(&s);
    struct text line = {0};
    text_string(&line, "tarn: ");
    text_string(&line, tarn_version());
    text_string(&line, ", process ");
    text_decimal(&line, (uint64_t)getpid());
    text_write_line(&line, to);
    print_totals(to, &s);
    print_classes(to, &s);
    print_counters(to);
}

EXPORT void tarn_malloc_stats(void)
{
    print_statistics(STDERR_FILENO);
}

void report_keep_stderr(void)
{
    int copy = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 100);
    kept_stderr = copy >= 0 ? copy : STDERR_FILENO;
}

void report_end(void)
{
    print_statistics(kept_stderr);
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
