/*
 * mallinfo2, mallinfo, malloc_info, malloc_stats: the numbers follow what is allocated and freed, wherever it
 * lies (pools, runs, raw blocks) and whichever thread did it. The meaning is glibc's: uordblks counts bytes
 * in use outside of mappings of their own, hblkhd the bytes in such mappings, hblks how many they are. A test
 * asks for 100 MiB and allows for the rounding of size classes.
 *
 * With an argument the program is not a test: it prints malloc_info at three moments for tests/interface/xml.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../interface.h"

#define TOTAL (100 * MIB)

/* What the hardened library keeps behind each block. */
#ifdef TEST_HARDENED
#define BEHIND_A_BLOCK sizeof(uint64_t)
#else
#define BEHIND_A_BLOCK 0
#endif

#define BLOCKS_MAX (TOTAL / KIB)

static void *blocks[BLOCKS_MAX];

static void allocate_total(size_t size)
{
    for (size_t i = 0; i < TOTAL / size; i++) {
        blocks[i] = malloc(opaque_size(size - BEHIND_A_BLOCK));
        must(blocks[i] != NULL);
    }
}

static void free_total(size_t size)
{
    for (size_t i = 0; i < TOTAL / size; i++)
        free(blocks[i]);
}

/* Signed, as a difference may be. */
static double mib_between(size_t from, size_t to)
{
    return ((double)to - (double)from) / (double)MIB;
}

static size_t in_use(void)
{
    mallinfo2_fields info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

static void assert_near_100(double mib)
{
    if (mib < 95 || mib > 120)
        fail_msg("%.1f MiB where 100 were allocated", mib);
}

static void assert_near_0(double mib)
{
    if (mib < -5 || mib > 5)
        fail_msg("%.1f MiB where none is expected", mib);
}

static void mallinfo2_follows(size_t size)
{
    size_t before = in_use();

    allocate_total(size);
    assert_near_100(mib_between(before, in_use()));
    free_total(size);
    assert_near_0(mib_between(before, in_use()));
}

static void mallinfo2_of_small_blocks(void **state)
{
    (void)state;
    mallinfo2_follows(KIB);
}

static void mallinfo2_of_medium_blocks(void **state)
{
    (void)state;
    mallinfo2_follows(20 * KIB);
}

static void mallinfo2_of_runs(void **state)
{
    (void)state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE); /* which the hardened library fills up */
    mallinfo2_follows((100 * KIB + page - 1) / page * page);
}

static void mallinfo2_of_raw_blocks(void **state)
{
    mallinfo2_fields before = mallinfo2(), during, after;

    (void)state;
    mallinfo2_follows(10 * MIB);
    allocate_total(50 * MIB);
    during = mallinfo2();
    free_total(50 * MIB);
    after = mallinfo2();
    assert_int_equal(during.hblks, before.hblks + 2);
    assert_near_100(mib_between(before.hblkhd, during.hblkhd));
    assert_int_equal(after.hblks, before.hblks);
}

static void *allocate_in_a_thread(void *argument)
{
    (void)argument;
    allocate_total(KIB);
    return NULL;
}

/* Allocated by a thread that has ended, freed by this one. */
static void mallinfo2_of_another_thread(void **state)
{
    size_t before = in_use();
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, allocate_in_a_thread, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_near_100(mib_between(before, in_use()));
    free_total(KIB);
    assert_near_0(mib_between(before, in_use()));
}

/* What is free but still held shows as fordblks, and all of the space as arena. */
static void mallinfo2_of_free_memory(void **state)
{
    mallinfo2_fields during, after;

    (void)state;
    allocate_total(KIB);
    during = mallinfo2();
    free_total(KIB);
    after = mallinfo2();
    assert_true(during.arena >= during.uordblks);
    assert_true(mib_between(0, during.arena) >= 95);
    assert_true(after.fordblks + after.uordblks <= after.arena + MIB);
}

