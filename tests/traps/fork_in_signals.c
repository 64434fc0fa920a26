/*
 * Trap: a signal handler that forks, as those do that write a report of a crash. The signal may come anywhere
 * in the allocator, with its locks held by the interrupted thread itself, and in the middle of another fork.
 * The child runs another program, ends, or, where the process has one thread, returns from the handler and
 * goes on.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../interface.h"

enum { FORKS = 150, CHILD_SECONDS = 30, HANG_SECONDS = 100, BLOCKS = 40 };

static volatile sig_atomic_t forks, may_return, is_child;
static atomic_bool stop;

static void fork_in_handler(int signal_number)
{
    int saved_errno = errno;
    pid_t pid;

    (void)signal_number;
    if (is_child || forks >= FORKS)
        return;
    forks++;
    pid = fork();
    must(pid >= 0);
    if (pid == 0) {
        is_child = 1;
        if (may_return && forks % 2 == 0)
            return;
        if (forks % 16 == 1)
            execl("/bin/true", "true", (char *)NULL);
        _exit(0);
    }
    must(wait_for_child(pid, CHILD_SECONDS) == 0);
    errno = saved_errno;
}

static void allocate_and_free(struct random *random, size_t operations)
{
    static char *blocks[BLOCKS];
    static size_t sizes[BLOCKS];

    for (size_t i = 0; i < operations; i++) {
        size_t at = random_below(random, BLOCKS);

        if (blocks[at] != NULL)
            must(pattern_holds(blocks[at], sizes[at] < 64 ? sizes[at] : 64, at));
        free(blocks[at]);
        sizes[at] = random_below(random, 2) == 0 ? MIB + random_below(random, 2 * MIB) : random_size(random);
        blocks[at] = malloc(opaque_size(sizes[at]));
        must(blocks[at] != NULL);
        pattern_write(blocks[at], sizes[at] < 64 ? sizes[at] : 64, at);
    }
    if (random_below(random, 16) == 0)
        (void)malloc_trim(0);
}

/* Signals of this process's own time, so that a loaded machine sends no more of them than there is work. */
static void set_timer(long microseconds)
{
    const struct itimerval timer = {{0, microseconds}, {0, microseconds}};

    must(setitimer(ITIMER_PROF, &timer, NULL) == 0);
}

static void work_until_forked(bool returns)
{
    struct random random = {1};
    const struct sigaction action = {.sa_handler = fork_in_handler, .sa_flags = SA_RESTART};

    forks = 0;
    may_return = returns;
    (void)alarm(HANG_SECONDS);
    assert_int_equal(sigaction(SIGPROF, &action, NULL), 0);
    set_timer(300);
    while (forks < FORKS && !is_child)
        allocate_and_free(&random, 20);
    set_timer(0);
    if (is_child) { /* came back from the handler, somewhere inside the allocator */
        allocate_and_free(&random, 400);
        _exit(0);
    }
    (void)alarm(0);
}

static void one_thread(void **state)
{
    (void)state;
    work_until_forked(true);
}

/* The signal comes in the threads that block it not: the first. */
static void *busy(void *argument)
{
    while (!atomic_load(&stop)) {
        free(malloc(opaque_size(2 * MIB)));
        free(malloc(opaque_size(100)));
    }
    return argument;
}

static void many_threads(void **state)
{
    pthread_t threads[3];
    sigset_t profiling;

    (void)state;
    (void)sigemptyset(&profiling);
    (void)sigaddset(&profiling, SIGPROF);
    assert_int_equal(pthread_sigmask(SIG_BLOCK, &profiling, NULL), 0);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, busy, NULL), 0);
    assert_int_equal(pthread_sigmask(SIG_UNBLOCK, &profiling, NULL), 0);
    work_until_forked(false);
    atomic_store(&stop, true);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

/* Handlers of the program, between those of the library, that take long enough for signals to come. */
static void take_time(void)
{
    uint64_t end = now_ns() + 100000;

    while (now_ns() < end)
        continue;
}

static void between(void)
{
    if (!is_child && forks > 0 && forks < FORKS)
        take_time();
}

static void register_first(void)
{
    must(pthread_atfork(between, between, NULL) == 0);
}

__attribute__((section(".preinit_array"), used)) static void (*const preinit)(void) = register_first;

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_thread),
        cmocka_unit_test(many_threads),
    };

    return cmocka_run_group_tests_name("fork_in_signals", tests, NULL, NULL);
}
