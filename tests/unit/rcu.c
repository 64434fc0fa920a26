/*
 * os/rcu: sections that hold a grace period up, those that do not, walks that are waited for, and what a fork
 * leaves.
 *
 * Readers are never taken off the room's list, so those of the tests are static.
 */
#include "os/rcu.h"

#include "unit.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct reader own;

static bool has_membarrier(void)
{
    return syscall(SYS_membarrier, 0, 0) >= 0;
}

static bool forbid_membarrier(void)
{
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog filter = {sizeof program / sizeof program[0], program};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

static int publish_own(void **state)
{
    (void)state;
    reader_publish(&own);
    return 0;
}

static void a_section_is_odd(void **state)
{
    (void)state;
    uint64_t sections = own.sections;
    errno = EDOM;
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(own.sections, sections + 2 * i);
        assert_int_equal(own.sections % 2, 0);
        reader_enter(&own);
        assert_int_equal(own.sections, sections + 2 * i + 1);
        reader_leave(&own);
    }
    assert_int_equal(errno, EDOM);
}

/* ---- another thread's sections, opened and closed on demand ---- */

enum order { ORDER_NONE, ORDER_ENTER, ORDER_LEAVE, ORDER_WALK, ORDER_WALK_END, ORDER_END };

struct guest {
    struct reader reader;
    pthread_t thread;
    _Atomic int order;
};

static void *serve(void *argument)
{
    struct guest *guest = argument;
    for (;;) {
        int order = atomic_load(&guest->order);
        if (order == ORDER_ENTER)
            reader_enter(&guest->reader);
        else if (order == ORDER_LEAVE)
            reader_leave(&guest->reader);
        else if (order == ORDER_WALK)
            walk_begin();
        else if (order == ORDER_WALK_END)
            walk_end();
        else if (order == ORDER_END)
            return NULL;
        else {
            sched_yield();
            continue;
        }
        atomic_store(&guest->order, ORDER_NONE);
    }
}

static void tell(struct guest *guest, enum order order)
{
    atomic_store(&guest->order, order);
    while (atomic_load(&guest->order) != ORDER_NONE)
        sched_yield();
}

static struct guest guests[2];

static int invite(void **state)
{
    static bool published;
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        if (!published)
            reader_publish(&guests[i].reader);
        guests[i].order = ORDER_NONE;
        if (pthread_create(&guests[i].thread, NULL, serve, &guests[i]) != 0)
            return -1;
    }
    published = true;
    return 0;
}

static int dismiss(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        atomic_store(&guests[i].order, ORDER_END);
        if (pthread_join(guests[i].thread, NULL) != 0)
            return -1;
    }
    return 0;
}

static void grace_passes_when_the_last_section_is_left(void **state)
{
    (void)state;
    errno = EDOM;
    assert_true(grace_sample());
    assert_true(grace_has_passed());
    tell(&guests[0], ORDER_ENTER);
    tell(&guests[1], ORDER_ENTER);
    assert_true(grace_sample());
    assert_false(grace_has_passed());
    assert_false(grace_has_passed());
    tell(&guests[0], ORDER_LEAVE);
    assert_false(grace_has_passed());
    tell(&guests[1], ORDER_LEAVE);
    assert_true(grace_has_passed());
    assert_int_equal(errno, EDOM);
}

/* A thread that is seen inside twice, in two sections, has left the first; one that came later was never
 * waited for. */
static void later_sections_do_not_matter(void **state)
{
    (void)state;
    tell(&guests[0], ORDER_ENTER);
    assert_true(grace_sample());
    tell(&guests[1], ORDER_ENTER);
    assert_false(grace_has_passed());
    tell(&guests[0], ORDER_LEAVE);
    tell(&guests[0], ORDER_ENTER);
    assert_true(grace_has_passed());
    assert_true(grace_sample());
    assert_false(grace_has_passed());
    tell(&guests[0], ORDER_LEAVE);
    tell(&guests[1], ORDER_LEAVE);
    assert_true(grace_has_passed());
}

static _Atomic bool left;

