/*
 * Misuses a guarded block in one way, named by the arguments MISUSE and BYTES, and says so when nobody
 * noticed. tests/abort/guarded-check runs each in a child with TARN_GUARD_SAMPLE=1/1. Says at which address
 * the block is first.
 */
#include "../support.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../interface.h"

#define TRIES 400

static size_t bytes;

/* Accesses go through volatile pointers, so that the compiler leaves them in; calls take plain ones. */
static void *plain(volatile char *block)
{
    return (void *)(uintptr_t)block;
}

static void show(const void *block)
{
    fprintf(stderr, "block %p\n", block);
}

static volatile char *allocate(void)
{
    char *block = opaque(malloc(opaque_size(bytes)));

    must(block != NULL);
    memset(block, 1, bytes);
    return block;
}

/* One of the few that begin a page. */
static volatile char *allocate_left(void)
{
    for (int i = 0; i < TRIES; i++) {
        volatile char *block = allocate();
        if ((uintptr_t)block % 4096 == 0 && (uintptr_t)(block + bytes) % 4096 != 0)
            return block;
    }
    must_failed("a block begins a page", __FILE__, __LINE__);
}

/* One that ends where its page does, up to a multiple of 16. */
static volatile char *allocate_right(void)
{
    for (int i = 0; i < TRIES; i++) {
        volatile char *block = allocate();
        if ((uintptr_t)(block + (bytes + 15) / 16 * 16) % 4096 == 0)
            return block;
    }
    must_failed("a block ends a page", __FILE__, __LINE__);
}

static volatile char *right(void)
{
    volatile char *block = allocate_right();

    show(plain(block));
    return block;
}

static volatile char *left(void)
{
    volatile char *block = allocate_left();

    show(plain(block));
    return block;
}

static void release(volatile char *block)
{
    free(opaque(plain(block)));
}

static void *release_it(void *block)
{
    release(block);
    return NULL;
}

static void *write_it(void *block)
{
    *(volatile char *)block = 3;
    return NULL;
}

static void in_thread(void *(*body)(void *), volatile char *block)
{
    pthread_t thread;

    must(pthread_create(&thread, NULL, body, plain(block)) == 0);
    must(pthread_join(thread, NULL) == 0);
}

static size_t rounded(void)
{
    return (bytes + 15) / 16 * 16;
}

static void read_1_after(void)
{
    (void)right()[rounded()];
}

static void read_16_after(void)
{
    (void)right()[rounded() + 15];
}

static void write_1_after(void)
{
    right()[rounded()] = 2;
}

static void write_16_after(void)
{
    right()[rounded() + 15] = 2;
}

static void read_1_before(void)
{
    (void)left()[-1];
}

static void read_16_before(void)
{
    (void)left()[-16];
}

static void write_1_before(void)
{
    left()[-1] = 2;
}

static void write_16_before(void)
{
    left()[-16] = 2;
}

/* On the page of the block: seen when it is freed. */
static void write_slack_before(void)
{
    volatile char *block = right();

    block[-1] = 2;
    release(block);
}

static void write_slack_after(void)
{
    volatile char *block = left();

    block[bytes] = 2;
    release(block);
}

static void write_slack_in_thread(void)
{
    volatile char *block = left();

    block[bytes + 1] = 2;
    in_thread(release_it, block);
}

static void read_freed(void)
{
    volatile char *block = right();

    release(block);
    (void)block[bytes / 2];
}

static void write_freed(void)
{
    volatile char *block = right();

    release(block);
    block[bytes / 2] = 2;
}

static void write_freed_in_thread(void)
{
    volatile char *block = right();

    release(block);
    in_thread(write_it, block);
}

static void write_freed_by_thread(void)
{
    volatile char *block = right();

    in_thread(release_it, block);
    block[0] = 2;
}

/* Many others come between: the place waits. */
static void write_freed_later(void)
{
    volatile char *block = right();

    release(block);
    for (int i = 0; i < 9000; i++)
        release(allocate());
    block[0] = 2;
}

