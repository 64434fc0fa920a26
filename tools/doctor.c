/* tarn doctor: is Tarn in, does it serve, and what of the machine matters to it. */
#include "commands.h"

#include "process.h"
#include "program.h"
#include "table.h"

#include "os/settings.h"

#include <elf.h>
#include <errno.h>
#include <link.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

/* ---- findings ---- */

enum grade { GOOD, NOTE, BAD };

static json_t *findings;
static bool any_bad;

__attribute__((format(printf, 3, 4))) static void find(enum grade grade, const char *what, const char *format,
                                                       ...)
{
    static const char *const words[] = {"ok", "note", "BAD"};
    char text[1024];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    clean_text(text);
    any_bad |= grade == BAD;
    json_array_append_new(findings,
                          json_pack("{s:s, s:s, s:s}", "grade", words[grade], "what", what, "finding", text));
}

/* ---- one line of a file ---- */

static bool read_line(const char *path, char *line, size_t bytes)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    bool found = fgets(line, (int)bytes, file) != NULL;
    fclose(file);
    line[found ? strcspn(line, "\n") : 0] = '\0';
    return found;
}

/* ---- the machine ---- */

static void look_at_huge_pages(void)
{
    char line[256];
    if (!read_line("/sys/kernel/mm/transparent_hugepage/enabled", line, sizeof line))
        find(NOTE, "huge pages", "the kernel has none");
    else if (strstr(line, "[always]") != NULL)
        find(NOTE, "huge pages",
             "always: resident memory may be more than what was touched; TARN_HUGE_PAGES=never forbids them");
    else
        find(GOOD, "huge pages", "%s", line);
}

static void look_at_overcommit(void)
{
    char line[64];
    if (!read_line("/proc/sys/vm/overcommit_memory", line, sizeof line))
        return;
    if (strcmp(line, "2") == 0)
        find(NOTE, "overcommit",
             "2: every mapping counts, used or not; an arena counts 4 MiB from the start");
    else
        find(GOOD, "overcommit", "%s", line);
}

static void look_at_mappings(const struct process *process)
{
    char line[64];
    long most = read_line("/proc/sys/vm/max_map_count", line, sizeof line) ? strtol(line, NULL, 10) : 0;
    if (process == NULL)
        find(GOOD, "max_map_count", "%ld", most);
    else
        find(most > 0 && process->mapping_count > (size_t)most / 2 ? NOTE : GOOD, "mappings",
             "%zu of %ld (vm.max_map_count)", process->mapping_count, most);
}

/* In the group of the process; "max" is none. */
static void look_at_group(pid_t pid)
{
    char path[512];
    char line[400];
    char limit[64];
    snprintf(path, sizeof path, "/proc/%d/cgroup", (int)pid);
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        const char *group = strrchr(line, ':');
        if (strncmp(line, "0::", 3) != 0 || group == NULL)
            continue;
        snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", group + 1);
        if (read_line(path, limit, sizeof limit))
            find(GOOD, "memory limit", "control group%s: %s", strcmp(limit, "max") == 0 ? "" : ", bytes",
                 limit);
    }
    if (file != NULL)
        fclose(file);
}

