/*
 * Trap: what the allocator calls may call malloc. Forty keys for thread-specific data are taken before every
 * constructor, so that the first pthread_setspecific of a thread, be it the allocator's or liburcu's,
 * allocates a table; modules with large dynamic thread-local storage are loaded late, so that the first use
 * of a variable in a thread allocates, within __tls_get_addr, possibly as that thread's very first
 * allocation; so many of them that the C library's table of modules outgrows its reserve in threads which are
 * in the midst of allocating; dlsym keeps a text for each thread.
 *
 * Arguments: paths of the modules (tls_module.c, built several times).
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

#include "../interface.h"

enum { KEYS_BEFORE = 40, MODULES_MAX = 32 };

static char *const *module_paths;
static size_t module_count;
static char *(*module_storage[MODULES_MAX])(size_t *size_bytes);

static void take_keys(void)
{
    pthread_key_t key;

    for (size_t i = 0; i < KEYS_BEFORE; i++)
        must(pthread_key_create(&key, NULL) == 0);
}

__attribute__((section(".preinit_array"), used)) static void (*const preinit)(void) = take_keys;

static void *first_call_is_malloc(void *argument)
{
    void *block = malloc(opaque_size(100));

    must(block != NULL);
    pattern_write(block, 100, 1);
    must(pattern_holds(block, 100, 1));
    free(block);
    return argument;
}

static void *first_call_is_calloc_of_a_run(void *argument)
{
    void *block = calloc(1, opaque_size(200 * KIB));

    must(block != NULL && all_zero(block, 200 * KIB));
    free(block);
    return argument;
}

static void *first_call_is_realloc_of_a_raw_block(void *argument)
{
    void *block = realloc(NULL, opaque_size(2 * MIB));

    must(block != NULL);
    block = realloc(block, opaque_size(5 * MIB));
    must(block != NULL);
    free(block);
    return argument;
}

/* The thread's first call is a remote free. */
static void *first_call_is_free(void *argument)
{
    free(argument);
    return NULL;
}

static void *first_call_is_trim(void *argument)
{
    (void)malloc_trim(0);
    (void)mallinfo2();
    return argument;
}

/* Dynamic thread-local storage: allocated by the C library at the first use, freed by it after the thread's
 * end. */
static void *first_call_is_in_the_tls_of_a_module(void *argument)
{
    for (size_t i = 0; i < module_count; i++) {
        size_t size_bytes;
        char *storage = module_storage[i](&size_bytes);
        void *block = malloc(opaque_size(size_bytes));

        must(block != NULL);
        must(all_zero(storage, size_bytes));
        pattern_write(storage, size_bytes, i);
        pattern_write(block, size_bytes, i + 1);
        must(pattern_holds(storage, size_bytes, i));
        must(pattern_holds(block, size_bytes, i + 1));
        free(block);
    }
    return argument;
}

static void *first_call_is_a_failing_dlsym(void *argument)
{
    must(dlsym(RTLD_DEFAULT, "no_such_symbol_anywhere_in_this_process") == NULL);
    must(dlerror() != NULL);
    must(dlopen("no-such-library.so", RTLD_NOW) == NULL);
    return argument;
}

static void run_threads(void *(*body)(void *), size_t block_bytes)
{
    enum { THREADS = 8 };

    for (size_t round = 0; round < 10; round++) {
        pthread_t threads[THREADS];

        for (size_t i = 0; i < THREADS; i++) {
            void *block = block_bytes == 0 ? NULL : malloc(opaque_size(block_bytes));

            assert_int_equal(pthread_create(&threads[i], NULL, body, block), 0);
        }
        for (size_t i = 0; i < THREADS; i++)
            assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
}

static void keys_beyond_the_first_table(void **state)
{
    (void)state;
    run_threads(first_call_is_malloc, 0);
    run_threads(first_call_is_calloc_of_a_run, 0);
    run_threads(first_call_is_realloc_of_a_raw_block, 0);
    run_threads(first_call_is_trim, 0);
}

static void first_calls_are_remote_frees(void **state)
{
    (void)state;
    run_threads(first_call_is_free, 40);
    run_threads(first_call_is_free, 20 * KIB);
    run_threads(first_call_is_free, 100 * KIB);
    run_threads(first_call_is_free, 3 * MIB);
}

static void load_modules(void)
{
    assert_true(module_count > 20);
    for (size_t i = 0; i < module_count; i++) {
        void *module = dlopen(module_paths[i], RTLD_NOW | RTLD_LOCAL), *address;

        if (module == NULL)
            fail_msg("%s", dlerror());
        address = dlsym(module, "tls_module_storage");
        assert_non_null(address);
        memcpy(&module_storage[i], &address, sizeof address);
    }
}

static pthread_barrier_t barrier;

/* Goes from size to size, so that most calls take the slow path; the modules come in the midst of it. */
static void *allocate_before_and_after_modules(void *argument)
{
    void *blocks[200];

    for (size_t i = 0; i < 200; i++) {
        if (i == 20 || i == 21)
            pthread_barrier_wait(&barrier); /* twice: here the modules are loaded */
        blocks[i] = i % 20 == 19 ? malloc(opaque_size(600 * KIB)) : malloc(opaque_size(16 + i * i));
        must(blocks[i] != NULL);
        pattern_write(blocks[i], 16, i);
    }
    for (size_t i = 0; i < 200; i++) {
        must(pattern_holds(blocks[i], 16, i));
        free(blocks[i]);
    }
    return argument;
}

static void modules_loaded_while_threads_allocate(void **state)
{
    enum { THREADS = 6 };
    pthread_t threads[THREADS];

    (void)state;
    assert_int_equal(pthread_barrier_init(&barrier, NULL, THREADS + 1), 0);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, allocate_before_and_after_modules, NULL), 0);
    pthread_barrier_wait(&barrier);
    load_modules();
    pthread_barrier_wait(&barrier);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    /* The thread that loaded them, too. */
    for (size_t size = 1; size < 2 * MIB; size += size / 4 + 1)
        free(malloc(opaque_size(size)));
}

static void dynamic_thread_local_storage(void **state)
{
    (void)state;
    run_threads(first_call_is_in_the_tls_of_a_module, 0);
}

static void texts_of_dlsym(void **state)
{
    (void)state;
    run_threads(first_call_is_a_failing_dlsym, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_beyond_the_first_table),
        cmocka_unit_test(first_calls_are_remote_frees),
        cmocka_unit_test(modules_loaded_while_threads_allocate),
        cmocka_unit_test(dynamic_thread_local_storage),
        cmocka_unit_test(texts_of_dlsym),
    };

    module_paths = argv + 1;
    module_count = (size_t)argc - 1 < MODULES_MAX ? (size_t)argc - 1 : MODULES_MAX;
    return cmocka_run_group_tests_name("recursion", tests, NULL, NULL);
}
