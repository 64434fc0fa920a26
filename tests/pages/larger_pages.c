/* A kernel with larger pages, PAGE_BYTES each, for a program that this library is preloaded to. The calls
 * that concern pages are refused as such a kernel refuses them, or the program ends with a line where that
 * kernel would round up a length: the library under test is to know its pages. What the kernel beneath maps
 * at a smaller alignment is mapped again. Called before main and by malloc: nothing in here allocates.
 *
 * Files are left alone, and so is what the C library maps for itself: those calls do not come by here. What
 * others than the library under test ask for, such as liburcu, who leaves it to the kernel to round up, is
 * done as the kernel beneath does it: of what they unmap, the rest of a last page stays mapped.
 */
#undef _FILE_OFFSET_BITS /* both of mmap and mmap64 are defined below */

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SMALL_PAGE_BYTES 4096U

void pages_check(const char *call, const void *address, size_t bytes);

static bool is_whole(uintptr_t number)
{
    return number % PAGE_BYTES == 0;
}

static _Noreturn void complain(const char *call)
{
    static const char text[] = "larger pages: not whole pages given to ";
    if (write(2, text, sizeof text - 1) < 0 || write(2, call, strlen(call)) < 0 || write(2, "\n", 1) < 0)
        _exit(1);
    abort();
}

/* Also called by a test's own mremap, which stands in the place of the one below. */
void pages_check(const char *call, const void *address, size_t bytes)
{
    if (!is_whole((uintptr_t)address) || !is_whole(bytes))
        complain(call);
}

/* glibc's own, which the functions below would hide. */
long __sysconf(int name);
unsigned long __getauxval(unsigned long type);

/* The library under test is a shared object, or a part of the program. */
extern void *tarn_malloc(size_t bytes) __attribute__((weak));

static bool is_under_test(void *caller)
{
    void *inside = tarn_malloc != NULL ? (void *)(uintptr_t)tarn_malloc : (void *)__getauxval(AT_ENTRY);
    struct dl_find_object theirs;
    struct dl_find_object its;
    return _dl_find_object(caller, &theirs) == 0 && _dl_find_object(inside, &its) == 0 &&
           theirs.dlfo_link_map == its.dlfo_link_map;
}

/* In the functions that stand for the kernel's calls: who called them? */
#define check(call, address, bytes)                                                                          \
    do {                                                                                                     \
        if (is_under_test(__builtin_return_address(0)))                                                      \
            pages_check(call, address, bytes);                                                               \
    } while (0)

/* glibc's sysconf answers from what the kernel said at the start of the process; the rest is asked there. */
/* It is built for one size of pages: that kernel's systems have another. redis-server asks it to purge, and
 * says so when it cannot. */
static bool is_jemalloc(void *caller)
{
    struct dl_find_object found;
    return _dl_find_object(caller, &found) == 0 && strstr(found.dlfo_link_map->l_name, "libjemalloc") != NULL;
}

long sysconf(int name)
{
    bool larger = name == _SC_PAGESIZE && !is_jemalloc(__builtin_return_address(0));
    return larger ? (long)PAGE_BYTES : __sysconf(name);
}

unsigned long getauxval(unsigned long type)
{
    return type == AT_PAGESZ ? PAGE_BYTES : __getauxval(type);
}

int getpagesize(void)
{
    return (int)PAGE_BYTES;
}

static void *kernel_mmap(void *address, size_t bytes, int protection, int flags, int file, off_t offset)
{
    return (void *)syscall(SYS_mmap, address, bytes, protection, flags, file, offset);
}

static void *map_whole(size_t bytes, int protection, int flags)
{
    size_t more = bytes + PAGE_BYTES - SMALL_PAGE_BYTES;
    char *all = more < bytes ? MAP_FAILED : kernel_mmap(NULL, more, protection, flags, -1, 0);
    if (all == MAP_FAILED) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    char *begin = all + (PAGE_BYTES - (uintptr_t)all % PAGE_BYTES) % PAGE_BYTES;
    if (begin != all)
        syscall(SYS_munmap, all, (size_t)(begin - all));
    if (begin + bytes != all + more)
        syscall(SYS_munmap, begin + bytes, (size_t)(all + more - begin) - bytes);
    return begin;
}

static void *map_anonymous(void *address, size_t bytes, int protection, int flags)
{
    bytes = (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    void *mapped = kernel_mmap(address, bytes, protection, flags, -1, 0);
    if (mapped == MAP_FAILED || is_whole((uintptr_t)mapped))
        return mapped;
    syscall(SYS_munmap, mapped, bytes);
    return map_whole(bytes, protection, flags);
}

void *mmap(void *address, size_t bytes, int protection, int flags, int file, off_t offset)
{
    if ((flags & MAP_ANONYMOUS) == 0)
        return kernel_mmap(address, bytes, protection, flags, file, offset);
    check("mmap", address, bytes);
    return map_anonymous(address, bytes, protection, flags);
}

/* The name by which programs with 64-bit file offsets call it. */
void *mmap64(void *address, size_t bytes, int protection, int flags, int file, off64_t offset)
    __attribute__((alias("mmap")));

int munmap(void *address, size_t bytes)
{
    check("munmap", address, bytes);
    return (int)syscall(SYS_munmap, address, bytes);
}

int madvise(void *address, size_t bytes, int advice)
{
    check("madvise", address, bytes);
    return (int)syscall(SYS_madvise, address, bytes, advice);
}

int mprotect(void *address, size_t bytes, int protection)
{
    check("mprotect", address, bytes);
    return (int)syscall(SYS_mprotect, address, bytes, protection);
}

/* One byte for each of the larger pages, which is in memory when a part of it is. */
int mincore(void *address, size_t bytes, unsigned char *resident)
{
    check("mincore", address, bytes);
    for (size_t page = 0; page < bytes / PAGE_BYTES; page++) {
        unsigned char parts[PAGE_BYTES / SMALL_PAGE_BYTES];
        if (syscall(SYS_mincore, (char *)address + page * PAGE_BYTES, (size_t)PAGE_BYTES, parts) != 0)
            return -1;
        resident[page] = 0;
        for (size_t part = 0; part < sizeof parts; part++)
            resident[page] |= parts[part] & 1;
    }
    return 0;
}

void *mremap(void *address, size_t old_bytes, size_t new_bytes, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    void *target = (flags & MREMAP_FIXED) != 0 ? va_arg(arguments, void *) : NULL;
    va_end(arguments);
    check("mremap", address, old_bytes);
    check("mremap", target, new_bytes);
    return (void *)syscall(SYS_mremap, address, old_bytes, new_bytes, flags, target);
}
