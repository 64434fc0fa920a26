/*
 * api/report: numbers that agree with the statistics, XML that is well-formed, lines for people, and stderr
 * that is kept.
 */
#include "api/report.h"

#include "base/counters.h"
#include "observe/statistics.h"
#include "os/settings.h"
#include "tarn/tarn.h"
#include "unit.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void mallinfo_is_the_statistics(void **state)
{
    (void)state;
    static struct statistics s;
    void *blocks[3] = {tarn_malloc(3000), tarn_malloc(100000), tarn_malloc(3 * MIB)};
    statistics_collect(&s);
    struct tarn_mallinfo2_result info = tarn_mallinfo2();
    assert_int_equal(info.arena, s.arenas * 4 * MIB);
    assert_int_equal(info.ordblks, s.free_slots);
    assert_int_equal(info.hblks, s.raw.live_blocks);
    assert_int_equal(info.hblkhd, s.raw.live_bytes);
    assert_int_equal(info.uordblks, s.block_bytes_used + s.run_slots * 16 * KIB);
    assert_int_equal(info.fordblks, info.arena - info.uordblks);
    assert_int_equal(info.keepcost, (s.dirty_slots + s.kept_slots) * 16 * KIB + s.raw.cached_bytes);
    assert_int_equal(info.smblks + info.fsmblks + info.usmblks, 0);
    assert_true(info.hblks >= 1 && info.hblkhd >= 3 * MIB && info.uordblks >= 103000);
    struct tarn_mallinfo_result small = tarn_mallinfo();
    assert_int_equal(small.arena, info.arena);
    assert_int_equal(small.ordblks, info.ordblks);
    assert_int_equal(small.hblks, info.hblks);
    assert_int_equal(small.hblkhd, info.hblkhd);
    assert_int_equal(small.uordblks, info.uordblks);
    assert_int_equal(small.fordblks, info.fordblks);
    assert_int_equal(small.keepcost, info.keepcost);
    for (unsigned i = 0; i < 3; i++)
        tarn_free(blocks[i]);
}

static void small_fields_stop_at_the_most(void **state)
{
    (void)state;
    void *large = tarn_malloc((size_t)3 << 30);
    if (large == NULL)
        not_here("no 3 GiB of addresses");
    assert_true(tarn_mallinfo2().hblkhd >= (size_t)3 << 30);
    assert_int_equal(tarn_mallinfo().hblkhd, INT_MAX);
    tarn_free(large);
}

/* ---- XML ---- */

static char xml[65536];

static size_t write_xml(void)
{
    FILE *stream = fmemopen(xml, sizeof xml, "w");
    assert_non_null(stream);
    assert_int_equal(tarn_malloc_info(0, stream), 0);
    long length = ftell(stream);
    fclose(stream);
    assert_true(length > 0 && (size_t)length < sizeof xml);
    xml[length] = '\0';
    return (size_t)length;
}

static unsigned count(const char *text, const char *part)
{
    unsigned found = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at++)
        found++;
    return found;
}

static unsigned settings_count;

static void expect_setting(const char *name, const char *value, void *context)
{
    char element[128];
    (void)context;
    snprintf(element, sizeof element, "<setting name=\"%s\" value=\"%s\"/>\n", name, value);
    assert_int_equal(count(xml, element), 1);
    settings_count++;
}

static void the_state_as_xml(void **state)
{
    (void)state;
    static struct statistics s;
    char element[256];
    void *block = tarn_malloc(3000);
    write_xml(); /* what the stream itself costs is there by now */
    statistics_collect(&s);
    write_xml();
    snprintf(element, sizeof element, "<malloc version=\"tarn-%s\">\n", tarn_version());
    assert_memory_equal(xml, element, strlen(element));
    assert_string_equal(xml + strlen(xml) - 10, "</malloc>\n");
    assert_int_equal(count(xml, "<malloc"), 1);
    /* Every other element is one line and closes itself. */
    assert_int_equal(count(xml, "<"), count(xml, "\n"));
    assert_int_equal(count(xml, "/>\n"), count(xml, "\n") - 2);
    assert_int_equal(count(xml, "\"") % 2, 0);
    settings_count = 0;
    settings_each(expect_setting, NULL);
    assert_int_equal(count(xml, "<setting "), settings_count);
    uint32_t class = class_of_size(3000);
    snprintf(element, sizeof element, "<class size=\"3072\" pools=\"%zu\" used=\"%zu\" capacity=\"%zu\"/>\n",
             s.classes[class].pools, s.classes[class].blocks_used, s.classes[class].blocks_capacity);
    assert_int_equal(count(xml, element), 1);
    snprintf(element, sizeof element, "<arenas count=\"%zu\" bytes=\"%zu\"/>\n", s.arenas, s.arena_bytes);
    assert_int_equal(count(xml, element), 1);
    snprintf(element, sizeof element, "<heaps count=\"%zu\" parked=\"%zu\"/>\n", s.heaps, s.heaps_parked);
    assert_int_equal(count(xml, element), 1);
    unsigned classes = 0;
    for (uint32_t i = 0; i < CLASS_COUNT; i++)
        classes += s.classes[i].pools > 0;
    assert_int_equal(count(xml, "<class "), classes);
    tarn_free(block);
}

