/* tarn explain: the ledger. Each page that the kernel says is resident is entered once, by what Tarn uses it
 * for; within a pool's pages, by how many of its blocks are in use. */
#include "commands.h"

#include "survey.h"
#include "table.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum line {
    LINE_ASKED,
    LINE_ROUNDING,
    LINE_RUNS,
    LINE_RAW,
    LINE_GUARDED,
    LINE_QUARANTINE,
    LINE_FREE_BLOCKS,
    LINE_UNCARVED,
    LINE_EMPTY_POOLS,
    LINE_KEPT,
    LINE_FOREIGN,
    LINE_ON_THE_WAY,
    LINE_DIRTY,
    LINE_SLACK,
    LINE_RAW_CACHE,
    LINE_TABLES,
    LINE_CODE,
    LINES
};

struct line_text {
    const char *key;
    const char *what;
    const char *shrink;
};

static const struct line_text texts[LINES] = {
    [LINE_ASKED] = {"live_asked", "live blocks, as asked for (estimated)", "the program: it holds them"},
    [LINE_ROUNDING] = {"rounding", "rounding up to size classes (estimated)",
                       "requests just above a class: tarn classes --pid PID"},
    [LINE_RUNS] = {"runs", "live runs, 32 to 512 KiB",
                   "the program; TARN_RAW_THRESHOLD for sizes just above 16 KiB steps"},
    [LINE_RAW] = {"raw", "live raw blocks, above 512 KiB", "the program: it holds them"},
    [LINE_GUARDED] = {"guarded", "guarded blocks and their records", "TARN_GUARD_SAMPLE=off or a larger N"},
    [LINE_QUARANTINE] = {"quarantine", "freed, in quarantine (hardened library)", "TARN_QUARANTINE"},
    [LINE_FREE_BLOCKS] = {"free_blocks", "free blocks in pools in use: fragmentation",
                          "objects of one age together; TARN_RUN_THRESHOLD if it sits in large classes"},
    [LINE_UNCARVED] = {"uncarved", "pages of pools not handed out yet, or in part",
                       "nothing: the next blocks"},
    [LINE_EMPTY_POOLS] = {"empty_pools", "thread caches: empty pools",
                          "tarn trim; fewer threads; ends at the next tick"},
    [LINE_KEPT] = {"kept", "thread caches: empty slots, freed runs",
                   "tarn trim; fewer threads; ends at the next tick"},
    [LINE_FOREIGN] = {"foreign", "thread caches: blocks that other threads allocated",
                      "tarn trim; at the next tick"},
    [LINE_ON_THE_WAY] = {"on_the_way", "blocks on their way to their thread",
                         "that thread's next slow path; it sleeps"},
    [LINE_DIRTY] = {"dirty", "free slots that wait to be purged",
                    "TARN_PURGE_DELAY, TARN_DIRTY_LIMIT; tarn trim"},
    [LINE_SLACK] = {"slack", "free slots that were never used: huge pages", "TARN_HUGE_PAGES=never"},
    [LINE_RAW_CACHE] = {"raw_cache", "freed raw blocks kept for the next",
                        "TARN_RAW_CACHE, TARN_PURGE_DELAY; tarn trim"},
    [LINE_TABLES] = {"tables", "arena headers, heaps, index: metadata", "fewer threads"},
    [LINE_CODE] = {"code", "the library's code and variables", NULL},
};

struct ledger_entry {
    uint64_t bytes[LINES];
    json_t *others; /* not ours, by mapping */
    uint64_t others_bytes;
    uint64_t total_bytes;
};

/* ---- what is Tarn's ---- */

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* How much of the class's blocks is what was asked for. */
static double asked_share(const struct survey *survey, uint32_t class)
{
    const struct class_view *view = &survey->classes[class];
    double given = (double)view->calls * class_bytes(class);
    double share = given > 0 ? (double)view->asked_bytes / given : 1;
    return share < 1 ? share : 1;
}

