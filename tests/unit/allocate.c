/*
 * api/allocate: which path serves which request, sizes and alignments at every border, zeroes, errors, and
 * memory that runs out.
 */
#include "api/allocate.h"

#include "api/classify.h"
#include "os/map.h"
#include "os/settings.h"
#include "raw/raw.h"
#include "tarn/tarn.h"
#include "unit.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

static struct settings defaults;

static int keep_settings(void **state)
{
    (void)state;
    defaults = settings;
    return 0;
}

static int restore_settings(void **state)
{
    (void)state;
    settings = defaults;
    return 0;
}

static size_t in_pages(size_t bytes)
{
    return pages_of(bytes) * map_page_bytes();
}

/* Kind and usable size of what a request gets. */
static void check_path(size_t bytes, enum kind kind, size_t usable)
{
    void *block = tarn_malloc(bytes);
    assert_non_null(block);
    assert_int_equal((uintptr_t)block % 16, 0);
    struct classified found = classify(block);
    assert_int_equal(found.kind, kind);
    assert_int_equal(found.bytes, usable);
    memset(block, 'x', usable);
    tarn_free(block);
}

static void each_size_takes_its_path(void **state)
{
    (void)state;
    check_path(0, KIND_POOL, 16);
    check_path(1, KIND_POOL, 16);
    check_path(16, KIND_POOL, 16);
    check_path(17, KIND_POOL, 32);
    check_path(1024, KIND_POOL, 1024);
    check_path(1025, KIND_POOL, 1280);
    check_path(32 * KIB, KIND_POOL, 32 * KIB);
    check_path(32 * KIB + 1, KIND_RUN, 48 * KIB);
    check_path(512 * KIB, KIND_RUN, 512 * KIB);
    check_path(512 * KIB + 1, KIND_RAW, in_pages(512 * KIB + 1));
    check_path(5 * MIB, KIND_RAW, 5 * MIB);
}

static void thresholds_move_the_borders(void **state)
{
    (void)state;
    settings.run_threshold_bytes = 2000;
    settings.raw_threshold_bytes = 100 * KIB;
    check_path(1000, KIND_POOL, 1024);
    check_path(2000, KIND_POOL, 2048);
    check_path(2001, KIND_RUN, 16 * KIB);
    check_path(100 * KIB, KIND_RUN, 112 * KIB);
    check_path(100 * KIB + 1, KIND_RAW, in_pages(100 * KIB + 1));
    void *block = tarn_aligned_alloc(64, 1990); /* its class is above the threshold */
    assert_int_equal((uintptr_t)block % 64, 0);
    tarn_free(block);
}

static void every_size_is_served_and_apart(void **state)
{
    (void)state;
    static char *blocks[4000];
    for (size_t i = 0; i < 4000; i++) {
        size_t bytes = i < 1100 ? i : i * 13;
        assert_non_null(blocks[i] = tarn_malloc(bytes));
        pattern_write(blocks[i], bytes, i);
    }
    for (size_t i = 0; i < 4000; i++) {
        assert_true(pattern_holds(blocks[i], i < 1100 ? i : i * 13, i));
        tarn_free(blocks[i]);
    }
}

static void blocks_of_nothing_differ(void **state)
{
    (void)state;
    void *a = tarn_malloc(0);
    void *b = tarn_calloc(0, 5);
    void *c = tarn_calloc(5, 0);
    void *d = tarn_aligned_alloc(64, 0);
    assert_true(a != NULL && b != NULL && c != NULL && d != NULL);
    assert_true(a != b && a != c && b != c && a != d);
    tarn_free(a);
    tarn_free(b);
    tarn_free(c);
    tarn_free(d);
}

/* ---- zeroes ---- */

static void calloc_clears_what_was_used(void **state)
{
    (void)state;
    static const size_t sizes[] = {1,     16,    100,    1024,   1025,   5000,
                                   32768, 32769, 100000, 524288, 524289, 3000000};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (unsigned round = 0; round < 4; round++) {
            char *block = tarn_calloc(round % 2 == 0 ? 1 : sizes[i], round % 2 == 0 ? sizes[i] : 1);
            assert_non_null(block);
            assert_true(all_zero(block, sizes[i]));
            memset(block, 0xee, tarn_malloc_usable_size(block));
            tarn_free(block);
        }
        char *block = allocate_zeroed(sizes[i]);
        assert_true(block != NULL && all_zero(block, sizes[i]));
        tarn_free(block);
    }
}

