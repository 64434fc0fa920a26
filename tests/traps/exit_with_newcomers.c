/*
 * Trap: a thread that has never allocated begins to while the process ends, and blocks are being looked at.
 * Its blocks change under that look; nothing is wrong with them, and the process ends with 0.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROUNDS = 24, BLOCKS = 100000, LIVE = 200, CHILD_SECONDS = 60 };

static atomic_bool ending;
static unsigned delay_us;

/* Does not return: the process ends under it. */
static void *allocate_when_it_ends(void *unused)
{
    void *blocks[LIVE] = {NULL};

    while (!atomic_load(&ending))
        ;
    usleep(delay_us);
    for (size_t i = 0;; i++) {
        size_t at = i % LIVE, size = 1 + i * 37 % 20000 + (i % 50 == 0 ? 60000 : 0);

        free(blocks[at]);
        blocks[at] = malloc(opaque_size(size));
        must(blocks[at] != NULL);
        memset(blocks[at], 1, 1);
    }
    return unused;
}

__attribute__((destructor)) static void begin_to_allocate(void)
{
    atomic_store(&ending, true);
}

static void end_with_a_newcomer(void)
{
    pthread_t thread;

    for (size_t i = 0; i < BLOCKS; i++)
        must(malloc(opaque_size(50 + i % 1000)) != NULL);
    must(pthread_create(&thread, NULL, allocate_when_it_ends, NULL) == 0);
    sleep_ms(1);
    exit(0);
}

static void nothing_is_wrong_with_what_it_allocates(void **state)
{
    (void)state;
    for (unsigned round = 0; round < ROUNDS; round++) {
        pid_t child = fork();

        assert_true(child >= 0);
        delay_us = round * round * 20;
        if (child == 0)
            end_with_a_newcomer();
        assert_int_equal(wait_for_child(child, CHILD_SECONDS), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_wrong_with_what_it_allocates),
    };

    return cmocka_run_group_tests_name("exit_with_newcomers", tests, NULL, NULL);
}
