/*
 * Trap: fork while other threads are anywhere in the allocator. Eight threads allocate and free small blocks,
 * runs and raw blocks, pass blocks to each other, trim, read statistics; the main thread forks again and
 * again. A child verifies what it inherited, allocates and frees much, frees blocks of threads that it does
 * not have, some children start threads of their own or fork again. A child that hangs is killed and fails
 * the test.
 *
 * Other libraries have fork handlers too, and those may allocate: some are registered here before any
 * constructor has run, some after the allocator was used.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../interface.h"

enum { THREADS = 8, SLOTS = 256, INHERITED = 400, SECONDS_FOR_A_CHILD = 30 };

static unsigned share = 1; /* of the forks: one in so many */
static _Atomic(void *) exchange[SLOTS];
static atomic_bool stop;
static void *inherited[INHERITED];

static size_t inherited_size(size_t i)
{
    return i % 40 == 0 ? 700 * KIB : i % 10 == 0 ? 60 * KIB : 16 + i * 11;
}

/* Blocks go through shared slots: most are freed by a thread that did not allocate them. */
static void one_exchange(struct random *random)
{
    size_t size = random_size(random);
    char *block = malloc(opaque_size(size));

    must(block != NULL);
    if (size > 0)
        block[0] = block[size - 1] = 1;
    free(atomic_exchange(&exchange[random_below(random, SLOTS)], block));
}

static void *busy(void *argument)
{
    struct random random = {(uintptr_t)argument};

    while (!atomic_load(&stop)) {
        for (size_t i = 0; i < 100; i++)
            one_exchange(&random);
        if ((uintptr_t)argument == 1)
            (void)malloc_trim(0);
        if ((uintptr_t)argument == 2)
            (void)mallinfo2();
    }
    return NULL;
}

static void *allocate_in_a_child(void *argument)
{
    struct random random = {(uintptr_t)argument};
    void *blocks[64] = {NULL};

    for (size_t i = 0; i < 3000; i++) {
        size_t at = random_below(&random, 64), size = random_size(&random);

        free(blocks[at]);
        blocks[at] = malloc(opaque_size(size));
        must(blocks[at] != NULL);
        pattern_write(blocks[at], size < 64 ? size : 64, size);
    }
    for (size_t i = 0; i < 64; i++)
        free(blocks[i]);
    return NULL;
}

static void *allocate_once(void *argument)
{
    free(malloc(opaque_size(100)));
    free(malloc(opaque_size(60 * KIB)));
    return argument;
}

static void verify_and_free_inherited(void)
{
    for (size_t i = 0; i < INHERITED; i++) {
        must(pattern_holds(inherited[i], inherited_size(i), i));
        free(inherited[i]);
    }
    /* Blocks of threads that do not exist here. */
    for (size_t i = 0; i < SLOTS; i++)
        free(atomic_exchange(&exchange[i], NULL));
}

static void child(unsigned number)
{
    allocate_in_a_child((void *)(uintptr_t)(number + 1));
    verify_and_free_inherited();
    allocate_in_a_child((void *)(uintptr_t)(number + 2));
    (void)mallinfo2();
    (void)malloc_trim(0);
}

static void child_with_threads(unsigned number)
{
    pthread_t threads[3];

    for (size_t i = 0; i < 3; i++)
        must(pthread_create(&threads[i], NULL, allocate_in_a_child, (void *)(uintptr_t)(number + i)) == 0);
    child(number);
    for (size_t i = 0; i < 3; i++)
        must(pthread_join(threads[i], NULL) == 0);
}

static void child_that_forks(unsigned number)
{
    pid_t grandchild;

    allocate_in_a_child((void *)(uintptr_t)(number + 1));
    grandchild = fork();
    if (grandchild == 0) {
        child(number);
        _exit(0);
    }
    must(grandchild > 0);
    must(wait_for_child(grandchild, SECONDS_FOR_A_CHILD) == 0);
    child(number);
}

/* Handlers of another library, which allocate: in prepare, in the parent and in the child. Several threads
 * may fork. */
static _Thread_local void *handler_blocks[2][3];

static void allocate_in_a_handler(void **blocks)
{
    static const size_t handler_sizes[3] = {100, 60 * KIB, 3 * MIB};

    for (size_t i = 0; i < 3; i++) {
        free(blocks[i]);
        blocks[i] = malloc(opaque_size(handler_sizes[i]));
        must(blocks[i] != NULL);
        memset(blocks[i], 1, 64);
    }
}

