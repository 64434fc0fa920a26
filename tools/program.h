/* Programs and libraries as files: what has to be known before one is started, and where malloc is in them.
 */
#ifndef TARN_TOOLS_PROGRAM_H
#define TARN_TOOLS_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct program {
    char path[4096];
    bool is_elf;
    bool is_static;   /* no interpreter: nothing can be preloaded */
    bool other_class; /* 32 bits, or another processor */
    bool has_tarn;    /* the archive is linked in, or it needs libtarn */
    bool set_user_id; /* or set-group-id, or with file capabilities, of others than who asks: the loader then
                         ignores the environment */
    bool allocates;   /* defines malloc itself */
    char interpreter[256]; /* of a script */
};

/* Looks for the command as a shell would; false when there is none that can be executed. */
bool program_find(const char *command, char *path, size_t bytes);

/* False, with errno, when the file cannot be read. */
bool program_read(const char *path, struct program *program);

/* Whether the dynamic symbol table of this file defines the symbol. */
bool program_defines(const char *path, const char *symbol);

/* Whether it has a function of this name that only its own calls reach: hidden, or local. Not to be seen
 * where the file is stripped. */
bool program_hides(const char *path, const char *symbol);

/* Whether it takes its own definitions before anybody's (-Bsymbolic). */
bool program_is_symbolic(const char *path);

/* Calls `each` for the functions of malloc's family, and operator new and delete, that the file has the
 * loader look for: with the place (an address in the file) that the loader fills, and where the file's own
 * definition is, 0 if it has none. */
void program_imports(const char *path,
                     void (*each)(const char *symbol, uint64_t place, uint64_t own, void *context),
                     void *context);

/* The shared library to preload: beside the tool (../lib…), or in the build folder that the tool is in. */
bool program_find_library(bool hardened, char *path, size_t bytes);

#endif
