/*
 * raw/empty: addresses of blocks of no bytes: different, aligned, inaccessible, taken once, used up and had
 * again.
 */
#include "raw/empty.h"

#include "arena/address_index.h"
#include "unit.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

static void addresses_are_different_and_known(void **state)
{
    (void)state;
    char *before = NULL;
    for (int i = 0; i < 1000; i++) {
        char *block = empty_take();
        assert_true(block != NULL && block > before);
        assert_int_equal((uintptr_t)block % 16, 0);
        assert_true((uintptr_t)block % GRANULE_BYTES != 0);
        assert_true(address_index_get(block) == ADDRESS_EMPTY);
        assert_true(empty_is_taken(block));
        assert_false(empty_is_taken(block + 8));
        assert_false(empty_give(block + 8));
        assert_true(empty_give(block));
        assert_false(empty_is_taken(block));
        assert_false(empty_give(block));
        before = block;
    }
}

static void read_it(void *block)
{
    signal(SIGSEGV, SIG_DFL); /* and not cmocka's */
    (void)*(volatile char *)block;
}

static void write_it(void *block)
{
    signal(SIGSEGV, SIG_DFL);
    *(volatile char *)block = 1;
}

static void they_cannot_be_touched(void **state)
{
    (void)state;
    static struct outcome outcome;
    char *block = empty_take();
    child_run(read_it, block, &outcome);
    assert_true(WIFSIGNALED(outcome.status) && WTERMSIG(outcome.status) == SIGSEGV);
    child_run(write_it, block, &outcome);
    assert_true(WIFSIGNALED(outcome.status) && WTERMSIG(outcome.status) == SIGSEGV);
    assert_true(empty_give(block));
}

#define ALL (GRANULE_BYTES / 16 / 4 * 3)

static void when_many_are_taken_there_is_none(void **state)
{
    (void)state;
    char **blocks = malloc(ALL * sizeof *blocks);
    assert_non_null(blocks);
    for (size_t i = 0; i < ALL; i++) {
        blocks[i] = empty_take();
        assert_non_null(blocks[i]);
    }
    assert_null(empty_take());
    assert_true(empty_give(blocks[12345]));
    blocks[12345] = empty_take();
    assert_non_null(blocks[12345]);
    assert_null(empty_take());
    for (size_t i = 0; i < ALL; i++)
        assert_true(empty_give(blocks[i]));
    free(blocks);
}

static _Atomic(void *) taken[4][500];

static void take_many(void *context, unsigned index)
{
    (void)context;
    for (int i = 0; i < 500; i++)
        taken[index][i] = empty_take();
}

static void threads_get_different_ones(void **state)
{
    (void)state;
    threads_run(4, take_many, NULL);
    for (int thread = 0; thread < 4; thread++)
        for (int i = 0; i < 500; i++)
            assert_true(empty_give(taken[thread][i])); /* false for one that was given before */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_different_and_known),
        cmocka_unit_test(they_cannot_be_touched),
        cmocka_unit_test(when_many_are_taken_there_is_none),
        cmocka_unit_test(threads_get_different_ones),
    };
    return cmocka_run_group_tests_name("empty", tests, NULL, NULL);
}
