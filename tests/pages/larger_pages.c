/* A kernel with larger pages, PAGE_BYTES each, for a program that this library is preloaded to. The calls
 * that concern pages are refused as such a kernel refuses them, or the program ends with a line where that
 * kernel would round up a length: the library under test is to know its pages. What the kernel beneath maps
 * at a smaller alignment is mapped again. Called before main and by malloc: nothing in here allocates.
 *
 * Files are left alone, and so is what the C library maps for itself: those calls do not come by here.
 * liburcu leaves it to the kernel to round up what it maps; Tarn's mappings are told from it by
 * MAP_NORESERVE. */
#undef _FILE_OFFSET_BITS /* both of mmap and mmap64 are defined below */

#include <errno.h>
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

/* glibc's sysconf answers from what the kernel said at the start of the process; the rest is asked there. */
long __sysconf(int name);

long sysconf(int name)
{
    return name == _SC_PAGESIZE ? (long)PAGE_BYTES : __sysconf(name);
}

unsigned long __getauxval(unsigned long type);

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

void *mmap(void *address, size_t bytes, int protection, int flags, int file, off_t offset)
{
    if ((flags & MAP_ANONYMOUS) == 0)
        return kernel_mmap(address, bytes, protection, flags, file, offset);
    if ((flags & MAP_NORESERVE) != 0)
        pages_check("mmap", address, bytes);
    bytes = (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    void *mapped = kernel_mmap(address, bytes, protection, flags, file, offset);
    if (mapped == MAP_FAILED || is_whole((uintptr_t)mapped))
        return mapped;
    syscall(SYS_munmap, mapped, bytes);
    return map_whole(bytes, protection, flags);
}

/* The name by which programs with 64-bit file offsets call it. */
void *mmap64(void *address, size_t bytes, int protection, int flags, int file, off64_t offset)
{
    return mmap(address, bytes, protection, flags, file, offset);
}

int munmap(void *address, size_t bytes)
{
    pages_check("munmap", address, bytes);
    return (int)syscall(SYS_munmap, address, bytes);
}

int madvise(void *address, size_t bytes, int advice)
{
    pages_check("madvise", address, bytes);
    return (int)syscall(SYS_madvise, address, bytes, advice);
}

int mprotect(void *address, size_t bytes, int protection)
{
    pages_check("mprotect", address, bytes);
    return (int)syscall(SYS_mprotect, address, bytes, protection);
}

/* One byte for each of the larger pages, which is in memory when a part of it is. */
int mincore(void *address, size_t bytes, unsigned char *resident)
{
    pages_check("mincore", address, bytes);
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
    pages_check("mremap", address, old_bytes);
    pages_check("mremap", target, new_bytes);
    return (void *)syscall(SYS_mremap, address, old_bytes, new_bytes, flags, target);
}
