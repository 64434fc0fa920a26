/*
 * At the limit of the address space (RLIMIT_AS): every failure is NULL with ENOMEM; what was free in one form
 * can be had in another afterwards: small blocks where large ones were, a large one where small ones were.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "../interface.h"

#define ROOM (300 * MIB)

/* Blocks hold each other in a list, as an array for them might not be had. */
struct link {
    struct link *next;
};

static struct rlimit kept;

static int limit_address_space(void **state)
{
    struct rlimit limit;

    (void)state;
    (void)malloc_trim(0);
    must(getrlimit(RLIMIT_AS, &kept) == 0);
    limit = kept;
    limit.rlim_cur = address_space_bytes() + ROOM;
    return setrlimit(RLIMIT_AS, &limit);
}

static int lift_the_limit(void **state)
{
    (void)state;
    return setrlimit(RLIMIT_AS, &kept);
}

/* Allocates until there is no more; each block is touched at both ends. */
static struct link *fill(size_t size, size_t *total)
{
    struct link *list = NULL;
    char *block;

    *total = 0;
    errno = 0;
    while ((block = malloc(opaque_size(size))) != NULL) {
        ((struct link *)(void *)block)->next = list;
        block[size - 1] = 1;
        list = (struct link *)(void *)block;
        *total += size;
        must(*total <= 2 * ROOM);
    }
    must(errno == ENOMEM);
    return list;
}

static void free_all(struct link *list)
{
    while (list != NULL) {
        struct link *next = list->next;

        free(list);
        list = next;
    }
}

/* That much can be had in blocks of this size. The hardened library gives larger ones pages of their own and
 * two forbidden ones, which count more where pages are larger. */
static size_t total_least(size_t size)
{
#ifdef TEST_HARDENED
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t taken = (size + sizeof(uint64_t) + page - 1) / page * page + 2 * page;
    size_t room = ROOM / 10 * 9 / taken * size;
    if (size > 32 * KIB && room < ROOM / 2)
        return room;
#else
    (void)size;
#endif
    return ROOM / 2;
}

static void a_large_block_after(size_t size)
{
    size_t total;
    struct link *list = fill(size, &total);
    void *large;

    assert_true(total >= total_least(size));
    assert_null(opaque(malloc(opaque_size(ROOM / 4))));
    free_all(list);
    large = malloc(opaque_size(ROOM / 2));
    assert_non_null(large);
    memset(large, 1, ROOM / 2);
    free(large);
}

static void a_large_block_after_small_ones(void **state)
{
    (void)state;
    a_large_block_after(500);
}

static void a_large_block_after_medium_ones(void **state)
{
    (void)state;
    a_large_block_after(20000);
}

static void a_large_block_after_runs(void **state)
{
    (void)state;
    a_large_block_after(150 * KIB);
}

static void a_large_block_after_raw_ones(void **state)
{
    (void)state;
    a_large_block_after(5 * MIB);
}

static void small_blocks_after_a_large_one(void **state)
{
    static const size_t sizes[] = {500, 20000, 150 * KIB, MIB};

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        void *large = malloc(opaque_size(ROOM / 4 * 3));
        struct link *list;
        size_t total;

        assert_non_null(large);
        memset(large, 1, ROOM / 4 * 3);
        free(large);
        list = fill(sizes[i], &total);
        free_all(list);
        /* A raw block of 1 MiB takes up to 4 MiB of addresses. */
        assert_true(total >= (sizes[i] == MIB ? ROOM / 8 : total_least(sizes[i])));
    }
}

/* What fails changes nothing: the blocks that are there stay whole and can be resized, freed and replaced. */
static void blocks_at_the_limit_stay_whole(void **state)
{
    enum { BLOCKS = 200 };
    char *blocks[BLOCKS];
    size_t total;
    struct link *list;

    (void)state;
    for (size_t i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(opaque_size(1000 + i * 500));
        assert_non_null(blocks[i]);
        pattern_write(blocks[i], 1000 + i * 500, i);
    }
    list = fill(30000, &total);
    for (size_t i = 0; i < BLOCKS; i++) {
        errno = 0;
        assert_null(opaque(realloc(opaque(blocks[i]), opaque_size(ROOM / 2))));
        assert_int_equal(errno, ENOMEM);
        errno = 0;
        assert_null(opaque(calloc(opaque_size(ROOM), 1)));
        assert_null(opaque(aligned_alloc(opaque_size(8 * MIB), opaque_size(ROOM / 2))));
        assert_int_equal(errno, ENOMEM);
        assert_true(pattern_holds(blocks[i], 1000 + i * 500, i));
    }
    free_all(list);
    for (size_t i = 0; i < BLOCKS; i++) {
        blocks[i] = realloc(blocks[i], opaque_size(1000 + i * 1000));
        assert_non_null(blocks[i]);
        assert_true(pattern_holds(blocks[i], 1000 + i * 500, i));
        free(blocks[i]);
    }
}

static pthread_barrier_t barrier;

static void *allocate_at_the_limit(void *argument)
{
    pthread_barrier_wait(&barrier);
    for (size_t size = 16; size < 4 * MIB; size *= 3) {
        char *block = malloc(opaque_size(size));

        if (block == NULL) {
            must(errno == ENOMEM);
        } else {
            memset(block, 1, size);
            free(block);
        }
    }
    return argument;
}

/* Threads allocate for the first time when there is nothing left: that fails or works, and the process lives.
 */
static void first_allocations_at_the_limit(void **state)
{
    enum { THREADS = 20 };
    pthread_t threads[THREADS];
    struct link *list;
    size_t total;

    (void)state;
    assert_int_equal(pthread_barrier_init(&barrier, NULL, THREADS + 1), 0);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, allocate_at_the_limit, NULL), 0);
    list = fill(400 * KIB, &total);
    pthread_barrier_wait(&barrier);
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    free_all(list);
}

int main(void)
{
#define AT_THE_LIMIT(test) cmocka_unit_test_setup_teardown(test, limit_address_space, lift_the_limit)
    const struct CMUnitTest tests[] = {
        AT_THE_LIMIT(a_large_block_after_small_ones), AT_THE_LIMIT(a_large_block_after_medium_ones),
        AT_THE_LIMIT(a_large_block_after_runs),       AT_THE_LIMIT(a_large_block_after_raw_ones),
        AT_THE_LIMIT(small_blocks_after_a_large_one), AT_THE_LIMIT(blocks_at_the_limit_stay_whole),
        AT_THE_LIMIT(first_allocations_at_the_limit),
    };

    return cmocka_run_group_tests_name("out_of_memory", tests, NULL, NULL);
}
