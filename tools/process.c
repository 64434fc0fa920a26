#include "process.h"

#include "commands.h"
#include "table.h"

#include "arena/arena.h"
#include "heap/heap.h"
#include "pool/pool.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* Searched for the magic: no more of one mapping. */
#define SEARCHED_BYTES_MOST ((size_t)64 << 20)
#define PIECE_BYTES         ((size_t)64 << 10)

/* ---- memory ---- */

static bool transfer(const struct process *process, uint64_t address, void *here, size_t bytes, bool writes)
{
    struct iovec local = {here, bytes};
    struct iovec remote = {(void *)(uintptr_t)address, bytes};
    ssize_t done = writes ? process_vm_writev(process->pid, &local, 1, &remote, 1, 0)
                          : process_vm_readv(process->pid, &local, 1, &remote, 1, 0);
    return done == (ssize_t)bytes;
}

bool process_read(const struct process *process, uint64_t address, void *to, size_t bytes)
{
    return transfer(process, address, to, bytes, false);
}

bool process_write(const struct process *process, uint64_t address, const void *from, size_t bytes)
{
    return transfer(process, address, (void *)(uintptr_t)from, bytes, true);
}

uint64_t process_read_word(const struct process *process, uint64_t address)
{
    uint64_t word;
    return process_read(process, address, &word, sizeof word) ? word : 0;
}

uint32_t process_read_uint32(const struct process *process, uint64_t address)
{
    uint32_t word;
    return process_read(process, address, &word, sizeof word) ? word : 0;
}

/* ---- /proc ---- */

static FILE *open_proc(pid_t pid, const char *file)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    return fopen(path, "re");
}

/* The text after the command's name, which may hold anything. */
bool process_started(pid_t pid, char *name, size_t name_bytes, uint64_t *started)
{
    char line[1024];
    FILE *file = open_proc(pid, "stat");
    if (file == NULL)
        return false;
    size_t length = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    line[length] = '\0';
    char *begin = strchr(line, '(');
    char *end = strrchr(line, ')');
    if (begin == NULL || end == NULL)
        return false;
    snprintf(name, name_bytes, "%.*s", (int)(end - begin - 1), begin + 1);
    clean_text(name);
    char state;
    unsigned long long start;
    /* fields 3 and 22 */
    if (sscanf(end + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
               &state, &start) != 2 ||
        state == 'Z')
        return false;
    *started = start;
    return true;
}

static bool is_header(const char *line)
{
    return isxdigit((unsigned char)line[0]) && strchr(line, '-') != NULL && !isupper((unsigned char)line[0]);
}

static void read_header(struct mapping *mapping, const char *line)
{
    unsigned long long begin, end, inode;
    char permissions[5] = "";
    int name_at = 0;
    *mapping = (struct mapping){0};
    if (sscanf(line, "%llx-%llx %4s %*x %*x:%*x %llu %n", &begin, &end, permissions, &inode, &name_at) < 4)
        return;
    mapping->begin = begin;
    mapping->end = end;
    mapping->writable = permissions[1] == 'w';
    mapping->anonymous = inode == 0;
    if (name_at > 0) {
        snprintf(mapping->name, sizeof mapping->name, "%s", line + name_at);
        mapping->name[strcspn(mapping->name, "\n")] = '\0';
    }
}

static void read_amount(struct mapping *mapping, const char *line)
{
    static const struct {
        const char *name;
        size_t offset;
    } amounts[] = {{"Rss:", offsetof(struct mapping, resident_bytes)},
                   {"Swap:", offsetof(struct mapping, swapped_bytes)},
                   {"AnonHugePages:", offsetof(struct mapping, huge_bytes)}};
    for (size_t i = 0; i < sizeof amounts / sizeof *amounts; i++) {
        size_t length = strlen(amounts[i].name);
        if (strncmp(line, amounts[i].name, length) == 0)
            *(uint64_t *)(void *)((char *)mapping + amounts[i].offset) = strtoull(line + length, NULL, 10)
                                                                         << 10;
    }
}

bool process_read_mappings(struct process *process)
{
    size_t room = 0;
    char *line = NULL;
    size_t line_room = 0;
    FILE *file = open_proc(process->pid, "smaps");
    free(process->mappings);
    process->mappings = NULL;
    process->mapping_count = 0;
    if (file == NULL)
        return false;
    while (getline(&line, &line_room, file) > 0) {
        if (!is_header(line)) {
            if (process->mapping_count > 0)
                read_amount(&process->mappings[process->mapping_count - 1], line);
            continue;
        }
        if (process->mapping_count == room) {
            room = room == 0 ? 64 : 2 * room;
            struct mapping *more = realloc(process->mappings, room * sizeof *more);
            if (more == NULL)
                break;
            process->mappings = more;
        }
        read_header(&process->mappings[process->mapping_count++], line);
    }
    free(line);
    fclose(file);
    return process->mapping_count > 0;
}

uint64_t process_resident_bytes(const struct process *process)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < process->mapping_count; i++)
        bytes += process->mappings[i].resident_bytes;
    return bytes;
}

