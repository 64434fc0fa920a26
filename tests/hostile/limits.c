/*
 * Hostile use: alignments up to 1 GiB, a limit of addresses that they do not fit into, and memory that the
 * program has locked.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../interface.h"

#define GIB (1024 * MIB)

enum { LOCKED_BLOCKS = 4000, CANNOT_LOCK = 77 };

static void an_alignment_of_1_gib(void **state)
{
    size_t addresses, resident;

    (void)state;
    free(aligned_alloc(64 * MIB, opaque_size(100)));
    (void)malloc_trim(0);
    addresses = address_space_bytes();
    resident = resident_bytes();
    for (size_t round = 0; round < 20; round++) {
        char *small = aligned_alloc(GIB, opaque_size(100)), *large = aligned_alloc(GIB, opaque_size(5 * MIB));

        assert_non_null(small);
        assert_non_null(large);
        assert_true((uintptr_t)small % GIB == 0 && (uintptr_t)large % GIB == 0);
        assert_true(malloc_usable_size(small) >= 100 && malloc_usable_size(large) >= 5 * MIB);
        pattern_write(small, 100, round);
        pattern_write(large, 10000, round);
        /* What was mapped to find the alignment is gone already. */
        assert_true(address_space_bytes() < addresses + 64 * MIB);
        assert_true(resident_bytes() < resident + 4 * MIB);
        assert_true(pattern_holds(small, 100, round) && pattern_holds(large, 10000, round));
        free(small);
        free(large);
    }
    (void)malloc_trim(0);
    assert_true(address_space_bytes() < addresses + 16 * MIB);
    assert_true(resident_bytes() < resident + 2 * MIB);
}

static void assert_child_exits_well(int pid)
{
    int ended = wait_for_child(pid, 60);

    assert_true(WIFEXITED(ended));
    assert_int_equal(WEXITSTATUS(ended), 0);
}

static void an_alignment_beyond_the_limit_of_addresses(void **state)
{
    int pid = fork();

    (void)state;
    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit limit = {address_space_bytes() + 512 * MIB, RLIM_INFINITY};
        void *block = NULL;

        must(setrlimit(RLIMIT_AS, &limit) == 0);
        errno = 0;
        must(opaque(aligned_alloc(GIB, opaque_size(600 * MIB))) == NULL && errno == ENOMEM);
        must(posix_memalign(&block, GIB, 600 * MIB) == ENOMEM && block == NULL);
        must(opaque(aligned_alloc(opaque_size((size_t)1 << 62), 100)) == NULL && errno == ENOMEM);
        for (size_t i = 0; i < 50; i++) { /* nothing is lost by it */
            must(opaque(aligned_alloc(GIB, opaque_size(600 * MIB))) == NULL);
            errno = 0;
            block = aligned_alloc(GIB, opaque_size(100)); /* where a multiple happens to be free */
            must(block != NULL ? (uintptr_t)block % GIB == 0 : errno == ENOMEM);
            free(block);
            block = aligned_alloc(64 * MIB, opaque_size(100 * MIB));
            must(block != NULL);
            free(block);
        }
        _exit(0);
    }
    assert_child_exits_well(pid);
}

static size_t locked_size(size_t i)
{
    return i % 400 == 0 ? 2 * MIB : i % 40 == 0 ? 60 * KIB : 16 + i % 4000;
}

/* Everything mapped from now on is resident at once, and no page may be given back while it is mapped. */
static void use_locked_memory(void)
{
    static char *blocks[LOCKED_BLOCKS];
    size_t live = 0, base, peak = 0;

    if (mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
        _exit(CANNOT_LOCK);
    base = resident_bytes();
    for (size_t round = 0; round < 5; round++) {
        live = 0;
        for (size_t i = 0; i < LOCKED_BLOCKS; i++) {
            blocks[i] =
                i % 2 == 0 ? malloc(opaque_size(locked_size(i))) : calloc(1, opaque_size(locked_size(i)));
            must(blocks[i] != NULL);
            if (i % 2 != 0)
                must(all_zero(blocks[i], locked_size(i)));
            pattern_write(blocks[i], locked_size(i), i);
            live += locked_size(i);
        }
        if (resident_bytes() > peak)
            peak = resident_bytes();
        for (size_t i = 0; i < LOCKED_BLOCKS; i++) {
            must(pattern_holds(blocks[i], locked_size(i), i));
            free(blocks[i]);
        }
        (void)malloc_trim(0); /* what cannot be purged is not taken for zeroed */
    }
    printf("# locked: %zu MiB live, %zu MiB more resident at most, %zu MiB after all was freed\n", live / MIB,
           (peak - base) / MIB, (resident_bytes() - base) / MIB);
    fflush(stdout);
    must(peak - base < 2 * live + 32 * MIB);
    must(resident_bytes() - base < live + 16 * MIB);
    must(munlockall() == 0);
    (void)malloc_trim(0);
    must(resident_bytes() < base + 8 * MIB);
    _exit(0);
}

/* By nature: who may not lock memory cannot try it. */
static void memory_that_is_locked(void **state)
{
    int pid = fork(), ended;

    (void)state;
    assert_true(pid >= 0);
    if (pid == 0)
        use_locked_memory();
    ended = wait_for_child(pid, 60);
    assert_true(WIFEXITED(ended));
    if (WEXITSTATUS(ended) == CANNOT_LOCK)
        skip();
    assert_int_equal(WEXITSTATUS(ended), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_alignment_of_1_gib),
        cmocka_unit_test(an_alignment_beyond_the_limit_of_addresses),
        cmocka_unit_test(memory_that_is_locked),
    };

    return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}
