/* The program and libraries of a process, in the order in which symbols are looked for, and where their calls
 * go.
 *
 * The order is the loader's own list (r_debug, link_map of <link.h>), read from outside like everything else:
 * no name, address or link of it is trusted. Where a call goes is read from the place in the process that the
 * loader filled (the object's relocations say where that is), which tells the truth for RTLD_DEEPBIND,
 * namespaces and versions as well.
 */
#ifndef TARN_TOOLS_OBJECTS_H
#define TARN_TOOLS_OBJECTS_H

#include "process.h"

#define OBJECTS_MOST 4096U

struct object {
    char *name;    /* as the loader has it; "" for the program */
    char *path;    /* where this process finds the file: below the other's root */
    uint64_t base; /* addresses in the file count from here */
};

struct objects {
    struct object *list;
    size_t count;
};

/* No objects in a static program; where the list cannot be read to its end, those before. objects_free
 * afterwards. */
void objects_read(struct objects *objects, const struct process *process);
void objects_free(struct objects *objects);

/* The file as this process finds it; of a name that is no path, nothing. The caller frees it. */
char *objects_path(const struct process *process, const char *name);

/* The loader itself, whose malloc is for its own start. */
bool object_is_loader(const struct object *object);

/* Calls `each` for every function that the object takes from another, with the file that it is taken from;
 * not for those that have not been called yet, and so are not looked for yet. */
void object_bindings(const struct process *process, const struct object *object,
                     void (*each)(const char *symbol, const struct mapping *target, void *context),
                     void *context);

#endif
