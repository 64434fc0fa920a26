/*
 * arena/address_index: entries of their own for each 4 MiB, nothing beyond what the index covers, one winner
 * of a take, and leaves made by many threads at once.
 *
 * The index never looks at the memory it speaks of, so the tests use addresses where nothing is mapped, far
 * from those that the kernel gives out.
 */
#include "arena/address_index.h"

#include "os/map.h"
#include "unit.h"

#define FIRST_UNUSED (UINT64_C(1) << 44)
#define LEAF_BYTES   (UINT64_C(32) << 30)
#define END          (UINT64_C(1) << 48)

static void *at(uint64_t address)
{
    return (void *)(uintptr_t)address;
}

static void nothing_is_known_at_first(void **state)
{
    (void)state;
    static const uint64_t addresses[] = {
        0, 1, 0x1000, FIRST_UNUSED, END - 1, END, END + FIRST_UNUSED, UINT64_C(1) << 63, UINT64_MAX};
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        assert_int_equal(address_index_get(at(addresses[i])), ADDRESS_NOTHING);
        assert_false(address_index_take(at(addresses[i]), ADDRESS_ARENA));
    }
}

/* The entry is that of all bytes of the granule and of no other. */
static void check_one(uint64_t granule, uintptr_t entry)
{
    assert_true(address_index_set(at(granule), entry));
    assert_int_equal(address_index_get(at(granule)), entry);
    assert_int_equal(address_index_get(at(granule + 16)), entry);
    assert_int_equal(address_index_get(at(granule + GRANULE_BYTES - 1)), entry);
    assert_int_equal(address_index_get(at(granule - 1)), ADDRESS_NOTHING);
    assert_int_equal(address_index_get(at(granule + GRANULE_BYTES)), ADDRESS_NOTHING);
    assert_int_equal(address_index_get(at(granule + LEAF_BYTES)), ADDRESS_NOTHING);
    assert_int_equal(address_index_get(at(granule - LEAF_BYTES)), ADDRESS_NOTHING);
    assert_int_equal(address_index_get(at(granule + END)), ADDRESS_NOTHING);
    assert_true(address_index_set(at(granule), ADDRESS_NOTHING));
    assert_int_equal(address_index_get(at(granule)), ADDRESS_NOTHING);
}

static void an_entry_speaks_of_its_granule_alone(void **state)
{
    (void)state;
    check_one(FIRST_UNUSED, ADDRESS_ARENA);
    check_one(FIRST_UNUSED + LEAF_BYTES - GRANULE_BYTES, 0x1234567890);
    check_one(FIRST_UNUSED + LEAF_BYTES, UINT64_C(0x7f0000000040));
    check_one(END - GRANULE_BYTES, ADDRESS_ARENA);
    struct random random = {1};
    for (unsigned i = 0; i < 100; i++)
        check_one((FIRST_UNUSED + random_below(&random, FIRST_UNUSED)) & ~(GRANULE_BYTES - 1),
                  random_next(&random) | 1);
}

static void nothing_is_kept_beyond_48_bits(void **state)
{
    (void)state;
    for (unsigned bit = 48; bit < 64; bit++) {
        uint64_t address = UINT64_C(1) << bit | FIRST_UNUSED;
        assert_false(address_index_set(at(address), ADDRESS_ARENA));
        assert_int_equal(address_index_get(at(address)), ADDRESS_NOTHING);
        assert_false(address_index_take(at(address), ADDRESS_ARENA));
        assert_int_equal(address_index_get(at(FIRST_UNUSED)), ADDRESS_NOTHING);
    }
    assert_false(address_index_set(at(UINT64_MAX), ADDRESS_ARENA));
}

static void a_take_wants_the_right_entry(void **state)
{
    (void)state;
    void *address = at(FIRST_UNUSED + 5 * GRANULE_BYTES);
    assert_true(address_index_set(address, 0x4000));
    assert_false(address_index_take(address, 0x5000));
    assert_int_equal(address_index_get(address), 0x4000);
    assert_false(address_index_take((char *)address + GRANULE_BYTES, 0x4000));
    assert_true(address_index_take(address, 0x4000));
    assert_int_equal(address_index_get(address), ADDRESS_NOTHING);
    assert_false(address_index_take(address, 0x4000));
}

/* ---- threads ---- */

#define ENTRIES 20000U
#define TAKERS  2U

static _Atomic unsigned takers[ENTRIES];
static struct meeting before_each_entry;

static uint64_t entry_address(unsigned i)
{
    return FIRST_UNUSED + (UINT64_C(1) << 41) + i * GRANULE_BYTES;
}

static void take_all(void *context, unsigned index)
{
    (void)context;
    (void)index;
    for (unsigned i = 0; i < ENTRIES; i++) {
        if (i % 4 != 0)
            meet(&before_each_entry, TAKERS);
        if (address_index_take(at(entry_address(i)), 0x1000 + i))
            takers[i]++;
    }
}

