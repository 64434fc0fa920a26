/*
 * api/process: children of a busy process work; so do handlers of the program that allocate around a fork;
 * memory is given back on request; and what the environment asks for at the start and at the end.
 *
 * For the last the program runs itself, with an argument that says what to do instead of testing.
 */
#include "arena/housekeeper.h"
#include "heap/thread.h"
#include "os/lock.h"
#include "os/settings.h"
#include "raw/raw.h"
#include "tarn/tarn.h"
#include "unit.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- a program's own handlers ---- */

static bool handlers_allocate;
static bool handlers_trim;
static bool handlers_fork;

static void use_memory(void)
{
    static const size_t sizes[] = {0, 100, 1500, 30000, 100000, MIB, 6 * MIB};
    char *blocks[7];
    for (unsigned i = 0; i < 7; i++) {
        must((blocks[i] = tarn_malloc(sizes[i])) != NULL);
        pattern_write(blocks[i], sizes[i], i);
    }
    for (unsigned i = 0; i < 7; i++) {
        must((blocks[i] = tarn_realloc(blocks[i], sizes[i] + 5000)) != NULL);
        must(pattern_holds(blocks[i], sizes[i], i));
    }
    must(tarn_mallinfo2().hblks >= 2);
    for (unsigned i = 0; i < 7; i++)
        tarn_free(blocks[i]);
}

static void handler(void)
{
    if (handlers_allocate)
        use_memory();
    if (handlers_trim)
        (void)tarn_malloc_trim(0);
}

static void probe_locks(void);
static void fork_in_a_handler(void);

/* Before the library registers its own: these run while it holds its locks. */
static void register_handlers(int count, char **arguments, char **environment)
{
    (void)count;
    (void)arguments;
    (void)environment;
    pthread_atfork(handler, handler, handler);
    pthread_atfork(probe_locks, probe_locks, NULL);
    pthread_atfork(fork_in_a_handler, NULL, NULL);
}

__attribute__((used, section(".preinit_array"))) static void (*const registers_handlers)(
    int, char **, char **) = register_handlers;

/* ---- a busy process ---- */

#define THREADS 3U

static _Atomic bool finished;
static _Atomic unsigned started;
static _Atomic(char *) passed[256];
static pthread_t threads[THREADS];

/* A thread that starts holds locks that are not this library's, and that no handler takes: of a sanitizer's
 * allocator, of liburcu's start. A child made at that moment would wait for them for ever. */
static void wait_until_started(unsigned count)
{
    while (started < count)
        sched_yield();
}

static void *be_busy(void *argument)
{
    struct random random = {(uintptr_t)argument};
    started++;
    while (!finished) {
        size_t bytes = 16 + random_size(&random) % (600 * KIB);
        char *block = tarn_malloc(bytes);
        must(block != NULL);
        *(size_t *)(void *)block = bytes;
        block[bytes - 1] = 'e';
        block = atomic_exchange(&passed[random_below(&random, 256)], block);
        if (block != NULL)
            must(block[*(size_t *)(void *)block - 1] == 'e');
        tarn_free(block);
    }
    return NULL;
}

static int start_threads(void **state)
{
    (void)state;
    finished = false;
    started = 0;
    for (uintptr_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, be_busy, (void *)(i + 1)) != 0)
            return -1;
    wait_until_started(THREADS);
    return 0;
}

static int stop_threads(void **state)
{
    (void)state;
    finished = true;
    for (unsigned i = 0; i < THREADS; i++)
        if (pthread_join(threads[i], NULL) != 0)
            return -1;
    for (unsigned i = 0; i < 256; i++)
        tarn_free(atomic_exchange(&passed[i], NULL));
    handlers_allocate = handlers_trim = false;
    return heap_is_valid(thread_heap()) ? 0 : -1;
}

static void use_memory_in_thread(void *context, unsigned index)
{
    (void)context;
    (void)index;
    for (unsigned i = 0; i < 2; i++)
        use_memory();
}

/* Blocks of threads that are no more are freed too; their heaps take them in and nobody runs them. */
static void live_on(void *context)
{
    (void)context;
    must(!lock_forking);
    must(heap_is_valid(thread_heap()));
    for (unsigned i = 0; i < 256; i++)
        tarn_free(atomic_exchange(&passed[i], NULL));
    use_memory();
    if (!UNIT_THREAD_SANITIZED)
        threads_run(3, use_memory_in_thread, NULL);
    (void)tarn_malloc_trim(0);
    use_memory();
    must(heap_is_valid(thread_heap()));
}

