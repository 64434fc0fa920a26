/*
 * Hostile use: a program that forbids itself every system call but a few after its start (docs/limits.md
 * names those that the allocator needs). Threads that exist by then take every path and end; a call that is
 * not on the list is answered with SIGSYS, whose handler tells its number.
 *
 * The list here is that of docs/limits.md and what a thread's end and the test itself need of the C library.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../interface.h"

enum { THREADS = 4, BLOCKS = 1000, ROUNDS = 3, FORBIDDEN_CALL = 3 };

/* What the allocator calls after its start. */
static const int allocator_calls[] = {
    SYS_mmap,  SYS_munmap, SYS_mremap,        SYS_madvise,     SYS_mincore,        SYS_membarrier,
    SYS_futex, SYS_ppoll,  SYS_clock_gettime, SYS_sched_yield, SYS_rt_sigprocmask,
#ifdef SYS_poll
    SYS_poll,
#endif
};

/* What the end of a thread and of a process calls, and this test to tell how it went. */
static const int test_calls[] = {SYS_exit, SYS_exit_group, SYS_write, SYS_rt_sigreturn, SYS_clock_nanosleep};

enum {
    ALLOCATOR_CALLS = sizeof allocator_calls / sizeof allocator_calls[0],
    TEST_CALLS = sizeof test_calls / sizeof test_calls[0],
};

static pthread_barrier_t barrier;
static void *blocks[THREADS][BLOCKS];

static void on_forbidden(int number, siginfo_t *information, void *context)
{
    char text[] = "# forbidden system call ....\n";
    int call = information->si_syscall;

    (void)number, (void)context;
    for (char *digit = text + sizeof text - 3; call > 0; call /= 10)
        *digit-- = (char)('0' + call % 10);
    if (write(STDOUT_FILENO, text, sizeof text - 1) < 0)
        _exit(FORBIDDEN_CALL + 1);
    _exit(FORBIDDEN_CALL);
}

static size_t allow(struct sock_filter *filter, const int *calls, size_t count)
{
    size_t length = 0;

    for (size_t i = 0; i < count; i++) {
        filter[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i], 0, 1);
        filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    return length;
}

/* For all threads of the process. */
static void forbid_all_else(void)
{
    struct sock_filter filter[2 * (ALLOCATOR_CALLS + TEST_CALLS) + 2] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
    struct sock_fprog program = {.filter = filter};
    struct sigaction action = {.sa_sigaction = on_forbidden, .sa_flags = SA_SIGINFO};
    size_t length = 1;

    length += allow(filter + length, allocator_calls, ALLOCATOR_CALLS);
    length += allow(filter + length, test_calls, TEST_CALLS);
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
    program.len = (unsigned short)length;
    must(sigaction(SIGSYS, &action, NULL) == 0);
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    must(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0);
}

static size_t block_size(size_t i)
{
    return i % 300 == 0 ? 3 * MIB + i * 4096 : i % 40 == 0 ? 50 * KIB + i * 16 : 16 + i * 37 % 5000;
}

static void allocate(size_t own)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        size_t size = block_size(i);
        void *block = i % 3 == 0   ? calloc(1, size)
                      : i % 3 == 1 ? malloc(opaque_size(size))
                                   : aligned_alloc(64, size);

        must(block != NULL);
        block = realloc(block, opaque_size(i % 5 == 0 ? size * 3 : size));
        must(block != NULL);
        pattern_write(block, size, i);
        blocks[own][i] = block;
    }
}

static void free_all(size_t whose)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        must(pattern_holds(blocks[whose][i], block_size(i), i));
        free(blocks[whose][i]);
    }
}

/* Its own blocks, then those of the next thread, in turns; the last of them while others end. */
static void *take_all_paths(void *argument)
{
    size_t own = (size_t)(uintptr_t)argument;

    pthread_barrier_wait(&barrier); /* all threads have begun */
    pthread_barrier_wait(&barrier); /* from here on most is forbidden */
    for (size_t round = 0; round < ROUNDS; round++) {
        allocate(own);
        pthread_barrier_wait(&barrier);
        free_all((own + round) % THREADS);
        (void)malloc_trim(0);
        sleep_ms(20);
        pthread_barrier_wait(&barrier);
    }
    (void)malloc_usable_size(blocks[own][0] = malloc(opaque_size(100)));
    free(blocks[own][0]);
    return NULL;
}

__attribute__((noreturn)) static void use_what_is_allowed(void)
{
    pthread_t threads[THREADS];

    must(pthread_barrier_init(&barrier, NULL, THREADS + 1) == 0);
    for (size_t i = 0; i < THREADS; i++)
        must(pthread_create(&threads[i], NULL, take_all_paths, (void *)(uintptr_t)i) == 0);
    pthread_barrier_wait(&barrier);
    forbid_all_else();
    pthread_barrier_wait(&barrier);
    for (size_t round = 0; round < 2 * ROUNDS; round++)
        pthread_barrier_wait(&barrier);
    for (size_t i = 0; i < THREADS; i++)
        must(pthread_join(threads[i], NULL) == 0);
    /* The heaps of all are parked by now. */
    allocate(0);
    free_all(0);
    (void)malloc_trim(0);
    _exit(0);
}

static void assert_child_exits_with(int pid, int status)
{
    int ended = wait_for_child(pid, 60);

    assert_true(WIFEXITED(ended));
    assert_int_equal(WEXITSTATUS(ended), status);
}

static void all_paths_need_what_is_listed(void **state)
{
    int pid = fork();

    (void)state;
    assert_true(pid >= 0);
    if (pid == 0)
        use_what_is_allowed();
    assert_child_exits_with(pid, 0);
}

/* As the program's first thread finds it: what is done once was done by the constructor. */
static void the_first_calls_of_a_process_too(void **state)
{
    char path[] = "/proc/self/exe", argument[] = "first";
    char *arguments[] = {path, argument, NULL};
    int pid = fork();

    (void)state;
    assert_true(pid >= 0);
    if (pid == 0) {
        execv(path, arguments);
        _exit(99);
    }
    assert_child_exits_with(pid, 0);
}

static void a_call_that_is_not_listed_is_noticed(void **state)
{
    int pid = fork();

    (void)state;
    assert_true(pid >= 0);
    if (pid == 0) {
        forbid_all_else();
        _exit(open("/dev/null", O_RDONLY) >= 0 ? 0 : 1);
    }
    assert_child_exits_with(pid, FORBIDDEN_CALL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_call_that_is_not_listed_is_noticed),
        cmocka_unit_test(the_first_calls_of_a_process_too),
        cmocka_unit_test(all_paths_need_what_is_listed),
    };

    if (argc > 1 && strcmp(argv[1], "first") == 0)
        use_what_is_allowed();
    return cmocka_run_group_tests_name("system_calls", tests, NULL, NULL);
}
