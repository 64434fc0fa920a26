/*
 * os/fault: which address and access, on the faulting thread; what is not known goes to the action before.
 */
#include "os/fault.h"

#include "os/map.h"
#include "unit.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static char *forbidden;

/* Tells it by a line, and knows the forbidden page only. */
static bool look(const void *address, enum fault_access access)
{
    static const char *const words[] = {"access\n", "read\n", "write\n"};
    if ((const char *)address != forbidden + 5)
        return false;
    must(write(STDERR_FILENO, words[access], access == FAULT_READ ? 5 : 6) > 0);
    return true;
}

static void begin(void)
{
    size_t page = map_page_bytes();
    forbidden = map_pages(page);
    must(forbidden != NULL && map_forbid(forbidden, page));
    signal(SIGSEGV, SIG_DFL);
    fault_watch(look);
}

static void write_there(void *context)
{
    (void)context;
    begin();
    *(volatile char *)(forbidden + 5) = 1;
}

static void read_there(void *context)
{
    (void)context;
    begin();
    (void)*(volatile char *)(forbidden + 5);
}

static void write_elsewhere(void *context)
{
    (void)context;
    begin();
    *(volatile char *)(forbidden + 6) = 1;
}

static void send_it(void *context)
{
    (void)context;
    begin();
    raise(SIGSEGV);
    must(false);
}

static void ends_with(void (*body)(void *), const char *output)
{
    struct outcome outcome;
    child_run(body, NULL, &outcome);
    assert_string_equal(outcome.output, output);
    assert_true(WIFSIGNALED(outcome.status));
    assert_int_equal(WTERMSIG(outcome.status), SIGSEGV);
}

static void what_is_known_is_told_and_ends_the_process(void **state)
{
    (void)state;
    ends_with(write_there, "write\n");
    ends_with(read_there, "read\n");
}

static void what_is_not_known_ends_it_too(void **state)
{
    (void)state;
    ends_with(write_elsewhere, "");
    ends_with(send_it, "");
}

static void leave_well(int number)
{
    _exit(number == SIGSEGV ? 0 : 1);
}

/* Set before the watch: both kinds of fault get there. */
static void with_an_action_before(void *context)
{
    begin();
    signal(SIGSEGV, leave_well);
    fault_watch(look);
    *(volatile char *)(forbidden + *(int *)context) = 1;
}

static void the_action_before_is_kept(void **state)
{
    (void)state;
    int elsewhere = 6;
    int there = 5;
    struct outcome outcome;
    child_must_succeed(with_an_action_before, &elsewhere);
    child_run(with_an_action_before, &there, &outcome);
    assert_string_equal(outcome.output, "write\n");
    assert_int_equal(outcome.status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_known_is_told_and_ends_the_process),
        cmocka_unit_test(what_is_not_known_ends_it_too),
        cmocka_unit_test(the_action_before_is_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
