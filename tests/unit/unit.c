/* Helpers of the unit tests; see unit.h. */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_SECONDS 60

/* ---- children ---- */

static void read_all(int descriptor, struct outcome *outcome)
{
    outcome->length = 0;
    for (;;) {
        size_t room = sizeof outcome->output - 1 - outcome->length;
        ssize_t count = read(descriptor, outcome->output + outcome->length, room);
        if (count > 0)
            outcome->length += (size_t)count;
        else if (count == 0 || errno != EINTR)
            break;
    }
    outcome->output[outcome->length] = '\0';
}

/* qemu-user adds a line of its own when a child dies by a signal. */
static void forget_line_of_emulator(struct outcome *outcome)
{
    char *line = strstr(outcome->output, "qemu: uncaught target signal");
    if (line == NULL)
        return;
    char *end = strchr(line, '\n');
    end = end != NULL ? end + 1 : outcome->output + outcome->length;
    memmove(line, end, (size_t)(outcome->output + outcome->length - end) + 1);
    outcome->length -= (size_t)(end - line);
}

void child_run(void (*body)(void *context), void *context, struct outcome *outcome)
{
    int ends[2];
    must(pipe2(ends, O_CLOEXEC) == 0);
    pid_t child = fork();
    must(child >= 0);
    if (child == 0) {
        const struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        must(dup2(ends[1], STDERR_FILENO) == STDERR_FILENO);
        close(ends[0]);
        close(ends[1]);
        alarm(CHILD_SECONDS); /* a child that hangs with the pipe open must not hang its parent */
        body(context);
        _exit(0);
    }
    close(ends[1]);
    read_all(ends[0], outcome);
    close(ends[0]);
    outcome->status = wait_for_child(child, CHILD_SECONDS);
    forget_line_of_emulator(outcome);
}

void child_must_succeed(void (*body)(void *context), void *context)
{
    struct outcome outcome;
    child_run(body, context, &outcome);
    if (outcome.status != 0 || outcome.length != 0)
        fail_msg("the child ended with wait status 0x%x and wrote: %s", (unsigned)outcome.status,
                 outcome.output);
}

void child_must_die(void (*body)(void *context), void *context, const char *line)
{
    struct outcome outcome;
    child_run(body, context, &outcome);
    size_t length = strlen(line);
    if (outcome.length != length + 1 || memcmp(outcome.output, line, length) != 0 ||
        outcome.output[length] != '\n')
        fail_msg("expected \"%s\", but the child wrote \"%s\"", line, outcome.output);
    assert_true(WIFSIGNALED(outcome.status));
    assert_int_equal(WTERMSIG(outcome.status), SIGABRT);
}

static void set_limit(rlim_t bytes)
{
    struct rlimit limit;
    must(getrlimit(RLIMIT_AS, &limit) == 0);
    limit.rlim_cur = bytes < limit.rlim_max ? bytes : limit.rlim_max;
    must(setrlimit(RLIMIT_AS, &limit) == 0);
}

void limit_address_space(size_t more_bytes)
{
    set_limit(address_space_bytes() + more_bytes);
}

void lift_limit(void)
{
    set_limit(RLIM_INFINITY);
}

/* ---- threads ---- */

struct start {
    pthread_barrier_t *barrier;
    void (*body)(void *context, unsigned index);
    void *context;
    unsigned index;
};

static void *begin(void *argument)
{
    struct start *start = argument;
    pthread_barrier_wait(start->barrier);
    start->body(start->context, start->index);
    return NULL;
}

void threads_run(unsigned count, void (*body)(void *context, unsigned index), void *context)
{
    pthread_barrier_t barrier;
    pthread_t threads[THREADS_MOST];
    struct start starts[THREADS_MOST];
    must(count <= THREADS_MOST && pthread_barrier_init(&barrier, NULL, count) == 0);
    for (unsigned i = 0; i < count; i++) {
        starts[i] = (struct start){&barrier, body, context, i};
        must(pthread_create(&threads[i], NULL, begin, &starts[i]) == 0);
    }
    for (unsigned i = 0; i < count; i++)
        must(pthread_join(threads[i], NULL) == 0);
    pthread_barrier_destroy(&barrier);
}

void meet(struct meeting *meeting, unsigned count)
{
    unsigned arrival = atomic_fetch_add(&meeting->arrivals, 1);
    unsigned all = (arrival / count + 1) * count;
    for (unsigned spins = 0; atomic_load(&meeting->arrivals) < all; spins++)
        if (spins % 1024 == 1023) /* the others may want this processor */
            sched_yield();
}

/* ---- pages ---- */

/* The kernel's, whatever a test makes the library believe. */
static size_t page_bytes(void)
{
    return (size_t)getauxval(AT_PAGESZ);
}

size_t pages_of(size_t bytes)
{
    return (bytes + page_bytes() - 1) / page_bytes();
}

static void *page_of(const void *address)
{
    return (void *)((uintptr_t)address / page_bytes() * page_bytes());
}

/* Keeps errno, since some tests look at it. */
bool page_is_mapped(const void *address)
{
    unsigned char resident;
    int saved_errno = errno;
    bool mapped = mincore(page_of(address), page_bytes(), &resident) == 0;
    errno = saved_errno;
    return mapped;
}

/* The kernel cannot read a file name there. */
bool page_is_forbidden(const void *address)
{
    int saved_errno = errno;
    bool unreadable = access(address, F_OK) != 0 && errno == EFAULT;
    errno = saved_errno;
    return unreadable && page_is_mapped(address);
}

bool page_is_resident(const void *address)
{
    unsigned char resident;
    must(mincore(page_of(address), page_bytes(), &resident) == 0);
    return (resident & 1) != 0;
}

size_t pages_resident(const void *address, size_t bytes)
{
    size_t count = 0;
    const char *end = (const char *)address + bytes;
    for (const char *page = page_of(address); page < end; page += page_bytes())
        count += page_is_resident(page);
    return count;
}