static void enter_pool(struct ledger_entry *ledger, const struct survey *survey,
                       const struct slot_view *slots)
{
    uint64_t resident = 0;
    uint64_t block_bytes = class_bytes(slots->class);
    for (uint32_t i = 0; i < slots->slots; i++)
        resident += slots[i].resident_bytes;
    if (slots->used == 0) {
        ledger->bytes[LINE_EMPTY_POOLS] += resident;
        return;
    }
    uint64_t live = least(resident, slots->used * block_bytes);
    uint64_t asked = (uint64_t)((double)live * asked_share(survey, slots->class));
    ledger->bytes[LINE_ASKED] += asked;
    ledger->bytes[LINE_ROUNDING] += live - asked;
    uint64_t free_bytes = least(resident - live, (slots->capacity - slots->used) * block_bytes);
    ledger->bytes[LINE_FREE_BLOCKS] += free_bytes;
    ledger->bytes[LINE_UNCARVED] += resident - live - free_bytes;
}

static void enter_arena(struct ledger_entry *ledger, const struct survey *survey,
                        const struct arena_view *arena)
{
    static const enum line lines[SLOT_USES] = {
        [SLOT_HEADER] = LINE_TABLES, [SLOT_CLEAN] = LINE_SLACK, [SLOT_DIRTY] = LINE_DIRTY,
        [SLOT_KEPT] = LINE_KEPT,     [SLOT_RUN] = LINE_RUNS,    [SLOT_GUARDED] = LINE_GUARDED,
    };
    for (uint32_t slot = 0; slot < ARENA_SLOTS; slot++) {
        const struct slot_view *one = &arena->slots[slot];
        if (one->use != SLOT_POOL)
            ledger->bytes[lines[one->use]] += one->resident_bytes;
        else if (one->begins && slot + one->slots <= ARENA_SLOTS)
            enter_pool(ledger, survey, one);
    }
}

/* Blocks that count as used in their pool, but are not live, leave the live ones. */
static void move_from_live(struct ledger_entry *ledger, enum line line, uint64_t bytes)
{
    uint64_t live = ledger->bytes[LINE_ASKED] + ledger->bytes[LINE_ROUNDING];
    bytes = least(bytes, live);
    uint64_t of_asked =
        live > 0 ? (uint64_t)((double)bytes * ((double)ledger->bytes[LINE_ASKED] / (double)live)) : 0;
    ledger->bytes[line] += bytes;
    ledger->bytes[LINE_ASKED] -= of_asked;
    ledger->bytes[LINE_ROUNDING] -= least(bytes - of_asked, ledger->bytes[LINE_ROUNDING]);
}

static void enter_caches(struct ledger_entry *ledger, const struct survey *survey)
{
    uint64_t foreign = 0;
    uint64_t quarantine = 0;
    for (size_t i = 0; i < survey->heap_count; i++) {
        foreign += least(survey->heaps[i].heap.foreign_bytes, UINT64_C(1) << 30);
        quarantine += least(survey->heaps[i].quarantine_bytes, UINT64_C(1) << 40);
    }
    move_from_live(ledger, LINE_FOREIGN, foreign);
    move_from_live(ledger, LINE_ON_THE_WAY, survey->way_bytes);
    move_from_live(ledger, LINE_QUARANTINE, quarantine);
}

static void enter_raws(struct ledger_entry *ledger, const struct survey *survey)
{
    for (size_t i = 0; i < survey->raw_count; i++)
        ledger->bytes[survey->raws[i].cached ? LINE_RAW_CACHE : LINE_RAW] += survey->raws[i].resident_bytes;
}

/* ---- what is not ---- */

/* Resident bytes of arenas, raw blocks and tables in a mapping were entered already. */
struct range {
    uint64_t begin, end, resident;
};

static int by_begin(const void *a, const void *b)
{
    const struct range *one = a;
    const struct range *other = b;
    return one->begin < other->begin ? -1 : one->begin > other->begin;
}

static uint64_t arena_resident(const struct arena_view *arena)
{
    uint64_t bytes = 0;
    for (uint32_t slot = 0; slot < ARENA_SLOTS; slot++)
        bytes += arena->slots[slot].resident_bytes;
    return bytes;
}

static struct range *own_ranges(const struct survey *survey, size_t *count)
{
    struct range *ranges = calloc(survey->arena_count + survey->raw_count + 1, sizeof *ranges);
    *count = 0;
    if (ranges == NULL)
        return NULL;
    for (size_t i = 0; i < survey->arena_count; i++)
        ranges[(*count)++] =
            (struct range){survey->arenas[i].address, survey->arenas[i].address + ARENA_BYTES,
                           arena_resident(&survey->arenas[i])};
    for (size_t i = 0; i < survey->raw_count; i++)
        ranges[(*count)++] =
            (struct range){survey->raws[i].address, survey->raws[i].address + survey->raws[i].bytes,
                           survey->raws[i].resident_bytes};
    qsort(ranges, *count, sizeof *ranges, by_begin);
    return ranges;
}

