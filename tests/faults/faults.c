/* Called before main, also before the C library's malloc is up: nothing in here allocates. */
#include "faults.h"

#include "../unit/kernel.h"
#include "../unit/unit.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

const char *const fault_names[FAULT_KINDS] = {"map",        "unmap",    "purge",    "remap",
                                              "remap-late", "protect",  "resident", "barrier",
                                              "key",        "specific", "any",      "any-late"};

/* mmap's name where files may be large, which is how meson compiles. */
void *__real_mmap64(void *address, size_t bytes, int protection, int flags, int file, off_t offset);
int __real_munmap(void *address, size_t bytes);
int __real_madvise(void *address, size_t bytes, int advice);
void *__real_mremap(void *address, size_t old_bytes, size_t new_bytes, int flags, ...);
int __real_mprotect(void *address, size_t bytes, int protection);
int __real_mincore(void *address, size_t bytes, unsigned char *resident);
long __real_syscall(long number, ...);
int __real_pthread_key_create(pthread_key_t *key, void (*destructor)(void *));
int __real_pthread_setspecific(pthread_key_t key, const void *value);

void *__wrap_mmap64(void *address, size_t bytes, int protection, int flags, int file, off_t offset);
int __wrap_munmap(void *address, size_t bytes);
int __wrap_madvise(void *address, size_t bytes, int advice);
void *__wrap_mremap(void *address, size_t old_bytes, size_t new_bytes, int flags, ...);
int __wrap_mprotect(void *address, size_t bytes, int protection);
int __wrap_mincore(void *address, size_t bytes, unsigned char *resident);
long __wrap_syscall(long number, ...);
int __wrap_pthread_key_create(pthread_key_t *key, void (*destructor)(void *));
int __wrap_pthread_setspecific(pthread_key_t key, const void *value);

/* ---- the plan ---- */

/* Shared with children, so that the n-th call is the n-th of all of them. */
struct plan {
    enum fault_kind kind;
    unsigned long first;
    unsigned long count;
    _Atomic unsigned long calls;
    _Atomic unsigned long failed;
    _Atomic bool ended;
};

static struct plan *plan;

/* The calls that kernel.c makes come by here too. */
static _Thread_local bool in_kernel;

/* The cap, and what is left of it. Only where faults_cap_bytes was called. */
static _Atomic bool capped;
static _Atomic size_t left_bytes;

