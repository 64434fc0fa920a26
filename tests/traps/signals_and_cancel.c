/*
 * Trap: signal handlers and cancelled threads. Threads allocate while signals interrupt them thousands of
 * times a second; threads in allocation loops are cancelled, and none may be cancelled inside of the
 * allocator: POSIX does not allow malloc to be a cancellation point, and a thread that died there would leave
 * its heap half changed.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../interface.h"

enum { THREADS = 6, LIVE = 200 };

static atomic_bool stop;
static atomic_ulong signals_taken;

/* Takes its time and changes errno, as handlers do, and puts errno back, as they ought to. */
static void on_signal(int number)
{
    int kept = errno;

    (void)number;
    atomic_fetch_add(&signals_taken, 1);
    errno = EINTR;
    errno = kept;
}

/* A timer that interrupts the calling thread, wherever it is. (Signals sent by another thread would mostly
 * arrive when the thread is being scheduled anyway.) */
static timer_t interrupt_this_thread(long every_ns)
{
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
    struct itimerspec times = {{0, every_ns}, {0, every_ns}};
    timer_t timer;

    event._sigev_un._tid = gettid();
    must(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    must(timer_settime(timer, 0, &times, NULL) == 0);
    return timer;
}

static void *allocate_until_stopped(void *argument)
{
    struct random random = {(uintptr_t)argument};
    void *blocks[LIVE] = {NULL};
    size_t sizes[LIVE] = {0};
    timer_t timer = interrupt_this_thread(50000);

    while (!atomic_load(&stop)) {
        size_t at = random_below(&random, LIVE), size = random_size(&random),
               written = size < 256 ? size : 256;

        if (blocks[at] != NULL)
            must(pattern_holds(blocks[at], sizes[at], at));
        errno = 7;
        free(blocks[at]);
        must(errno == 7);
        blocks[at] = malloc(opaque_size(size));
        must(blocks[at] != NULL);
        sizes[at] = written;
        pattern_write(blocks[at], written, at);
    }
    must(timer_delete(timer) == 0);
    for (size_t i = 0; i < LIVE; i++)
        free(blocks[i]);
    return NULL;
}

static void a_storm_of_signals(void **state)
{
    pthread_t threads[THREADS];
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    (void)state;
    atomic_store(&signals_taken, 0);
    assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
    atomic_store(&stop, false);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(
            pthread_create(&threads[i], NULL, allocate_until_stopped, (void *)(uintptr_t)(i + 1)), 0);
    sleep_ms(1500);
    atomic_store(&stop, true);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_true(atomic_load(&signals_taken) > 2000);
}

/* One thread to be cancelled: where it is, and the blocks that its cleanup frees. */
struct victim {
    pthread_t thread;
    uint64_t seed;
    volatile bool in_the_allocator;
    bool cancelled_in_the_allocator;
    void *blocks[LIVE];
};

static void clean_up(void *argument)
{
    struct victim *victim = argument;

    victim->cancelled_in_the_allocator = victim->in_the_allocator;
    for (size_t i = 0; i < LIVE; i++)
        free(victim->blocks[i]);
}

static void *allocate_until_cancelled(void *argument)
{
    struct victim *victim = argument;
    struct random random = {victim->seed};

    pthread_cleanup_push(clean_up, victim);
    for (;;) {
        victim->in_the_allocator = true;
        for (size_t i = 0; i < 20; i++) {
            size_t at = random_below(&random, LIVE);

            free(victim->blocks[at]);
            victim->blocks[at] = NULL;
            victim->blocks[at] = malloc(opaque_size(random_size(&random)));
            must(victim->blocks[at] != NULL);
        }
        victim->in_the_allocator = false;
        pthread_testcancel();
    }
    pthread_cleanup_pop(0);
    return NULL;
}

static void cancelled_threads(void **state)
{
    static struct victim victims[THREADS];

    (void)state;
    for (uint64_t round = 0; round < 80; round++) {
        memset(victims, 0, sizeof victims);
        for (size_t i = 0; i < THREADS; i++) {
            victims[i].seed = round * THREADS + i;
            assert_int_equal(pthread_create(&victims[i].thread, NULL, allocate_until_cancelled, &victims[i]),
                             0);
        }
        sleep_ms((unsigned)(round % 4));
        for (size_t i = 0; i < THREADS; i++)
            assert_int_equal(pthread_cancel(victims[i].thread), 0);
        for (size_t i = 0; i < THREADS; i++) {
            void *result;

            assert_int_equal(pthread_join(victims[i].thread, &result), 0);
            assert_ptr_equal(result, PTHREAD_CANCELED);
            assert_false(victims[i].cancelled_in_the_allocator);
        }
    }
}

/* A cancellation is pending already when the thread allocates for the first time. */
static void *first_allocation_with_pending_cancel(void *argument)
{
    struct victim *victim = argument;

    must(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL) == 0);
    must(pthread_cancel(pthread_self()) == 0);
    must(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL) == 0);
    pthread_cleanup_push(clean_up, victim);
    victim->in_the_allocator = true;
    for (size_t i = 0; i < LIVE; i++) {
        victim->blocks[i] = malloc(opaque_size((size_t)1 << i % 22));
        must(victim->blocks[i] != NULL);
    }
    (void)malloc_trim(0);
    victim->in_the_allocator = false;
    pthread_testcancel();
    pthread_cleanup_pop(0);
    return NULL;
}

static void a_cancellation_is_pending(void **state)
{
    (void)state;
    for (size_t round = 0; round < 20; round++) {
        struct victim victim = {.seed = round};
        void *result;

        assert_int_equal(pthread_create(&victim.thread, NULL, first_allocation_with_pending_cancel, &victim),
                         0);
        assert_int_equal(pthread_join(victim.thread, &result), 0);
        assert_ptr_equal(result, PTHREAD_CANCELED);
        assert_false(victim.cancelled_in_the_allocator);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cancellation_is_pending), /* first: some things are done once per process */
        cmocka_unit_test(a_storm_of_signals),
        cmocka_unit_test(cancelled_threads),
    };

    return cmocka_run_group_tests_name("signals_and_cancel", tests, NULL, NULL);
}
