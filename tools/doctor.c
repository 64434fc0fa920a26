/* tarn doctor: is Tarn in, does it serve, and what of the machine matters to it. */
#include "commands.h"

#include "objects.h"
#include "process.h"
#include "program.h"
#include "table.h"

#include "os/settings.h"

#include <errno.h>
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

/* The least limit of a group and of those that it is in, as far as they are shown to us. "max", or a number
 * beyond what an address can be, is none. */
static void look_at_group(const char *top, const char *group, const char *file)
{
    char path[1024];
    char limit[64];
    char shown[SHOWN_BYTES];
    char within[512];
    uint64_t least = UINT64_MAX >> 2;
    bool found = false;
    snprintf(within, sizeof within, "%s", group);
    for (char *end = within + strlen(within); end != NULL; end = strrchr(within, '/')) {
        *end = '\0';
        snprintf(path, sizeof path, "%s%s/%s", top, within, file);
        if (!read_line(path, limit, sizeof limit))
            continue;
        char *behind;
        uint64_t bytes = strtoull(limit, &behind, 10);
        found = true;
        if (behind != limit && bytes < least)
            least = bytes;
    }
    if (found && least < UINT64_MAX >> 2)
        find(GOOD, "memory limit", "%s (control group)", show_bytes(shown, least));
    else if (found)
        find(GOOD, "memory limit", "none (control group)");
}

/* Lines of cgroup(7): number, controllers, path; the unified hierarchy has number 0 and no names. */
static void look_at_groups(pid_t pid)
{
    char path[64];
    char line[600];
    snprintf(path, sizeof path, "/proc/%d/cgroup", (int)pid);
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        char *names = strchr(line, ':');
        char *group = names == NULL ? NULL : strchr(names + 1, ':');
        if (group == NULL)
            continue;
        *group++ = '\0';
        if (strcmp(line, "0:") == 0)
            look_at_group("/sys/fs/cgroup", group, "memory.max");
        else if (strcmp(names + 1, "memory") == 0)
            look_at_group("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes");
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
    look_at_groups(pid);
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

/* ---- the order of a process's objects, and where their calls go ---- */

static const char *shown_name(const struct object *object)
{
    return object->name[0] != '\0' ? object->name : "the program itself";
}

/* Whether the object is where Tarn was found. */
static bool is_tarn(const struct process *process, const struct object *object)
{
    struct stat one, other;
    char *path = process->copies == 0 ? NULL : objects_path(process, process->library);
    bool same = path != NULL && stat(path, &one) == 0 && stat(object->path, &other) == 0 &&
                one.st_dev == other.st_dev && one.st_ino == other.st_ino;
    free(path);
    return same;
}

/* NULL where nobody has it. */
static const struct object *first_with(const struct objects *objects, const char *symbol)
{
    for (size_t i = 0; i < objects->count; i++)
        if (!object_is_loader(&objects->list[i]) && program_defines(objects->list[i].path, symbol))
            return &objects->list[i];
    return NULL;
}

/* malloc and free must both be Tarn's. Another's operator new is as good as the malloc that it calls. */
static void look_at_order(const struct process *process, const struct objects *objects)
{
    static const struct {
        const char *symbol;
        const char *name;
        enum grade otherwise;
    } functions[] = {{"malloc", "malloc", BAD}, {"free", "free", BAD}, {"_Znwm", "operator new", NOTE}};
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        const struct object *first = first_with(objects, functions[i].symbol);
        if (first != NULL)
            find(is_tarn(process, first) ? GOOD : functions[i].otherwise, "symbol order",
                 "%s is found first in %s", functions[i].name, shown_name(first));
    }
}

/* Another allocator than the C library's, though nobody's malloc is bound to it, may be asked for its own
 * functions. */
static void look_behind(const struct process *process, const struct objects *objects)
{
    char others[512] = "";
    for (size_t i = 0; i < objects->count; i++) {
        const struct object *object = &objects->list[i];
        size_t length = strlen(others);
        if (object->name[0] == '\0' || object_is_loader(object) || is_tarn(process, object) ||
            program_defines(object->path, "gnu_get_libc_version") || !program_defines(object->path, "malloc"))
            continue;
        snprintf(others + length, sizeof others - length, " %s", object->name);
    }
    if (others[0] != '\0')
        find(GOOD, "other allocators", "loaded beside it:%s", others);
}

static void look_at_own_malloc(const struct process *process, const struct object *object)
{
    enum grade grade = object->name[0] == '\0' ? BAD : NOTE;
    if (object_is_loader(object) || is_tarn(process, object))
        return;
    if (program_hides(object->path, "malloc"))
        find(grade, "own malloc", "%s has one that only its own calls reach: they do not come to Tarn",
             shown_name(object));
    else if (program_defines(object->path, "malloc") && program_is_symbolic(object->path))
        find(grade, "own malloc",
             "%s has one, and is bound to itself (-Bsymbolic): its calls do not come to Tarn",
             shown_name(object));
}

struct elsewhere {
    const struct process *process;
    char symbols[128];
    char target[256];
};

static void note_elsewhere(const char *symbol, const struct mapping *target, void *context)
{
    struct elsewhere *elsewhere = context;
    size_t length = strlen(elsewhere->symbols);
    if (strcmp(target->name, elsewhere->process->library) == 0)
        return;
    snprintf(elsewhere->symbols + length, sizeof elsewhere->symbols - length, "%s%s", length > 0 ? ", " : "",
             symbol);
    snprintf(elsewhere->target, sizeof elsewhere->target, "%s", target->name);
}

/* As the loader has bound them, whatever the reason. */
static void look_at_calls(const struct process *process, const struct object *object)
{
    struct elsewhere elsewhere = {.process = process};
    object_bindings(process, object, note_elsewhere, &elsewhere);
    if (elsewhere.symbols[0] != '\0')
        find(object->name[0] == '\0' ? BAD : NOTE, "bound elsewhere",
             "%s calls %s of %s (RTLD_DEEPBIND, a namespace, or loaded before): those blocks are not Tarn's",
             shown_name(object), elsewhere.symbols, elsewhere.target);
}

static void look_at_objects(const struct process *process)
{
    struct objects objects;
    objects_read(&objects, process);
    look_at_order(process, &objects);
    look_behind(process, &objects);
    for (size_t i = 0; process->copies > 0 && i < objects.count; i++) {
        look_at_own_malloc(process, &objects.list[i]);
        look_at_calls(process, &objects.list[i]);
    }
    objects_free(&objects);
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
    look_at_objects(&process);
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
