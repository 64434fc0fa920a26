#ifndef TEST_TLS_MODULE_H
#define TEST_TLS_MODULE_H

#include <stddef.h>

/* The calling thread's storage of this module, zero at first. */
char *tls_module_storage(size_t *size_bytes);

#endif