/* What the ranges hold of the mapping. */
static uint64_t own_bytes_in(const struct survey *survey, const struct mapping *mapping,
                             const struct range *ranges, size_t count)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < count && ranges[i].begin < mapping->end; i++) {
        uint64_t begin = ranges[i].begin > mapping->begin ? ranges[i].begin : mapping->begin;
        uint64_t end = least(ranges[i].end, mapping->end);
        if (begin >= end)
            continue;
        if (begin == mapping->begin && end == mapping->end)
            return mapping->resident_bytes;
        if (begin == ranges[i].begin && end == ranges[i].end)
            bytes += ranges[i].resident;
        else
            bytes += survey_resident_in(survey, begin, end - begin);
    }
    return bytes;
}

static const char *name_of(const struct mapping *mapping)
{
    return mapping->name[0] != '\0' ? mapping->name : "anonymous memory of others";
}

static void add_other(json_t *others, const char *file, uint64_t bytes)
{
    char name[sizeof((struct mapping *)NULL)->name];
    snprintf(name, sizeof name, "%s", file);
    clean_text(name);
    json_t *sum = json_object_get(others, name);
    json_object_set_new(others, name, json_integer((json_int_t)(bytes + (uint64_t)json_integer_value(sum))));
}

static void enter_others(struct ledger_entry *ledger, const struct survey *survey)
{
    const struct process *process = survey->process;
    size_t count;
    struct range *ranges = own_ranges(survey, &count);
    uint64_t tables = survey->table_bytes;
    ledger->others = json_object();
    for (size_t i = 0; i < process->mapping_count; i++) {
        const struct mapping *mapping = &process->mappings[i];
        uint64_t own = ranges != NULL ? own_bytes_in(survey, mapping, ranges, count) : 0;
        uint64_t rest = mapping->resident_bytes - least(own, mapping->resident_bytes);
        if (strcmp(mapping->name, process->library) == 0 && strstr(mapping->name, "libtarn") != NULL) {
            ledger->bytes[LINE_CODE] += rest;
            continue;
        }
        if (mapping->name[0] == '\0') { /* Tarn's tables are there */
            uint64_t part = least(rest, tables);
            ledger->bytes[LINE_TABLES] += part;
            tables -= part;
            rest -= part;
        }
        if (rest > 0) {
            add_other(ledger->others, name_of(mapping), rest);
            ledger->others_bytes += rest;
        }
    }
    free(ranges);
}

/* ---- print ---- */

static void print_line(uint64_t bytes, uint64_t total, const char *what, const char *shrink)
{
    char shown[SHOWN_BYTES];
    printf("  %10s  %5.1f %%  %-52s", show_bytes(shown, bytes),
           total > 0 ? 100.0 * (double)bytes / (double)total : 0, what);
    if (shrink != NULL)
        printf("  %s", shrink);
    putchar('\n');
}

struct other {
    const char *name;
    uint64_t bytes;
};

static int largest_first(const void *a, const void *b)
{
    const struct other *one = a;
    const struct other *other = b;
    return one->bytes > other->bytes ? -1 : one->bytes < other->bytes;
}

enum { OTHERS_SHOWN = 8 };

static void print_others(const struct ledger_entry *ledger)
{
    size_t count = json_object_size(ledger->others);
    struct other *others = calloc(count + 1, sizeof *others);
    const char *name;
    json_t *bytes;
    size_t at = 0;
    uint64_t rest = 0;
    if (others == NULL)
        return;
    json_object_foreach(ledger->others, name, bytes) others[at++] =
        (struct other){name, (uint64_t)json_integer_value(bytes)};
    qsort(others, count, sizeof *others, largest_first);
    for (size_t i = 0; i < count; i++) {
        if (i < OTHERS_SHOWN)
            print_line(others[i].bytes, ledger->total_bytes, others[i].name, NULL);
        else
            rest += others[i].bytes;
    }
    if (rest > 0)
        print_line(rest, ledger->total_bytes, "other mappings", NULL);
    free(others);
}

