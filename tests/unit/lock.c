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

/* ---- handlers of fork ---- */

static unsigned handled[3];

static void before(void)
{
    handled[0]++;
}

static void in_parent(void)
{
    handled[1]++;
}

static void in_child(void)
{
    handled[2]++;
}

static void expect_handled_in_child(void *context)
{
    (void)context;
    must(handled[0] == 1 && handled[1] == 0 && handled[2] == 1);
}

static void handlers_run_once_each(void **state)
{
    (void)state;
    assert_true(lock_handle_forks(before, in_parent, in_child));
    child_must_succeed(expect_handled_in_child, NULL);
    assert_int_equal(handled[0], 1);
    assert_int_equal(handled[1], 1);
    assert_int_equal(handled[2], 0);
}

/* Others do not take a lock below the gate, free as it is, while one waits to fork. */
static _Atomic bool got_it;

static void *take_after_fork(void *argument)
{
    lock_acquire_after_fork(&one);
    got_it = true;
    lock_release(&one);
    return argument;
}

static void a_fork_goes_first(void **state)
{
    (void)state;
    pthread_t thread;
    lock_before_fork();
    assert_int_equal(pthread_create(&thread, NULL, take_after_fork, NULL), 0);
    sleep_ms(50);
    assert_false(got_it);
    assert_true(lock_try(&one));
    lock_release(&one);
    lock_after_fork();
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(got_it);
}

/* A thread knows whether it is at a lock, whatever became of its try. */
static void a_thread_counts_its_locks(void **state)
{
    (void)state;
    static lock another = LOCK_INITIAL;
    assert_int_equal(lock_inside, 0);
    lock_acquire(&one);
    assert_true(lock_try(&another));
    assert_int_equal(lock_inside, 2);
    assert_false(lock_try(&one));
    assert_int_equal(lock_inside, 2);
    threads_run(2, expect_held, NULL);
    lock_release(&one);
    lock_release(&another);
    assert_int_equal(lock_inside, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_holder_at_a_time),
        cmocka_unit_test(a_try_does_not_wait),
        cmocka_unit_test(locks_are_open_to_the_forking_thread),
        cmocka_unit_test(a_fork_goes_first),
        cmocka_unit_test(a_thread_counts_its_locks),
        cmocka_unit_test(handlers_run_once_each),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
