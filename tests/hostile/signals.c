/*
 * Hostile use: signal handlers that allocate. malloc and free are not async-signal-safe: a handler that
 * allocates must not interrupt them in the same thread. What is promised, and tested here: a handler that
 * interrupts anything else may allocate and free as it likes, at any rate, on the thread's stack or another,
 * while other threads are inside of the allocator.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../interface.h"

enum { THREADS = 4, LIVE = 50 };

static atomic_bool stop;
static atomic_ulong allocated_in_handlers;

/* Of one thread. Volatile: its handler looks at it. */
struct place {
    volatile sig_atomic_t is_in_the_allocator;
    struct random random;
    void *blocks[LIVE];
    size_t sizes[LIVE];
};

static _Thread_local struct place *volatile place;

static void replace(void **block, size_t *size, struct random *random, uint64_t tag)
{
    if (*block != NULL)
        must(pattern_holds(*block, *size, tag));
    *size = random_size(random) % 100000 + 1;
    if (random_below(random, 3) == 0) {
        *block = realloc(*block, opaque_size(*size));
    } else {
        free(*block);
        *block = malloc(opaque_size(*size));
    }
    must(*block != NULL);
    *size = *size < 300 ? *size : 300;
    pattern_write(*block, *size, tag);
}

/* Replaces blocks that the thread itself allocated as well. */
static void on_signal(int number)
{
    struct place *own = place;
    int kept = errno;

    (void)number;
    if (own == NULL || own->is_in_the_allocator)
        return;
    for (size_t i = 0; i < 5; i++) {
        size_t at = random_below(&own->random, LIVE);

        replace(&own->blocks[at], &own->sizes[at], &own->random, at);
    }
    atomic_fetch_add(&allocated_in_handlers, 1);
    errno = kept;
}

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

static void compute_a_little(void)
{
    for (size_t i = 0; i < 2000; i++)
        (void)opaque_size(i);
}

static void *allocate_and_compute(void *argument)
{
    struct place own = {.random = {(uintptr_t)argument}};
    stack_t stack = {.ss_sp = NULL};
    timer_t timer;

    own.is_in_the_allocator = 1;
    stack.ss_size = 256 * KIB;
    stack.ss_sp = malloc(stack.ss_size);
    must(stack.ss_sp != NULL && sigaltstack(&stack, NULL) == 0);
    place = &own;
    timer = interrupt_this_thread(50000);
    while (!atomic_load(&stop)) {
        size_t at = random_below(&own.random, LIVE);

        replace(&own.blocks[at], &own.sizes[at], &own.random, at);
        own.is_in_the_allocator = 0;
        compute_a_little();
        own.is_in_the_allocator = 1;
    }
    must(timer_delete(timer) == 0);
    place = NULL;
    for (size_t i = 0; i < LIVE; i++)
        free(own.blocks[i]);
    stack.ss_flags = SS_DISABLE;
    must(sigaltstack(&stack, NULL) == 0);
    free(stack.ss_sp);
    return NULL;
}

static void storm(int flags)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART | flags};
    pthread_t threads[THREADS];

    assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
    atomic_store(&stop, false);
    atomic_store(&allocated_in_handlers, 0);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, allocate_and_compute, (void *)(uintptr_t)(i + 1)),
                         0);
    sleep_ms(800);
    atomic_store(&stop, true);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_true(atomic_load(&allocated_in_handlers) > 300);
}

static void handlers_allocate_outside_of_the_allocator(void **state)
{
    (void)state;
    storm(0);
}

static void the_same_on_a_stack_of_their_own(void **state)
{
    (void)state;
    storm(SA_ONSTACK);
}

/* The first allocation of a thread happens in a handler. */
static void *allocate_in_a_handler_only(void *argument)
{
    struct place own = {.random = {(uintptr_t)argument}};

    place = &own;
    must(raise(SIGUSR1) == 0);
    place = NULL;
    for (size_t i = 0; i < LIVE; i++)
        free(own.blocks[i]);
    return NULL;
}

static void a_first_allocation_in_a_handler(void **state)
{
    struct sigaction action = {.sa_handler = on_signal};

    (void)state;
    assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
    atomic_store(&allocated_in_handlers, 0);
    for (size_t i = 0; i < 50; i++) {
        pthread_t thread;

        assert_int_equal(pthread_create(&thread, NULL, allocate_in_a_handler_only, (void *)(uintptr_t)i), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
    assert_int_equal(atomic_load(&allocated_in_handlers), 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_first_allocation_in_a_handler),
        cmocka_unit_test(handlers_allocate_outside_of_the_allocator),
        cmocka_unit_test(the_same_on_a_stack_of_their_own),
    };

    return cmocka_run_group_tests_name("signals", tests, NULL, NULL);
}
