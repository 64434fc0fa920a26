/* A library that is linked with the allocator and comes and goes by dlopen: it allocates in its constructor
 * and destructor, in thread-local memory, and starts threads that outlive it. */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <tarn/tarn.h>

#include "../support.h"
#include "loaded_module.h"

static char *of_the_module;
static _Thread_local char *of_a_thread;

__attribute__((constructor)) static void come(void)
{
    of_the_module = tarn_malloc(5000);
    must(of_the_module != NULL);
    pattern_write(of_the_module, 5000, 1);
}

__attribute__((destructor)) static void go(void)
{
    must(pattern_holds(of_the_module, 5000, 1));
    tarn_free(of_the_module);
}

void *module_exchange(void *block)
{
    char *given = of_a_thread;

    if (block != NULL)
        must(pattern_holds(block, 300, 2));
    of_a_thread = block;
    if (given == NULL) {
        given = tarn_malloc(300);
        must(given != NULL);
        pattern_write(given, 300, 2);
    }
    return given;
}
