/*
 * arena/summary: against a naive set, the invariant of its tree, bits that were left over, and many writers
 * at once.
 */
#include "arena/summary.h"

#include "unit.h"

#include <string.h>

static struct summary summary;

/* Members that share words on every level, and the ends of the range. */
static const uint32_t members[] = {
    0,    1,    63,    64,    65,     127,    4095,   4096,   4097,   4159,
    8191, 8192, 99999, 99998, 131071, 131072, 262080, 262079, 262142, SUMMARY_MEMBERS - 1};

#define MEMBERS (sizeof members / sizeof members[0])

static bool naive[SUMMARY_BUCKETS][MEMBERS];

static int clear(void **state)
{
    (void)state;
    memset(&summary, 0, sizeof summary);
    memset(naive, 0, sizeof naive);
    return 0;
}

/* A word that is not 0 has its bit one level up set; with one thread no other bit is. */
static void check_word(uint64_t word, uint64_t above, uint32_t bit, bool no_left_overs)
{
    bool is_set = (above >> bit & 1) != 0;
    assert_true(is_set || word == 0);
    assert_true(!no_left_overs || !is_set || word != 0);
}

static void check_tree(bool no_left_overs)
{
    for (unsigned bucket = 0; bucket < SUMMARY_BUCKETS; bucket++) {
        for (uint32_t leaf = 0; leaf < 64 * 64; leaf++)
            check_word(summary.leaf[leaf][bucket], summary.middle[leaf / 64][bucket], leaf % 64,
                       no_left_overs);
        for (uint32_t middle = 0; middle < 64; middle++)
            check_word(summary.middle[middle][bucket], summary.root[bucket], middle, no_left_overs);
    }
}

/* What is found, which must be in the bucket that it is said to be in. */
static uint32_t find(uint32_t buckets)
{
    uint32_t bucket = UINT32_MAX;
    uint32_t member = summary_find(&summary, buckets, &bucket);
    must(member == SUMMARY_NONE || (bucket < SUMMARY_BUCKETS && (buckets >> bucket & 1) != 0));
    return member;
}

/* The lowest member of the lowest of the buckets. */
static uint32_t naive_find(uint32_t buckets)
{
    for (unsigned bucket = 0; bucket < SUMMARY_BUCKETS; bucket++) {
        if ((buckets >> bucket & 1) == 0)
            continue;
        uint32_t lowest = SUMMARY_NONE;
        for (size_t i = 0; i < MEMBERS; i++)
            if (naive[bucket][i] && members[i] < lowest)
                lowest = members[i];
        if (lowest != SUMMARY_NONE)
            return lowest;
    }
    return SUMMARY_NONE;
}

static void an_empty_set_has_no_member(void **state)
{
    (void)state;
    for (unsigned bucket = 0; bucket < SUMMARY_BUCKETS; bucket++)
        assert_int_equal(find(1U << bucket), SUMMARY_NONE);
    assert_int_equal(find(0xffff), SUMMARY_NONE);
    summary_add(&summary, 3, 17);
    assert_int_equal(find(0), SUMMARY_NONE);
    assert_int_equal(find(0xffff & ~(1U << 3)), SUMMARY_NONE);
}

static void each_member_alone(void **state)
{
    (void)state;
    for (unsigned bucket = 0; bucket < SUMMARY_BUCKETS; bucket++) {
        for (size_t i = 0; i < MEMBERS; i++) {
            summary_add(&summary, bucket, members[i]);
            assert_int_equal(find(1U << bucket), members[i]);
            assert_int_equal(find(0xffff), members[i]);
            assert_int_equal(find(0xffffU & ~(1U << bucket)), SUMMARY_NONE);
            summary_remove(&summary, bucket, members[i]);
            assert_int_equal(find(0xffff), SUMMARY_NONE);
        }
    }
    check_tree(true);
}

static void like_a_naive_set(void **state)
{
    (void)state;
    struct random random = {1};
    for (unsigned step = 0; step < 40000; step++) {
        unsigned bucket = (unsigned)random_below(&random, SUMMARY_BUCKETS);
        size_t i = random_below(&random, MEMBERS);
        /* Fills up for a while, then empties; adding and removing twice must not matter. */
        bool add = random_below(&random, 10) < (step / 2000 % 2 == 0 ? 7U : 3U);
        if (add)
            summary_add(&summary, bucket, members[i]);
        else
            summary_remove(&summary, bucket, members[i]);
        naive[bucket][i] = add;
        uint32_t buckets = (uint32_t)random_next(&random) & 0xffff;
        uint32_t found_bucket;
        uint32_t found = summary_find(&summary, buckets, &found_bucket);
        assert_int_equal(found, naive_find(buckets));
        if (found != SUMMARY_NONE)
            assert_int_equal(naive_find(1U << found_bucket), found);
        assert_int_equal(find(1U << bucket), naive_find(1U << bucket));
        if (step % 4000 == 0)
            check_tree(true);
    }
}

/* What a writer that was stopped between two levels leaves above an empty word. */
static void left_over_bits_are_taken_away(void **state)
{
    (void)state;
    summary.root[2] |= UINT64_C(1) << 5;
    assert_int_equal(find(1U << 2), SUMMARY_NONE);
    check_tree(true);
    summary.middle[7][2] |= UINT64_C(1) << 9;
    summary.root[2] |= UINT64_C(1) << 7;
    summary_add(&summary, 2, 200000);
    summary_add(&summary, 4, 3);
    assert_int_equal(find(1U << 2 | 1U << 4), 200000);
    check_tree(true);
}

