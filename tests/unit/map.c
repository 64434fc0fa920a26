/*
 * os/map: what is mapped, what is left of it afterwards, that failure changes nothing, and that errno stays.
 *
 * Between two looks at the process's address space these tests allocate nothing, so that they see the room's
 * mappings alone, also where cmocka runs on Tarn.
 */
#include "os/map.h"

#include "kernel.h"
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ERRNO_BEFORE EDOM

static size_t page;

/* Where nothing of the process has been allocated yet, nothing is mapped. */
static int find_page(void **state)
{
    (void)state;
    page = (size_t)sysconf(_SC_PAGESIZE);
    return TARN_OVERRIDE || map_count() == 0 ? 0 : -1;
}

static void page_size_and_limit_are_the_systems(void **state)
{
    (void)state;
    assert_int_equal(map_page_bytes(), page);
    unsigned long most = 0;
    FILE *file = fopen("/proc/sys/vm/max_map_count", "r");
    if (file == NULL)
        not_here("no /proc/sys/vm");
    assert_int_equal(fscanf(file, "%lu", &most), 1);
    fclose(file);
    errno = ERRNO_BEFORE;
    assert_int_equal(map_count_limit(), most / 4 * 3);
    assert_int_equal(errno, ERRNO_BEFORE);
}

static void check_fresh(char *address, size_t bytes, size_t alignment)
{
    assert_non_null(address);
    assert_int_equal((uintptr_t)address % alignment, 0);
    assert_true(all_zero(address, bytes));
    assert_int_equal(errno, ERRNO_BEFORE);
    address[0] = 'x';
    address[bytes - 1] = 'y';
}

/* Maps, looks, unmaps; the process must be as large as before, give or take nothing. */
static void map_and_unmap(size_t bytes, size_t alignment)
{
    size_t count = map_count();
    size_t space = address_space_bytes();
    errno = ERRNO_BEFORE;
    char *address = map_pages_aligned(bytes, alignment);
    size_t grown = address_space_bytes() - space;
    check_fresh(address, bytes, alignment);
    assert_int_equal(map_count(), count + 1);
    if (!UNIT_SANITIZED)
        assert_int_equal(grown, bytes);
    map_unmap(address, bytes);
    assert_int_equal(errno, ERRNO_BEFORE);
    assert_false(page_is_mapped(address));
    assert_false(page_is_mapped(address + bytes - page));
    assert_int_equal(map_count(), count);
}

static void aligned_mappings(void **state)
{
    (void)state;
    for (size_t alignment = page; alignment <= 256 * MIB; alignment *= 2) {
        map_and_unmap(page, alignment);
        map_and_unmap(3 * page, alignment);
        map_and_unmap(4 * MIB, alignment);
        map_and_unmap(9 * MIB + page, alignment);
    }
}

static void plain_mappings(void **state)
{
    (void)state;
    size_t count = map_count();
    errno = ERRNO_BEFORE;
    char *address = map_pages(5 * page);
    check_fresh(address, 5 * page, page);
    assert_int_equal(map_count(), count + 1);
    map_unmap(address, 5 * page);
    assert_false(page_is_mapped(address));
    assert_int_equal(map_count(), count);
}

/* The next aligned mapping would lie right below the last one. Something stands there already. */
static bool step_around(size_t bytes, size_t alignment)
{
    char *first = map_pages_aligned(bytes, alignment);
    assert_non_null(first);
    char *place = (char *)(((uintptr_t)first - bytes) & ~(alignment - 1));
    char *taken = mmap(place, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE, -1, 0);
    if (taken == MAP_FAILED) { /* something of the process */
        map_unmap(first, bytes);
        return false;
    }
    memset(taken, 't', bytes);
    size_t count = map_count();
    size_t space = address_space_bytes();
    char *second = map_pages_aligned(bytes, alignment);
    if (!UNIT_SANITIZED)
        assert_int_equal(address_space_bytes() - space, bytes);
    assert_non_null(second);
    assert_int_equal((uintptr_t)second % alignment, 0);
    assert_ptr_not_equal(second, taken);
    assert_true(all_zero(second, bytes));
    assert_true(taken[0] == 't' && memcmp(taken, taken + 1, bytes - 1) == 0);
    assert_int_equal(map_count(), count + 1);
    map_unmap(second, bytes);
    map_unmap(first, bytes);
    munmap(taken, bytes);
    return true;
}

