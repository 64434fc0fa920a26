/*
 * base/owned.h: counts written by one thread. The fused instructions must change exactly their 32 bits, tell
 * zero from everything else, and be seen untorn and in order by a reader.
 */
#include "base/owned.h"

#include "unit.h"

struct between {
    uint32_t before;
    owned_count count;
    uint32_t after;
};

#define GUARD 0xa5a5a5a5U

static struct between with_guards(uint32_t value)
{
    struct between between = {.before = GUARD, .after = GUARD};
    owned_write(&between.count, value);
    return between;
}

static void check_count(const struct between *between, uint32_t value)
{
    assert_int_equal(owned_read(&between->count), value);
    assert_int_equal(between->before, GUARD);
    assert_int_equal(between->after, GUARD);
}

static void increments_by_one(void **state)
{
    (void)state;
    static const uint32_t values[] = {0, 1, 0xff, 0xffff, 0x7fffffff, 0x80000000, UINT32_MAX};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        struct between between = with_guards(values[i]);
        owned_increment(&between.count);
        check_count(&between, values[i] + 1);
    }
}

static void decrement_tells_zero_only(void **state)
{
    (void)state;
    static const uint32_t values[] = {0, 1, 2, 0x100, 0x10000, 0x80000000, 0x80000001, UINT32_MAX};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        struct between between = with_guards(values[i]);
        assert_int_equal(owned_decrement_is_zero(&between.count), values[i] == 1);
        check_count(&between, values[i] - 1);
    }
}

static void long_way_up_and_down(void **state)
{
    (void)state;
    struct between between = with_guards(0);
    for (uint32_t i = 0; i < 100000; i++)
        owned_increment(&between.count);
    check_count(&between, 100000);
    for (uint32_t i = 0; i < 100000; i++)
        assert_int_equal(owned_decrement_is_zero(&between.count), i == 99999);
    check_count(&between, 0);
}

static void xor_of_a_word(void **state)
{
    (void)state;
    static _Atomic uint64_t word;
    struct random random = {1};
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t a = random_next(&random);
        uint64_t b = random_next(&random);
        atomic_store(&word, a);
        assert_int_equal(owned_xor(&word, b), a ^ b);
        assert_int_equal(atomic_load(&word), a);
        assert_int_equal(owned_xor(&word, a), 0);
        assert_true(owned_equals(&word, a));
        assert_int_equal(owned_equals(&word, b), a == b);
        assert_false(owned_equals(&word, a ^ UINT64_C(1) << 63));
        assert_false(owned_equals(&word, a ^ 1));
    }
}

#define STEPS 300000U

static owned_count shared;
static _Atomic bool finished;

static void write_or_watch(void *context, unsigned index)
{
    (void)context;
    if (index == 0) {
        for (uint32_t i = 0; i < STEPS; i++)
            owned_increment(&shared);
        atomic_store(&finished, true);
        return;
    }
    uint32_t last = 0;
    while (!atomic_load(&finished)) {
        uint32_t now = owned_read(&shared);
        must(now >= last && now <= STEPS);
        last = now;
    }
}

static void readers_see_it_grow(void **state)
{
    (void)state;
    owned_write(&shared, 0);
    threads_run(3, write_or_watch, NULL);
    assert_int_equal(owned_read(&shared), STEPS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(increments_by_one),    cmocka_unit_test(decrement_tells_zero_only),
        cmocka_unit_test(long_way_up_and_down), cmocka_unit_test(xor_of_a_word),
        cmocka_unit_test(readers_see_it_grow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
