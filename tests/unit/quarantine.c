/*
 * heap/quarantine, in the hardened build: blocks wait before they are given out again, in bounded number and
 * size; what was written to meanwhile is noticed; they go home when the thread ends and on request.
 */
#include "heap/quarantine.h"

#include "heap/thread.h"
#include "os/settings.h"
#include "pool/trailer.h"
#include "unit.h"

#include <string.h>

static struct heap *heap;

static int take_own_heap(void **state)
{
    (void)state;
    heap = thread_heap();
    quarantine_flush(heap);
    return heap != NULL ? 0 : -1;
}

static struct block *block_of(size_t bytes)
{
    struct block *block = heap_malloc_small(heap, bytes);
    must(block != NULL);
    *block = (struct block){NULL, NULL};
    trailer_write(block, bytes, 1);
    return block;
}

static void put(struct block *block, size_t bytes)
{
    must(trailer_free(block, bytes, 1));
    quarantine_put(heap, block, bytes);
}

#define BYTES 1024U

/* None comes back before as many have been freed as the queue holds. */
static void a_freed_block_waits(void **state)
{
    (void)state;
    struct block *first = block_of(BYTES);
    put(first, BYTES);
    uint32_t waited = 0;
    while (waited < 100000) {
        struct block *next = block_of(BYTES);
        bool again = next == first;
        put(next, BYTES);
        if (again)
            break;
        waited++;
    }
    assert_in_range(waited, 300, 99999);
    assert_int_equal(heap->quarantine.bytes, (QUARANTINE_SCATTERED + QUARANTINE_QUEUED) * BYTES);
    assert_true(heap_is_valid(heap));
}

static void blocks_come_back_in_disorder(void **state)
{
    (void)state;
    static struct block *blocks[4][1500];
    unsigned same = 0;
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 1500; i++)
            blocks[round][i] = block_of(64);
        for (int i = 0; i < 1500; i++)
            put(blocks[round][i], 64);
        for (int i = 0; round > 0 && i + 1 < 1500; i++)
            same +=
                blocks[round][i + 1] - blocks[round][i] == 4; /* neighbours in memory, one after the other */
    }
    assert_true(same < 3 * 1500 / 10);
}

static void bytes_are_bounded(void **state)
{
    (void)state;
    struct settings defaults = settings;
    quarantine_flush(heap);
    settings.quarantine_bytes = 10 * BYTES;
    for (int i = 0; i < 50; i++) {
        put(block_of(BYTES), BYTES);
        assert_true(heap->quarantine.bytes <= 10 * BYTES);
    }
    settings.quarantine_bytes = 0;
    put(block_of(BYTES), BYTES);
    assert_int_equal(heap->quarantine.bytes, 0);
    settings = defaults;
}

static void flushed_blocks_are_free(void **state)
{
    (void)state;
    struct block *blocks[20];
    for (int i = 0; i < 20; i++)
        blocks[i] = block_of(768);
    for (int i = 0; i < 20; i++)
        put(blocks[i], 768);
    quarantine_flush(heap);
    assert_int_equal(heap->quarantine.bytes, 0);
    heap_close_empty_pools(heap);
    assert_true(heap->bins[class_of_size(768)].own == &pool_none);
    assert_true(heap_is_valid(heap));
}

static void write_and_flush(void *context)
{
    struct block *block = block_of(BYTES);
    put(block, BYTES);
    ((char *)block)[*(const size_t *)context] = 1;
    quarantine_flush(heap);
}

static void a_write_while_it_waits_is_noticed(void **state)
{
    (void)state;
    static const size_t offsets[] = {0, 8, 500, BYTES - 1};
    static struct outcome outcome;
    for (size_t i = 0; i < 4; i++) {
        size_t offset = offsets[i];
        child_run(write_and_flush, &offset, &outcome);
        assert_non_null(
            strstr(outcome.output, "tarn: fatal: heap corruption: freed memory was written to at 0x"));
        assert_non_null(strstr(outcome.output, "(1024-byte class)\n"));
    }
}

static struct block *of_another;

static void allocate(void *context, unsigned index)
{
    (void)context;
    (void)index;
    heap = thread_heap();
    of_another = block_of(BYTES);
    put(block_of(BYTES), BYTES); /* goes home when this thread ends */
}

static void blocks_of_others_go_home(void **state)
{
    (void)state;
    struct heap *own = heap;
    threads_run(1, allocate, NULL);
    heap = own;
    put(of_another, BYTES);
    quarantine_flush(heap);
    assert_int_equal(heap->quarantine.bytes, 0);
    assert_true(heap_is_valid(heap));
}

static void release_late(void *context)
{
    (void)context;
    struct block *block = block_of(BYTES);
    must(trailer_free(block, BYTES, 1));
    quarantine_release(NULL, block); /* as a thread without a heap does */
    must(heap_malloc_slow(heap, CLASS_BYTES_MOST) != NULL);
    must(heap_is_valid(heap));
}

static void without_a_heap_they_go_home_at_once(void **state)
{
    (void)state;
    child_must_succeed(release_late, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_freed_block_waits),
        cmocka_unit_test(blocks_come_back_in_disorder),
        cmocka_unit_test(bytes_are_bounded),
        cmocka_unit_test(flushed_blocks_are_free),
        cmocka_unit_test(a_write_while_it_waits_is_noticed),
        cmocka_unit_test(blocks_of_others_go_home),
        cmocka_unit_test(without_a_heap_they_go_home_at_once),
    };
    return cmocka_run_group_tests_name("quarantine", tests, take_own_heap, NULL);
}
