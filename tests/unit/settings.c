/*
 * os/settings: every unit and limit, the exact warnings, and what a process makes of its environment.
 *
 * For the last of these the program runs itself with the environment to be read, and an argument that makes
 * it print its settings instead of testing.
 */
#include "os/settings.h"

#include "unit.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- one assignment at a time ---- */

struct good {
    const char *assignment;
    const void *value; /* where it goes */
    size_t size;
    uint64_t expected;
};

#define FIELD(name) &settings.name, sizeof settings.name

static const struct good good[] = {
    {"TARN_DIRTY_LIMIT=0", FIELD(dirty_limit_bytes), 0},
    {"TARN_DIRTY_LIMIT=17", FIELD(dirty_limit_bytes), 17},
    {"TARN_DIRTY_LIMIT=17B", FIELD(dirty_limit_bytes), 17},
    {"TARN_DIRTY_LIMIT=17K", FIELD(dirty_limit_bytes), UINT64_C(17) << 10},
    {"TARN_DIRTY_LIMIT=17KiB", FIELD(dirty_limit_bytes), UINT64_C(17) << 10},
    {"TARN_DIRTY_LIMIT=3M", FIELD(dirty_limit_bytes), UINT64_C(3) << 20},
    {"TARN_DIRTY_LIMIT=3mib", FIELD(dirty_limit_bytes), UINT64_C(3) << 20},
    {"TARN_DIRTY_LIMIT=5G", FIELD(dirty_limit_bytes), UINT64_C(5) << 30},
    {"TARN_DIRTY_LIMIT=5GiB", FIELD(dirty_limit_bytes), UINT64_C(5) << 30},
    {"TARN_DIRTY_LIMIT=64T", FIELD(dirty_limit_bytes), UINT64_C(64) << 40},
    {"TARN_DIRTY_LIMIT=64TiB", FIELD(dirty_limit_bytes), UINT64_C(64) << 40},
    {"TARN_RAW_CACHE=0", FIELD(raw_cache_bytes), 0},
    {"TARN_RAW_CACHE=0M", FIELD(raw_cache_bytes), 0},
    {"TARN_RAW_CACHE=70368744177664", FIELD(raw_cache_bytes), UINT64_C(1) << 46},
    {"TARN_RUN_THRESHOLD=1K", FIELD(run_threshold_bytes), 1 << 10},
    {"TARN_RUN_THRESHOLD=32K", FIELD(run_threshold_bytes), 32 << 10},
    {"TARN_RAW_THRESHOLD=64K", FIELD(raw_threshold_bytes), 64 << 10},
    {"TARN_RAW_THRESHOLD=512K", FIELD(raw_threshold_bytes), 512 << 10},
    {"TARN_PURGE_DELAY=0", FIELD(purge_delay_ms), 0},
    {"TARN_PURGE_DELAY=250ms", FIELD(purge_delay_ms), 250},
    {"TARN_PURGE_DELAY=7s", FIELD(purge_delay_ms), 7000},
    {"TARN_PURGE_DELAY=2min", FIELD(purge_delay_ms), 120000},
    {"TARN_PURGE_DELAY=86400s", FIELD(purge_delay_ms), 86400000},
    {"TARN_HUGE_PAGES=never", FIELD(huge_pages), HUGE_PAGES_NEVER},
    {"TARN_HUGE_PAGES=system", FIELD(huge_pages), HUGE_PAGES_SYSTEM},
    {"TARN_HUGE_PAGES=raw", FIELD(huge_pages), HUGE_PAGES_RAW},
    {"TARN_HUGE_PAGES=always", FIELD(huge_pages), HUGE_PAGES_ALWAYS},
    {"TARN_QUARANTINE=0", FIELD(quarantine_bytes), 0},
    {"TARN_QUARANTINE=1G", FIELD(quarantine_bytes), 1 << 30},
    {"TARN_EXIT_CHECK=0", FIELD(exit_check), false},
    {"TARN_EXIT_CHECK=1", FIELD(exit_check), true},
    {"TARN_CHECK=1", FIELD(check), true},
    {"TARN_CHECK=0", FIELD(check), false},
    {"TARN_CHECK=on", FIELD(check), true},
    {"TARN_CHECK=off", FIELD(check), false},
    {"TARN_CHECK=yes", FIELD(check), true},
    {"TARN_CHECK=no", FIELD(check), false},
    {"TARN_GUARD_SAMPLE=1/1", FIELD(guard_interval), 1},
    {"TARN_GUARD_SAMPLE=1/4294967296", FIELD(guard_interval), UINT64_C(1) << 32},
    {"TARN_GUARD_SAMPLE=off", FIELD(guard_interval), 0},
    {"TARN_STATS=1", FIELD(statistics), (uint64_t)STATISTICS_AT_EXIT << 32},
    {"TARN_STATS=0", FIELD(statistics), 0},
    {"TARN_STATS=exit", FIELD(statistics), (uint64_t)STATISTICS_AT_EXIT << 32},
    {"TARN_STATS=10s", FIELD(statistics), (uint64_t)STATISTICS_EACH << 32 | 10000},
    {"TARN_STATS=SIGUSR2", FIELD(statistics), (uint64_t)STATISTICS_ON_SIGNAL << 32 | SIGUSR2},
    {"TARN_VERBOSE=0", FIELD(verbosity), 0},
    {"TARN_VERBOSE=2", FIELD(verbosity), 2},
};