static void of_many_takers_one_gets_it(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ENTRIES; i++)
        assert_true(address_index_set(at(entry_address(i)), 0x1000 + i));
    threads_run(TAKERS, take_all, NULL);
    for (unsigned i = 0; i < ENTRIES; i++) {
        assert_int_equal(takers[i], 1);
        assert_int_equal(address_index_get(at(entry_address(i))), ADDRESS_NOTHING);
    }
}

#define LEAVES  2000U
#define SETTERS 2U

static struct meeting before_each_leaf;

/* Each thread sets an entry of its own in a leaf that nobody has made yet, all at the same time. */
static uint64_t leaf_entry(unsigned leaf, unsigned index)
{
    return FIRST_UNUSED + (UINT64_C(1) << 45) + leaf * LEAF_BYTES + index * GRANULE_BYTES;
}

static uintptr_t leaf_value(unsigned leaf, unsigned index)
{
    return leaf * SETTERS + index + 2;
}

static void set_in_fresh_leaves(void *context, unsigned index)
{
    (void)context;
    for (unsigned leaf = 0; leaf < LEAVES; leaf++) {
        meet(&before_each_leaf, SETTERS);
        must(address_index_set(at(leaf_entry(leaf, index)), leaf_value(leaf, index)));
        must(address_index_get(at(leaf_entry(leaf, index))) == leaf_value(leaf, index));
    }
}

static void do_nothing(void *context, unsigned index)
{
    (void)context;
    (void)index;
}

static void leaves_made_at_once_lose_nothing(void **state)
{
    (void)state;
    threads_run(SETTERS, do_nothing, NULL); /* what threads cost once where Tarn is malloc */
    size_t count = map_count();
    threads_run(SETTERS, set_in_fresh_leaves, NULL);
    assert_int_equal(map_count() - count, LEAVES);
    for (unsigned leaf = 0; leaf < LEAVES; leaf++)
        for (unsigned index = 0; index < SETTERS; index++)
            assert_int_equal(address_index_get(at(leaf_entry(leaf, index))), leaf_value(leaf, index));
}

static void set_without_memory(void *context)
{
    must(address_index_set(context, ADDRESS_ARENA));
    limit_address_space(0);
    must(!address_index_set((char *)context + LEAF_BYTES, ADDRESS_ARENA));
    must(address_index_get((char *)context + LEAF_BYTES) == ADDRESS_NOTHING);
    must(address_index_set((char *)context + GRANULE_BYTES, ADDRESS_ARENA));
    must(address_index_set(context, ADDRESS_NOTHING));
}

static void without_memory_for_a_leaf(void **state)
{
    (void)state;
    child_must_succeed(set_without_memory, at(FIRST_UNUSED + (UINT64_C(1) << 47)));
}

struct seen {
    char *addresses[8];
    uintptr_t entries[8];
    unsigned count;
};

/* Where the program runs on Tarn, it has entries of its own. */
static void note_unused(char *address, uintptr_t entry, void *context)
{
    struct seen *seen = context;
    if ((uintptr_t)address < FIRST_UNUSED || (uintptr_t)address >= 2 * FIRST_UNUSED)
        return;
    must(seen->count < 8);
    seen->addresses[seen->count] = address;
    seen->entries[seen->count++] = entry;
}

static void each_entry_is_told_once(void **state)
{
    (void)state;
    struct seen seen = {.count = 0};
    assert_true(address_index_set(at(FIRST_UNUSED), 0x1230));
    assert_true(address_index_set(at(FIRST_UNUSED + LEAF_BYTES - 1), ADDRESS_ARENA));
    assert_true(address_index_set(at(FIRST_UNUSED + 5 * LEAF_BYTES + 77), 0x4560));
    address_index_each(note_unused, &seen);
    assert_int_equal(seen.count, 3);
    assert_ptr_equal(seen.addresses[0], at(FIRST_UNUSED));
    assert_ptr_equal(seen.addresses[1], at(FIRST_UNUSED + LEAF_BYTES - GRANULE_BYTES));
    assert_ptr_equal(seen.addresses[2], at(FIRST_UNUSED + 5 * LEAF_BYTES));
    assert_true(seen.entries[0] == 0x1230 && seen.entries[1] == ADDRESS_ARENA && seen.entries[2] == 0x4560);
    for (unsigned i = 0; i < seen.count; i++)
        assert_true(address_index_set(seen.addresses[i], ADDRESS_NOTHING));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_known_at_first),
        cmocka_unit_test(an_entry_speaks_of_its_granule_alone),
        cmocka_unit_test(nothing_is_kept_beyond_48_bits),
        cmocka_unit_test(a_take_wants_the_right_entry),
        cmocka_unit_test(each_entry_is_told_once),
        cmocka_unit_test(of_many_takers_one_gets_it),
        cmocka_unit_test(leaves_made_at_once_lose_nothing),
        cmocka_unit_test(without_memory_for_a_leaf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
