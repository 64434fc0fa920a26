/*
 * Trap: vfork and posix_spawn share the parent's memory until exec; the allocator must neither notice nor be
 * disturbed while other threads allocate. The program run is this one itself, with an argument: it allocates
 * a little and ends.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <pthread.h>
#include <spawn.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../interface.h"

static atomic_bool stop;
static char own_path[] = "/proc/self/exe";
static char child_argument[] = "--child";

static void *busy(void *argument)
{
    struct random random = {(uintptr_t)argument};
    void *blocks[100] = {NULL};

    while (!atomic_load(&stop)) {
        size_t at = random_below(&random, 100);

        free(blocks[at]);
        blocks[at] = malloc(opaque_size(random_size(&random)));
        must(blocks[at] != NULL);
    }
    for (size_t i = 0; i < 100; i++)
        free(blocks[i]);
    return NULL;
}

static pid_t start_with_vfork(void)
{
    char *arguments[] = {own_path, child_argument, NULL};
    pid_t pid = vfork();

    if (pid == 0) {
        execv(own_path, arguments);
        _exit(111);
    }
    return pid;
}

static pid_t start_with_posix_spawn(void)
{
    char *arguments[] = {own_path, child_argument, NULL};
    pid_t pid;

    assert_int_equal(posix_spawn(&pid, own_path, NULL, NULL, arguments, environ), 0);
    return pid;
}

static void start_many(pid_t (*start)(void))
{
    pthread_t threads[4];

    atomic_store(&stop, false);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, busy, (void *)(uintptr_t)(i + 1)), 0);
    for (size_t i = 0; i < 60; i++) {
        pid_t pid = start();

        assert_true(pid > 0);
        assert_int_equal(wait_for_child(pid, 20), 0);
    }
    atomic_store(&stop, true);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static void vfork_and_exec(void **state)
{
    (void)state;
    start_many(start_with_vfork);
}

static void spawn(void **state)
{
    (void)state;
    start_many(start_with_posix_spawn);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vfork_and_exec),
        cmocka_unit_test(spawn),
    };

    if (argc > 1 && strcmp(argv[1], child_argument) == 0) {
        void *block = malloc(opaque_size(1000));

        must(block != NULL);
        free(block);
        return 0;
    }
    return cmocka_run_group_tests_name("vfork_exec", tests, NULL, NULL);
}
