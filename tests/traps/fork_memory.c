/*
 * Trap: what a fork costs. The parent's memory stays what it was however often it forks; a child can give
 * back what it holds; of what other threads' heaps held in the parent no more is lost than docs/fork.md says,
 * and a child that goes on loses nothing more. And the handlers themselves: no system call but futex(2), few
 * pages written, whatever the number of arenas.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../interface.h"

enum { CHILD_SECONDS = 60, THREADS = 16, BLOCKS = 4000, ARENAS = 300, RUNS_PER_ARENA = 15 };

static void run_child(void (*body)(void))
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        body();
        _exit(0);
    }
    assert_int_equal(wait_for_child(pid, CHILD_SECONDS), 0);
}

static void *fill(size_t bytes)
{
    void *block = malloc(opaque_size(bytes));

    must(block != NULL);
    memset(block, 1, bytes);
    return block;
}

/* ---- the parent ---- */

static void allocate_much(void)
{
    void *blocks[200];

    for (size_t i = 0; i < 200; i++)
        blocks[i] = fill(i % 20 == 0 ? MIB : i % 5 == 0 ? 100 * KIB : 8 + i * 40);
    for (size_t i = 0; i < 200; i++)
        free(blocks[i]);
}

static void the_parent_does_not_grow(void **state)
{
    size_t resident, addresses, maps;
    void *held[50];

    (void)state;
    for (size_t i = 0; i < 50; i++)
        held[i] = fill(i * 4000);
    for (size_t i = 0; i < 10; i++)
        run_child(allocate_much);
    resident = resident_bytes();
    addresses = address_space_bytes();
    maps = mappings();
    for (size_t i = 0; i < 150; i++)
        run_child(allocate_much);
    assert_true(resident_bytes() <= resident + 64 * KIB);
    assert_int_equal(address_space_bytes(), addresses);
    assert_int_equal(mappings(), maps);
    for (size_t i = 0; i < 50; i++)
        free(held[i]);
}

/* ---- a child gives back ---- */

static void *blocks[BLOCKS];
static size_t start_resident, start_addresses;

/* 4000 blocks, 61 MiB: pools, runs, raw blocks. */
static size_t block_bytes(size_t i)
{
    return i % 200 == 0 ? MIB : i % 40 == 0 ? 200 * KIB : i % 2 == 0 ? 1000 : 12000;
}

static void fill_all(void)
{
    for (size_t i = 0; i < BLOCKS; i++)
        blocks[i] = fill(block_bytes(i));
}

static void free_all(void)
{
    for (size_t i = 0; i < BLOCKS; i++)
        free(blocks[i]);
    (void)malloc_trim(0);
}

static void give_all_back(void)
{
    must(resident_bytes() > start_resident + 50 * MIB);
    free_all();
    must(resident_bytes() < start_resident + 4 * MIB);
    must(address_space_bytes() < start_addresses + 12 * MIB);
}

static void a_child_gives_back_what_it_holds(void **state)
{
    (void)state;
    (void)malloc_trim(0);
    start_resident = resident_bytes();
    start_addresses = address_space_bytes();
    fill_all();
    run_child(give_all_back);
    run_child(give_all_back);
    give_all_back();
}

/* ---- heaps of other threads ---- */

static pthread_barrier_t filled, finished;

static void *fill_part(void *argument)
{
    for (size_t i = (uintptr_t)argument; i < BLOCKS; i += THREADS)
        blocks[i] = fill(block_bytes(i));
    (void)pthread_barrier_wait(&filled);
    (void)pthread_barrier_wait(&finished);
    return NULL;
}

/* Runs and raw blocks have no owner and go back; the rest is kept by heaps that nobody runs: what was in the
 * pools, and an arena's header or a pool begun here and there. */
static void free_what_others_allocated(void)
{
    size_t in_pools = 0, before = resident_bytes(), all = 0;

    for (size_t i = 0; i < BLOCKS; i++) {
        in_pools += block_bytes(i) < 32 * KIB ? block_bytes(i) : 0;
        all += block_bytes(i);
    }
    free_all();
    must(resident_bytes() + (all - in_pools) < before + 4 * MIB);
    /* What is lost is lost once. */
    for (size_t round = 0; round < 5; round++) {
        size_t resident = resident_bytes(), addresses = address_space_bytes();

        fill_all();
        free_all();
        if (round > 0) {
            must(resident_bytes() <= resident + 256 * KIB);
            must(address_space_bytes() <= addresses);
        }
    }
}

static void what_others_held_is_lost_once(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    assert_int_equal(pthread_barrier_init(&filled, NULL, THREADS + 1), 0);
    assert_int_equal(pthread_barrier_init(&finished, NULL, THREADS + 1), 0);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, fill_part, (void *)(uintptr_t)i), 0);
    (void)pthread_barrier_wait(&filled);
    run_child(free_what_others_allocated);
    (void)pthread_barrier_wait(&finished);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    free_all();
}

/* ---- the handlers ---- */

/* Handlers just before and just after those of the library: what is registered first runs last before a fork,
 * and first after it. */
static atomic_bool handlers_are_watched;
static void (*before_library_in_prepare)(void);
static long faults_before, faults_most;

