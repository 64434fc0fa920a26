/*
 * Reading /proc/self and getrusage without allocating, so that the reading does not change what is read.
 */
#include "process.h"

#include "support.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* The number of KiB behind `label` in the text of /proc/self/status. */
static long status_kib(const char *text, const char *label)
{
    const char *line = strstr(text, label);

    if (line == NULL)
        bench_fail("/proc/self/status has no line %s", label);
    return strtol(line + strlen(label), NULL, 10);
}

struct process_usage process_usage_now(void)
{
    char text[4096];
    struct rusage usage;
    int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? -1 : read(file, text, sizeof(text) - 1);

    if (length <= 0)
        bench_fail("/proc/self/status cannot be read");
    close(file);
    text[length] = '\0';
    getrusage(RUSAGE_SELF, &usage);
    return (struct process_usage){
        .rss_kib = status_kib(text, "VmRSS:"),
        .peak_rss_kib = status_kib(text, "VmHWM:"),
        .minor_faults = usage.ru_minflt,
        .major_faults = usage.ru_majflt,
        .voluntary_switches = usage.ru_nvcsw,
        .involuntary_switches = usage.ru_nivcsw,
    };
}

/*
 * The addresses are those to which this program's own references are bound. Asking dlsym would not do: it
 * takes any version of a symbol, while a reference asks for the version it was linked with, and may pass a
 * preloaded library by.
 */
const char *process_malloc_provider(void)
{
    const struct {
        const char *name;
        uintptr_t entry;
    } bound[] = {
        {"malloc", (uintptr_t)malloc},
        {"free", (uintptr_t)free},
        {"calloc", (uintptr_t)calloc},
        {"realloc", (uintptr_t)realloc},
        {"posix_memalign", (uintptr_t)posix_memalign},
        {"aligned_alloc", (uintptr_t)aligned_alloc},
    };
    const char *provider = NULL;

    for (size_t index = 0; index < sizeof(bound) / sizeof(bound[0]); index++) {
        Dl_info found;

        if (dladdr((void *)bound[index].entry, &found) == 0)
            bench_fail("no object provides %s", bound[index].name);
        if (provider == NULL)
            provider = found.dli_fname;
        else if (strcmp(provider, found.dli_fname) != 0)
            bench_fail("malloc is of %s, but %s is of %s", provider, bound[index].name, found.dli_fname);
    }
    return provider;
}