static void a_taken_place_is_stepped_around(void **state)
{
    (void)state;
    unsigned times = step_around(4 * MIB, 4 * MIB);
    for (size_t alignment = 64 * KIB; alignment <= 256 * MIB; alignment *= 4)
        times += step_around(3 * page, alignment); /* wherever the kernel puts these, it is not aligned */
    assert_true(times >= 3);
}

/* Whoever gives back what he got last gets the same again: addresses are not used up. */
static void addresses_come_back_into_use(void **state)
{
    (void)state;
    char *first = map_pages_aligned(8 * MIB, 4 * MIB);
    assert_non_null(first);
    map_unmap(first, 8 * MIB);
    for (unsigned i = 0; i < 5; i++) {
        char *again = map_pages_aligned(8 * MIB, 4 * MIB);
        assert_ptr_equal(again, first);
        map_unmap(again, 8 * MIB);
    }
}

static void what_cannot_be(void **state)
{
    (void)state;
    size_t count = map_count();
    assert_null(map_pages_aligned(SIZE_MAX / page * page, 4 * MIB));
    assert_null(map_pages_aligned(SIZE_MAX / page * page - 8 * MIB, 4 * MIB));
    assert_null(map_pages_aligned(page, SIZE_MAX / 2 + 1));
    assert_null(map_pages(SIZE_MAX / page * page));
    assert_int_equal(map_count(), count);
}

static void purged_pages_are_zero_and_gone(void **state)
{
    (void)state;
    char *address = map_pages(8 * page);
    assert_non_null(address);
    pattern_write(address, 8 * page, 1);
    assert_int_equal(pages_resident(address, 8 * page), 8);
    errno = ERRNO_BEFORE;
    assert_true(map_purge(address + 4 * page, 2 * page));
    assert_int_equal(errno, ERRNO_BEFORE);
    assert_int_equal(pages_resident(address, 8 * page), 6);
    assert_true(pattern_holds(address, 4 * page, 1));
    assert_true(all_zero(address + 4 * page, 2 * page));
    address[4 * page] = 'w';
    map_unmap(address, 8 * page);
}

static void a_few_pages_tell_what_is_resident(void **state)
{
    (void)state;
    page = map_page_bytes();
    char *pages = map_pages(64 * page);
    assert_false(map_is_resident(pages, 64 * page));
    for (size_t eighth = 1; eighth < 8; eighth += 2) {
        pages[8 * eighth * page] = 'r';
        assert_true(map_is_resident(pages, 64 * page));
        assert_true(map_purge(pages, 64 * page));
        assert_false(map_is_resident(pages, 64 * page));
    }
    pages[page] = 'r';
    assert_false(map_is_resident(pages + 16 * page, 48 * page));
    assert_true(map_is_resident(pages + page, page));
    assert_true(map_is_resident(pages + page, 2 * page)); /* fewer pages than are looked at */
    map_unmap(pages, 64 * page);
    errno = 0;
    assert_false(map_is_resident(pages, 64 * page));
    assert_int_equal(errno, 0);
}

static void locked_pages_are_not_purged(void **state)
{
    (void)state;
    char *address = map_pages(page);
    assert_non_null(address);
    pattern_write(address, page, 2);
    if (syscall(SYS_mlock, address, page) != 0) /* the sanitizers make mlock() do nothing */
        not_here("no memory may be locked");
    errno = ERRNO_BEFORE;
    assert_false(map_purge(address, page));
    assert_int_equal(errno, ERRNO_BEFORE);
    assert_true(pattern_holds(address, page, 2));
    syscall(SYS_munlock, address, page);
    map_unmap(address, page);
}

