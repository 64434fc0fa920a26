/*
 * malloc_trim gives memory back: the answer is 1 when it released something, RSS is lower afterwards, a
 * second call right after it has nothing left and says 0, and the blocks still in use keep their contents.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "../interface.h"

#define TOTAL      (64 * MIB)
#define BLOCKS_MAX (TOTAL / 64)
#define SLOT_BYTES (16 * KIB)

static void *blocks[BLOCKS_MAX];

static void allocate_total(size_t size)
{
    for (size_t i = 0; i < TOTAL / size; i++) {
        blocks[i] = malloc(opaque_size(size));
        must(blocks[i] != NULL);
        pattern_write(blocks[i], size, i);
    }
}

/* Frees all blocks but every keep_every-th. */
static void free_total(size_t size, size_t keep_every)
{
    for (size_t i = 0; i < TOTAL / size; i++)
        if (i % keep_every != 0)
            free(blocks[i]);
}

static void verify_and_free_kept(size_t size, size_t keep_every)
{
    for (size_t i = 0; i < TOTAL / size; i += keep_every) {
        assert_true(pattern_holds(blocks[i], size, i));
        free(blocks[i]);
    }
}

static void trim_lowers_resident_memory(size_t size, size_t keep_every, double released_mib_min)
{
    double full, trimmed;

    (void)malloc_trim(0);
    allocate_total(size);
    full = (double)resident_bytes();
    free_total(size, keep_every);
    assert_int_equal(malloc_trim(0), 1);
    trimmed = (double)resident_bytes();
    if (full - trimmed < released_mib_min * (double)MIB)
        fail_msg("%.1f of 64 MiB were released, %.1f are expected", (full - trimmed) / (double)MIB,
                 released_mib_min);
    assert_int_equal(malloc_trim(0), 0);
    verify_and_free_kept(size, keep_every);
}

static void all_small_blocks_free(void **state)
{
    (void)state;
    trim_lowers_resident_memory(64, BLOCKS_MAX, 60);
}

static void all_medium_blocks_free(void **state)
{
    (void)state;
    trim_lowers_resident_memory(8 * KIB, BLOCKS_MAX, 60);
}

static void all_runs_free(void **state)
{
    (void)state;
    trim_lowers_resident_memory(128 * KIB, BLOCKS_MAX, 60);
}

static void all_raw_blocks_free(void **state)
{
    (void)state;
    (void)malloc_trim(0);
    allocate_total(2 * MIB);
    free_total(2 * MIB, BLOCKS_MAX);
    free(blocks[0]);
    (void)malloc_trim(0);
    assert_int_equal(malloc_trim(0), 0);
}

/* One block in 2,000 stays: most pools and many arenas are not empty, most slots are. A slot that is not
 * empty holds its page, where that is larger. */
static void stragglers_stay(void **state)
{
    (void)state;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t beside_bytes = page > SLOT_BYTES ? page - SLOT_BYTES : 0;
    size_t stragglers = TOTAL / 128 / 2000 + 1;
    trim_lowers_resident_memory(128, 2000, 50 - (double)(stragglers * beside_bytes) / (double)MIB);
}

static void *allocate_in_a_thread(void *argument)
{
    (void)argument;
    allocate_total(1024);
    return NULL;
}

/* Blocks of a thread that has ended, freed by this one: its parked heap holds the pools. */
static void blocks_of_an_ended_thread(void **state)
{
    size_t full;
    pthread_t thread;

    (void)state;
    (void)malloc_trim(0);
    assert_int_equal(pthread_create(&thread, NULL, allocate_in_a_thread, NULL), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    full = resident_bytes();
    free_total(1024, BLOCKS_MAX);
    assert_int_equal(malloc_trim(0), 1);
    assert_true(resident_bytes() + 60 * MIB < full);
    verify_and_free_kept(1024, BLOCKS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_small_blocks_free), cmocka_unit_test(all_medium_blocks_free),
        cmocka_unit_test(all_runs_free),         cmocka_unit_test(all_raw_blocks_free),
        cmocka_unit_test(stragglers_stay),       cmocka_unit_test(blocks_of_an_ended_thread),
    };

    return cmocka_run_group_tests_name("trim", tests, NULL, NULL);
}