bool process_resident_pages(const struct process *process, uint64_t address, size_t pages, bool *resident)
{
    uint64_t entries[512];
    char path[64];
    uint64_t page_bytes = process->published.page_bytes;
    snprintf(path, sizeof path, "/proc/%d/pagemap", (int)process->pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    bool done = file >= 0;
    for (size_t at = 0; done && at < pages;) {
        size_t some = pages - at < 512 ? pages - at : 512;
        ssize_t bytes = pread(file, entries, some * 8, (off_t)((address / page_bytes + at) * 8));
        if (bytes != (ssize_t)(some * 8)) {
            done = false;
            break;
        }
        for (size_t i = 0; i < some; i++)
            resident[at + i] = entries[i] >> 63 != 0;
        at += some;
    }
    if (file >= 0)
        close(file);
    return done;
}

/* ---- what is published ---- */

static bool has_magic(const uint64_t *words, uint64_t address)
{
    return words[0] == PUBLISHED_MAGIC && words[1] == PUBLISHED_MAGIC_2 && words[2] == address;
}

/* Of several copies, the one that serves: it overrides malloc, and has heaps. */
static void consider(struct process *process, const struct mapping *mapping, uint64_t address)
{
    struct published found;
    if (!process_read(process, address, &found, sizeof found))
        return;
    process->copies++;
    bool serves = found.overrides && process_read_uint32(process, found.heap_count) > 0;
    if (process->copies > 1 && !serves)
        return;
    process->at = address;
    process->published = found;
    snprintf(process->library, sizeof process->library, "%s", mapping->name);
}

static void search(struct process *process, const struct mapping *mapping)
{
    static uint64_t words[PIECE_BYTES / 8];
    uint64_t end = mapping->end;
    if (end - mapping->begin > SEARCHED_BYTES_MOST)
        end = mapping->begin + SEARCHED_BYTES_MOST;
    /* One that lies across the border of two pieces is not missed: they overlap. */
    for (uint64_t at = mapping->begin; at < end; at += PIECE_BYTES - 4096) {
        size_t bytes = end - at < PIECE_BYTES ? end - at : PIECE_BYTES;
        if (!process_read(process, at, words, bytes))
            continue;
        size_t first_of_next = bytes == PIECE_BYTES ? PIECE_BYTES - 4096 : bytes;
        for (size_t i = 0; i + 3 <= bytes / 8 && i < first_of_next / 8; i++)
            if (has_magic(&words[i], at + i * 8))
                consider(process, mapping, at + i * 8);
    }
}

static bool matches(const struct published *p)
{
    return p->version == PUBLISHED_VERSION && p->bytes == sizeof *p &&
           p->arena_header_bytes == sizeof(struct arena) && p->pool_bytes == sizeof(struct pool) &&
           p->heap_bytes == offsetof(struct heap, quarantine) &&
           p->heap_count_bytes == sizeof(struct heap_counts) &&
           strncmp(p->library, TARN_VERSION, sizeof p->library) == 0;
}

void process_open(struct process *process, pid_t pid)
{
    *process = (struct process){.pid = pid, .state = PROCESS_GONE};
    if (!process_started(pid, process->name, sizeof process->name, &process->started))
        return;
    errno = 0;
    if (!process_read_mappings(process)) {
        process->state = errno == EACCES || errno == EPERM ? PROCESS_FORBIDDEN : PROCESS_GONE;
        return;
    }
    uint64_t probe;
    process->state = PROCESS_WITHOUT;
    errno = 0;
    if (!process_read(process, process->mappings[0].begin, &probe, sizeof probe) && errno == EPERM) {
        process->state = PROCESS_FORBIDDEN;
        return;
    }
    for (size_t i = 0; i < process->mapping_count; i++)
        if (process->mappings[i].writable && process->mappings[i].name[0] == '/')
            search(process, &process->mappings[i]);
    if (process->copies > 0)
        process->state = matches(&process->published) ? PROCESS_ON_TARN : PROCESS_OTHER;
}

void process_close(struct process *process)
{
    free(process->mappings);
    process->mappings = NULL;
    process->mapping_count = 0;
}

bool process_lives(const struct process *process)
{
    char name[sizeof process->name];
    uint64_t started;
    return process_started(process->pid, name, sizeof name, &started) && started == process->started;
}

int process_explain_state(const struct process *process)
{
    int pid = (int)process->pid;
    switch (process->state) {
    case PROCESS_ON_TARN:
        return STATUS_OK;
    case PROCESS_WITHOUT:
        return complain(
            "process %d (%s) is not on Tarn, or was started with TARN_PUBLISH=0; see tarn doctor %d", pid,
            process->name, pid);
    case PROCESS_OTHER:
        return complain(
            "process %d (%s) is on another Tarn (%.15s) than this tool (%s): use the tool that came with it",
            pid, process->name, process->published.library, TARN_VERSION);
    case PROCESS_FORBIDDEN:
        return complain(
            "process %d may not be looked at: be its user, or root (kernel.yama.ptrace_scope may want root)",
            pid);
    case PROCESS_GONE:
        break;
    }
    return complain("there is no process %d", pid);
}
