/*
 * base/text: numbers and units against the C library's, what does not fit is cut, and the line that is
 * written.
 */
#include "base/text.h"

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TEXT_MOST (sizeof((struct text *)0)->bytes - 1)

static void check_text(struct text *text, const char *expected)
{
    assert_int_equal(text->length, strlen(expected));
    text->bytes[text->length] = '\0';
    assert_string_equal(text->bytes, expected);
    text->length = 0;
}

static void check_number(uint64_t number)
{
    struct text text = {0};
    char expected[32];
    snprintf(expected, sizeof expected, "%" PRIu64, number);
    text_decimal(&text, number);
    check_text(&text, expected);
    snprintf(expected, sizeof expected, "0x%" PRIx64, number);
    text_address(&text, (const void *)(uintptr_t)number);
    check_text(&text, expected);
}

static void numbers(void **state)
{
    (void)state;
    static const uint64_t edges[] = {0, 1, 9, 10, 15, 16, 99, 100, UINT32_MAX, UINT64_MAX - 1, UINT64_MAX};
    for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++)
        check_number(edges[i]);
    struct random random = {1};
    for (unsigned i = 0; i < 2000; i++)
        check_number(random_next(&random) >> random_below(&random, 64));
}

/* Cut off after one decimal, not rounded: 1023 MiB and a bit never reads as 1024.0 MiB. */
static void check_bytes(uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    unsigned unit = 0;
    while (unit < 4 && bytes >> (10 * (unit + 1)) != 0)
        unit++;
    uint64_t whole = bytes >> (10 * unit);
    uint64_t rest = bytes & ((UINT64_C(1) << (10 * unit)) - 1);
    char expected[48];
    if (unit == 0)
        snprintf(expected, sizeof expected, "%" PRIu64 " B", bytes);
    else
        snprintf(expected, sizeof expected, "%" PRIu64 ".%" PRIu64 " %s", whole, rest * 10 >> (10 * unit),
                 units[unit]);
    struct text text = {0};
    text_bytes(&text, bytes);
    check_text(&text, expected);
}

static void byte_units(void **state)
{
    (void)state;
    struct text text = {0};
    text_bytes(&text, 12 * MIB + 512 * KIB);
    check_text(&text, "12.5 MiB");
    check_bytes(0);
    for (unsigned bit = 0; bit < 60; bit++) {
        check_bytes((UINT64_C(1) << bit) - 1);
        check_bytes(UINT64_C(1) << bit);
        check_bytes((UINT64_C(1) << bit) + 1);
    }
    struct random random = {2};
    for (unsigned i = 0; i < 2000; i++)
        check_bytes(random_next(&random) >> (4 + random_below(&random, 60)));
}

static void padding_goes_to_the_left(void **state)
{
    (void)state;
    struct text text = {0};
    text_string(&text, "a: ");
    size_t start = text.length;
    text_decimal(&text, 42);
    text_pad(&text, start, 6);
    text_string(&text, "!");
    check_text(&text, "a:     42!");

    text_string(&text, "wide");
    text_pad(&text, 0, 4);
    text_pad(&text, 0, 3);
    text_pad(&text, 0, 0);
    check_text(&text, "wide");
}

/* A text between guards, so that one byte too many is seen. */
static struct {
    char before[16];
    struct text text;
    char after[16];
} guarded;

static void guard(void)
{
    memset(&guarded, '#', sizeof guarded);
    guarded.text.length = 0;
}

static void check_guards(void)
{
    for (size_t i = 0; i < sizeof guarded.before; i++)
        assert_true(guarded.before[i] == '#' && guarded.after[i] == '#');
}

static void what_does_not_fit_is_cut(void **state)
{
    (void)state;
    guard();
    for (unsigned i = 0; i < 100; i++) {
        text_string(&guarded.text, "0123456789");
        text_decimal(&guarded.text, UINT64_MAX);
    }
    assert_int_equal(guarded.text.length, TEXT_MOST);
    text_bytes(&guarded.text, UINT64_C(1) << 40);
    text_address(&guarded.text, &guarded);
    assert_int_equal(guarded.text.length, TEXT_MOST);
    text_pad(&guarded.text, TEXT_MOST - 4, 20);
    assert_int_equal(guarded.text.length, TEXT_MOST);
    assert_memory_equal(guarded.text.bytes,
                        "012345678918446744073709551615"
                        "0123456789",
                        40);
    assert_int_equal(guarded.text.bytes[TEXT_MOST - 1],
                     "012345678918446744073709551615"[(TEXT_MOST - 1) % 30]);
    check_guards();
}

static void the_newline_always_fits(void **state)
{
    (void)state;
    int ends[2];
    char line[1024];
    assert_int_equal(pipe(ends), 0);
    for (size_t length = TEXT_MOST - 2; length <= TEXT_MOST + 3; length++) {
        guard();
        for (size_t i = 0; i < length; i++)
            text_string(&guarded.text, "x");
        size_t kept = length < TEXT_MOST ? length : TEXT_MOST;
        text_write_line(&guarded.text, ends[1]);
        assert_int_equal(guarded.text.length, 0);
        assert_int_equal(read(ends[0], line, sizeof line), kept + 1);
        assert_int_equal(line[kept - 1], 'x');
        assert_int_equal(line[kept], '\n');
        check_guards();
    }
    close(ends[0]);
    close(ends[1]);
}

static void errors_of_writing_are_kept_quiet(void **state)
{
    (void)state;
    struct text text = {0};
    text_string(&text, "lost");
    errno = ERANGE;
    text_write_line(&text, -1);
    assert_int_equal(errno, ERANGE);
    assert_int_equal(text.length, 0);

    int ends[2];
    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    while (write(ends[1], "fill", 4) == 4)
        continue;
    errno = ERANGE;
    text_string(&text, "no room");
    text_write_line(&text, ends[1]);
    assert_int_equal(errno, ERANGE);
    close(ends[0]);
    close(ends[1]);
}

static int drained_end;
static volatile sig_atomic_t alarms;

static void drain(int number)
{
    char bytes[4096];
    int saved_errno = errno;
    (void)number;
    alarms = 1;
    while (read(drained_end, bytes, sizeof bytes) > 0)
        continue;
    errno = saved_errno;
}

/* The pipe is full; the signal that interrupts the write makes room for it. */
static void an_interrupted_write_goes_on(void **state)
{
    (void)state;
    int ends[2];
    char line[64];
    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    while (write(ends[1], "fill", 4) == 4)
        continue;
    assert_int_equal(fcntl(ends[1], F_SETFL, 0), 0);
    drained_end = ends[0];
    const struct sigaction action = {.sa_handler = drain};
    struct sigaction before;
    assert_int_equal(sigaction(SIGALRM, &action, &before), 0);

    struct text text = {0};
    text_string(&text, "through");
    alarm(1);
    text_write_line(&text, ends[1]);
    assert_int_equal(alarms, 1);
    assert_int_equal(read(ends[0], line, sizeof line), 8);
    assert_memory_equal(line, "through\n", 8);
    sigaction(SIGALRM, &before, NULL);
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers),
        cmocka_unit_test(byte_units),
        cmocka_unit_test(padding_goes_to_the_left),
        cmocka_unit_test(what_does_not_fit_is_cut),
        cmocka_unit_test(the_newline_always_fits),
        cmocka_unit_test(errors_of_writing_are_kept_quiet),
        cmocka_unit_test(an_interrupted_write_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