#define LIMITS_BYTES "a number with a unit such as 64M from 0 B to 64.0 TiB; the default is used"
#define LIMITS_TIME  "a number with a unit such as 250ms from 0 ms to 86400000 ms; the default is used"

#define LIMITS_SHARE "1/N with N from 1 to 4294967296, or off; the default is used"

/* The assignment, and what follows it in the warning. */
static const char *const bad[][2] = {
    {"TARN_DIRTY_LIMIT=", LIMITS_BYTES},
    {"TARN_DIRTY_LIMIT=M", LIMITS_BYTES},
    {"TARN_DIRTY_LIMIT=-1", LIMITS_BYTES},
    {"TARN_DIRTY_LIMIT= 1", LIMITS_BYTES},
    {"TARN_DIRTY_LIMIT=1 M", LIMITS_BYTES},
    {"TARN_DIRTY_LIMIT=1.5M", LIMITS_BYTES},
    {"TARN_DIRTY_LIMIT=1MB", LIMITS_BYTES},
    {"TARN_DIRTY_LIMIT=1Mx", LIMITS_BYTES},
    {"TARN_DIRTY_LIMIT=0x10", LIMITS_BYTES},
    {"TARN_DIRTY_LIMIT=65T", LIMITS_BYTES},
    {"TARN_DIRTY_LIMIT=70368744177665", LIMITS_BYTES},
    {"TARN_DIRTY_LIMIT=18446744073709551616", LIMITS_BYTES},
    {"TARN_DIRTY_LIMIT=18014398509481984K", LIMITS_BYTES},
    {"TARN_DIRTY_LIMIT=92233720368547758080", LIMITS_BYTES}, /* 5 times 2^64 */
    {"TARN_RAW_CACHE=10ms", LIMITS_BYTES},
    {"TARN_RUN_THRESHOLD=1023",
     "a number with a unit such as 64M from 1.0 KiB to 32.0 KiB; the default is used"},
    {"TARN_RUN_THRESHOLD=32769",
     "a number with a unit such as 64M from 1.0 KiB to 32.0 KiB; the default is used"},
    {"TARN_RAW_THRESHOLD=65535",
     "a number with a unit such as 64M from 64.0 KiB to 512.0 KiB; the default is used"},
    {"TARN_RAW_THRESHOLD=524289",
     "a number with a unit such as 64M from 64.0 KiB to 512.0 KiB; the default is used"},
    {"TARN_QUARANTINE=1025M", "a number with a unit such as 64M from 0 B to 1.0 GiB; the default is used"},
    {"TARN_PURGE_DELAY=250", LIMITS_TIME},
    {"TARN_PURGE_DELAY=1h", LIMITS_TIME},
    {"TARN_PURGE_DELAY=86400001ms", LIMITS_TIME},
    {"TARN_HUGE_PAGES=", "never, system, raw or always; the default is used"},
    {"TARN_HUGE_PAGES=Always", "never, system, raw or always; the default is used"},
    {"TARN_CHECK=", "0 or 1; the default is used"},
    {"TARN_CHECK=2", "0 or 1; the default is used"},
    {"TARN_GUARD_SAMPLE=100", LIMITS_SHARE},
    {"TARN_GUARD_SAMPLE=1/0", LIMITS_SHARE},
    {"TARN_GUARD_SAMPLE=1/4294967297", LIMITS_SHARE},
    {"TARN_STATS=true",
     "0, 1, exit, a time such as 10s (100 ms to a day), SIGUSR1 or SIGUSR2; the default is used"},
    {"TARN_VERBOSE=3", "a number from 0 to 2; the default is used"},
    {"TARN_VERBOSE=1K", "a number from 0 to 2; the default is used"},
};