static void children_of_a_busy_process_work(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        child_must_succeed(live_on, NULL);
        assert_false(lock_forking);
        use_memory();
    }
}

static void handlers_may_allocate(void **state)
{
    (void)state;
    handlers_allocate = true;
    for (unsigned i = 0; i < 8; i++) {
        child_must_succeed(live_on, NULL);
        use_memory();
    }
}

/* A walk is under way in another thread, and arenas wait to be unmapped: a handler that trims must not wait
 * for it. */
static void *collect(void *argument)
{
    (void)argument;
    (void)tarn_mallinfo2();
    started++;
    while (!finished)
        (void)tarn_mallinfo2();
    return NULL;
}

static void handlers_may_trim(void **state)
{
    (void)state;
    pthread_t collector;
    assert_int_equal(pthread_create(&collector, NULL, collect, NULL), 0);
    wait_until_started(THREADS + 1);
    handlers_trim = true;
    for (unsigned i = 0; i < 8; i++)
        child_must_succeed(live_on, NULL);
    finished = true;
    assert_int_equal(pthread_join(collector, NULL), 0);
}

/* ---- locks ---- */

static unsigned probes_asked;
static _Atomic unsigned probes_answered;
static _Atomic bool probing;

static void *probe_raw(void *argument)
{
    (void)argument;
    (void)raw_totals();
    probes_answered++;
    return NULL;
}

static void *probe_late_heap(void *argument)
{
    (void)argument;
    if (thread_late_heap() != NULL)
        thread_late_done();
    probes_answered++;
    return NULL;
}

static void *probe_housekeeper(void *argument)
{
    (void)argument;
    (void)housekeeper_trim(0);
    probes_answered++;
    return NULL;
}

static pthread_t probes[3];

/* In a handler of the program, between those of the library: other threads wait for all three locks. */
static void probe_locks(void)
{
    static void *(*const all[3])(void *) = {probe_raw, probe_late_heap, probe_housekeeper};
    if (!probing)
        return;
    if (probes_asked == 0)
        for (; probes_asked < 3; probes_asked++)
            must(pthread_create(&probes[probes_asked], NULL, all[probes_asked], NULL) == 0);
    sleep_ms(30);
    must(probes_answered == 0);
}

static void return_at_once(void *context)
{
    struct arena *arena = context;
    must(arena->publishing == 0); /* of a thread that is no more */
    (void)raw_totals();
    must(thread_late_heap() != NULL);
    thread_late_done();
}

static void all_locks_are_held_around_a_fork(void **state)
{
    (void)state;
    void *block = tarn_malloc(100);
    struct arena *arena = arena_of(block);
    atomic_store(&arena->publishing, 1);
    probing = true;
    child_must_succeed(return_at_once, arena);
    probing = false;
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(pthread_join(probes[i], NULL), 0);
    assert_int_equal(probes_answered, 3);
    atomic_store(&arena->publishing, 0);
    tarn_free(block);
}

/* ---- forks of signal handlers, which come while their thread is inside a lock or a fork ---- */

static void fork_and_wait(void)
{
    pid_t child = fork();
    must(child >= 0);
    if (child == 0)
        _exit(0);
    must(wait_for_child(child, 30) == 0);
}

/* Another thread gets the late heap not before this one has released it. */
static void fork_with_the_late_heap_locked(void)
{
    pthread_t probe;
    unsigned answered = probes_answered;
    must(pthread_create(&probe, NULL, probe_late_heap, NULL) == 0);
    fork_and_wait();
    sleep_ms(30);
    must(probes_answered == answered);
    must(pthread_detach(probe) == 0);
}

static void wait_for_answers(unsigned count)
{
    while (probes_answered < count)
        sched_yield();
}

static void a_fork_at_a_lock_leaves_it(void **state)
{
    (void)state;
    unsigned answered = probes_answered;
    assert_non_null(thread_late_heap());
    fork_with_the_late_heap_locked();
    assert_int_equal(lock_inside, 1);
    thread_late_done();
    wait_for_answers(answered + 1);
    child_must_succeed(live_on, NULL);
}

static void fork_in_a_handler(void)
{
    if (!handlers_fork)
        return;
    handlers_fork = false;
    fork_with_the_late_heap_locked();
    must(lock_forking);
}