static uint64_t sum_of(const struct ledger_entry *ledger)
{
    uint64_t sum = ledger->others_bytes;
    for (int line = 0; line < LINES; line++)
        sum += ledger->bytes[line];
    return sum;
}

static void print_text(const struct process *process, const struct ledger_entry *ledger)
{
    char shown[SHOWN_BYTES];
    char summed[SHOWN_BYTES];
    printf("%s (process %d), Tarn %.15s%s: %s resident, %s accounted for\n\n", process->name,
           (int)process->pid, process->published.library, process->published.hardened ? ", hardened" : "",
           show_bytes(shown, ledger->total_bytes), show_bytes(summed, sum_of(ledger)));
    for (int line = 0; line < LINES; line++)
        if (ledger->bytes[line] > 0)
            print_line(ledger->bytes[line], ledger->total_bytes, texts[line].what, texts[line].shrink);
    printf("\nnot of the allocator\n");
    print_others(ledger);
}

static void print_as_json(const struct process *process, const struct ledger_entry *ledger)
{
    json_t *lines = json_array();
    for (int line = 0; line < LINES; line++)
        json_array_append_new(lines, json_pack("{s:s, s:I, s:s, s:s*}", "line", texts[line].key, "bytes",
                                               (json_int_t)ledger->bytes[line], "what", texts[line].what,
                                               "shrink", texts[line].shrink));
    json_t *all = json_pack("{s:i, s:s, s:s, s:b, s:I, s:I, s:o, s:O}", "pid", (int)process->pid, "name",
                            process->name, "tarn", TARN_VERSION, "hardened", (int)process->published.hardened,
                            "resident", (json_int_t)ledger->total_bytes, "accounted",
                            (json_int_t)sum_of(ledger), "lines", lines, "others", ledger->others);
    print_json(all, stdout);
    json_decref(all);
}

static void enter_all(struct ledger_entry *ledger, struct survey *survey)
{
    for (size_t i = 0; i < survey->arena_count; i++)
        enter_arena(ledger, survey, &survey->arenas[i]);
    enter_caches(ledger, survey);
    enter_raws(ledger, survey);
    enter_others(ledger, survey);
    ledger->total_bytes = process_resident_bytes(survey->process);
}

enum { TRIES = 12 };

static uint64_t difference(const struct ledger_entry *ledger)
{
    uint64_t sum = sum_of(ledger);
    return sum > ledger->total_bytes ? sum - ledger->total_bytes : ledger->total_bytes - sum;
}

/* The process goes on while it is looked at: again, until what was read before and after agree within a
 * percent, or the best of some. False when it has ended. */
static bool take_ledger(struct process *process, struct survey *survey, struct ledger_entry *ledger)
{
    struct ledger_entry best = {.others = NULL};
    for (int i = 0; i < TRIES; i++) {
        *ledger = (struct ledger_entry){.others = NULL};
        bool taken = survey_take(survey, process, true) && process_read_mappings(process);
        if (taken)
            enter_all(ledger, survey);
        survey_free(survey);
        if (!taken) {
            json_decref(best.others);
            return false;
        }
        if (best.others == NULL || difference(ledger) < difference(&best)) {
            json_decref(best.others);
            best = *ledger;
        } else {
            json_decref(ledger->others);
        }
        if (difference(&best) <= best.total_bytes / 200)
            break;
    }
    *ledger = best;
    return true;
}

int command_explain(int count, char **arguments)
{
    bool as_json = take_json(&count, arguments);
    struct process process;
    struct survey survey;
    struct ledger_entry ledger = {0};
    pid_t pid;
    if (count != 2)
        return complain_usage("explain wants one process number");
    if (!parse_pid(arguments[1], &pid))
        return STATUS_USAGE;
    process_open(&process, pid);
    int status = process_explain_state(&process);
    if (status == STATUS_OK && !take_ledger(&process, &survey, &ledger))
        status = complain("process %d ended while it was looked at", (int)pid);
    if (status == STATUS_OK && as_json)
        print_as_json(&process, &ledger);
    else if (status == STATUS_OK)
        print_text(&process, &ledger);
    json_decref(ledger.others);
    process_close(&process);
    return status;
}
