/*
 * os/secret: drawn once, different in each process, the same in a forked child.
 */
#include "os/secret.h"

#include "unit.h"

#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void words_are_drawn_once(void **state)
{
    (void)state;
    uint64_t words[SECRET_COUNT];
    secret_initialise();
    for (unsigned i = 0; i < SECRET_COUNT; i++) {
        words[i] = atomic_load(&secret_words[i]);
        assert_true(words[i] != 0);
        for (unsigned other = 0; other < i; other++)
            assert_true(words[i] != words[other]);
    }
    secret_initialise();
    for (unsigned i = 0; i < SECRET_COUNT; i++)
        assert_true(words[i] == atomic_load(&secret_words[i]));
}

/* Each bit of an address changes about half of the number's. */
static void numbers_differ_with_address_and_purpose(void **state)
{
    (void)state;
    unsigned changed = 0;
    for (unsigned bit = 4; bit < 47; bit++) {
        uintptr_t address = UINT64_C(0x7f1234567890);
        uint64_t difference =
            secret_of(address, SECRET_LIST) ^ secret_of(address ^ UINT64_C(1) << bit, SECRET_LIST);
        assert_true(difference != 0);
        changed += (unsigned)__builtin_popcountll(difference);
        assert_true(secret_of(address, SECRET_LIST) != secret_of(address, SECRET_TRAILER));
    }
    assert_in_range(changed / 43, 16, 48);
}

static uint64_t of_another_process(void)
{
    int ends[2];
    pid_t child;
    uint64_t number = 0;
    char *const arguments[] = {(char[]){"secret"}, (char[]){"print"}, NULL};
    posix_spawn_file_actions_t actions;
    must(pipe(ends) == 0);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    must(posix_spawn(&child, "/proc/self/exe", &actions, NULL, arguments, environ) == 0);
    must(read(ends[0], &number, sizeof number) == (ssize_t)sizeof number);
    must(waitpid(child, NULL, 0) == child);
    close(ends[0]);
    close(ends[1]);
    posix_spawn_file_actions_destroy(&actions);
    return number;
}

static void processes_have_different_ones(void **state)
{
    (void)state;
    uint64_t first = of_another_process();
    assert_true(first != of_another_process());
    assert_true(first != secret_of(0, SECRET_LIST));
}

static void number_is_the_same(void *context)
{
    const uint64_t *number = context;
    secret_initialise();
    must(*number == secret_of(0, SECRET_LIST));
}

static void forked_child_keeps_it(void **state)
{
    (void)state;
    uint64_t number = secret_of(0, SECRET_LIST);
    child_must_succeed(number_is_the_same, &number);
}

int main(int argc, char **argv)
{
    (void)argv;
    secret_initialise();
    if (argc > 1) {
        uint64_t number = secret_of(0, SECRET_LIST);
        return write(STDOUT_FILENO, &number, sizeof number) == (ssize_t)sizeof number ? 0 : 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_drawn_once),
        cmocka_unit_test(numbers_differ_with_address_and_purpose),
        cmocka_unit_test(processes_have_different_ones),
        cmocka_unit_test(forked_child_keeps_it),
    };
    return cmocka_run_group_tests_name("secret", tests, NULL, NULL);
}