static void extending_takes_free_addresses_only(void **state)
{
    (void)state;
    char *address = map_pages(16 * page);
    assert_non_null(address);
    pattern_write(address, 8 * page, 3);
    munmap(address + 8 * page, 8 * page); /* room behind it */
    size_t count = map_count();
    errno = ERRNO_BEFORE;
    assert_true(map_extend(address + 8 * page, 4 * page));
    assert_true(all_zero(address + 8 * page, 4 * page));
    address[12 * page - 1] = 'w';
    assert_false(page_is_mapped(address + 12 * page));
    assert_false(map_extend(address + 11 * page, 2 * page));
    assert_false(page_is_mapped(address + 12 * page));
    assert_int_equal(address[12 * page - 1], 'w');
    assert_true(pattern_holds(address, 8 * page, 3));
    assert_int_equal(errno, ERRNO_BEFORE);
    assert_int_equal(map_count(), count); /* who puts mappings together counts them */
    map_count_add(3);
    map_count_add(-2);
    assert_int_equal(map_count(), count + 1);
    map_count_add(-1);
    map_unmap(address, 12 * page);
}

/* Four pages from the middle of one mapping onto the middle of another. */
static void check_move(void)
{
    char *from = map_pages(8 * page);
    char *onto = map_pages(8 * page);
    assert_true(from != NULL && onto != NULL);
    pattern_write(from, 8 * page, 4);
    memset(onto, 'o', 8 * page);
    size_t count = map_count();
    errno = ERRNO_BEFORE;
    char expected[4096];
    memcpy(expected, from + 2 * page, sizeof expected);
    assert_true(map_move_onto(from + 2 * page, 4 * page, onto + 3 * page));
    assert_int_equal(errno, ERRNO_BEFORE);
    assert_int_equal(map_count(), count);
    assert_memory_equal(onto + 3 * page, expected, sizeof expected);
    assert_true(pattern_holds(from, 2 * page, 4));
    assert_false(page_is_mapped(from + 2 * page));
    assert_false(page_is_mapped(from + 6 * page - 1));
    assert_true(page_is_mapped(from + 6 * page));
    for (size_t i = 0; i < 8 * page; i += page)
        assert_true((onto[i] == 'o') == (i < 3 * page || i >= 7 * page));
    onto[7 * page - 1] = 'w';
    map_unmap(from, 8 * page);
    map_unmap(onto, 8 * page);
}

static void pages_are_moved(void **state)
{
    (void)state;
    check_move();
}

static void refused_pages_are_copied(void **state)
{
    (void)state;
    kernel_refuses = 1;
    check_move();
    assert_int_equal(kernel_refuses, 0);
    kernel_refuses_late = 1;
    check_move();
    assert_int_equal(kernel_refuses_late, 0);
}

/* Asked before main; a program that runs with an old kernel's mremap must have found that out. */
static void what_the_kernel_moves_is_known(void **state)
{
    (void)state;
    size_t count = map_count();
    errno = ERRNO_BEFORE;
    bool several = map_moves_several();
    assert_int_equal(errno, ERRNO_BEFORE);
    assert_int_equal(map_count(), count);
    char *from = map_pages(2 * page);
    char *onto = map_pages(2 * page);
    assert_true(from != NULL && onto != NULL);
    from[0] = from[page] = 'f';
    assert_int_equal(mprotect(from + page, page, PROT_READ), 0);
    bool moved = mremap(from, 2 * page, 2 * page, MREMAP_MAYMOVE | MREMAP_FIXED, onto) == onto;
    assert_int_equal(several, moved);
    if (moved)
        assert_true(onto[0] == 'f' && onto[page] == 'f');
    munmap(from, 2 * page);
    munmap(onto, 2 * page);
    map_count_add(-2);
}

static void fail_without_room(void *context)
{
    const size_t bytes = 64 * KIB;
    char *address = context;
    limit_address_space(MIB);
    size_t space = address_space_bytes();
    size_t count = map_count();
    errno = ERRNO_BEFORE;
    must(map_pages(64 * MIB) == NULL);
    must(map_pages_aligned(64 * MIB, 4 * MIB) == NULL);
    must(!map_extend(address + bytes, 64 * MIB));
    must(errno == ERRNO_BEFORE);
    must(map_count() == count);
    must(UNIT_SANITIZED || address_space_bytes() == space);
    must(pattern_holds(address, bytes, 4));
    address[bytes - 1] = 'w';
}