static long faults(void)
{
    struct rusage usage;

    must(getrusage(RUSAGE_THREAD, &usage) == 0);
    return usage.ru_minflt;
}

static void first_in_child(void)
{
    if (handlers_are_watched)
        faults_before = faults();
}

static void last_in_child(void)
{
    if (handlers_are_watched)
        must(faults() - faults_before <= faults_most);
}

static void first_in_prepare(void)
{
    if (handlers_are_watched && before_library_in_prepare != NULL)
        before_library_in_prepare();
}

static void register_first(void)
{
    must(pthread_atfork(NULL, NULL, first_in_child) == 0);
}

__attribute__((section(".preinit_array"), used)) static void (*const preinit)(void) = register_first;

static atomic_bool stop;

static void *busy(void *argument)
{
    struct random random = {(uintptr_t)argument};
    void *held[50] = {NULL};

    while (!atomic_load(&stop)) {
        size_t at = random_below(&random, 50);

        free(held[at]);
        held[at] = malloc(opaque_size(random_size(&random)));
        sleep_ms(random_below(&random, 1000) == 0);
    }
    for (size_t at = 0; at < 50; at++)
        free(held[at]);
    return NULL;
}

/* With many arenas, and 16 threads in them. */
static void watch_forks(unsigned forks)
{
    static void *runs[ARENAS * RUNS_PER_ARENA];
    pthread_t threads[THREADS];

    for (size_t i = 0; i < ARENAS * RUNS_PER_ARENA; i++) {
        runs[i] = malloc(opaque_size(250 * KIB));
        must(runs[i] != NULL);
    }
    for (size_t i = 0; i < ARENAS * RUNS_PER_ARENA; i += 3)
        free(runs[i]);
    stop = false;
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, busy, (void *)(uintptr_t)(i + 1)), 0);
    handlers_are_watched = true;
    for (unsigned i = 0; i < forks; i++) {
        pid_t pid = fork();

        must(pid >= 0);
        if (pid == 0)
            _exit(0);
        must(wait_for_child(pid, CHILD_SECONDS) == 0);
    }
    handlers_are_watched = false;
    stop = true;
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (size_t i = 0; i < ARENAS * RUNS_PER_ARENA; i++)
        if (i % 3 != 0)
            free(runs[i]);
}

/* Each page written is a page copied: those of the library's own variables, of arenas that another thread was
 * changing, and few more. */
static void the_child_writes_few_pages(void **state)
{
    (void)state;
    faults_most = 16 + 3 * THREADS;
    watch_forks(50);
}

/* From the first handler on: what fork itself does, what the test does to wait, and futex. */
static void forbid_system_calls(void)
{
    static const int allowed[] = {SYS_futex,           SYS_clone,  SYS_clone3, SYS_set_robust_list,
                                  SYS_rt_sigprocmask,  SYS_rseq,   SYS_wait4,  SYS_exit_group,
                                  SYS_clock_nanosleep, SYS_getpid, SYS_gettid, SYS_getrusage,
                                  SYS_set_tid_address};
    enum { ALLOWED = sizeof allowed / sizeof *allowed };
    struct sock_filter filter[ALLOWED + 3];
    struct sock_fprog program = {.len = ALLOWED + 3, .filter = filter};

    before_library_in_prepare = NULL; /* once */
    filter[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (unsigned i = 0; i < ALLOWED; i++)
        filter[i + 1] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)allowed[i],
                                                     (unsigned char)(ALLOWED - i), 0);
    filter[ALLOWED + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    filter[ALLOWED + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    must(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

/* The filter is of the forking thread and its children, for good: in a process of its own. */
static void *fork_with_filter(void *argument)
{
    handlers_are_watched = true;
    before_library_in_prepare = forbid_system_calls;
    for (unsigned i = 0; i < 100; i++) {
        pid_t pid = fork();

        must(pid >= 0);
        if (pid == 0)
            _exit(0);
        must(wait_for_child(pid, CHILD_SECONDS) == 0);
    }
    (void)argument;
    _exit(0); /* the end of a thread makes system calls of its own */
}

static void fork_beside_busy_threads(void)
{
    pthread_t threads[THREADS], forker;

    faults_most = 1000000;
    stop = false;
    for (size_t i = 0; i < THREADS; i++)
        must(pthread_create(&threads[i], NULL, busy, (void *)(uintptr_t)(i + 1)) == 0);
    must(pthread_create(&forker, NULL, fork_with_filter, NULL) == 0);
    (void)pthread_join(forker, NULL); /* it ends the process */
    _exit(111);
}

static void the_handlers_make_no_system_call(void **state)
{
    (void)state;
    run_child(fork_beside_busy_threads);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_parent_does_not_grow),
        cmocka_unit_test(a_child_gives_back_what_it_holds),
        cmocka_unit_test(what_others_held_is_lost_once),
        cmocka_unit_test(the_child_writes_few_pages),
        cmocka_unit_test(the_handlers_make_no_system_call),
    };

    must(pthread_atfork(first_in_prepare, NULL, last_in_child) == 0);
    return cmocka_run_group_tests_name("fork_memory", tests, NULL, NULL);
}