#define GOOD_COUNT (sizeof good / sizeof good[0])
#define BAD_COUNT  (sizeof bad / sizeof bad[0])

static void good_values_are_stored(void **state)
{
    (void)state;
    const struct settings before = settings;
    for (size_t i = 0; i < GOOD_COUNT; i++) {
        assert_true(settings_apply(good[i].assignment));
        uint64_t stored = 0;
        memcpy(&stored, good[i].value, good[i].size); /* little-endian */
        if (stored != good[i].expected)
            fail_msg("%s stored %llu", good[i].assignment, (unsigned long long)stored);
    }
    settings = before;
}

static void apply_bad(void *context)
{
    const struct settings before = settings;
    (void)context;
    for (size_t i = 0; i < BAD_COUNT; i++) {
        must(!settings_apply(bad[i][0]));
        must(memcmp(&settings, &before, sizeof settings) == 0);
    }
}

static void bad_values_warn_and_change_nothing(void **state)
{
    (void)state;
    static char expected[16384];
    size_t length = 0;
    for (size_t i = 0; i < BAD_COUNT; i++)
        length +=
            (size_t)snprintf(expected + length, sizeof expected - length,
                             "tarn: warning: %s is not understood, expected %s\n", bad[i][0], bad[i][1]);
    struct outcome outcome;
    child_run(apply_bad, NULL, &outcome);
    assert_string_equal(outcome.output, expected);
    assert_int_equal(outcome.status, 0);
}

static void apply_unknown(void *context)
{
    (void)context;
    must(!settings_apply("TARN_DIRTY_LIMITS=5"));
    must(!settings_apply("TARN_DIRTY=5"));
    must(!settings_apply("TARN_"));
    must(!settings_apply("TARN_ABCDEFGHIJKLMNOPQRSTUVWXYZ_ABCDEFGHIJKLMNOPQRSTUVWXYZ=1"));
    must(!settings_apply("TARN_CHECK=ABCDEFGHIJKLMNOPQRSTUVWXYZ_ABCDEFGHIJKLMNOPQRSTUVWXYZ"));
    must(!settings_apply("TARN_CHECK"));
}

static void unknown_names_and_long_texts(void **state)
{
    (void)state;
    struct outcome outcome;
    child_run(apply_unknown, NULL, &outcome);
    assert_string_equal(
        outcome.output,
        "tarn: warning: there is no setting TARN_DIRTY_LIMITS; it is ignored\n"
        "tarn: warning: there is no setting TARN_DIRTY; it is ignored\n"
        "tarn: warning: there is no setting TARN_; it is ignored\n"
        "tarn: warning: there is no setting TARN_ABCDEFGHIJKLMNOPQRSTUVWXYZ_ABCDEFGH; it is ignored\n"
        "tarn: warning: TARN_CHECK=ABCDEFGHIJKLMNOPQRSTUVWXYZ_ABCDEFGHIJKLM is not understood, expected 0 or "
        "1; the "
        "default is used\n"
        "tarn: warning: TARN_CHECK= is not understood, expected 0 or 1; the default is used\n");
    assert_int_equal(outcome.status, 0);
}

static void apply_unprintable(void *context)
{
    (void)context;
    must(!settings_apply("TARN_A\nB\033[2J\177\"\303\244=1"));
    must(!settings_apply("TARN_CHECK=1\ntarn: fatal: nothing\r"));
}

