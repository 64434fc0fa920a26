/*
 * api/hardened: sizes are exact, memory is zero, contents survive realloc, bounds of what is served from
 * where; the check at the end.
 */
#include "api/hardened.h"

#include "arena/address_index.h"
#include "heap/thread.h"
#include "pool/size_class.h"
#include "tarn/tarn.h"
#include "unit.h"

#include <errno.h>
#include <string.h>

static const size_t sizes[] = {0,    1,     8,     24,    25,    100,       1016,   1024,
                               4096, 32760, 32761, 40000, 65536, 600 * KIB, 5 * MIB};
#define SIZES (sizeof sizes / sizeof sizes[0])

static void sizes_are_exact_and_memory_is_zero(void **state)
{
    (void)state;
    for (int turn = 0; turn < 700; turn++) { /* more than wait in quarantine */
        for (size_t i = 0; i < (turn < 3 ? SIZES : 10); i++) {
            char *block = hardened_malloc(sizes[i], 16);
            assert_non_null(block);
            assert_int_equal(hardened_bytes(block, "test"), sizes[i]);
            assert_true(all_zero(block, sizes[i]));
            memset(block, 0x5a, sizes[i]);
            hardened_free(block, turn % 2 == 0 ? sizes[i] : HARDENED_ANY_SIZE, "free");
        }
    }
}

static void alignments_hold(void **state)
{
    (void)state;
    for (size_t alignment = 1; alignment <= 16 * MIB; alignment *= 2) {
        for (size_t i = 0; i < SIZES; i++) {
            char *block = hardened_malloc(sizes[i], alignment);
            assert_non_null(block);
            assert_int_equal((uintptr_t)block % alignment, 0);
            assert_int_equal(hardened_bytes(block, "test"), sizes[i]);
            hardened_free(block, HARDENED_ANY_SIZE, "free");
        }
    }
}

static void contents_survive_realloc(void **state)
{
    (void)state;
    for (size_t from = 0; from < SIZES; from++) {
        for (size_t to = 1; to < SIZES; to++) {
            char *block = hardened_malloc(sizes[from], 16);
            size_t least = sizes[from] < sizes[to] ? sizes[from] : sizes[to];
            pattern_write(block, sizes[from], from);
            block = hardened_realloc(block, sizes[to]);
            assert_non_null(block);
            assert_true(pattern_holds(block, least, from));
            assert_int_equal(hardened_bytes(block, "test"), sizes[to]);
            assert_null(hardened_realloc(block, 0));
        }
    }
}

static void too_much_is_refused(void **state)
{
    (void)state;
    errno = 0;
    assert_null(hardened_malloc((size_t)PTRDIFF_MAX + 1, 16));
    assert_int_equal(errno, ENOMEM);
    assert_null(hardened_malloc(SIZE_MAX, 16));
    char *block = hardened_malloc(100, 16);
    memset(block, 1, 100);
    errno = 0;
    assert_null(hardened_realloc(block, SIZE_MAX - 3));
    assert_int_equal(errno, ENOMEM);
    assert_int_equal(block[99], 1);
    hardened_free(block, 100, "free");
}

static void damage(void *context)
{
    const long *where = context; /* bytes of a block, and the byte that is written to */
    char *block = tarn_malloc((size_t)where[0]);
    if (where[2] != 0)
        tarn_free(block);
    block[where[1]] = 1;
    hardened_check_all();
}

static void the_check_at_the_end_sees_what_nobody_freed(void **state)
{
    (void)state;
    static const long cases[][3] = {{40, 40, 0}, {40, -1, 0}, {32000, 32000, 0}, {100001, 100001, 0},
                                    {40, 0, 1},  {40, 30, 1}, {3000, 2999, 1}};
    static struct outcome outcome;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        long one[3];
        memcpy(one, cases[i], sizeof one);
        void *before = tarn_malloc(40); /* somebody's bytes are in front, whatever the order */
        child_run(damage, one, &outcome);
        if (one[1] >= 0 && strstr(outcome.output, "tarn: fatal: heap corruption: ") == NULL)
            fail_msg("case %zu: %s", i, outcome.output);
        tarn_free(before);
    }
    hardened_check_all(); /* finds nothing here */
}

static void check_beside_others(void *context, unsigned index)
{
    (void)context;
    for (int turn = 0; turn < 300; turn++) {
        char *block = tarn_malloc(40);
        if (index == 0)
            hardened_check_all();
        tarn_free(block);
    }
}

static void it_lets_other_threads_be(void **state)
{
    (void)state;
    threads_run(4, check_beside_others, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_exact_and_memory_is_zero),
        cmocka_unit_test(alignments_hold),
        cmocka_unit_test(contents_survive_realloc),
        cmocka_unit_test(too_much_is_refused),
        cmocka_unit_test(the_check_at_the_end_sees_what_nobody_freed),
        cmocka_unit_test(it_lets_other_threads_be),
    };
    return cmocka_run_group_tests_name("hardened", tests, NULL, NULL);
}