/* ---- threads ---- */

#define THREADS 8U
#define STEPS   30000U

/* Neighbours in one leaf word belong to different threads, so that all words are shared. */
static uint32_t member_of(unsigned thread, unsigned i)
{
    static const uint32_t words[] = {0, 1, 63, 64, 100, 4095};
    return words[i % 6] * 64 + thread + THREADS * (i / 6);
}

#define OWN 24U

static bool present[THREADS][SUMMARY_BUCKETS][OWN];

static void add_and_remove(void *context, unsigned index)
{
    (void)context;
    struct random random = {index};
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned bucket = (unsigned)random_below(&random, 2);
        unsigned i = (unsigned)random_below(&random, OWN);
        bool *is_present = &present[index][bucket][i];
        if (*is_present)
            summary_remove(&summary, bucket, member_of(index, i));
        else
            summary_add(&summary, bucket, member_of(index, i));
        *is_present = !*is_present;
        uint32_t found = find(3);
        must(found == SUMMARY_NONE || (found / 64 <= 4095 && found % 64 < THREADS * (OWN / 6)));
    }
}

static void writers_at_once_leave_it_consistent(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 3; round++) {
        threads_run(THREADS, add_and_remove, NULL);
        check_tree(false);
        for (unsigned thread = 0; thread < THREADS; thread++) {
            for (unsigned bucket = 0; bucket < 2; bucket++) {
                for (unsigned i = 0; i < OWN; i++) {
                    uint32_t member = member_of(thread, i);
                    bool inside = (summary.leaf[member / 64][bucket] >> member % 64 & 1) != 0;
                    assert_int_equal(inside, present[thread][bucket][i]);
                }
            }
        }
    }
}

#define TOGGLERS 2U
#define ROUNDS   (UNIT_THREAD_SANITIZED ? 2000U : 30000U)

static struct meeting meeting;

/* In each round one thread removes its member while the other adds one, in the same leaf or beside it in the
 * same middle word: the bits above must be left, or put back, for the one that is there now. */
static void take_turns(void *context, unsigned index)
{
    const uint32_t *members_of_threads = context;
    if (index == 1)
        summary_add(&summary, 5, members_of_threads[1]);
    for (unsigned round = 0; round < ROUNDS; round++) {
        meet(&meeting, TOGGLERS);
        if (round % TOGGLERS == index)
            summary_add(&summary, 5, members_of_threads[index]);
        else
            summary_remove(&summary, 5, members_of_threads[index]);
        meet(&meeting, TOGGLERS);
        uint32_t member = members_of_threads[round % TOGGLERS];
        must((summary.leaf[member / 64][5] >> member % 64 & 1) != 0);
        must((summary.middle[member / 4096][5] >> member / 64 % 64 & 1) != 0);
        must((summary.root[5] >> member / 4096 & 1) != 0);
        must(find(1U << 5) == member);
    }
    meet(&meeting, TOGGLERS); /* the other has looked, too */
    if (index == (ROUNDS - 1) % TOGGLERS)
        summary_remove(&summary, 5, members_of_threads[index]);
}

static void nobody_takes_anothers_bits_away(void **state)
{
    (void)state;
    uint32_t in_one_leaf[TOGGLERS] = {8192, 8193};
    uint32_t in_one_middle[TOGGLERS] = {8192, 8192 + 64};
    threads_run(TOGGLERS, take_turns, in_one_leaf);
    check_tree(false);
    threads_run(TOGGLERS, take_turns, in_one_middle);
    check_tree(false);
    assert_int_equal(find(1U << 5), SUMMARY_NONE);
}

static void what_is_wrong_is_seen(void **state)
{
    (void)state;
    summary_add(&summary, 3, 8191);
    summary_add(&summary, 7, 17);
    summary_add(&summary, 9, 17);
    assert_int_equal(summary_buckets_of(&summary, 17), 1U << 7 | 1U << 9);
    assert_int_equal(summary_buckets_of(&summary, 16), 0);
    assert_true(summary_is_valid(&summary, 8192));
    atomic_fetch_and(&summary.middle[8191 / 4096][3], ~(UINT64_C(1) << 8191 / 64 % 64));
    assert_false(summary_is_valid(&summary, 8192));
    assert_true(summary_is_valid(&summary, 8191 / 64 * 64)); /* as far as asked */
    summary_add(&summary, 3, 8191);
    atomic_store(&summary.root[3], 0);
    assert_false(summary_is_valid(&summary, 8192));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(an_empty_set_has_no_member, clear),
        cmocka_unit_test_setup(each_member_alone, clear),
        cmocka_unit_test_setup(like_a_naive_set, clear),
        cmocka_unit_test_setup(left_over_bits_are_taken_away, clear),
        cmocka_unit_test_setup(what_is_wrong_is_seen, clear),
        cmocka_unit_test_setup(writers_at_once_leave_it_consistent, clear),
        cmocka_unit_test_setup(nobody_takes_anothers_bits_away, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