/* A warning stays one line of text, whatever stands in the environment. */
static void control_characters_are_not_written(void **state)
{
    (void)state;
    struct outcome outcome;
    child_run(apply_unprintable, NULL, &outcome);
    assert_string_equal(outcome.output,
                        "tarn: warning: there is no setting TARN_A?B?[2J?\"\303\244; it is ignored\n"
                        "tarn: warning: TARN_CHECK=1?tarn: fatal: nothing? is not understood, expected 0 or "
                        "1; the default is used\n");
    assert_int_equal(outcome.status, 0);
}

static void be_silent(void *context)
{
    must(settings_apply("TARN_VERBOSE=0"));
    apply_unknown(context);
    must(!settings_apply("TARN_VERBOSE=7"));
}

static void verbosity_0_is_silent(void **state)
{
    (void)state;
    child_must_succeed(be_silent, NULL);
}

/* ---- changed while the process runs ---- */

struct change {
    const char *name;
    const char *value;
    const char *answer;
};

static const struct change changes[] = {
    {"TARN_DIRTY_LIMIT", "64M", "TARN_DIRTY_LIMIT=64.0 MiB, was 4.0 MiB"},
    {"DIRTY_LIMIT", "0", "TARN_DIRTY_LIMIT=0 B, was 64.0 MiB"},
    {"PURGE_DELAY", "250ms", "TARN_PURGE_DELAY=250 ms, was 1000 ms"},
    {"RAW_CACHE", "1G", "TARN_RAW_CACHE=1.0 GiB, was 64.0 MiB"},
    {"RUN_THRESHOLD", "1K", "TARN_RUN_THRESHOLD=1.0 KiB, was 32.0 KiB"},
    {"RAW_THRESHOLD", "64K", "TARN_RAW_THRESHOLD=64.0 KiB, was 512.0 KiB"},
    {"HUGE_PAGES", "always", "TARN_HUGE_PAGES=always, was system"},
    {"QUARANTINE", "1G", "TARN_QUARANTINE=1.0 GiB, was 512.0 KiB"},
    {"VERBOSE", "0", "TARN_VERBOSE=0, was 1"},
};

/* What is refused, and how the reason begins. */
static const struct change refused[] = {
    {"DIRTY", "1", "there is no setting DIRTY"},
    {"", "1", "there is no setting "},
    {"TARN_", "1", "there is no setting TARN_"},
    {"DIRTY_LIMIT", "lots", "TARN_DIRTY_LIMIT=lots is not understood, expected a number with a unit"},
    {"DIRTY_LIMIT", "65T", "TARN_DIRTY_LIMIT=65T is not understood, expected a number with a unit"},
    {"RUN_THRESHOLD", "64K", "TARN_RUN_THRESHOLD=64K is not understood, expected a number with a unit"},
    {"HUGE_PAGES", "1\033[2J", "TARN_HUGE_PAGES=1?[2J is not understood, expected never, system"},
    {"STATS_FILE", "/tmp/x", "TARN_STATS_FILE cannot be changed while the process runs"},
    {"CHECK", "1", "TARN_CHECK cannot be changed while the process runs"},
    {"EXIT_CHECK", "0", "TARN_EXIT_CHECK cannot be changed while the process runs"},
    {"GUARD_SAMPLE", "1/1", "TARN_GUARD_SAMPLE cannot be changed while the process runs"},
    {"STATS", "1", "TARN_STATS cannot be changed while the process runs"},
    {"PUBLISH", "0", "TARN_PUBLISH cannot be changed while the process runs"},
};

#define CHANGE_COUNT  (sizeof changes / sizeof changes[0])
#define REFUSED_COUNT (sizeof refused / sizeof refused[0])

static const char *ended(struct text *text)
{
    text->bytes[text->length] = '\0';
    return text->bytes;
}

static void changes_are_made_and_told(void **state)
{
    (void)state;
    struct settings before;
    memcpy(&before, &settings, sizeof before);
    for (size_t i = 0; i < CHANGE_COUNT; i++) {
        struct text answer = {0};
        assert_true(settings_change(changes[i].name, changes[i].value, &answer));
        assert_string_equal(ended(&answer), changes[i].answer);
    }
    assert_int_equal(SETTING(dirty_limit_bytes), 0);
    assert_int_equal(SETTING(purge_delay_ms), 250);
    assert_int_equal(SETTING(raw_cache_bytes), 1 << 30);
    assert_int_equal(SETTING(run_threshold_bytes), 1 << 10);
    assert_int_equal(SETTING(raw_threshold_bytes), 64 << 10);
    assert_int_equal(SETTING(huge_pages), HUGE_PAGES_ALWAYS);
    assert_int_equal(SETTING(quarantine_bytes), 1 << 30);
    assert_int_equal(SETTING(verbosity), 0);
    memcpy(&settings, &before, sizeof before);
}

