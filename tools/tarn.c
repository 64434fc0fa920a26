/* tarn: looks at, asks and tunes processes on Tarn. This file chooses the subcommand. */
#include "commands.h"

#include "table.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct command {
    const char *name;
    int (*run)(int count, char **arguments);
    const char *usage;
    const char *help;
};

static const struct command commands[] = {
    {"run", command_run, "run [--hardened] [--set NAME=VALUE]... COMMAND [ARGUMENT]...",
     "starts a program on Tarn, with these settings"},
    {"doctor", command_doctor, "doctor [--json] [PID | COMMAND]",
     "says whether Tarn is in, and what stands in its way; status 0 when it serves"},
    {"options", command_options, "options [--json] [PID]",
     "every setting: meaning, default, present value and where that is from"},
    {"top", command_top, "top [--once] [--json] [--delay SECONDS] [PID]...", "all processes on Tarn, live"},
    {"explain", command_explain, "explain [--json] PID",
     "where the resident memory is, and what would shrink it"},
    {"map", command_map, "map [--json] PID [-o FILE.svg]", "a picture of the arenas"},
    {"classes", command_classes, "classes [--json] [--pid PID] [SIZE]...",
     "the size classes and what rounding costs, in general or in a process"},
    {"set", command_set, "set [--wait SECONDS] PID NAME=VALUE...", "changes settings of a running process"},
    {"trim", command_trim, "trim [--wait SECONDS] PID", "makes a process give free memory back now"},
    {"metrics", command_metrics, "metrics PID", "the same numbers as OpenMetrics text"},
};

enum { COMMANDS = sizeof commands / sizeof *commands };

static int complain_with(int status, const char *format, va_list list)
{
    char line[8192];
    vsnprintf(line, sizeof line, format, list);
    fprintf(stderr, "tarn: %s\n", clean_text(line));
    return status;
}

int complain(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    int status = complain_with(STATUS_NO, format, list);
    va_end(list);
    return status;
}

int complain_usage(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    int status = complain_with(STATUS_USAGE, format, list);
    va_end(list);
    return status;
}

bool parse_pid(const char *text, pid_t *pid)
{
    char *end;
    errno = 0;
    long number = strtol(text, &end, 10);
    if (errno == 0 && end != text && *end == '\0' && number > 0 && number < 1L << 30) {
        *pid = (pid_t)number;
        return true;
    }
    complain_usage("\"%s\" is not a process number", text);
    return false;
}

bool take_json(int *count, char **arguments)
{
    bool found = false;
    int kept = 0;
    for (int i = 0; i < *count; i++) {
        if (strcmp(arguments[i], "--json") == 0)
            found = true;
        else
            arguments[kept++] = arguments[i];
    }
    arguments[kept] = NULL;
    *count = kept;
    return found;
}

static int print_help(FILE *to)
{
    fputs("tarn " TARN_VERSION ": looks at, asks and tunes processes that the allocator Tarn serves\n\n", to);
    for (size_t i = 0; i < COMMANDS; i++)
        fprintf(to, "  tarn %s\n        %s\n", commands[i].usage, commands[i].help);
    fputs("\nMore: man tarn\n", to);
    return STATUS_OK;
}

static bool wants_help(const char *argument)
{
    return strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0;
}

int main(int count, char **arguments)
{
    if (count < 2)
        return print_help(stderr), STATUS_USAGE;
    if (wants_help(arguments[1]) || strcmp(arguments[1], "help") == 0)
        return print_help(stdout);
    if (strcmp(arguments[1], "--version") == 0)
        return puts("tarn " TARN_VERSION) >= 0 ? STATUS_OK : STATUS_NO;
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(arguments[1], commands[i].name) != 0)
            continue;
        if (count > 2 && wants_help(arguments[2]))
            return printf("tarn %s\n\n%s\n", commands[i].usage, commands[i].help) > 0 ? STATUS_OK : STATUS_NO;
        int status = commands[i].run(count - 1, arguments + 1);
        if (fflush(stdout) != 0)
            return complain("cannot write: %s", strerror(errno));
        if (status == STATUS_USAGE)
            fprintf(stderr, "usage: tarn %s\n", commands[i].usage);
        return status;
    }
    return complain_usage("there is no command \"%s\"; tarn --help lists them", arguments[1]);
}
