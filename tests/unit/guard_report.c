/*
 * guard/guard_report: the first line of each report, and how the process ends. (tests/abort looks at the
 * stacks.)
 */
#include "guard/guard_report.h"

#include "unit.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

static void *block;

static void begin(uint64_t random)
{
    signal(SIGSEGV, SIG_DFL); /* not cmocka's */
    guard_report_start();
    block = guard_take(40, random);
    must(block != NULL);
    fprintf(stderr, "%p\n", block);
}

static void free_twice(void *context)
{
    (void)context;
    begin(1);
    guard_free(block);
    guard_free(block);
}

static void free_inside(void *context)
{
    (void)context;
    begin(1);
    guard_free((char *)block + 16);
}

static void write_behind_and_free(void *context)
{
    (void)context;
    begin(1);
    memset((char *)block + 42, 1, 3);
    guard_free(block);
}

static void write_before_and_free(void *context)
{
    (void)context;
    begin(1);
    ((volatile char *)block)[-20] = 1;
    guard_free(block);
}

static void write_far_behind(void *context)
{
    (void)context;
    begin(1);
    ((volatile char *)block)[1000] = 1;
}

static void misuse(void *context)
{
    (void)context;
    begin(1);
    struct text line = {0};
    text_string(&line, "something else");
    guard_report_misuse(&line, block);
}

static const struct {
    void (*body)(void *context);
    int signal;
    const char *line; /* the address stands for % */
} reports[] = {
    {free_twice, SIGABRT, "double free of %, at byte 0 of a freed 40-byte block at %\n"},
    {free_inside, SIGABRT, "no live block begins there, at byte 16 of a 40-byte block at %\n"},
    {write_behind_and_free, SIGABRT,
     "heap corruption, seen by free: write 3 bytes after the end of a 40-byte block at %\n"},
    {write_before_and_free, SIGABRT,
     "heap corruption, seen by free: write 20 bytes before the start of a 40-byte block at %\n"},
    {write_far_behind, SIGSEGV, " 961 bytes after the end of a 40-byte block at %\n"},
    {misuse, SIGABRT, "tarn: fatal: something else\n"},
};

static void fill_in(char *line, size_t size, const char *pattern, const char *address, size_t length)
{
    size_t at = 0;
    for (; *pattern != '\0' && at + length + 1 < size; pattern++) {
        if (*pattern == '%') {
            memcpy(line + at, address, length);
            at += length;
        } else {
            line[at++] = *pattern;
        }
    }
    line[at] = '\0';
}

static void each_report_is_exact(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof reports / sizeof reports[0]; i++) {
        struct outcome outcome;
        char line[200];
        child_run(reports[i].body, NULL, &outcome);
        fill_in(line, sizeof line, reports[i].line, outcome.output, strcspn(outcome.output, "\n"));
        if (strstr(outcome.output, line) == NULL)
            fail_msg("%s is not in %s", line, outcome.output);
        assert_non_null(strstr(outcome.output, "tarn: fatal: allocated by thread "));
        assert_true(WIFSIGNALED(outcome.status));
        assert_int_equal(WTERMSIG(outcome.status), reports[i].signal);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_report_is_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
