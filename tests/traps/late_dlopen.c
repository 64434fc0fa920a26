/*
 * Trap: the library is loaded late, by dlopen, into a program that runs on another allocator and has threads
 * already. Its tarn_* functions serve several threads; blocks of both allocators exist side by side; the
 * library is closed while threads that used it are still there and end afterwards.
 *
 * The program is linked without the library; its path is the argument.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 6, BLOCKS = 3000 };

static const char *library_path;

static struct {
    void *(*allocate)(size_t size);
    void *(*resize)(void *block, size_t size);
    void (*release)(void *block);
    size_t (*usable_size)(void *block);
    int (*trim)(size_t pad);
} tarn;

static void *tarn_blocks[THREADS][BLOCKS];
static void *libc_blocks[THREADS][BLOCKS];
static pthread_barrier_t barrier;

static void *symbol(void *library, const char *name)
{
    void *address = dlsym(library, name);

    must(address != NULL);
    return address;
}

/* A pointer to a function in a variable of that type; POSIX says that dlsym's result may be one. */
#define LOAD(member, name)                                                                                   \
    do {                                                                                                     \
        void *address = symbol(library, name);                                                               \
        memcpy(&tarn.member, &address, sizeof address);                                                      \
    } while (0)

static void *open_library(int flags)
{
    void *library = dlopen(library_path, RTLD_NOW | flags);

    if (library == NULL)
        fail_msg("%s", dlerror());
    LOAD(allocate, "tarn_malloc");
    LOAD(resize, "tarn_realloc");
    LOAD(release, "tarn_free");
    LOAD(usable_size, "tarn_malloc_usable_size");
    LOAD(trim, "tarn_malloc_trim");
    return library;
}

static size_t block_size(size_t i)
{
    return i % 300 == 0 ? 800 * KIB : i % 50 == 0 ? 50 * KIB : 8 + i;
}

static void allocate_own(size_t own)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        libc_blocks[own][i] = malloc(opaque_size(block_size(i) % 4096));
        tarn_blocks[own][i] = tarn.allocate(block_size(i) / 2 + 1);
        must(libc_blocks[own][i] != NULL && tarn_blocks[own][i] != NULL);
        tarn_blocks[own][i] = tarn.resize(tarn_blocks[own][i], block_size(i));
        must(tarn_blocks[own][i] != NULL);
        must(tarn.usable_size(tarn_blocks[own][i]) >= block_size(i));
        pattern_write(tarn_blocks[own][i], block_size(i), own);
        pattern_write(libc_blocks[own][i], block_size(i) % 4096, own + 1);
    }
}

static void verify_and_free(size_t owner)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        must(pattern_holds(tarn_blocks[owner][i], block_size(i), owner));
        must(pattern_holds(libc_blocks[owner][i], block_size(i) % 4096, owner + 1));
        tarn.release(tarn_blocks[owner][i]);
        free(libc_blocks[owner][i]);
    }
}

/* Exists before the library is loaded, uses it, frees the next thread's blocks, and ends after it was closed.
 */
static void *thread_of_both(void *argument)
{
    size_t own = (size_t)(uintptr_t)argument;

    free(malloc(opaque_size(100)));
    pthread_barrier_wait(&barrier); /* the library is not loaded yet */
    pthread_barrier_wait(&barrier); /* now it is */
    allocate_own(own);
    pthread_barrier_wait(&barrier);
    verify_and_free((own + 1) % THREADS);
    pthread_barrier_wait(&barrier); /* all done with the library */
    pthread_barrier_wait(&barrier); /* the library is closed */
    free(malloc(opaque_size(100)));
    return NULL;
}

static void load_use_and_close(int flags)
{
    pthread_t threads[THREADS];
    void *library;

    assert_int_equal(pthread_barrier_init(&barrier, NULL, THREADS + 1), 0);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, thread_of_both, (void *)(uintptr_t)i), 0);
    pthread_barrier_wait(&barrier);
    library = open_library(flags);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    assert_int_equal(dlclose(library), 0);
    pthread_barrier_wait(&barrier);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(pthread_barrier_destroy(&barrier), 0);
}

static void loaded_locally(void **state)
{
    (void)state;
    load_use_and_close(RTLD_LOCAL);
}

static void loaded_again(void **state)
{
    (void)state;
    for (size_t round = 0; round < 3; round++)
        load_use_and_close(RTLD_LOCAL);
}

/* With its names visible to libraries loaded later; the bindings that the program has already do not change.
 */
static void loaded_globally(void **state)
{
    (void)state;
    load_use_and_close(RTLD_GLOBAL);
}

/* The block of one opening is still good after a close and another opening. */
static void a_block_outlives_a_close(void **state)
{
    void *library = open_library(RTLD_LOCAL);
    void *block = tarn.allocate(5000);

    (void)state;
    assert_non_null(block);
    pattern_write(block, 5000, 1);
    assert_int_equal(dlclose(library), 0);
    library = open_library(RTLD_LOCAL);
    assert_true(pattern_holds(block, 5000, 1));
    tarn.release(block);
    (void)tarn.trim(0);
    assert_int_equal(dlclose(library), 0);
}

static void *load_in_a_thread(void *argument)
{
    void *library = open_library(RTLD_LOCAL);
    void *block = tarn.allocate(100);

    must(block != NULL);
    tarn.release(block);
    must(dlclose(library) == 0);
    return argument;
}

static void loaded_by_a_thread_that_ends(void **state)
{
    (void)state;
    for (size_t round = 0; round < 5; round++) {
        pthread_t thread;

        assert_int_equal(pthread_create(&thread, NULL, load_in_a_thread, NULL), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loaded_by_a_thread_that_ends),
        cmocka_unit_test(loaded_locally),
        cmocka_unit_test(loaded_again),
        cmocka_unit_test(a_block_outlives_a_close),
        cmocka_unit_test(loaded_globally),
    };

    if (argc < 2)
        return 2;
    library_path = argv[1];
    return cmocka_run_group_tests_name("late_dlopen", tests, NULL, NULL);
}