static void early_handler(void)
{
    allocate_in_a_handler(handler_blocks[0]);
}

static void late_handler(void)
{
    allocate_in_a_handler(handler_blocks[1]);
}

static void before_all_constructors(void)
{
    must(pthread_atfork(early_handler, early_handler, early_handler) == 0);
}

__attribute__((section(".preinit_array"), used)) static void (*const preinit)(void) = before_all_constructors;

static void fork_children(void (*body)(unsigned), unsigned count)
{
    pthread_t threads[THREADS];

    atomic_store(&stop, false);
    for (size_t i = 0; i < INHERITED; i++) {
        inherited[i] = malloc(opaque_size(inherited_size(i)));
        assert_non_null(inherited[i]);
        pattern_write(inherited[i], inherited_size(i), i);
    }
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, busy, (void *)(uintptr_t)(i + 1)), 0);
    for (unsigned number = 0; number < count / share; number++) {
        pid_t pid = fork();

        if (pid == 0) {
            body(number);
            if (number % 2 == 0)
                _exit(0);
            exit(0);
        }
        assert_true(pid > 0);
        assert_int_equal(wait_for_child(pid, SECONDS_FOR_A_CHILD), 0);
    }
    atomic_store(&stop, true);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    verify_and_free_inherited();
}

static void children_allocate_and_free(void **state)
{
    (void)state;
    fork_children(child, 60);
}

static void children_start_threads(void **state)
{
    (void)state;
    fork_children(child_with_threads, 25);
}

static void children_fork(void **state)
{
    (void)state;
    fork_children(child_that_forks, 15);
}

/* The thread that forks is not the main thread, and ends afterwards in the parent; in the child it is the
 * only one. */
static void *fork_here(void *argument)
{
    pid_t pid;

    (void)argument;
    free(malloc(opaque_size(50)));
    pid = fork();
    if (pid == 0) {
        child(1);
        pthread_exit(NULL); /* The last thread of the process: it ends with status 0. */
    }
    must(pid > 0);
    must(wait_for_child(pid, SECONDS_FOR_A_CHILD) == 0);
    return NULL;
}

/* Threads that are just beginning or ending while the main thread forks; the children start threads too, and
 * exit. */
static void *come_and_go(void *argument)
{
    while (!atomic_load(&stop)) {
        pthread_t thread;

        must(pthread_create(&thread, NULL, allocate_once, argument) == 0);
        must(pthread_join(thread, NULL) == 0);
    }
    return NULL;
}

static void child_with_short_threads(unsigned number)
{
    for (unsigned i = 0; i < 3; i++) {
        pthread_t thread;

        must(pthread_create(&thread, NULL, allocate_once, (void *)(uintptr_t)number) == 0);
        must(pthread_join(thread, NULL) == 0);
    }
}

static void fork_while_threads_come_and_go(void **state)
{
    pthread_t threads[4];

    (void)state;
    atomic_store(&stop, false);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, NULL), 0);
    for (unsigned number = 0; number < 1500 / share; number++) {
        pid_t pid = fork();

        if (pid == 0) {
            child_with_short_threads(number);
            exit(0);
        }
        assert_true(pid > 0);
        assert_int_equal(wait_for_child(pid, SECONDS_FOR_A_CHILD), 0);
    }
    atomic_store(&stop, true);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static void threads_fork(void **state)
{
    (void)state;
    for (size_t i = 0; i < INHERITED; i++) {
        inherited[i] = malloc(opaque_size(inherited_size(i)));
        assert_non_null(inherited[i]);
        pattern_write(inherited[i], inherited_size(i), i);
    }
    for (size_t round = 0; round < 5; round++) {
        pthread_t threads[3];

        for (size_t i = 0; i < 3; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, fork_here, NULL), 0);
        for (size_t i = 0; i < 3; i++)
            assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    verify_and_free_inherited();
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(children_allocate_and_free),
        cmocka_unit_test(children_start_threads),
        cmocka_unit_test(children_fork),
        cmocka_unit_test(threads_fork),
        cmocka_unit_test(fork_while_threads_come_and_go),
    };

    if (argc > 1 && strcmp(argv[1], "--fewer") == 0)
        share = 5;
    must(pthread_atfork(late_handler, late_handler, late_handler) == 0);
    return cmocka_run_group_tests_name("fork_in_slow_paths", tests, NULL, NULL);
}