static void *leave_soon(void *argument)
{
    (void)argument;
    sleep_ms(100);
    atomic_store(&left, true);
    tell(&guests[0], ORDER_WALK_END);
    return NULL;
}

static void the_wait_ends_after_the_walk(void **state)
{
    (void)state;
    pthread_t helper;
    errno = EDOM;
    walk_wait();
    tell(&guests[1], ORDER_ENTER); /* a claim is no walk */
    tell(&guests[0], ORDER_WALK);
    atomic_store(&left, false);
    assert_int_equal(pthread_create(&helper, NULL, leave_soon, NULL), 0);
    walk_wait();
    assert_true(atomic_load(&left));
    assert_int_equal(errno, EDOM);
    tell(&guests[1], ORDER_LEAVE);
    assert_int_equal(pthread_join(helper, NULL), 0);
}

/* liburcu sleeps in poll(2), a cancellation point, with its locks held. */
static void *wait_and_be_cancelled(void *argument)
{
    (void)argument;
    int type;
    walk_wait();
    must(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &type) == 0 && type == PTHREAD_CANCEL_ENABLE);
    atomic_store(&left, true);
    return NULL;
}

static void a_wait_is_not_cancelled(void **state)
{
    (void)state;
    pthread_t helper;
    void *result = NULL;
    atomic_store(&left, false);
    tell(&guests[0], ORDER_WALK);
    assert_int_equal(pthread_create(&helper, NULL, wait_and_be_cancelled, NULL), 0);
    sleep_ms(50);
    assert_int_equal(pthread_cancel(helper), 0);
    sleep_ms(50);
    assert_false(atomic_load(&left));
    tell(&guests[0], ORDER_WALK_END);
    assert_int_equal(pthread_join(helper, &result), 0);
    assert_true(atomic_load(&left));
    assert_null(result);
    walk_wait(); /* its locks are free */
}

static void be_alone(void *context)
{
    (void)context;
    must(guests[0].reader.sections % 2 == 0);
    must(grace_has_passed());
    must(grace_sample());
    must(grace_has_passed());
    walk_wait(); /* for nobody */
    walk_begin();
    walk_end();
    reader_enter(&own);
    must(own.sections % 2 == 1);
    reader_leave(&own);
}

/* The thread inside the section does not exist in the child: nobody waits for it there. */
static void a_fork_ends_sections_of_others(void **state)
{
    (void)state;
    tell(&guests[0], ORDER_ENTER);
    tell(&guests[1], ORDER_WALK);
    assert_true(grace_sample());
    assert_false(grace_has_passed());
    child_must_succeed(be_alone, NULL);
    assert_false(grace_has_passed());
    tell(&guests[0], ORDER_LEAVE);
    tell(&guests[1], ORDER_WALK_END);
    assert_true(grace_has_passed());
}

/* As in a child whose forking thread is inside a section: its own goes on, another thread's is over. */
static void fork_inside_a_section(void *context)
{
    struct reader *other = context;
    reader_enter(&own);
    reader_enter(other);
    must(grace_sample());
    rcu_after_fork_child(&own);
    must(own.sections % 2 == 1);
    must(other->sections % 2 == 0);
    must(own.sampled == 0 && other->sampled == 0);
    must(grace_sample());
    must(!grace_has_passed());
    reader_leave(&own);
    must(grace_has_passed());
}

static void a_fork_keeps_the_own_section(void **state)
{
    (void)state;
    static struct reader other;
    reader_publish(&other);
    child_must_succeed(fork_inside_a_section, &other);
}

/* A program may forbid itself system calls at any time. */
static void lose_membarrier(void *context)
{
    (void)context;
    if (!forbid_membarrier())
        return; /* not allowed here: nothing to see */
    reader_enter(&own);
    errno = EDOM;
    must(!grace_sample());
    must(errno == EDOM);
    reader_leave(&own);
}

static void no_sample_without_the_barrier(void **state)
{
    (void)state;
    if (!has_membarrier())
        not_here("it never needs one here");
    child_must_succeed(lose_membarrier, NULL);
}

/* ---- the promise itself: what was unpublished before the sample is not read after the grace period ---- */

#define OBJECTS 150U