static void failure_changes_nothing(void **state)
{
    (void)state;
    char *address = map_pages(64 * KIB);
    assert_non_null(address);
    pattern_write(address, 64 * KIB, 4);
    child_must_succeed(fail_without_room, address);
    map_unmap(address, 64 * KIB);
}

/* Whether the kernel has the flag on the mapping that begins here, from /proc/self/smaps. */
static bool has_flag(const void *address, const char *flag)
{
    char line[512];
    bool inside = false;
    bool found = false;
    FILE *file = fopen("/proc/self/smaps", "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        unsigned long from;
        unsigned long to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            inside = from <= (uintptr_t)address && (uintptr_t)address < to;
        else if (inside && strncmp(line, "VmFlags:", 8) == 0)
            found = strstr(line, flag) != NULL;
    }
    fclose(file);
    return found;
}

static void huge_pages_are_asked_for_and_forbidden(void **state)
{
    (void)state;
    if (access("/sys/kernel/mm/transparent_hugepage/enabled", R_OK) != 0)
        not_here("no huge pages");
    char *address = map_pages_aligned(4 * MIB, 4 * MIB);
    assert_non_null(address);
    errno = ERRNO_BEFORE;
    map_allow_huge(address, 4 * MIB, true);
    assert_int_equal(errno, ERRNO_BEFORE);
    assert_true(has_flag(address, " hg"));
    map_allow_huge(address, 4 * MIB, false);
    assert_true(has_flag(address, " nh"));
    assert_false(has_flag(address, " hg"));
    map_unmap(address, 4 * MIB);
}

#define THREADS 4U

static void map_in_turns(void *context, unsigned index)
{
    struct random random = {index};
    (void)context;
    for (unsigned i = 0; i < 300; i++) {
        char *held[3];
        size_t bytes[3];
        for (unsigned k = 0; k < 3; k++) {
            bytes[k] = (1 + random_below(&random, 600)) * page;
            held[k] = map_pages_aligned(bytes[k], MIB);
            must(held[k] != NULL && (uintptr_t)held[k] % MIB == 0);
            must(held[k][0] == 0 && held[k][bytes[k] - 1] == 0);
            held[k][0] = held[k][bytes[k] - 1] = (char)(index + 1);
        }
        for (unsigned k = 0; k < 3; k++) {
            must(held[k][0] == (char)(index + 1) && held[k][bytes[k] - 1] == (char)(index + 1));
            map_unmap(held[k], bytes[k]);
        }
    }
}

static void threads_get_places_of_their_own(void **state)
{
    (void)state;
    threads_run(THREADS, map_in_turns, NULL); /* where Tarn is malloc, their heaps come with them, and stay */
    size_t count = map_count();
    threads_run(THREADS, map_in_turns, NULL);
    assert_int_equal(map_count(), count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(page_size_and_limit_are_the_systems),
        cmocka_unit_test(aligned_mappings),
        cmocka_unit_test(plain_mappings),
        cmocka_unit_test(a_taken_place_is_stepped_around),
        cmocka_unit_test(addresses_come_back_into_use),
        cmocka_unit_test(what_cannot_be),
        cmocka_unit_test(purged_pages_are_zero_and_gone),
        cmocka_unit_test(a_few_pages_tell_what_is_resident),
        cmocka_unit_test(locked_pages_are_not_purged),
        cmocka_unit_test(extending_takes_free_addresses_only),
        cmocka_unit_test(pages_are_moved),
        cmocka_unit_test(refused_pages_are_copied),
        cmocka_unit_test(what_the_kernel_moves_is_known),
        cmocka_unit_test(failure_changes_nothing),
        cmocka_unit_test(huge_pages_are_asked_for_and_forbidden),
        cmocka_unit_test(threads_get_places_of_their_own),
    };
    return cmocka_run_group_tests(tests, find_page, NULL);
}