static void double_free(void)
{
    volatile char *block = right();

    release(block);
    release(block);
}

static void double_free_in_thread(void)
{
    volatile char *block = right();

    release(block);
    in_thread(release_it, block);
}

static void interior_free(void)
{
    release(left() + 16);
}

static void interior_free_in_thread(void)
{
    in_thread(release_it, right() + 16);
}

static void wrong_sized_free(void)
{
    free_sized(opaque(plain(right())), opaque_size(bytes + 1));
}

static void sized_free_again(void)
{
    volatile char *block = right();

    free_sized(opaque(plain(block)), opaque_size(bytes));
    free_sized(opaque(plain(block)), opaque_size(bytes));
}

static void realloc_freed(void)
{
    volatile char *block = right();

    release(block);
    (void)opaque(realloc(opaque(plain(block)), opaque_size(bytes * 2)));
}

/* The child inherits the blocks and the watch. */
static void write_freed_in_child(void)
{
    volatile char *block = right();
    int status;
    pid_t child = fork();

    must(child >= 0);
    if (child == 0) {
        release(allocate());
        release(block);
        block[0] = 2;
        _exit(0);
    }
    must(waitpid(child, &status, 0) == child);
    must(WIFSIGNALED(status));
    release(block);
    signal(WTERMSIG(status), SIG_DFL);
    raise(WTERMSIG(status));
}

static sigjmp_buf back;

static void jump(int number)
{
    siglongjmp(back, number);
}

/* A fault that is nobody's block goes to the action that was there before; the program's own replaces the
 * watch. */
static void own_handler(void)
{
    volatile char *block = right();
    struct sigaction watch;
    struct sigaction own = {.sa_handler = jump};

    must(sigaction(SIGSEGV, &own, &watch) == 0 && (watch.sa_flags & SA_SIGINFO) != 0);
    if (sigsetjmp(back, 1) == 0)
        block[rounded()] = 2;
    else
        must(sigaction(SIGSEGV, &watch, NULL) == 0);
    block[rounded()] = 2;
}

static void other_fault(void)
{
    show(plain(right()));
    *(volatile char *)opaque((void *)16) = 1;
}

static void sent_fault(void)
{
    show(plain(right()));
    kill(getpid(), SIGSEGV);
    pause();
}

#define CASE(name)                                                                                           \
    {                                                                                                        \
#name, name                                                                                          \
    }

static const struct {
    const char *name;
    void (*misuse)(void);
} cases[] = {
    CASE(read_1_after),
    CASE(read_16_after),
    CASE(write_1_after),
    CASE(write_16_after),
    CASE(read_1_before),
    CASE(read_16_before),
    CASE(write_1_before),
    CASE(write_16_before),
    CASE(write_slack_before),
    CASE(write_slack_after),
    CASE(write_slack_in_thread),
    CASE(read_freed),
    CASE(write_freed),
    CASE(write_freed_in_thread),
    CASE(write_freed_by_thread),
    CASE(write_freed_later),
    CASE(double_free),
    CASE(double_free_in_thread),
    CASE(interior_free),
    CASE(interior_free_in_thread),
    CASE(wrong_sized_free),
    CASE(sized_free_again),
    CASE(realloc_freed),
    CASE(write_freed_in_child),
    CASE(own_handler),
    CASE(other_fault),
    CASE(sent_fault),
};

int main(int argc, char **argv)
{
    const struct rlimit no_core = {0, 0};

    setrlimit(RLIMIT_CORE, &no_core);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (argc < 3) {
            puts(cases[i].name);
        } else if (strcmp(argv[1], cases[i].name) == 0) {
            bytes = strtoul(argv[2], NULL, 10);
            cases[i].misuse();
            puts("not noticed");
            return 0;
        }
    }
    return argc < 3 ? 0 : 2;
}