static _Atomic(_Atomic int *) current;
static _Atomic int objects[OBJECTS]; /* 1 live, 0 gone */
static _Atomic bool finished;
static struct reader watchers[3];

static void replace(void)
{
    for (unsigned i = 1; i < OBJECTS; i++) {
        _Atomic int *old = atomic_load(&current);
        atomic_store(&objects[i], 1);
        atomic_store(&current, &objects[i]);
        must(grace_sample());
        while (!grace_has_passed())
            sched_yield();
        atomic_store_explicit(old, 0, memory_order_relaxed);
    }
    atomic_store(&finished, true);
}

static void replace_or_read(void *context, unsigned index)
{
    (void)context;
    if (index == 0) {
        replace();
        return;
    }
    struct reader *reader = &watchers[index - 1];
    while (!atomic_load(&finished)) {
        reader_enter(reader);
        _Atomic int *seen = atomic_load_explicit(&current, memory_order_acquire);
        for (unsigned i = 0; i < 20; i++)
            must(atomic_load_explicit(seen, memory_order_relaxed) == 1);
        reader_leave(reader);
    }
}

static void nothing_goes_while_it_is_read(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        reader_publish(&watchers[i]);
    atomic_store(&objects[0], 1);
    atomic_store(&current, &objects[0]);
    threads_run(4, replace_or_read, NULL);
}

/* Begins again without membarrier(2), which the library asks for before main. */
static int begin_without_membarrier(char **arguments)
{
    if (!forbid_membarrier())
        return 77; /* not allowed here: skipped */
    must(!has_membarrier());
    execv("/proc/self/exe", (char *[]){arguments[0], NULL});
    return 1;
}

/* Threads get known to liburcu by their first walk: not while another forks. Those that are known go on. */
struct walker {
    pthread_t thread;
    _Atomic unsigned walks;
    _Atomic unsigned walks_wanted;
};

static void *walk_when_asked(void *argument)
{
    struct walker *walker = argument;
    for (unsigned walks = 0; walks < 2; walks++) {
        while (walker->walks_wanted <= walks)
            sched_yield();
        walk_begin();
        walk_end();
        walker->walks++;
    }
    return NULL;
}

static void nobody_is_registered_during_a_fork(void **state)
{
    (void)state;
    static struct walker known;
    static struct walker unknown;
    known.walks_wanted = 1;
    assert_int_equal(pthread_create(&known.thread, NULL, walk_when_asked, &known), 0);
    assert_int_equal(pthread_create(&unknown.thread, NULL, walk_when_asked, &unknown), 0);
    while (known.walks < 1)
        sched_yield();
    rcu_before_fork();
    known.walks_wanted = 2;
    unknown.walks_wanted = 2;
    while (known.walks < 2)
        sched_yield();
    sleep_ms(30);
    assert_int_equal(unknown.walks, 0);
    rcu_after_fork();
    assert_int_equal(pthread_join(known.thread, NULL), 0);
    assert_int_equal(pthread_join(unknown.thread, NULL), 0);
    assert_int_equal(unknown.walks, 2);
}

int main(int count, char **arguments)
{
    if (count == 2 && strcmp(arguments[1], "without-membarrier") == 0)
        return begin_without_membarrier(arguments);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_section_is_odd),
        cmocka_unit_test_setup_teardown(grace_passes_when_the_last_section_is_left, invite, dismiss),
        cmocka_unit_test_setup_teardown(later_sections_do_not_matter, invite, dismiss),
        cmocka_unit_test_setup_teardown(the_wait_ends_after_the_walk, invite, dismiss),
        cmocka_unit_test_setup_teardown(a_wait_is_not_cancelled, invite, dismiss),
        cmocka_unit_test_setup_teardown(a_fork_ends_sections_of_others, invite, dismiss),
        cmocka_unit_test(a_fork_keeps_the_own_section),
        cmocka_unit_test(nobody_is_registered_during_a_fork),
        cmocka_unit_test(no_sample_without_the_barrier),
        cmocka_unit_test(nothing_goes_while_it_is_read),
    };
    return cmocka_run_group_tests(tests, publish_own, NULL);
}