static void a_fork_in_a_fork_leaves_the_locks(void **state)
{
    (void)state;
    unsigned answered = probes_answered;
    handlers_fork = true;
    fork_and_wait();
    assert_false(handlers_fork);
    assert_false(lock_forking);
    assert_int_equal(lock_inside, 0);
    wait_for_answers(answered + 1);
    child_must_succeed(live_on, NULL);
}

static void fork_again(void *context)
{
    unsigned depth = *(const unsigned *)context;
    use_memory();
    if (depth == 0)
        return;
    depth--;
    pid_t child = fork();
    must(child >= 0);
    if (child == 0) {
        fork_again(&depth);
        _exit(0);
    }
    use_memory();
    must(wait_for_child(child, 30) == 0);
}

static void children_of_children(void **state)
{
    (void)state;
    unsigned depth = 4;
    child_must_succeed(fork_again, &depth);
}

/* ---- memory given back ---- */

static void trim_says_what_it_did(void **state)
{
    (void)state;
    static void *blocks[4000];
    (void)tarn_malloc_trim(0);
    assert_int_equal(tarn_malloc_trim(0), 0);
    for (unsigned i = 0; i < 4000; i++) {
        assert_non_null(blocks[i] = tarn_malloc(5000));
        memset(blocks[i], 'b', 5000);
    }
    size_t full = resident_bytes();
    for (unsigned i = 0; i < 4000; i++)
        tarn_free(blocks[i]);
    void *large = tarn_malloc(8 * MIB);
    memset(large, 'l', 8 * MIB);
    tarn_free(large);
    assert_int_equal(tarn_malloc_trim(0), 1);
    if (!UNIT_SANITIZED)
        assert_true(resident_bytes() + 17 * MIB < full);
    struct heap *heap = thread_heap();
    assert_int_equal(heap->empty_slots + heap->run_slots + heap->span_slots, 0);
    assert_int_equal(tarn_malloc_trim(0), 0);
    tarn_free(tarn_malloc(8 * MIB)); /* cached is reason enough */
    assert_int_equal(tarn_malloc_trim(0), 1);
    assert_int_equal(tarn_malloc_trim(0), 0);
}

/* ---- start and end ---- */

static void run_again(void *context)
{
    char *const *environment = context;
    char *arguments[] = {(char *)(uintptr_t) "process", (char *)(uintptr_t) "exit", NULL};
    execve("/proc/self/exe", arguments, environment);
    must(false);
}

static void check_run(const char *const *environment, const char *begins, bool has_statistics)
{
    struct outcome outcome;
    child_run(run_again, (void *)(uintptr_t)environment, &outcome);
    assert_int_equal(outcome.status, 0);
    assert_memory_equal(outcome.output, begins, strlen(begins));
    assert_int_equal(strstr(outcome.output, "  in live blocks of pools\n") != NULL, has_statistics);
    if (begins[0] == '\0' && !has_statistics)
        assert_int_equal(outcome.length, 0);
}

static void the_environment_asks_for_more(void **state)
{
    (void)state;
    static const char *const nothing[] = {"HOME=/", NULL};
    static const char *const at_exit[] = {"TARN_STATS=1", NULL};
    static const char *const verbose[] = {"TARN_VERBOSE=2", NULL};
    check_run(nothing, "", false);
    check_run(at_exit, "tarn: ", true);
    check_run(verbose,
              TARN_OVERRIDE ? "tarn: 0.1.0 serves malloc of process " : "tarn: 0.1.0 is loaded into process ",
              false);
}

/* As many programs do: their exit handlers close stderr. */
static void close_stderr(void)
{
    close(STDERR_FILENO);
}

int main(int count, char **arguments)
{
    if (count == 2 && strcmp(arguments[1], "exit") == 0) {
        tarn_free(tarn_malloc(100));
        return atexit(close_stderr);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(children_of_a_busy_process_work, start_threads, stop_threads),
        cmocka_unit_test_setup_teardown(handlers_may_allocate, start_threads, stop_threads),
        cmocka_unit_test_setup_teardown(handlers_may_trim, start_threads, stop_threads),
        cmocka_unit_test(all_locks_are_held_around_a_fork),
        cmocka_unit_test(a_fork_at_a_lock_leaves_it),
        cmocka_unit_test(a_fork_in_a_fork_leaves_the_locks),
        cmocka_unit_test(children_of_children),
        cmocka_unit_test(trim_says_what_it_did),
        cmocka_unit_test(the_environment_asks_for_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