/* Cleared by the kernel, so that what was hardly touched stays so; and where it looks so but is not. */
static void calloc_of_hardly_touched_memory(void **state)
{
    (void)state;
    const size_t bytes = 24 << 20;
    raw_drop_cache();
    for (unsigned round = 0; round < 4; round++) {
        char *block = tarn_calloc(1, bytes - 100 * round);
        assert_non_null(block);
        unsigned char resident[2];
        assert_int_equal(mincore(block + bytes / 3, 2 * map_page_bytes(), resident), 0);
        assert_int_equal(resident[0] & 1, 0);
        assert_int_equal(resident[1] & 1, 0);
        for (size_t at = 0; at < bytes - 300; at += 1000)
            assert_true(block[at] == 0);
        madvise(block, bytes, MADV_DONTNEED); /* what was only read has the kernel's page of zeroes */
        memset(block + (bytes >> 6), 0xee, 50000);
        block[bytes - 1000] = 1;
        tarn_free(block);
    }
}

static void products_that_overflow(void **state)
{
    (void)state;
    static const size_t pairs[][2] = {
        {SIZE_MAX, 2},         {SIZE_MAX / 2 + 1, 2}, {UINT64_C(1) << 32, UINT64_C(1) << 32},
        {SIZE_MAX / 3 + 1, 3}, {SIZE_MAX, SIZE_MAX},  {PTRDIFF_MAX, 2}};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        errno = 0;
        assert_null(tarn_calloc(opaque_size(pairs[i][0]), opaque_size(pairs[i][1])));
        assert_int_equal(errno, ENOMEM);
    }
}

/* ---- alignment ---- */

static void check_aligned(size_t alignment, size_t bytes)
{
    char *block = tarn_aligned_alloc(alignment, bytes);
    void *other = NULL;
    assert_non_null(block);
    assert_int_equal((uintptr_t)block % alignment, 0);
    assert_true(tarn_malloc_usable_size(block) >= bytes);
    memset(block, 'a', bytes);
    if (alignment >= sizeof(void *)) {
        errno = EDOM;
        assert_int_equal(tarn_posix_memalign(&other, alignment, bytes), 0);
        assert_int_equal(errno, EDOM);
        assert_int_equal((uintptr_t)other % alignment, 0);
        memset(other, 'o', bytes);
    }
    for (size_t i = 0; i < bytes; i += 61)
        assert_int_equal(block[i], 'a');
    tarn_free(block);
    tarn_free(other);
}

static void alignments_of_every_size(void **state)
{
    (void)state;
    static const size_t sizes[] = {0,     1,     15,    100,   1000,   4096,   5000,
                                   16384, 20000, 32768, 40000, 524288, 600000, 5 * MIB};
    for (size_t alignment = 1; alignment <= 64 * MIB; alignment *= 2)
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
            check_aligned(alignment, sizes[i]);
}

static void alignments_that_are_none(void **state)
{
    (void)state;
    static const size_t wrong[] = {0, 3, 24, 48, 100, SIZE_MAX};
    void *block = &defaults;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        errno = 0;
        assert_null(tarn_aligned_alloc(opaque_size(wrong[i]), 100));
        assert_int_equal(errno, EINVAL);
        errno = EDOM;
        assert_int_equal(tarn_posix_memalign(&block, opaque_size(wrong[i]), 100), EINVAL);
        assert_int_equal(errno, EDOM);
        assert_ptr_equal(block, &defaults);
    }
    assert_int_equal(tarn_posix_memalign(&block, 4, 100), EINVAL); /* no multiple of a pointer's size */
    errno = EDOM;
    assert_int_equal(tarn_posix_memalign(&block, 32, opaque_size(SIZE_MAX)), ENOMEM);
    assert_int_equal(tarn_posix_memalign(&block, SIZE_MAX / 2 + 1, 100), ENOMEM);
    assert_int_equal(errno, EDOM);
    assert_ptr_equal(block, &defaults);
}

