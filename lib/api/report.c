/* What the allocator tells of itself: mallinfo, malloc_info, malloc_stats, and what is printed at exit. */
#include "api/report.h"

#include "api/names.h"
#include "arena/arena.h"
#include "base/counters.h"
#include "base/fatal.h"
#include "base/text.h"
#include "heap/tick.h"
#include "observe/statistics.h"
#include "os/clock.h"
#include "os/settings.h"
#include "tarn/tarn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

/* Where statistics go, on a high number: a copy of stderr, since many programs close stderr in their own exit
 * handlers, or the file. Written once, before there is a second thread. */
static int report_file = STDERR_FILENO;

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

/* ---- when ---- */

#define REPORT_FILE_LEAST 100
#define REPORT_BYTES      ((size_t)64 << 10)

static size_t (*report_text)(char *buffer, size_t bytes); /* NULL: for people */
static _Atomic uint64_t next_report_ms;
static _Atomic bool is_asked; /* by the signal */
static atomic_flag reporting = ATOMIC_FLAG_INIT;

static void write_all(int to, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t written = write(to, text, length);
        if (written <= 0)
            return;
        text += written;
        length -= (size_t)written;
    }
}

/* One at a time; a second that comes meanwhile goes without. */
static void report(void)
{
    static char text[REPORT_BYTES];
    int saved_errno = errno;
    if (atomic_flag_test_and_set_explicit(&reporting, memory_order_acquire))
        return;
    if (report_text == NULL) {
        print_statistics(report_file);
    } else {
        size_t length = report_text(text, sizeof text);
        write_all(report_file, text, length < sizeof text ? length : sizeof text - 1);
    }
    atomic_flag_clear_explicit(&reporting, memory_order_release);
    errno = saved_errno;
}

static void report_if_due(uint64_t now_ms)
{
    uint64_t next = atomic_load_explicit(&next_report_ms, memory_order_relaxed);
    if (now_ms >= next && atomic_compare_exchange_strong_explicit(
                              &next_report_ms, &next, now_ms + statistics_argument(settings.statistics),
                              memory_order_relaxed, memory_order_relaxed))
        report();
}

static void report_if_asked(uint64_t now_ms)
{
    (void)now_ms;
    if (atomic_load_explicit(&is_asked, memory_order_relaxed) &&
        atomic_exchange_explicit(&is_asked, false, memory_order_relaxed))
        report();
}

static void ask(int number)
{
    (void)number;
    atomic_store_explicit(&is_asked, true, memory_order_relaxed);
}

/* A handler of the program's own stays. */
static void listen_to(int number)
{
    struct sigaction present;
    struct sigaction action = {.sa_handler = ask, .sa_flags = SA_RESTART};
    if (sigaction(number, NULL, &present) == 0 && present.sa_handler == SIG_DFL)
        sigaction(number, &action, NULL);
}

/* ---- where ---- */

static bool ends_with(const char *name, const char *end)
{
    size_t length = strlen(name);
    return length >= strlen(end) && strcmp(name + length - strlen(end), end) == 0;
}

/* %p is the process; any other character stands for itself. */
static void expand(struct text *path, const char *pattern)
{
    for (const char *at = pattern; *at != '\0'; at++) {
        char one[2] = {*at, '\0'};
        if (at[0] == '%' && at[1] == 'p') {
            text_decimal(path, (uint64_t)getpid());
            at++;
        } else {
            text_string(path, one);
        }
    }
    path->bytes[path->length] = '\0';
}

static int open_report_file(void)
{
    struct text path = {0};
    struct text line = {0};
    if (settings.statistics_file[0] == '\0')
        return -1;
    expand(&path, settings.statistics_file);
    if (ends_with(path.bytes, ".json"))
        report_text = tarn_stats_json;
    else if (ends_with(path.bytes, ".prom"))
        report_text = tarn_stats_openmetrics;
    int file = open(path.bytes, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file < 0 && SETTING(verbosity) > 0) {
        text_string(&line, "TARN_STATS_FILE=");
        text_string(&line, path.bytes);
        text_string(&line, " cannot be opened; statistics go to stderr");
        warning_line(&line);
    }
    return file;
}

void report_prepare(void)
{
    int file = open_report_file();
    int copy = fcntl(file >= 0 ? file : STDERR_FILENO, F_DUPFD_CLOEXEC, REPORT_FILE_LEAST);
    report_file = copy >= 0 ? copy : file >= 0 ? file : STDERR_FILENO;
    if (file >= 0 && copy >= 0)
        close(file);
    uint32_t argument = statistics_argument(settings.statistics);
    switch (statistics_kind(settings.statistics)) {
    case STATISTICS_EACH:
        atomic_store_explicit(&next_report_ms, clock_now_ms() + argument, memory_order_relaxed);
        tick_set_look(TICK_LOOK_REPORT, report_if_due);
        break;
    case STATISTICS_ON_SIGNAL:
        listen_to((int)argument);
        tick_set_look(TICK_LOOK_REPORT, report_if_asked);
        break;
    default:
        break;
    }
}

void report_end(void)
{
    report();
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
