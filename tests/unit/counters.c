/*
 * base/counters: every count has a name of its own, the helpers count the kinds they stand for, threads lose
 * nothing, and a build without -Dcounters counts nothing at all.
 *
 * The program's own allocations count too where they are Tarn's: what is compared exactly are kinds that no
 * allocation of this program touches meanwhile.
 */
#include "base/counters.h"

#include "unit.h"

#include <string.h>

static uint64_t read_count(enum counter kind)
{
    return atomic_load(&counters[kind]);
}

static uint64_t if_counting(uint64_t amount)
{
    return TARN_COUNTERS ? amount : 0;
}

static void names_are_there_and_differ(void **state)
{
    (void)state;
    for (int i = 0; i < COUNTER_KINDS; i++) {
        assert_non_null(counter_names[i]);
        assert_true(strlen(counter_names[i]) > 0);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(counter_names[i], counter_names[j]);
    }
}

static void amounts_are_added_to_one_kind(void **state)
{
    (void)state;
    uint64_t before[COUNTER_KINDS];
    for (int added = 0; added < COUNTER_KINDS; added++) {
        for (int kind = 0; kind < COUNTER_KINDS; kind++)
            before[kind] = read_count((enum counter)kind);
        counter_add((enum counter)added, 5);
        counter_add((enum counter)added, UINT64_C(1) << 33);
        for (int kind = 0; kind < COUNTER_KINDS; kind++) {
            uint64_t expected = kind == added ? if_counting((UINT64_C(1) << 33) + 5) : 0;
            assert_int_equal(read_count((enum counter)kind) - before[kind], expected);
        }
    }
}

static void helpers_count_their_kinds(void **state)
{
    (void)state;
    uint64_t locked = read_count(COUNTER_LOCKED);
    uint64_t line = read_count(COUNTER_SHARED_LINE);
    uint64_t retry = read_count(COUNTER_CAS_RETRY);
    counter_locked();
    counter_locked();
    counter_retry();
    assert_int_equal(read_count(COUNTER_LOCKED) - locked, if_counting(2));
    assert_int_equal(read_count(COUNTER_SHARED_LINE) - line, if_counting(2));
    assert_int_equal(read_count(COUNTER_CAS_RETRY) - retry, if_counting(1));
}

#define THREADS 4U
#define STEPS   50000U

static void count_much(void *context, unsigned index)
{
    (void)context;
    for (unsigned i = 0; i < STEPS; i++)
        counter_add(COUNTER_REMOTE_POST, index + 1);
}

static void threads_lose_nothing(void **state)
{
    (void)state;
    uint64_t before = read_count(COUNTER_REMOTE_POST);
    threads_run(THREADS, count_much, NULL);
    assert_int_equal(read_count(COUNTER_REMOTE_POST) - before, if_counting(UINT64_C(10) * STEPS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_there_and_differ),
        cmocka_unit_test(amounts_are_added_to_one_kind),
        cmocka_unit_test(helpers_count_their_kinds),
        cmocka_unit_test(threads_lose_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
