/* An mremap(2) that can behave like an older kernel's; see kernel.h. Called before main, also before the C
 * library's malloc is up: nothing in here allocates. */
#include "kernel.h"

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

_Atomic unsigned kernel_calls;
unsigned kernel_refuses;
unsigned kernel_refuses_late;
_Atomic unsigned kernel_faults;

bool kernel_is_old(void)
{
    return getenv("UNIT_OLD_KERNEL") != NULL;
}

static bool is_digit_of(char character, uintptr_t *number)
{
    unsigned digit;
    if (character >= '0' && character <= '9')
        digit = (unsigned)(character - '0');
    else if (character >= 'a' && character <= 'f')
        digit = (unsigned)(character - 'a') + 10;
    else
        return false;
    *number = *number << 4 | digit;
    return true;
}

static size_t ranges_inside(uintptr_t from, uintptr_t to, const struct kernel_range *ranges, size_t count)
{
    size_t inside = 0;
    for (size_t i = 0; i < count; i++)
        inside += from <= (uintptr_t)ranges[i].begin && (uintptr_t)ranges[i].end <= to;
    return inside;
}

/* The lines begin with "from-to ". */
bool kernel_maps_as_one(const struct kernel_range *ranges, size_t count)
{
    char text[4096];
    uintptr_t ends[2] = {0, 0};
    unsigned reading = 0; /* 0, 1: that number; 2: the rest of the line */
    size_t found = 0;
    ssize_t length;
    int file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    must(file >= 0);
    while ((length = read(file, text, sizeof text)) > 0) {
        for (ssize_t i = 0; i < length; i++) {
            if (text[i] == '\n') {
                reading = 0;
                ends[0] = ends[1] = 0;
            } else if (reading < 2 && !is_digit_of(text[i], &ends[reading]) && ++reading == 2) {
                found += ranges_inside(ends[0], ends[1], ranges, count);
            }
        }
    }
    close(file);
    return found == count;
}

static bool is_one_mapping(const char *address, size_t bytes)
{
    return kernel_maps_as_one(&(struct kernel_range){address, address + bytes}, 1);
}

/* Of tests/pages/larger_pages.c, where that is preloaded. */
void pages_check(const char *call, const void *address, size_t bytes) __attribute__((weak));

void *mremap(void *address, size_t old_bytes, size_t new_bytes, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    void *target = (flags & MREMAP_FIXED) != 0 ? va_arg(arguments, void *) : NULL;
    va_end(arguments);
    kernel_calls++;
    if (pages_check != NULL) {
        pages_check("mremap", address, old_bytes);
        pages_check("mremap", target, new_bytes);
    }
    if (kernel_refuses > 0) {
        kernel_refuses--;
        errno = ENOMEM;
        return MAP_FAILED;
    }
    if (kernel_refuses_late > 0) {
        kernel_refuses_late--;
        munmap(target, new_bytes);
        errno = ENOMEM;
        return MAP_FAILED;
    }
    if (kernel_is_old() && !is_one_mapping(address, old_bytes)) {
        if (target != NULL)
            munmap(target, new_bytes);
        kernel_faults++;
        errno = EFAULT;
        return MAP_FAILED;
    }
    return (void *)syscall(SYS_mremap, address, old_bytes, new_bytes, flags, target);
}