static void xml_that_cannot_be_written(void **state)
{
    (void)state;
    errno = 0;
    assert_int_equal(tarn_malloc_info(1, stderr), -1);
    assert_int_equal(errno, EINVAL);
    errno = 0;
    assert_int_equal(tarn_malloc_info(0, NULL), -1);
    assert_int_equal(errno, EINVAL);
    FILE *stream = fopen("/dev/null", "r");
    assert_non_null(stream);
    errno = 0;
    assert_int_equal(tarn_malloc_info(0, stream), -1);
    assert_int_not_equal(errno, 0);
    fclose(stream);
}

/* ---- for people ---- */

static void print_statistics(void *context)
{
    (void)context;
    void *blocks[5];
    for (unsigned i = 0; i < 5; i++)
        blocks[i] = tarn_malloc(14000);
    limit_address_space(0); /* nothing of it allocates */
    tarn_malloc_stats();
    for (unsigned i = 0; i < 5; i++)
        tarn_free(blocks[i]);
}

static const char *const totals[] = {"  in live blocks of pools\n",
                                     "  in pools\n",
                                     "  in runs\n",
                                     "  in raw blocks\n",
                                     "  free and perhaps resident (dirty)\n",
                                     "  empty, kept by heaps\n",
                                     "  in cached raw mappings\n",
                                     "  mapped for arenas\n",
                                     "  purged since the start\n",
                                     "  arenas\n",
                                     "  arenas unmapped since the start\n",
                                     "  heaps\n",
                                     "  heaps parked\n"};

static void check_lines(const char *text)
{
    assert_int_equal(count(text, "tarn: "), count(text, "\n"));
    for (unsigned i = 0; i < sizeof totals / sizeof totals[0]; i++)
        assert_true(count(text, totals[i]) >= 1);
    assert_int_equal(count(text, "tarn:   block size     pools      used  capacity   KiB used\n"), 1);
    for (int kind = 0; kind < COUNTER_KINDS; kind++)
        assert_int_equal(strstr(text, counter_names[kind]) != NULL, TARN_COUNTERS);
}

static void statistics_for_people(void **state)
{
    (void)state;
    struct outcome outcome;
    child_run(print_statistics, NULL, &outcome);
    assert_int_equal(outcome.status, 0);
    char first[64];
    snprintf(first, sizeof first, "tarn: %s, process ", tarn_version());
    assert_memory_equal(outcome.output, first, strlen(first));
    check_lines(outcome.output);
    /* Five blocks of 14336 bytes, in one pool of 18. */
    assert_int_equal(count(outcome.output, "\ntarn:        14336         1         5        18         70\n"),
                     1);
}

static void end_with_closed_stderr(void *context)
{
    (void)context;
    report_prepare();
    close(STDERR_FILENO);
    report_end();
}

static void stderr_is_kept_for_the_end(void **state)
{
    (void)state;
    struct outcome outcome;
    child_run(end_with_closed_stderr, NULL, &outcome);
    assert_int_equal(outcome.status, 0);
    check_lines(outcome.output);
}

static void start(void *context)
{
    (void)context;
    report_start();
}

static void expect_setting_line(const char *name, const char *value, void *context)
{
    char line[128];
    snprintf(line, sizeof line, "\ntarn:   %s=%s\n", name, value);
    assert_int_equal(count(context, line), 1);
    settings_count++;
}

static void it_says_that_it_is_in(void **state)
{
    (void)state;
    struct outcome outcome;
    child_run(start, NULL, &outcome);
    assert_int_equal(outcome.status, 0);
    char first[128];
    snprintf(first, sizeof first, "tarn: %s %s process ", tarn_version(),
             TARN_OVERRIDE ? "serves malloc of" : "is loaded into");
    assert_memory_equal(outcome.output, first, strlen(first));
    settings_count = 0;
    settings_each(expect_setting_line, outcome.output);
    assert_int_equal(count(outcome.output, "\n"), 1 + settings_count);
}

static void the_rest(void **state)
{
    (void)state;
    char version[32];
    snprintf(version, sizeof version, "%d.%d.%d", TARN_VERSION_MAJOR, TARN_VERSION_MINOR, TARN_VERSION_PATCH);
    assert_string_equal(tarn_version(), version);
    for (int parameter = -8; parameter <= 1; parameter++)
        assert_int_equal(tarn_mallopt(parameter, 0), 1);
    assert_int_equal(tarn_mallopt(-9, 0), 0);
    assert_int_equal(tarn_mallopt(2, 0), 0);
    assert_int_equal(tarn_mallopt(INT_MAX, 0), 0);
    assert_int_equal(tarn_mallopt(INT_MIN, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mallinfo_is_the_statistics), cmocka_unit_test(small_fields_stop_at_the_most),
        cmocka_unit_test(the_state_as_xml),           cmocka_unit_test(xml_that_cannot_be_written),
        cmocka_unit_test(statistics_for_people),      cmocka_unit_test(stderr_is_kept_for_the_end),
        cmocka_unit_test(it_says_that_it_is_in),      cmocka_unit_test(the_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