static void what_cannot_be_changed_stays_and_the_reason_is_told(void **state)
{
    (void)state;
    struct settings before;
    memcpy(&before, &settings, sizeof before);
    for (size_t i = 0; i < REFUSED_COUNT; i++) {
        struct text answer = {0};
        assert_false(settings_change(refused[i].name, refused[i].value, &answer));
        if (strncmp(ended(&answer), refused[i].answer, strlen(refused[i].answer)) != 0)
            fail_msg("%s=%s: %s", refused[i].name, refused[i].value, answer.bytes);
        assert_memory_equal(&settings, &before, sizeof before);
    }
}

/* Each setting is changed or refused above, as it says of itself. */
static void every_setting_says_whether_it_changes(void **state)
{
    (void)state;
    struct setting_description one;
    size_t count = 0;
    for (; settings_describe(count, &one); count++) {
        const struct change *list = one.changes ? changes : refused;
        bool found = false;
        for (size_t i = 0; i < (one.changes ? CHANGE_COUNT : REFUSED_COUNT); i++)
            found |= strcmp(list[i].name, one.name) == 0 || strcmp(list[i].name, one.name + 5) == 0;
        if (!found)
            fail_msg("%s", one.name);
    }
    assert_true(count > 10);
}

static _Atomic(bool) enough;

static void *read_on(void *wrong)
{
    while (!atomic_load_explicit(&enough, memory_order_relaxed)) {
        size_t bytes = SETTING(raw_cache_bytes);
        uint64_t delay_ms = SETTING(purge_delay_ms);
        if ((bytes != 0 && bytes != UINT64_C(1) << 46) || (delay_ms != 0 && delay_ms != 86400000))
            atomic_fetch_add_explicit((_Atomic(unsigned) *)wrong, 1, memory_order_relaxed);
    }
    return NULL;
}

/* ThreadSanitizer looks on in its build. */
static void readers_see_one_of_the_two_values(void **state)
{
    (void)state;
    static const char *const values[2][2] = {{"0", "0"}, {"64T", "86400s"}};
    _Atomic(unsigned) wrong = 0;
    struct settings before;
    pthread_t reader;
    memcpy(&before, &settings, sizeof before);
    for (unsigned i = 0; i < 20000; i++) {
        struct text answer = {0};
        assert_true(settings_change("RAW_CACHE", values[i % 2][0], &answer));
        answer.length = 0;
        assert_true(settings_change("PURGE_DELAY", values[i % 2][1], &answer));
        if (i == 0)
            assert_int_equal(pthread_create(&reader, NULL, read_on, &wrong), 0);
    }
    atomic_store_explicit(&enough, true, memory_order_relaxed);
    assert_int_equal(pthread_join(reader, NULL), 0);
    assert_int_equal(wrong, 0);
    memcpy(&settings, &before, sizeof before);
}

/* ---- a process and its environment ---- */

static void print(const char *name, const char *value, void *context)
{
    char *shown = context;
    size_t length = strlen(shown);
    snprintf(shown + length, 1024 - length, "%s=%s\n", name, value);
}

static int show(void)
{
    static char shown[1024];
    settings_read(); /* once more changes nothing */
    settings_each(print, shown);
    return write(STDERR_FILENO, shown, strlen(shown)) > 0 ? 0 : 1;
}

static void run_with_environment(void *context)
{
    char *const arguments[] = {(char *)(uintptr_t) "settings", (char *)(uintptr_t) "show", NULL};
    execve("/proc/self/exe", arguments, context);
    must(false);
}

static void check_process(const char *const *environment, const char *expected)
{
    struct outcome outcome;
    child_run(run_with_environment, (void *)(uintptr_t)environment, &outcome);
    assert_string_equal(outcome.output, expected);
    assert_int_equal(outcome.status, 0);
}

