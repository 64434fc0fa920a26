/*
 * Hostile use: a library linked with the allocator is loaded and closed again and again by a program that is
 * not, and threads that have allocated through it outlive it. The allocator itself stays (-z nodelete), so
 * that their thread-specific destructors find its code, and blocks stay good.
 *
 * Usage: loaded MODULE
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

enum { ROUNDS = 20, THREADS = 4 };

static const char *module_path;
static pthread_barrier_t barrier;

static struct {
    void *(*exchange)(void *block);
    void *(*allocate)(size_t size);
    void (*release)(void *block);
    int (*trim)(size_t pad);
} functions;

static void *address_of(void *library, const char *name)
{
    void *address = dlsym(library, name);

    if (address == NULL)
        fail_msg("%s", dlerror());
    return address;
}

static void *open_module(void)
{
    void *library = dlopen(module_path, RTLD_NOW | RTLD_LOCAL);

    if (library == NULL)
        fail_msg("%s", dlerror());
    *(void **)&functions.exchange = address_of(library, "module_exchange");
    *(void **)&functions.allocate = address_of(library, "tarn_malloc");
    *(void **)&functions.release = address_of(library, "tarn_free");
    *(void **)&functions.trim = address_of(library, "tarn_malloc_trim");
    return library;
}

/* Is there from before the module came, and ends after it has gone: its heap is parked then. */
static void *outlive(void *argument)
{
    void *blocks[100];

    pthread_barrier_wait(&barrier); /* loaded */
    blocks[0] = functions.exchange(NULL);
    for (size_t i = 1; i < 100; i++) {
        blocks[i] = functions.allocate(i * 997);
        must(blocks[i] != NULL);
        pattern_write(blocks[i], i * 997, i);
    }
    pthread_barrier_wait(&barrier); /* used */
    pthread_barrier_wait(&barrier); /* closed */
    must(pattern_holds(blocks[0], 300, 2));
    for (size_t i = 1; i < 100; i++)
        must(pattern_holds(blocks[i], i * 997, i));
    for (size_t i = 0; i < 100; i++)
        functions.release(blocks[i]);
    functions.release(functions.allocate(60 * KIB));
    (void)functions.trim(0);
    return argument;
}

static void threads_outlive_the_module(void **state)
{
    size_t early = 0;

    (void)state;
    assert_int_equal(pthread_barrier_init(&barrier, NULL, THREADS + 1), 0);
    for (size_t round = 0; round < ROUNDS; round++) {
        pthread_t threads[THREADS];
        void *library;

        for (size_t i = 0; i < THREADS; i++)
            assert_int_equal(pthread_create(&threads[i], NULL, outlive, NULL), 0);
        library = open_module();
        pthread_barrier_wait(&barrier);
        pthread_barrier_wait(&barrier);
        assert_int_equal(dlclose(library), 0);
        assert_null(dlopen(module_path, RTLD_NOW | RTLD_NOLOAD)); /* it has gone */
        pthread_barrier_wait(&barrier);
        for (size_t i = 0; i < THREADS; i++)
            assert_int_equal(pthread_join(threads[i], NULL), 0);
        if (round == ROUNDS / 2)
            early = resident_bytes();
    }
    assert_true(resident_bytes() < early + 4 * MIB);
}

static void a_block_outlives_the_module(void **state)
{
    void *library = open_module(), *block = functions.allocate(700 * KIB);

    (void)state;
    assert_non_null(block);
    pattern_write(block, 700 * KIB, 3);
    assert_int_equal(dlclose(library), 0);
    library = open_module();
    assert_true(pattern_holds(block, 700 * KIB, 3));
    functions.release(block);
    assert_int_equal(dlclose(library), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_outlive_the_module),
        cmocka_unit_test(a_block_outlives_the_module),
    };

    if (argc < 2)
        return 2;
    module_path = argv[1];
    return cmocka_run_group_tests_name("loaded", tests, NULL, NULL);
}
