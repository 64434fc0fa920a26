/*
 * Trap: handlers of fork that another library registers when it is loaded, and that take a lock of its own,
 * as the manuals advise. Another thread allocates with that lock held. If the allocator took its locks before
 * that handler ran, one would wait for the other. And a fork after the allocator's destructors have run, by a
 * destructor of that library, while another thread still allocates: the handlers must still be there.
 *
 * The library (this file without FORK_ORDER_PROGRAM) is an ordinary one. The program is linked with it alone
 * and gets the allocator by LD_PRELOAD: then constructors of libraries come first, as far as the allocator
 * does not see to it that its own does, and its destructors come before theirs.
 */
#include "../support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FORKS = 300, CHILD_SECONDS = 20, HANG_SECONDS = 60 };

void allocate_with_the_lock(void);

#ifndef FORK_ORDER_PROGRAM

static pthread_mutex_t own_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool is_loaded_with_allocator;

static void take_lock(void)
{
    must(pthread_mutex_lock(&own_lock) == 0);
}

static void release_lock(void)
{
    must(pthread_mutex_unlock(&own_lock) == 0);
}

__attribute__((constructor)) static void register_handlers(void)
{
    must(pthread_atfork(take_lock, release_lock, release_lock) == 0);
}

void allocate_with_the_lock(void)
{
    take_lock();
    for (size_t i = 0; i < 20; i++)
        free(malloc(opaque_size(3 * MIB)));
    release_lock();
    atomic_store(&is_loaded_with_allocator, true);
}

static void fork_children(const char *when)
{
    for (unsigned i = 0; i < FORKS; i++) {
        pid_t pid = fork();

        must(pid >= 0);
        if (pid == 0) {
            free(malloc(opaque_size(3 * MIB)));
            _exit(0);
        }
        must(wait_for_child(pid, CHILD_SECONDS) == 0);
    }
    printf("ok - %s\n", when);
    (void)fflush(stdout);
}

__attribute__((destructor)) static void fork_at_the_end(void)
{
    if (atomic_load(&is_loaded_with_allocator))
        fork_children("forks after the allocator's destructors");
}

#else

static void *allocate(void *argument)
{
    (void)argument;
    for (;;)
        allocate_with_the_lock();
    return NULL;
}

static void *allocate_without_lock(void *argument)
{
    (void)argument;
    for (;;)
        free(malloc(opaque_size(2 * MIB)));
    return NULL;
}

int main(void)
{
    pthread_t threads[2];

    (void)alarm(HANG_SECONDS); /* a fork that waits for ever fails */
    printf("1..2\n");
    must(pthread_create(&threads[0], NULL, allocate, NULL) == 0);
    must(pthread_create(&threads[1], NULL, allocate_without_lock, NULL) == 0);
    for (unsigned i = 0; i < FORKS; i++) {
        pid_t pid = fork();

        must(pid >= 0);
        if (pid == 0) {
            allocate_with_the_lock();
            _exit(0);
        }
        must(wait_for_child(pid, CHILD_SECONDS) == 0);
    }
    printf("ok - forks while the lock of a handler is held by threads that allocate\n");
    return 0;
}

#endif
