/* tarn options: every setting, and where its value is from. */
#include "commands.h"

#include "process.h"
#include "table.h"

#include "os/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct column columns[] = {
    {"name", "setting", CELL_TEXT},        {"value", "value", CELL_TEXT},
    {"from", "from", CELL_TEXT},           {"default", "default", CELL_TEXT},
    {"changes", "at run time", CELL_TEXT}, {"expected", "values", CELL_TEXT},
    {"meaning", "meaning", CELL_TEXT},
};

/* The environment that the process was started with; it may have changed its own since. */
static char *read_environment(pid_t pid, size_t *bytes)
{
    char path[64];
    char *text = NULL;
    size_t room = 0;
    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    FILE *file = fopen(path, "re");
    *bytes = 0;
    if (file == NULL)
        return NULL;
    do {
        if (*bytes + 4096 > room) {
            room = 2 * room + 8192;
            char *more = realloc(text, room);
            if (more == NULL)
                break;
            text = more;
        }
        size_t got = fread(text + *bytes, 1, 4096, file);
        *bytes += got;
        if (got == 0)
            break;
    } while (true);
    fclose(file);
    return text;
}

static bool is_in(const char *environment, size_t bytes, const char *name)
{
    size_t length = strlen(name);
    for (size_t at = 0; at < bytes; at += strnlen(environment + at, bytes - at) + 1)
        if (bytes - at > length && strncmp(environment + at, name, length) == 0 &&
            environment[at + length] == '=')
            return true;
    return false;
}

static const char *where_from(bool in_environment, bool is_default)
{
    if (in_environment)
        return is_default ? "environment, or not understood" : "environment";
    return is_default ? "default" : "changed at run time";
}

static json_t *rows_from(const struct settings *present, const char *environment, size_t bytes)
{
    const struct settings defaults = settings;
    struct setting_description one;
    json_t *rows = json_array();
    for (size_t i = 0; settings_describe(i, &one); i++) {
        struct text value = one.value;
        memcpy(&settings, present, sizeof settings);
        settings_describe(i, &one);
        memcpy(&settings, &defaults, sizeof settings);
        bool is_default = strcmp(one.value.bytes, value.bytes) == 0;
        bool named = is_in(environment, bytes, one.name);
        json_array_append_new(rows, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s}", "name", one.name,
                                              "value", one.value.bytes, "from", where_from(named, is_default),
                                              "default", value.bytes, "changes", one.changes ? "yes" : "no",
                                              "expected", one.expected.bytes, "meaning", one.meaning));
    }
    return rows;
}

static int print_rows(const struct settings *present, pid_t environment_of, bool as_json)
{
    size_t bytes;
    char *environment = read_environment(environment_of, &bytes);
    json_t *rows = rows_from(present, environment, bytes);
    table_print(columns, sizeof columns / sizeof *columns, rows, as_json, stdout);
    json_decref(rows);
    free(environment);
    return STATUS_OK;
}

static int options_of(pid_t pid, bool as_json)
{
    struct process process;
    struct settings present;
    process_open(&process, pid);
    int status = process_explain_state(&process);
    if (status == STATUS_OK &&
        (process.published.setting_bytes != sizeof present ||
         !process_read(&process, process.published.settings, &present, sizeof present)))
        status = complain("process %d ended while it was looked at", (int)pid);
    if (status == STATUS_OK)
        status = print_rows(&present, pid, as_json);
    process_close(&process);
    return status;
}

/* What a program started from here would have. */
static int options_here(bool as_json)
{
    const struct settings defaults = settings;
    struct settings present;
    settings_read();
    memcpy(&present, &settings, sizeof present);
    memcpy(&settings, &defaults, sizeof settings);
    return print_rows(&present, getpid(), as_json);
}

int command_options(int count, char **arguments)
{
    bool as_json = take_json(&count, arguments);
    pid_t pid;
    if (count > 2)
        return complain_usage("options wants one process number or none");
    if (count == 1)
        return options_here(as_json);
    return parse_pid(arguments[1], &pid) ? options_of(pid, as_json) : STATUS_USAGE;
}