static struct plan *read_plan(void)
{
    static bool read;
    extern char **environ;
    if (read || environ == NULL) /* NULL: the C library is not up yet */
        return plan;
    read = true;
    const char *text = getenv("FAULTS");
    if (text == NULL)
        return NULL;
    plan = __real_mmap64(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(plan != MAP_FAILED);
    size_t length = strcspn(text, ",");
    plan->kind = FAULT_KINDS;
    for (enum fault_kind kind = 0; kind < FAULT_KINDS; kind++)
        if (strlen(fault_names[kind]) == length && memcmp(text, fault_names[kind], length) == 0)
            plan->kind = kind;
    char *rest;
    must(plan->kind != FAULT_KINDS && text[length] == ',');
    plan->first = strtoul(text + length + 1, &rest, 10);
    must(*rest == ',' && plan->first > 0);
    plan->count = strtoul(rest + 1, NULL, 10);
    return plan;
}

static bool is_kind(enum fault_kind planned, enum fault_kind kind)
{
    if (kind == FAULT_REMAP)
        return planned == FAULT_REMAP || planned == FAULT_ANY;
    if (kind == FAULT_REMAP_LATE)
        return planned == FAULT_REMAP_LATE || planned == FAULT_ANY_LATE;
    return planned == kind || (kind != FAULT_RESIDENT && (planned == FAULT_ANY || planned == FAULT_ANY_LATE));
}

static bool fails(enum fault_kind kind)
{
    struct plan *present = read_plan();
    if (present == NULL || in_kernel || atomic_load(&present->ended) || !is_kind(present->kind, kind))
        return false;
    unsigned long call = atomic_fetch_add(&present->calls, 1) + 1;
    if (call < present->first || call - present->first >= present->count)
        return false;
    atomic_fetch_add(&present->failed, 1);
    return true;
}

unsigned long faults_so_far(void)
{
    return plan != NULL ? atomic_load(&plan->failed) : 0;
}

void faults_end(void)
{
    if (plan != NULL)
        atomic_store(&plan->ended, true);
}

void faults_cap_bytes(size_t more_bytes)
{
    atomic_store(&left_bytes, more_bytes);
    atomic_store(&capped, more_bytes != SIZE_MAX);
}

static bool take_of_cap(size_t bytes)
{
    size_t left = atomic_load(&left_bytes);
    do {
        if (!atomic_load(&capped))
            return true;
        if (left < bytes)
            return false;
    } while (!atomic_compare_exchange_weak(&left_bytes, &left, left - bytes));
    return true;
}

static void give_to_cap(size_t bytes)
{
    atomic_fetch_add(&left_bytes, bytes);
}

/* ---- the calls ---- */

static int refuse(int error)
{
    errno = error;
    return -1;
}

void *__wrap_mmap64(void *address, size_t bytes, int protection, int flags, int file, off_t offset)
{
    if (fails(FAULT_MAP) || !take_of_cap(bytes)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    void *mapped = __real_mmap64(address, bytes, protection, flags, file, offset);
    if (mapped == MAP_FAILED)
        give_to_cap(bytes);
    return mapped;
}

int __wrap_munmap(void *address, size_t bytes)
{
    if (fails(FAULT_UNMAP))
        return refuse(ENOMEM);
    int result = __real_munmap(address, bytes);
    if (result == 0)
        give_to_cap(bytes);
    return result;
}

int __wrap_madvise(void *address, size_t bytes, int advice)
{
    return fails(FAULT_PURGE) ? refuse(ENOMEM) : __real_madvise(address, bytes, advice);
}

/* The library moves pages onto mapped ones of the same number. Refused by kernel.c. */
void *__wrap_mremap(void *address, size_t old_bytes, size_t new_bytes, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    void *target = va_arg(arguments, void *);
    va_end(arguments);
    must(flags == (MREMAP_MAYMOVE | MREMAP_FIXED) && old_bytes == new_bytes);
    kernel_refuses += fails(FAULT_REMAP);
    kernel_refuses_late += fails(FAULT_REMAP_LATE);
    in_kernel = true;
    void *moved = __real_mremap(address, old_bytes, new_bytes, flags, target);
    in_kernel = false;
    if (moved != MAP_FAILED)
        give_to_cap(new_bytes); /* of the target's pages */
    return moved;
}

int __wrap_mprotect(void *address, size_t bytes, int protection)
{
    return fails(FAULT_PROTECT) ? refuse(ENOMEM) : __real_mprotect(address, bytes, protection);
}

int __wrap_mincore(void *address, size_t bytes, unsigned char *resident)
{
    return fails(FAULT_RESIDENT) ? refuse(EAGAIN) : __real_mincore(address, bytes, resident);
}

long __wrap_syscall(long number, ...)
{
    long given[5];
    va_list arguments;
    va_start(arguments, number);
    for (unsigned i = 0; i < 5; i++)
        given[i] = va_arg(arguments, long);
    va_end(arguments);
    if (number == SYS_membarrier && fails(FAULT_BARRIER))
        return refuse(ENOMEM);
    return __real_syscall(number, given[0], given[1], given[2], given[3], given[4]);
}

int __wrap_pthread_key_create(pthread_key_t *key, void (*destructor)(void *))
{
    return fails(FAULT_KEY) ? EAGAIN : __real_pthread_key_create(key, destructor);
}

int __wrap_pthread_setspecific(pthread_key_t key, const void *value)
{
    return fails(FAULT_SPECIFIC) ? ENOMEM : __real_pthread_setspecific(key, value);
}
