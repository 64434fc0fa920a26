#include "os/map.h"

#include "base/bits.h"
#include "base/counters.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RESIDENCY_SAMPLES 4U
#define LEFTOVERS_MOST    4096U

/* The lowest address given by an aligned mapping: the next hint lies below it. Any thread, relaxed: a stale
 * value costs a system call and nothing else. */
static _Atomic uintptr_t hint_ceiling;

static _Atomic size_t mappings;

static _Atomic size_t page_bytes_cached;

size_t map_page_bytes(void)
{
    size_t bytes = atomic_load_explicit(&page_bytes_cached, memory_order_relaxed);
    if (bytes == 0) {
        bytes = (size_t)sysconf(_SC_PAGESIZE);
        atomic_store_explicit(&page_bytes_cached, bytes, memory_order_relaxed);
    }
    return bytes;
}

static void *map_at(void *hint, size_t bytes)
{
    int saved_errno = errno;
    counter_add(COUNTER_MAP, 1);
    void *address =
        mmap(hint, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    errno = saved_errno;
    if (address == MAP_FAILED)
        return NULL;
    atomic_fetch_add_explicit(&mappings, 1, memory_order_relaxed);
    return address;
}

/* ---- unmapping ---- */

/* Addresses that could not be unmapped. Who changes an entry to BUSY holds it, until it writes the address or
 * NONE: no ABA. */
struct leftover {
    _Atomic uintptr_t address;
    size_t bytes;
};

enum { LEFTOVER_NONE, LEFTOVER_BUSY };

static struct leftover leftovers[LEFTOVERS_MOST];
static _Atomic size_t leftover_count;

static bool hold_leftover(struct leftover *one, uintptr_t address)
{
    /* acquire: pairs with the release in let_leftover_go; bytes. */
    return atomic_compare_exchange_strong_explicit(&one->address, &address, LEFTOVER_BUSY,
                                                   memory_order_acquire, memory_order_relaxed);
}

static void let_leftover_go(struct leftover *one, uintptr_t address)
{
    atomic_store_explicit(&one->address, address, memory_order_release);
}

/* munmap fails when it would split a mapping beyond the kernel's limit: the pages go back all the same, and
 * the addresses when there is room again. More than the table holds are given up. */
static COLD void keep_leftover(void *address, size_t bytes)
{
    madvise(address, bytes, MADV_DONTNEED);
    for (struct leftover *one = leftovers; one < leftovers + LEFTOVERS_MOST; one++) {
        if (!hold_leftover(one, LEFTOVER_NONE))
            continue;
        one->bytes = bytes;
        atomic_fetch_add_explicit(&leftover_count, 1, memory_order_relaxed);
        let_leftover_go(one, (uintptr_t)address);
        return;
    }
}

/* Returns the bytes unmapped. */
static size_t unmap_leftover(struct leftover *one, uintptr_t address)
{
    if (address <= LEFTOVER_BUSY || !hold_leftover(one, address))
        return 0;
    counter_add(COUNTER_MAP, 1);
    bool unmapped = munmap((void *)address, one->bytes) == 0;
    size_t bytes = unmapped ? one->bytes : 0;
    if (unmapped)
        atomic_fetch_sub_explicit(&leftover_count, 1, memory_order_relaxed);
    let_leftover_go(one, unmapped ? LEFTOVER_NONE : address);
    return bytes;
}

static COLD size_t unmap_leftovers(size_t bytes_most)
{
    size_t bytes = 0;
    for (struct leftover *one = leftovers; one < leftovers + LEFTOVERS_MOST && bytes < bytes_most; one++)
        bytes += unmap_leftover(one, atomic_load_explicit(&one->address, memory_order_relaxed));
    return bytes;
}

size_t map_unmap_leftovers(void)
{
    if (LIKELY(atomic_load_explicit(&leftover_count, memory_order_relaxed) == 0))
        return 0;
    int saved_errno = errno;
    size_t bytes = unmap_leftovers(SIZE_MAX);
    errno = saved_errno;
    return bytes;
}

static void unmap_uncounted(void *address, size_t bytes)
{
    int saved_errno = errno;
    counter_add(COUNTER_MAP, 1);
    if (UNLIKELY(munmap(address, bytes) != 0))
        keep_leftover(address, bytes);
    else if (UNLIKELY(atomic_load_explicit(&leftover_count, memory_order_relaxed) > 0))
        unmap_leftovers(1); /* this one made room for one that was refused */
    errno = saved_errno;
}

void map_unmap(void *address, size_t bytes)
{
    /* The lowest of all: the same addresses will do for the next. */
    uintptr_t lowest = (uintptr_t)address;
    atomic_compare_exchange_strong_explicit(&hint_ceiling, &lowest, lowest + bytes, memory_order_relaxed,
                                            memory_order_relaxed);
    unmap_uncounted(address, bytes);
    atomic_fetch_sub_explicit(&mappings, 1, memory_order_relaxed);
}

void *map_pages(size_t bytes)
{
    return map_at(NULL, bytes);
}

static bool is_aligned(const void *address, size_t alignment)
{
    return ((uintptr_t)address & (alignment - 1)) == 0;
}

static void *map_by_hint(size_t bytes, size_t alignment)
{
    uintptr_t ceiling = atomic_load_explicit(&hint_ceiling, memory_order_relaxed);
    if (ceiling < bytes + alignment)
        return NULL;
    uintptr_t hint = bits_align_down(ceiling - bytes, alignment);
    void *address = map_at((void *)hint, bytes);
    if (address == NULL)
        return NULL;
    if (is_aligned(address, alignment)) {
        atomic_store_explicit(&hint_ceiling, (uintptr_t)address, memory_order_relaxed);
        return address;
    }
    map_unmap(address, bytes);
    return NULL;
}

static void *map_and_trim(size_t bytes, size_t alignment)
{
    size_t larger_bytes;
    if (!bits_add(bytes, alignment - map_page_bytes(), &larger_bytes))
        return NULL;
    char *larger = map_at(NULL, larger_bytes);
    if (larger == NULL)
        return NULL;
    char *address = (char *)bits_align_up((uintptr_t)larger, alignment);
    size_t before_bytes = (size_t)(address - larger);
    size_t after_bytes = larger_bytes - before_bytes - bytes;
    if (before_bytes > 0)
        unmap_uncounted(larger, before_bytes);
    if (after_bytes > 0)
        unmap_uncounted(address + bytes, after_bytes);
    atomic_store_explicit(&hint_ceiling, (uintptr_t)address, memory_order_relaxed);
    return address;
}

void *map_pages_aligned(size_t bytes, size_t alignment)
{
    void *address = map_by_hint(bytes, alignment);
    return address != NULL ? address : map_and_trim(bytes, alignment);
}

bool map_purge(void *address, size_t bytes)
{
    int saved_errno = errno;
    counter_add(COUNTER_MAP, 1);
    int result = madvise(address, bytes, MADV_DONTNEED);
    errno = saved_errno;
    return result == 0;
}

bool map_permit(void *address, size_t bytes)
{
    int saved_errno = errno;
    counter_add(COUNTER_MAP, 1);
    int result = mprotect(address, bytes, PROT_READ | PROT_WRITE);
    errno = saved_errno;
    return result == 0;
}

/* Mapped anew, which gives the pages back in the same call. */
bool map_forbid(void *address, size_t bytes)
{
    int saved_errno = errno;
    counter_add(COUNTER_MAP, 1);
    void *result =
        mmap(address, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    errno = saved_errno;
    return result == address;
}

bool map_is_resident(const void *address, size_t bytes)
{
    int saved_errno = errno;
    size_t page = map_page_bytes();
    size_t distance = bits_align_down(bytes / RESIDENCY_SAMPLES, page);
    unsigned char resident = 0;
    for (size_t i = 0; i < RESIDENCY_SAMPLES && (resident & 1) == 0; i++) {
        char *sample = (char *)(uintptr_t)address + i * distance + bits_align_down(distance / 2, page);
        if (mincore(sample, page, &resident) != 0)
            break;
    }
    errno = saved_errno;
    return (resident & 1) != 0;
}

void map_allow_huge(void *address, size_t bytes, bool allow)
{
    int saved_errno = errno;
    counter_add(COUNTER_MAP, 1);
    madvise(address, bytes, allow ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    errno = saved_errno;
}

/* Where nothing is mapped yet: 0, EEXIST where something is, or another error. */
static int map_there(void *there, size_t bytes, int protection)
{
    int saved_errno = errno;
    int error = 0;
    counter_add(COUNTER_MAP, 1);
    void *address = mmap(there, bytes, protection,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
    if (address == MAP_FAILED) {
        error = errno;
    } else if (address != there) { /* a kernel before 4.17 takes the address as a hint */
        unmap_uncounted(address, bytes);
        error = EEXIST;
    }
    errno = saved_errno;
    return error;
}

bool map_extend(void *end, size_t bytes)
{
    return map_there(end, bytes, PROT_READ | PROT_WRITE) == 0;
}

bool map_forbid_fresh(void *address, size_t bytes)
{
    bool mapped = map_there(address, bytes, PROT_NONE) == 0;
    map_count_add(mapped);
    return mapped;
}

/* A failed mremap may have unmapped its target: it is mapped anew, if it has to be. Too many mappings are
 * ENOMEM for mmap also where something is, so mincore is asked first. */
static bool is_still_there(void *target, size_t bytes)
{
    unsigned char resident;
    if (mincore(target, map_page_bytes(), &resident) == 0)
        return true;
    int error = map_there(target, bytes, PROT_READ | PROT_WRITE);
    return error == 0 || error == EEXIST;
}

static COLD bool copy_onto(void *address, size_t bytes, void *target)
{
    if (!is_still_there(target, bytes))
        return false;
    memcpy(target, address, bytes);
    unmap_uncounted(address, bytes);
    return true;
}

bool map_move_onto(void *address, size_t bytes, void *target)
{
    int saved_errno = errno;
    counter_add(COUNTER_MAP, 1);
    bool moved = mremap(address, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, target) != MAP_FAILED ||
                 copy_onto(address, bytes, target);
    errno = saved_errno;
    return moved;
}

/* Tries it with two pages that cannot be one mapping, since they are not protected alike. */
static bool try_moving_several(void)
{
    size_t page = map_page_bytes();
    char *from = map_pages(2 * page);
    char *onto = map_pages(2 * page);
    bool tried = from != NULL && onto != NULL && mprotect(from + page, page, PROT_READ) == 0;
    bool moved = tried && mremap(from, 2 * page, 2 * page, MREMAP_MAYMOVE | MREMAP_FIXED, onto) != MAP_FAILED;
    if (from != NULL && !moved)
        map_unmap(from, 2 * page);
    bool lost = tried && !moved && !is_still_there(onto, 2 * page);
    if (onto != NULL && !lost)
        map_unmap(onto, 2 * page);
    if (moved || lost)
        map_count_add(-1);
    return moved;
}

bool map_moves_several(void)
{
    enum { UNKNOWN, YES, NO };
    static _Atomic int answer = UNKNOWN;
    if (atomic_load_explicit(&answer, memory_order_relaxed) == UNKNOWN) {
        int saved_errno = errno;
        atomic_store_explicit(&answer, try_moving_several() ? YES : NO, memory_order_relaxed);
        errno = saved_errno;
    }
    return atomic_load_explicit(&answer, memory_order_relaxed) == YES;
}

void map_count_add(long more)
{
    atomic_fetch_add_explicit(&mappings, (size_t)more, memory_order_relaxed);
}

size_t map_count(void)
{
    return atomic_load_explicit(&mappings, memory_order_relaxed);
}

/* Three quarters of vm.max_map_count: the rest is for the program's own files, stacks and libraries. */
static size_t read_count_limit(void)
{
    size_t limit = 65530;
    int saved_errno = errno;
    int cancelling; /* malloc is no cancellation point, but open is */
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancelling);
    int file = open("/proc/sys/vm/max_map_count", O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        char digits[24];
        ssize_t length = read(file, digits, sizeof digits);
        size_t number = 0;
        for (ssize_t i = 0; i < length && digits[i] >= '0' && digits[i] <= '9'; i++)
            number = number * 10 + (size_t)(digits[i] - '0');
        if (number > 0)
            limit = number;
        close(file);
    }
    pthread_setcancelstate(cancelling, &cancelling);
    errno = saved_errno;
    return limit / 4 * 3;
}

size_t map_count_limit(void)
{
    static _Atomic size_t limit;
    size_t known = atomic_load_explicit(&limit, memory_order_relaxed);
    if (known == 0) {
        known = read_count_limit();
        atomic_store_explicit(&limit, known, memory_order_relaxed);
    }
    return known;
}
