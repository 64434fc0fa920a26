/* tarn classes: the table of size classes; with a process, what rounding costs there. */
#include "commands.h"

#include "survey.h"
#include "table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct column general[] = {
    {"block", "block", CELL_COUNT},
    {"from", "requests from", CELL_COUNT},
    {"pool", "pool", CELL_BYTES},
    {"blocks", "blocks in it", CELL_COUNT},
    {"tail", "left over", CELL_COUNT},
    {"mean_waste", "waste, mean", CELL_PERCENT},
    {"most_waste", "waste, worst", CELL_PERCENT},
};

static const struct column measured[] = {
    {"block", "block", CELL_COUNT},        {"calls", "calls since start", CELL_COUNT},
    {"asked", "mean request", CELL_COUNT}, {"waste", "rounding", CELL_PERCENT},
    {"used", "live blocks", CELL_COUNT},   {"capacity", "of", CELL_COUNT},
    {"resident", "resident", CELL_BYTES},  {"idle", "free in pools", CELL_BYTES},
    {"note", "note", CELL_TEXT},
};

static uint32_t least_request(uint32_t class)
{
    return class == 0 ? 1 : class_bytes(class - 1) + 1;
}

/* Of the block, what is not asked for, over all requests that it serves, each as likely. */
static double mean_waste(uint32_t class)
{
    double block = class_bytes(class);
    return 100 * (block - (least_request(class) + block) / 2) / block;
}

static json_t *general_row(uint32_t class)
{
    uint64_t pool = class_pool_slots(class) * SLOT_BYTES;
    uint64_t block = class_bytes(class);
    uint64_t blocks = class_pool_blocks(class);
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:f, s:f}", "block", (json_int_t)block, "from",
                     (json_int_t)least_request(class), "pool", (json_int_t)pool, "blocks", (json_int_t)blocks,
                     "tail", (json_int_t)(pool - block * blocks), "mean_waste", mean_waste(class),
                     "most_waste", 100.0 * (double)(block - least_request(class)) / (double)block);
}

static json_t *rows_for(int count, char **sizes)
{
    json_t *rows = json_array();
    for (uint32_t class = 0; count == 0 && class < CLASS_COUNT; ++class)
        json_array_append_new(rows, general_row(class));
    for (int i = 0; i < count; i++) {
        char *end;
        errno = 0;
        unsigned long long size = strtoull(sizes[i], &end, 10);
        if (errno != 0 || end == sizes[i] || *end != '\0' || size == 0 || size > CLASS_BYTES_MOST) {
            complain_usage("\"%s\" is not a size in a class: they go from 1 to %d bytes; runs above are "
                           "multiples of 16384",
                           sizes[i], (int)CLASS_BYTES_MOST);
            json_decref(rows);
            return NULL;
        }
        json_t *row = general_row(class_of_size((size_t)size));
        json_object_set_new(row, "size", json_integer((json_int_t)size));
        json_array_append_new(rows, row);
    }
    return rows;
}

/* What the figures say, where they say something. */
static const char *note_on(double waste, double idle_share, uint64_t resident)
{
    if (resident < UINT64_C(1) << 20)
        return "";
    if (idle_share > 0.5)
        return "fragmented: more than half of it is free";
    if (waste > 15)
        return "requests are just above the next smaller class";
    return "";
}

static json_t *measured_row(const struct survey *survey, uint32_t class)
{
    const struct class_view *view = &survey->classes[class];
    double block = class_bytes(class);
    double asked = view->calls > 0 ? (double)view->asked_bytes / (double)view->calls : 0;
    double waste = view->calls > 0 ? 100 * (block - asked) / block : 0;
    double live = (double)view->used * block;
    double idle = (double)view->resident_bytes > live ? (double)view->resident_bytes - live : 0;
    double share = view->resident_bytes > 0 ? idle / (double)view->resident_bytes : 0;
    return json_pack("{s:I, s:I, s:f, s:f, s:I, s:I, s:I, s:I, s:s}", "block", (json_int_t)block, "calls",
                     (json_int_t)view->calls, "asked", asked, "waste", waste > 0 ? waste : 0.0, "used",
                     (json_int_t)view->used, "capacity", (json_int_t)view->capacity, "resident",
                     (json_int_t)view->resident_bytes, "idle", (json_int_t)idle, "note",
                     note_on(waste, share, view->resident_bytes));
}

static int classes_of(pid_t pid, bool as_json)
{
    struct process process;
    struct survey survey;
    process_open(&process, pid);
    int status = process_explain_state(&process);
    if (status == STATUS_OK) {
        json_t *rows = json_array();
        if (!survey_take(&survey, &process, true))
            status = complain("process %d ended while it was looked at", (int)pid);
        for (uint32_t class = 0; status == STATUS_OK && class < CLASS_COUNT; ++class)
            if (survey.classes[class].pools > 0 || survey.classes[class].calls > 0)
                json_array_append_new(rows, measured_row(&survey, class));
        if (status == STATUS_OK)
            table_print(measured, sizeof measured / sizeof *measured, rows, as_json, stdout);
        survey_free(&survey);
        json_decref(rows);
    }
    process_close(&process);
    return status;
}

int command_classes(int count, char **arguments)
{
    bool as_json = take_json(&count, arguments);
    pid_t pid;
    if (count > 1 && strcmp(arguments[1], "--pid") == 0) {
        if (count != 3)
            return complain_usage("--pid wants one process number and no sizes");
        return parse_pid(arguments[2], &pid) ? classes_of(pid, as_json) : STATUS_USAGE;
    }
    json_t *rows = rows_for(count - 1, arguments + 1);
    if (rows == NULL)
        return STATUS_USAGE;
    table_print(general, sizeof general / sizeof *general, rows, as_json, stdout);
    json_decref(rows);
    return STATUS_OK;
}
