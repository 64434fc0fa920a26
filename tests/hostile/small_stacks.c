/*
 * Hostile use: threads with the smallest stack that POSIX allows, 16 KiB, of which the C library takes some
 * for itself. Every path of the allocator fits, with room for the caller: the stack is painted before each
 * and looked at after it, and none may need more than STACK_MOST.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../interface.h"

#define STACK_BYTES (16 * KIB)
#define STACK_MOST  (3 * KIB)
#define PAINT       0xA5

enum { BLOCKS = 20000, OTHERS = 80 };

/* Blocks of many other threads' pools, and chains for as many owners as a flush can tell apart and more. */
static void *others[OTHERS][BLOCKS / OTHERS];
static char *stack;
static size_t deepest;

static size_t block_size(size_t i)
{
    return i % 50 == 0 ? 50 * KIB : i % 200 == 7 ? 700 * KIB : 16 + i * 37 % 3000;
}

static void *make_blocks(void *argument)
{
    void **mine = argument;

    for (size_t i = 0; i < BLOCKS / OTHERS; i++) {
        mine[i] = malloc(opaque_size(16 + i * 37 % 3000));
        must(mine[i] != NULL);
    }
    return NULL;
}

static void allocate_all_sizes(void)
{
    static void *blocks[2000];

    for (size_t i = 0; i < 2000; i++) {
        blocks[i] = i % 3 == 0 ? calloc(1, opaque_size(block_size(i))) : malloc(opaque_size(block_size(i)));
        must(blocks[i] != NULL);
    }
    for (size_t i = 0; i < 2000; i++) {
        blocks[i] = realloc(blocks[i], opaque_size(block_size(i) * 2));
        must(blocks[i] != NULL);
    }
    for (size_t i = 0; i < 2000; i++)
        free(blocks[i]);
}

static void free_those_of_others(void)
{
    for (size_t i = 0; i < OTHERS; i++)
        for (size_t j = 0; j < BLOCKS / OTHERS; j++)
            free(others[i][j]);
}

static void align(void)
{
    for (size_t alignment = 16; alignment <= 32 * MIB; alignment *= 2) {
        void *block = aligned_alloc(alignment, opaque_size(alignment / 2));

        must(block != NULL);
        free(block);
    }
}

static void grow(void)
{
    char *block = NULL;

    for (size_t size = 1; size <= 64 * MIB; size *= 2) {
        block = realloc(block, opaque_size(size));
        must(block != NULL);
        block[size - 1] = 1;
    }
    for (size_t size = 64 * MIB; size > 0; size /= 2) {
        block = realloc(block, opaque_size(size));
        must(block != NULL);
    }
    free(block);
}

static void trim(void)
{
    (void)malloc_trim(0);
}

/* A flush happens at the end of the thread. */
static void leave_to_the_end(void)
{
    void *block = malloc(opaque_size(100));

    must(block != NULL);
    free_those_of_others();
    free(block);
}

static size_t unused_bytes(void)
{
    size_t unused = 0;

    while (unused < STACK_BYTES && (unsigned char)stack[unused] == PAINT)
        unused++;
    return unused;
}

struct use {
    void (*body)(void);
    size_t body_bytes;   /* below the frame that calls the body */
    size_t thread_bytes; /* by the whole thread, with what the C library puts on the top of a stack */
};

static void *run(void *argument)
{
    struct use *use = argument;
    char *frame = __builtin_frame_address(0);

    use->body();
    use->body_bytes = (size_t)(frame - stack) - unused_bytes();
    return NULL;
}

static struct use used_by(void (*body)(void))
{
    struct use use = {.body = body};
    pthread_attr_t attributes;
    pthread_t thread;

    memset(stack, PAINT, STACK_BYTES);
    assert_int_equal(pthread_attr_init(&attributes), 0);
    assert_int_equal(pthread_attr_setstack(&attributes, stack, STACK_BYTES), 0);
    assert_int_equal(pthread_create(&thread, &attributes, run, &use), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(pthread_attr_destroy(&attributes), 0);
    use.thread_bytes = STACK_BYTES - unused_bytes();
    return use;
}

static void nothing(void)
{
}

static void others_make_blocks(void)
{
    pthread_t threads[OTHERS];

    for (size_t i = 0; i < OTHERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, make_blocks, others[i]), 0);
    for (size_t i = 0; i < OTHERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
}

static void measure(const char *name, void (*body)(void))
{
    struct use use = used_by(body);

    printf("# %s: %zu bytes of stack, %zu by the whole thread\n", name, use.body_bytes, use.thread_bytes);
    assert_true(use.body_bytes <= STACK_MOST);
    assert_true(use.thread_bytes <= STACK_BYTES - 2 * KIB);
    if (use.body_bytes > deepest)
        deepest = use.body_bytes;
}

static void every_path_fits(void **state)
{
    (void)state;
    /* Below the stack nothing may be written. */
    stack = mmap(NULL, STACK_BYTES + 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(stack, MAP_FAILED);
    stack += 4096;
    assert_int_equal(mprotect(stack, STACK_BYTES, PROT_READ | PROT_WRITE), 0);
    assert_true((size_t)sysconf(_SC_THREAD_STACK_MIN) <= STACK_BYTES);

    measure("nothing", nothing);
    measure("all sizes", allocate_all_sizes);
    measure("alignments", align);
    measure("realloc from 1 byte to 64 MiB and back", grow);
    others_make_blocks();
    measure("frees of others' blocks", free_those_of_others);
    others_make_blocks();
    measure("the same, and the thread's end", leave_to_the_end);
    measure("trim", trim);
    assert_true(deepest >= 256); /* the paint shows something */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_path_fits)};

    return cmocka_run_group_tests_name("small_stacks", tests, NULL, NULL);
}