static void mallinfo_follows(void **state)
{
    MALLINFO_IS_DEPRECATED_BEGIN
    mallinfo_fields before = mallinfo(), during;

    (void)state;
    allocate_total(KIB);
    during = mallinfo();
    free_total(KIB);
    assert_near_100((during.uordblks - before.uordblks) / (double)MIB);
    MALLINFO_IS_DEPRECATED_END
}

/* What malloc_stats writes to stderr, caught in a file. */
static size_t text_of_malloc_stats(char *text, size_t size)
{
    FILE *file = tmpfile();
    int kept = dup(STDERR_FILENO);
    size_t length;

    must(file != NULL && kept >= 0);
    fflush(stderr);
    must(dup2(fileno(file), STDERR_FILENO) >= 0);
    malloc_stats();
    fflush(stderr);
    must(dup2(kept, STDERR_FILENO) >= 0);
    close(kept);
    rewind(file);
    length = fread(text, 1, size - 1, file);
    text[length] = '\0';
    fclose(file);
    return length;
}

/* The largest number in a text. */
static double largest_number(const char *text)
{
    double largest = 0;

    while (*text != '\0') {
        char *end;
        double number = *text >= '0' && *text <= '9' ? strtod(text, &end) : (end = NULL, 0);

        largest = number > largest ? number : largest;
        text = end != NULL && end > text ? end : text + 1;
    }
    return largest;
}

static void malloc_stats_follows(void **state)
{
    static char before[64 * 1024], during[64 * 1024];

    (void)state;
    assert_true(text_of_malloc_stats(before, sizeof before) > 20);
    allocate_total(KIB);
    assert_true(text_of_malloc_stats(during, sizeof during) > 20);
    free_total(KIB);
    assert_string_not_equal(before, during);
    assert_true(largest_number(during) >= 95);
}

static void malloc_info_refuses_options(void **state)
{
    (void)state;
    assert_int_not_equal(malloc_info(1, stdout), 0);
    assert_int_not_equal(malloc_info(-1, stdout), 0);
}

/* Writing goes through the stream it was given, also one that allocates while it is written to. */
static void malloc_info_to_a_growing_stream(void **state)
{
    char *text = NULL;
    size_t length = 0;
    FILE *stream = open_memstream(&text, &length);

    (void)state;
    assert_non_null(stream);
    assert_int_equal(malloc_info(0, stream), 0);
    fclose(stream);
    assert_true(length > 20);
    assert_non_null(strstr(text, "<malloc version="));
    assert_non_null(strstr(text, "</malloc>"));
    libc_free(text);
}

static void mallopt_takes_known_parameters(void **state)
{
    (void)state;
    assert_int_equal(mallopt(M_ARENA_MAX, 8), 1);
    assert_int_equal(mallopt(M_TRIM_THRESHOLD, 64 * 1024 * 1024), 1);
    assert_int_equal(mallopt(M_MMAP_THRESHOLD, 1024 * 1024), 1);
}

static int print_three_moments(void)
{
    int failed = malloc_info(0, stdout);

    puts("----");
    allocate_total(KIB);
    failed |= malloc_info(0, stdout);
    puts("----");
    allocate_total(10 * MIB);
    failed |= malloc_info(0, stdout);
    return failed;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mallinfo2_of_small_blocks),
        cmocka_unit_test(mallinfo2_of_medium_blocks),
        cmocka_unit_test(mallinfo2_of_runs),
        cmocka_unit_test(mallinfo2_of_raw_blocks),
        cmocka_unit_test(mallinfo2_of_another_thread),
        cmocka_unit_test(mallinfo2_of_free_memory),
        cmocka_unit_test(mallinfo_follows),
        cmocka_unit_test(malloc_stats_follows),
        cmocka_unit_test(malloc_info_refuses_options),
        cmocka_unit_test(malloc_info_to_a_growing_stream),
        cmocka_unit_test(mallopt_takes_known_parameters),
    };

    if (argc > 1 && strcmp(argv[1], "--print") == 0)
        return print_three_moments();
    return cmocka_run_group_tests_name("statistics", tests, NULL, NULL);
}