static void memalign_rounds_up(void **state)
{
    (void)state;
    static const size_t wanted[][2] = {{0, 16},      {1, 16},      {17, 32},
                                       {3000, 4096}, {4097, 8192}, {5 * MIB, 8 * MIB}};
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        void *block = tarn_memalign(wanted[i][0], 200);
        assert_non_null(block);
        assert_int_equal((uintptr_t)block % wanted[i][1], 0);
        tarn_free(block);
    }
    errno = 0;
    assert_null(tarn_memalign(opaque_size(SIZE_MAX / 2 + 2), 1));
    assert_int_equal(errno, EINVAL);
}

static void whole_pages(void **state)
{
    (void)state;
    size_t page = map_page_bytes();
    static const size_t sizes[] = {0, 1, 4096, 4097, 65537, 1048577};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        void *block = tarn_valloc(sizes[i]);
        assert_true(block != NULL && (uintptr_t)block % page == 0);
        void *rounded = tarn_pvalloc(sizes[i]);
        assert_true(rounded != NULL && (uintptr_t)rounded % page == 0);
        assert_true(tarn_malloc_usable_size(rounded) >=
                    (sizes[i] == 0 ? page : (sizes[i] + page - 1) / page * page));
        tarn_free(block);
        tarn_free(rounded);
    }
    errno = 0;
    assert_null(tarn_pvalloc(opaque_size(PTRDIFF_MAX)));
    assert_int_equal(errno, ENOMEM);
    errno = 0;
    assert_null(tarn_pvalloc(opaque_size(SIZE_MAX)));
    assert_int_equal(errno, ENOMEM);
}

/* ---- no memory ---- */

static void too_large(void **state)
{
    (void)state;
    static const size_t sizes[] = {PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1, SIZE_MAX - 4096, SIZE_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        errno = 0;
        assert_null(tarn_malloc(opaque_size(sizes[i])));
        assert_int_equal(errno, ENOMEM);
        errno = 0;
        assert_null(tarn_calloc(1, opaque_size(sizes[i])));
        assert_int_equal(errno, ENOMEM);
        errno = 0;
        assert_null(tarn_aligned_alloc(64, opaque_size(sizes[i])));
        assert_int_equal(errno, ENOMEM);
        errno = 0;
        assert_null(tarn_valloc(opaque_size(sizes[i])));
        assert_int_equal(errno, ENOMEM);
    }
}

/* Until there is none, of each path; what is freed then can be had again. */
static void run_out(void *context)
{
    static void *blocks[100000];
    static const size_t sizes[] = {64, 1024, 20000, 40000, 400000, MIB};
    (void)context;
    limit_address_space(24 * MIB);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        size_t most = 0;
        for (unsigned round = 0; round < 3; round++) {
            size_t count = 0;
            errno = EDOM;
            while (count < 100000 && (blocks[count] = tarn_malloc(sizes[i])) != NULL) {
                must(errno == EDOM);
                count++;
            }
            must(count == 100000 || errno == ENOMEM);
            must(count * sizes[i] > 4 * MIB);
            must(round == 0 || count >= most - most / 4);
            most = count > most ? count : most;
            while (count > 0)
                tarn_free(blocks[--count]);
        }
    }
}

static void memory_that_runs_out(void **state)
{
    (void)state;
    child_must_succeed(run_out, NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, keep_settings, restore_settings)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(each_size_takes_its_path),
        TEST(thresholds_move_the_borders),
        TEST(every_size_is_served_and_apart),
        TEST(blocks_of_nothing_differ),
        TEST(calloc_clears_what_was_used),
        TEST(calloc_of_hardly_touched_memory),
        TEST(products_that_overflow),
        TEST(alignments_of_every_size),
        TEST(alignments_that_are_none),
        TEST(memalign_rounds_up),
        TEST(whole_pages),
        TEST(too_large),
        TEST(memory_that_runs_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
