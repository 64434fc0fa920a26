/*
 * A module with more thread-local storage than the C library keeps in reserve, for recursion.c: its storage
 * is allocated for each thread at the first use.
 */
#include <stddef.h>

#include "tls_module.h"

enum { STORAGE_BYTES = 6000 };

static _Thread_local char storage[STORAGE_BYTES];

char *tls_module_storage(size_t *size_bytes)
{
    *size_bytes = sizeof storage;
    return storage;
}