#define DEFAULTS_BEFORE_VERBOSE                                                                              \
    "TARN_DIRTY_LIMIT=4.0 MiB\nTARN_PURGE_DELAY=1000 ms\nTARN_RAW_CACHE=64.0 MiB\nTARN_RUN_THRESHOLD=32.0 "  \
    "KiB\n"                                                                                                  \
    "TARN_RAW_THRESHOLD=512.0 KiB\nTARN_HUGE_PAGES=system\nTARN_QUARANTINE=512.0 "                           \
    "KiB\nTARN_EXIT_CHECK=1\nTARN_CHECK=0\n"                                                                 \
    "TARN_GUARD_SAMPLE=off\nTARN_STATS=0\nTARN_STATS_FILE=\nTARN_PUBLISH=1\n"

static void without_variables_the_defaults_stand(void **state)
{
    (void)state;
    static const char *const environment[] = {"HOME=/", "NOT_TARN_CHECK=1", "tarn_check=1", "TARNISH=1",
                                              NULL};
    check_process(environment, DEFAULTS_BEFORE_VERBOSE "TARN_VERBOSE=1\n");
}

static void variables_are_read_at_the_start(void **state)
{
    (void)state;
    static const char *const environment[] = {"TARN_RAW_CACHE=1G",
                                              "TARN_PURGE_DELAY=3s",
                                              "HOME=/",
                                              "TARN_RAW_THRESHOLD=100K",
                                              "TARN_CHECK=yes",
                                              "TARN_VERBOSE=0",
                                              "TARN_NONSENSE=1",
                                              "TARN_GUARD_SAMPLE=1/50",
                                              "TARN_DIRTY_LIMIT=many",
                                              NULL};
    check_process(environment,
                  "TARN_DIRTY_LIMIT=4.0 MiB\nTARN_PURGE_DELAY=3000 ms\nTARN_RAW_CACHE=1.0 GiB\n"
                  "TARN_RUN_THRESHOLD=32.0 KiB\nTARN_RAW_THRESHOLD=100.0 KiB\nTARN_HUGE_PAGES=system\n"
                  "TARN_QUARANTINE=512.0 KiB\nTARN_EXIT_CHECK=1\n"
                  "TARN_CHECK=1\nTARN_GUARD_SAMPLE=1/"
                  "50\nTARN_STATS=0\nTARN_STATS_FILE=\nTARN_PUBLISH=1\nTARN_VERBOSE=0\n");
}

static void mistakes_are_told_once_each(void **state)
{
    (void)state;
    static const char *const environment[] = {"TARN_NONSENSE=1", "TARN_STATS=perhaps", "TARN_VERBOSE=9",
                                              NULL};
    check_process(environment,
                  "tarn: warning: TARN_VERBOSE=9 is not understood, expected a number from 0 to 2; the "
                  "default is used\n"
                  "tarn: warning: there is no setting TARN_NONSENSE; it is ignored\n"
                  "tarn: warning: TARN_STATS=perhaps is not understood, expected 0, 1, exit, a time such as "
                  "10s (100 ms to a day), SIGUSR1 or SIGUSR2; the default is used\n" DEFAULTS_BEFORE_VERBOSE
                  "TARN_VERBOSE=1\n");
}

int main(int count, char **arguments)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_values_are_stored),
        cmocka_unit_test(bad_values_warn_and_change_nothing),
        cmocka_unit_test(unknown_names_and_long_texts),
        cmocka_unit_test(control_characters_are_not_written),
        cmocka_unit_test(verbosity_0_is_silent),
        cmocka_unit_test(changes_are_made_and_told),
        cmocka_unit_test(what_cannot_be_changed_stays_and_the_reason_is_told),
        cmocka_unit_test(every_setting_says_whether_it_changes),
        cmocka_unit_test(readers_see_one_of_the_two_values),
        cmocka_unit_test(without_variables_the_defaults_stand),
        cmocka_unit_test(variables_are_read_at_the_start),
        cmocka_unit_test(mistakes_are_told_once_each),
    };
    if (count == 2 && strcmp(arguments[1], "show") == 0)
        return show();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
