/*
 * os/lock: one holder at a time; a try that never waits; and open to the one thread that holds all locks for
 * a fork.
 */
#include "os/lock.h"

#include "unit.h"

static lock one = LOCK_INITIAL;

#define THREADS 4U
#define STEPS   20000U

static unsigned counted; /* not atomic: the lock must order it */

static void count_under_lock(void *context, unsigned index)
{
    (void)context;
    for (unsigned i = 0; i < STEPS; i++) {
        if (i % 4 != 0 || !lock_try(&one))
            lock_acquire(&one);
        counted += index + 1;
        lock_release(&one);
    }
}

static void one_holder_at_a_time(void **state)
{
    (void)state;
    threads_run(THREADS, count_under_lock, NULL);
    assert_int_equal(counted, STEPS * (1 + 2 + 3 + 4));
}

static void expect_held(void *context, unsigned index)
{
    (void)context;
    (void)index;
    must(!lock_try(&one));
}

static void expect_free(void *context, unsigned index)
{
    (void)context;
    (void)index;
    must(lock_try(&one));
    lock_release(&one);
}

static void a_try_does_not_wait(void **state)
{
    (void)state;
    threads_run(1, expect_free, NULL);
    lock_acquire(&one);
    assert_false(lock_try(&one));
    threads_run(2, expect_held, NULL);
    lock_release(&one);
    threads_run(1, expect_free, NULL);
    assert_true(lock_try(&one));
    threads_run(2, expect_held, NULL);
    lock_release(&one);
}

static void expect_not_forking(void *context, unsigned index)
{
    expect_held(context, index);
    must(!lock_forking);
}

/* As api/process does around a fork: what other handlers of the program do in between must neither wait nor
 * unlock. */
static void locks_are_open_to_the_forking_thread(void **state)
{
    (void)state;
    lock_acquire(&one);
    lock_forking = true;
    lock_acquire(&one);
    lock_release(&one);
    assert_false(lock_try(&one));
    threads_run(2, expect_not_forking, NULL);
    lock_forking = false;
    lock_release(&one);
    threads_run(1, expect_free, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_holder_at_a_time),
        cmocka_unit_test(a_try_does_not_wait),
        cmocka_unit_test(locks_are_open_to_the_forking_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