static void look_at_limits(pid_t pid)
{
    struct rlimit limit;
    char shown[SHOWN_BYTES];
    if (prlimit(pid, RLIMIT_AS, NULL, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        find(NOTE, "address space", "limited to %s (RLIMIT_AS): arenas count 4 MiB each",
             show_bytes(shown, limit.rlim_cur));
    look_at_group(pid);
}

static void look_at_machine(void)
{
    struct utsname name;
    if (uname(&name) == 0)
        find(GOOD, "kernel", "%s %s", name.sysname, name.release);
    look_at_huge_pages();
    look_at_overcommit();
}

/* ---- settings ---- */

static void look_at_setting(const char *assignment)
{
    struct text answer = {0};
    if (strncmp(assignment, "TARN_", 5) == 0 && !settings_check(assignment, &answer))
        find(NOTE, "setting", "%.*s; the default is used", (int)answer.length, answer.bytes);
}

static void look_at_environment(pid_t pid)
{
    char path[64];
    char *variable = NULL;
    size_t room = 0;
    snprintf(path, sizeof path, "/proc/%d/environ", (int)pid);
    FILE *file = fopen(path, "re");
    while (file != NULL && getdelim(&variable, &room, '\0', file) > 0)
        look_at_setting(variable);
    free(variable);
    if (file != NULL)
        fclose(file);
}

/* ---- the order of a process's objects ---- */

/* From the auxiliary vector to the loader's list of what it has loaded, in the order that symbols are looked
 * for. 0 for a static program. */
static uint64_t find_debug_record(const struct process *process)
{
    char path[64];
    uint64_t pair[2];
    uint64_t headers = 0;
    uint64_t count = 0;
    snprintf(path, sizeof path, "/proc/%d/auxv", (int)process->pid);
    FILE *file = fopen(path, "re");
    while (file != NULL && fread(pair, sizeof pair, 1, file) == 1) {
        headers = pair[0] == AT_PHDR ? pair[1] : headers;
        count = pair[0] == AT_PHNUM ? pair[1] : count;
    }
    if (file != NULL)
        fclose(file);
    uint64_t base = 0;
    uint64_t dynamic = 0;
    for (uint64_t i = 0; i < count && i < 64; i++) {
        ElfW(Phdr) header;
        if (!process_read(process, headers + i * sizeof header, &header, sizeof header))
            return 0;
        if (header.p_type == PT_PHDR)
            base = headers - header.p_vaddr;
        if (header.p_type == PT_DYNAMIC)
            dynamic = header.p_vaddr;
    }
    for (uint64_t i = 0; dynamic != 0 && i < 256; i++) {
        ElfW(Dyn) entry;
        if (!process_read(process, base + dynamic + i * sizeof entry, &entry, sizeof entry) ||
            entry.d_tag == DT_NULL)
            return 0;
        if (entry.d_tag == DT_DEBUG)
            return entry.d_un.d_ptr;
    }
    return 0;
}

static void read_name(const struct process *process, uint64_t address, char *name, size_t bytes)
{
    size_t length = 0;
    while (length < bytes - 1 && process_read(process, address + length, &name[length], 1) &&
           name[length] != '\0')
        length++;
    name[length] = '\0';
}

static const char *path_of_exe(const struct process *process)
{
    static char path[64];
    snprintf(path, sizeof path, "/proc/%d/exe", (int)process->pid);
    return path;
}

/* The file as this process sees it may be in another place of the file system. */
static void path_in(const struct process *process, const char *name, char *path, size_t bytes)
{
    if (name[0] == '\0')
        snprintf(path, bytes, "%s", path_of_exe(process));
    else
        snprintf(path, bytes, "/proc/%d/root%s", (int)process->pid, name);
}

/* Whether what serves is where Tarn was found. */
static bool is_library_of(const struct process *process, const char *serving)
{
    char path[4096];
    struct stat one;
    struct stat other;
    if (process->copies == 0)
        return false;
    path_in(process, serving[0] == '/' ? serving : "", path, sizeof path);
    if (stat(path, &one) != 0)
        return false;
    path_in(process, process->library, path, sizeof path);
    return stat(path, &other) == 0 && one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

static void look_at_order(const struct process *process)
{
    struct r_debug record;
    char serving[4096] = "";
    char others[512] = "";
    uint64_t at = find_debug_record(process);
    if (at == 0 || !process_read(process, at, &record, sizeof record))
        return;
    uint64_t object = (uintptr_t)record.r_map;
    for (unsigned i = 0; object != 0 && i < 4096; i++) {
        struct link_map map;
        char name[2048];
        char path[4096];
        if (!process_read(process, object, &map, sizeof map))
            return;
        read_name(process, (uintptr_t)map.l_name, name, sizeof name);
        path_in(process, name, path, sizeof path);
        if (program_defines(path, "malloc") && strstr(name, "ld-linux") == NULL) {
            if (serving[0] == '\0')
                snprintf(serving, sizeof serving, "%s", name[0] != '\0' ? name : "the program itself");
            else if (strlen(others) + strlen(name) + 3 < sizeof others)
                sprintf(others + strlen(others), " %s", name);
        }
        object = (uintptr_t)map.l_next;
    }
    bool is_tarn = is_library_of(process, serving);
    find(is_tarn ? GOOD : BAD, "symbol order", "malloc is found first in %s", serving);
    if (others[0] != '\0')
        find(GOOD, "symbol order",
             "behind it, reached by libraries bound to themselves only (RTLD_DEEPBIND, -Bsymbolic):%s",
             others);
}

/* ---- a process ---- */

static void look_at_tarn(const struct process *process)
{
    const struct published *p = &process->published;
    switch (process->state) {
    case PROCESS_ON_TARN:
    case PROCESS_OTHER:
        find(GOOD, "loaded", "Tarn %.15s%s in %s", p->library, p->hardened ? ", hardened" : "",
             process->library);
        break;
    default:
        find(BAD, "loaded", "no Tarn is found in this process (not loaded, or TARN_PUBLISH=0)");
        return;
    }
    if (process->state == PROCESS_OTHER)
        find(NOTE, "version", "this tool is %s: other commands will refuse the process", TARN_VERSION);
    if (process->copies > 1)
        find(NOTE, "copies", "%u of Tarn: blocks of one must not be freed by another", process->copies);
    if (!p->overrides)
        find(BAD, "names", "built with -Doverride=false: serves tarn_malloc only, not malloc");
    uint32_t heaps = process_read_uint32(process, p->heap_count);
    find(heaps > 0 ? GOOD : BAD, "serves", heaps > 0 ? "%u heaps" : "%u heaps: nothing was allocated from it",
         heaps);
}

static int examine_process(pid_t pid)
{
    struct process process;
    process_open(&process, pid);
    if (process.state == PROCESS_GONE || process.state == PROCESS_FORBIDDEN) {
        int status = process_explain_state(&process);
        process_close(&process);
        return status;
    }
    find(GOOD, "process", "%d, %s", (int)pid, process.name);
    look_at_tarn(&process);
    look_at_order(&process);
    look_at_environment(pid);
    look_at_mappings(&process);
    look_at_limits(pid);
    process_close(&process);
    return STATUS_OK;
}

/* ---- a command ---- */

static int examine_command(const char *command)
{
    struct program program;
    char path[4096];
    char library[4096];
    if (!program_find(command, path, sizeof path) || !program_read(path, &program))
        return complain("there is no command %s", command);
    find(GOOD, "program", "%s", path);
    if (program.interpreter[0] != '\0') {
        find(GOOD, "script", "run by %s", program.interpreter);
        if (!program_read(program.interpreter, &program))
            return complain("cannot read %s", program.interpreter);
    }
    if (program.other_class)
        find(BAD, "class", "for another processor, or of 32 bits");
    if (program.has_tarn)
        find(GOOD, "linked", "Tarn is linked in");
    else if (program.is_static)
        find(BAD, "linked", "static: nothing can be preloaded; link it with libtarn.a");
    else
        find(GOOD, "linked", "dynamic: tarn run preloads Tarn");
    if (program.set_user_id)
        find(BAD, "privilege",
             "set-user-id, set-group-id or with capabilities: LD_PRELOAD and settings are ignored");
    if (program.allocates && !program.has_tarn)
        find(BAD, "symbol order", "the program defines malloc itself, which goes before any library's");
    if (!program.has_tarn) {
        if (program_find_library(false, library, sizeof library))
            find(GOOD, "library", "%s", library);
        else
            find(BAD, "library", "libtarn.so.0 is neither installed nor built beside this tool");
    }
    look_at_environment(getpid());
    look_at_mappings(NULL);
    look_at_limits(getpid());
    return STATUS_OK;
}

/* ---- the command ---- */

static bool is_number(const char *text)
{
    return text[0] != '\0' && text[strspn(text, "0123456789")] == '\0';
}

static const struct column columns[] = {
    {"grade", "", CELL_TEXT}, {"what", "what", CELL_TEXT}, {"finding", "finding", CELL_TEXT}};

int command_doctor(int count, char **arguments)
{
    bool as_json = take_json(&count, arguments);
    pid_t pid;
    int status = STATUS_OK;
    if (count > 2)
        return complain_usage("doctor wants one process number or command, or none");
    findings = json_array();
    if (count == 2 && is_number(arguments[1]))
        status = parse_pid(arguments[1], &pid) ? examine_process(pid) : STATUS_USAGE;
    else if (count == 2)
        status = examine_command(arguments[1]);
    else
        look_at_environment(getpid()), look_at_mappings(NULL), look_at_limits(getpid());
    if (status == STATUS_OK) {
        look_at_machine();
        table_print(columns, sizeof columns / sizeof *columns, findings, as_json, stdout);
        status = any_bad ? STATUS_NO : STATUS_OK;
    }
    json_decref(findings);
    return status;
}
