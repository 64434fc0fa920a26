/* tarn metrics: a survey as OpenMetrics text, for a collector that runs it (OpenMetrics 1.0). */
#include "commands.h"

#include "survey.h"

#include <inttypes.h>
#include <stdio.h>

static void family(const char *name, const char *type, const char *unit, const char *help)
{
    printf("# TYPE %s %s\n", name, type);
    if (unit != NULL)
        printf("# UNIT %s %s\n", name, unit);
    printf("# HELP %s %s\n", name, help);
}

static void gauge(const char *name, const char *unit, const char *help, uint64_t value)
{
    family(name, "gauge", unit, help);
    printf("%s %" PRIu64 "\n", name, value);
}

static void counter(const char *name, const char *unit, const char *help, uint64_t value)
{
    family(name, "counter", unit, help);
    printf("%s_total %" PRIu64 "\n", name, value);
}

static void by_class(const char *name, const char *type, const char *unit, const char *help,
                     const struct survey *survey, size_t offset, const char *suffix)
{
    family(name, type, unit, help);
    for (uint32_t class = 0; class < CLASS_COUNT; ++class)
        if (survey->classes[class].pools > 0 || survey->classes[class].calls > 0)
            printf("%s%s{block_bytes=\"%u\"} %" PRIu64 "\n", name, suffix, class_bytes(class),
                   *(const uint64_t *)(const void *)((const char *)&survey->classes[class] + offset));
}

static uint64_t slots_of(const struct survey *survey, enum slot_use use)
{
    uint64_t slots = 0;
    for (size_t i = 0; i < survey->arena_count; i++)
        for (uint32_t slot = 0; slot < ARENA_SLOTS; slot++)
            slots += survey->arenas[i].slots[slot].use == use;
    return slots;
}

static uint64_t raw_bytes_of(const struct survey *survey, bool cached)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < survey->raw_count; i++)
        bytes += survey->raws[i].cached == cached ? survey->raws[i].bytes : 0;
    return bytes;
}

static void print_slots(const struct survey *survey)
{
    static const struct {
        enum slot_use use;
        const char *name;
    } uses[] = {{SLOT_HEADER, "header"}, {SLOT_POOL, "pool"}, {SLOT_RUN, "run"},        {SLOT_DIRTY, "dirty"},
                {SLOT_CLEAN, "clean"},   {SLOT_KEPT, "kept"}, {SLOT_GUARDED, "guarded"}};
    family("tarn_slot_bytes", "gauge", "bytes", "Addresses of arenas by what they are used for.");
    for (size_t i = 0; i < sizeof uses / sizeof *uses; i++)
        printf("tarn_slot_bytes{use=\"%s\"} %" PRIu64 "\n", uses[i].name,
               slots_of(survey, uses[i].use) * (uint64_t)SLOT_BYTES);
}

static void print_all(const struct survey *survey)
{
    struct survey_rates rates = survey_rates(survey);
    uint64_t parked = 0;
    for (size_t i = 0; i < survey->heap_count; i++)
        parked += survey->heaps[i].parked;
    family("tarn", "info", NULL, "The library.");
    printf("tarn_info{version=\"%s\",hardened=\"%u\"} 1\n", TARN_VERSION,
           survey->process->published.hardened);
    gauge("tarn_resident_bytes", "bytes", "Resident memory of the process.",
          process_resident_bytes(survey->process));
    counter("tarn_allocations", NULL, "Calls of malloc and its relatives; estimated.", rates.calls);
    counter("tarn_allocated_bytes", "bytes", "Bytes asked for by these; estimated.", rates.bytes);
    gauge("tarn_live_blocks", NULL, "Blocks, runs and raw blocks in use.", rates.live_blocks);
    counter("tarn_remote_blocks", NULL, "Blocks sent home to the thread that allocated them.",
            rates.sent_blocks);
    counter("tarn_refills", NULL, "Times that a thread's list of a class was empty.", rates.refills);
    gauge("tarn_arenas", NULL, "Arenas of 4 MiB.", survey->arena_count);
    print_slots(survey);
    gauge("tarn_raw_live_bytes", "bytes", "Raw blocks in use.", raw_bytes_of(survey, false));
    gauge("tarn_raw_cached_bytes", "bytes", "Freed raw blocks kept for the next.",
          raw_bytes_of(survey, true));
    gauge("tarn_heaps", NULL, "Heaps.", survey->heap_count);
    gauge("tarn_heaps_parked", NULL, "Heaps whose thread has ended.", parked);
    counter("tarn_purged_bytes", "bytes", "Free memory given back to the system.",
            survey->housekeeper.purged_bytes);
    counter("tarn_purge_calls", NULL, "Calls of madvise for that.", survey->housekeeper.purge_calls);
    counter("tarn_unmapped_arenas", NULL, "Arenas given back whole.", survey->housekeeper.unmapped_arenas);
    by_class("tarn_class_live_blocks", "gauge", NULL, "Blocks in use, by size class.", survey,
             offsetof(struct class_view, used), "");
    by_class("tarn_class_capacity_blocks", "gauge", NULL, "Blocks in pools, by size class.", survey,
             offsetof(struct class_view, capacity), "");
    by_class("tarn_class_allocations", "counter", NULL, "Allocations, by size class; estimated.", survey,
             offsetof(struct class_view, calls), "_total");
    printf("# EOF\n");
}

int command_metrics(int count, char **arguments)
{
    struct process process;
    struct survey survey;
    pid_t pid;
    if (count != 2)
        return complain_usage("metrics wants one process number");
    if (!parse_pid(arguments[1], &pid))
        return STATUS_USAGE;
    process_open(&process, pid);
    int status = process_explain_state(&process);
    if (status == STATUS_OK) {
        if (survey_take(&survey, &process, false))
            print_all(&survey);
        else
            status = complain("process %d ended while it was looked at", (int)pid);
        survey_free(&survey);
    }
    process_close(&process);
    return status;
}
