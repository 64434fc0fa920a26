/*
 * base/fatal: exact lines, SIGABRT, and that neither locks nor a full line are in the way.
 */
#include "base/fatal.h"

#include "arena/housekeeper.h"
#include "heap/thread.h"
#include "raw/raw.h"
#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

static void die_with_line(void *context)
{
    struct text line = {0};
    text_string(&line, context);
    fatal_line(&line);
}

static void a_line(void **state)
{
    (void)state;
    child_must_die(die_with_line, (void *)(uintptr_t) "out of sorts", "tarn: fatal: out of sorts");
}

static void die_with_pointer(void *context)
{
    fatal_pointer("no room for", context);
}

static void a_pointer(void **state)
{
    (void)state;
    child_must_die(die_with_pointer, (void *)(uintptr_t)0x7f0012345670,
                   "tarn: fatal: no room for 0x7f0012345670");
}

static void die_with_block(void *context)
{
    fatal_block("double free of", context, 48, "class");
}

static void a_block(void **state)
{
    (void)state;
    child_must_die(die_with_block, (void *)(uintptr_t)0xabc0,
                   "tarn: fatal: double free of 0xabc0 (48-byte class)");
}

static void die_of_invariant(void *context)
{
    (void)context;
    fatal_invariant("a == b", "lib/some/room.c", 17);
}

static void an_invariant(void **state)
{
    (void)state;
    child_must_die(die_of_invariant, NULL, "tarn: fatal: invariant broken: a == b at lib/some/room.c:17");
}

static unsigned check_line;

static void check_something(void *context)
{
    const bool *holds = context;
    check_line = __LINE__ + 1;
    CHECK(*holds);
}

/* A check is worth something in a checked build, and nothing in another. */
static void a_check(void **state)
{
    (void)state;
    bool yes = true;
    bool no = false;
    check_something(&yes);
    if (!TARN_CHECKED) {
        child_must_succeed(check_something, &no);
        return;
    }
    char line[256];
    snprintf(line, sizeof line, "tarn: fatal: invariant broken: *holds at %s:%u", __FILE__, check_line);
    child_must_die(check_something, &no, line);
}

static void a_long_line_is_cut(void **state)
{
    (void)state;
    static char what[2000];
    memset(what, 'w', sizeof what - 1);
    char expected[512] = "tarn: fatal: ";
    memset(expected + 13, 'w', sizeof expected - 13);
    expected[511] = '\0';
    child_must_die(die_with_line, what, expected);
}

static void die_with_all_locks_held(void *context)
{
    thread_before_fork();
    raw_before_fork();
    housekeeper_before_fork();
    die_with_block(context);
}

static void no_lock_is_in_the_way(void **state)
{
    (void)state;
    child_must_die(die_with_all_locks_held, (void *)(uintptr_t)0x10,
                   "tarn: fatal: double free of 0x10 (48-byte class)");
}

static void die_without_memory(void *context)
{
    limit_address_space(0);
    die_with_block(context);
}

static void no_memory_is_needed(void **state)
{
    (void)state;
    child_must_die(die_without_memory, (void *)(uintptr_t)0x20,
                   "tarn: fatal: double free of 0x20 (48-byte class)");
}

static void warn_twice(void *context)
{
    (void)context;
    struct text line = {0};
    errno = EDOM;
    text_string(&line, "first");
    warning_line(&line);
    must(errno == EDOM);
    line.length = 0;
    text_string(&line, "second");
    warning_line(&line);
}

static void warnings_let_the_process_go_on(void **state)
{
    (void)state;
    struct outcome outcome;
    child_run(warn_twice, NULL, &outcome);
    assert_int_equal(outcome.status, 0);
    assert_string_equal(outcome.output, "tarn: warning: first\ntarn: warning: second\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line),
        cmocka_unit_test(a_pointer),
        cmocka_unit_test(a_block),
        cmocka_unit_test(an_invariant),
        cmocka_unit_test(a_check),
        cmocka_unit_test(a_long_line_is_cut),
        cmocka_unit_test(no_lock_is_in_the_way),
        cmocka_unit_test(no_memory_is_needed),
        cmocka_unit_test(warnings_let_the_process_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
