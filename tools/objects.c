#include "objects.h"

#include "program.h"

#include <elf.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADERS_MOST 64U
#define ENTRIES_MOST 256U
#define NAME_BYTES   2048U

/* ---- the loader's list ---- */

static void read_auxiliary(const struct process *process, uint64_t *headers, uint64_t *count)
{
    char path[64];
    uint64_t pair[2];
    *headers = *count = 0;
    snprintf(path, sizeof path, "/proc/%d/auxv", (int)process->pid);
    FILE *file = fopen(path, "re");
    while (file != NULL && fread(pair, sizeof pair, 1, file) == 1) {
        *headers = pair[0] == AT_PHDR ? pair[1] : *headers;
        *count = pair[0] == AT_PHNUM ? pair[1] : *count;
    }
    if (file != NULL)
        fclose(file);
}

/* The address of the program's dynamic section; 0 for a static program. */
static uint64_t find_dynamic(const struct process *process)
{
    uint64_t headers, count, base = 0, dynamic = 0;
    read_auxiliary(process, &headers, &count);
    for (uint64_t i = 0; i < count && i < HEADERS_MOST; i++) {
        ElfW(Phdr) header;
        if (!process_read(process, headers + i * sizeof header, &header, sizeof header))
            return 0;
        if (header.p_type == PT_PHDR)
            base = headers - header.p_vaddr;
        if (header.p_type == PT_DYNAMIC)
            dynamic = header.p_vaddr;
    }
    return dynamic == 0 ? 0 : base + dynamic;
}

static uint64_t find_debug_record(const struct process *process)
{
    uint64_t dynamic = find_dynamic(process);
    for (uint64_t i = 0; dynamic != 0 && i < ENTRIES_MOST; i++) {
        ElfW(Dyn) entry;
        if (!process_read(process, dynamic + i * sizeof entry, &entry, sizeof entry) ||
            entry.d_tag == DT_NULL)
            return 0;
        if (entry.d_tag == DT_DEBUG)
            return entry.d_un.d_ptr;
    }
    return 0;
}

static void read_name(const struct process *process, uint64_t address, char *name)
{
    size_t length = 0;
    while (length < NAME_BYTES - 1 && process_read(process, address + length, &name[length], 1) &&
           name[length] != '\0')
        length++;
    name[length] = '\0';
}

char *objects_path(const struct process *process, const char *name)
{
    char *path = NULL;
    int written = name[0] == '/' ? asprintf(&path, "/proc/%d/root%s", (int)process->pid, name)
                                 : asprintf(&path, "/proc/%d/exe", (int)process->pid);
    return written < 0 ? NULL : path;
}

static bool add(struct objects *objects, const struct process *process, const char *name, uint64_t base)
{
    struct object *more = reallocarray(objects->list, objects->count + 1, sizeof *more);
    if (more == NULL)
        return false;
    objects->list = more;
    struct object object = {strdup(name), objects_path(process, name), base};
    more[objects->count++] = object;
    return object.name != NULL && object.path != NULL;
}

void objects_read(struct objects *objects, const struct process *process)
{
    struct r_debug record;
    *objects = (struct objects){0};
    uint64_t at = find_debug_record(process);
    if (at == 0 || !process_read(process, at, &record, sizeof record))
        return;
    uint64_t next = (uintptr_t)record.r_map;
    while (next != 0 && objects->count < OBJECTS_MOST) {
        struct link_map map;
        char name[NAME_BYTES];
        if (!process_read(process, next, &map, sizeof map))
            return;
        read_name(process, (uintptr_t)map.l_name, name);
        next = (uintptr_t)map.l_next;
        if (name[0] != '\0' && name[0] != '/') /* the kernel's own, or found by a relative path */
            continue;
        if (!add(objects, process, name, map.l_addr))
            return;
    }
}

void objects_free(struct objects *objects)
{
    for (size_t i = 0; i < objects->count; i++) {
        free(objects->list[i].name);
        free(objects->list[i].path);
    }
    free(objects->list);
}

bool object_is_loader(const struct object *object)
{
    const char *name = strrchr(object->name, '/');
    return name != NULL && (strncmp(name, "/ld-linux", 9) == 0 || strncmp(name, "/ld-musl", 8) == 0);
}

/* ---- where calls go ---- */

static const struct mapping *mapping_of(const struct process *process, uint64_t address)
{
    for (size_t i = 0; i < process->mapping_count; i++)
        if (address >= process->mappings[i].begin && address < process->mappings[i].end)
            return &process->mappings[i];
    return NULL;
}

struct search {
    const struct process *process;
    const struct object *object;
    void (*each)(const char *symbol, const struct mapping *target, void *context);
    void *context;
};

/* A place that was not looked for yet leads back into the object, though not to where the function is. */
static bool is_bound(const struct search *search, uint64_t place, uint64_t own, uint64_t target,
                     const struct mapping *mapping)
{
    const struct mapping *from = mapping_of(search->process, search->object->base + place);
    bool inside = from != NULL && strcmp(from->name, mapping->name) == 0;
    return !inside || (own != 0 && target == search->object->base + own);
}

static void look_at_place(const char *symbol, uint64_t place, uint64_t own, void *context)
{
    const struct search *search = context;
    uint64_t target = process_read_word(search->process, search->object->base + place);
    const struct mapping *mapping = mapping_of(search->process, target);
    if (mapping == NULL || mapping->name[0] != '/' || !is_bound(search, place, own, target, mapping))
        return;
    /* Some lead to a stub of the program, which leads to the function. */
    char *path = objects_path(search->process, mapping->name);
    if (path != NULL && program_defines(path, symbol))
        search->each(symbol, mapping, search->context);
    free(path);
}

void object_bindings(const struct process *process, const struct object *object,
                     void (*each)(const char *symbol, const struct mapping *target, void *context),
                     void *context)
{
    struct search search = {process, object, each, context};
    program_imports(object->path, look_at_place, &search);
}
