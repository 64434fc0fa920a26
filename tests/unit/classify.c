/*
 * api/classify: every pointer that is the start of a block is known for what it is, and no other is.
 */
#include "api/classify.h"

#include "heap/thread.h"
#include "os/settings.h"
#include "tarn/tarn.h"
#include "unit.h"

#include <stdio.h>
#include <string.h>

static bool is_invalid(const void *pointer)
{
    struct classified found = classify(pointer);
    return found.kind == KIND_INVALID;
}

/* All bytes of the block but its first are no block. */
static void check_inside(const char *block, size_t bytes, size_t step)
{
    for (size_t offset = 1; offset < bytes; offset += offset < 64 ? 1 : step)
        assert_true(is_invalid(block + offset));
    assert_true(is_invalid(block + bytes - 1));
}

static void blocks_of_pools(void **state)
{
    (void)state;
    for (uint32_t class = 0; class < CLASS_COUNT; class ++) {
        char *blocks[9];
        size_t bytes = class_bytes(class);
        for (unsigned i = 0; i < 9; i++)
            assert_non_null(blocks[i] = tarn_malloc(bytes));
        for (unsigned i = 0; i < 9; i++) {
            struct classified found = classify(blocks[i]);
            assert_int_equal(found.kind, KIND_POOL);
            assert_int_equal(found.bytes, bytes);
            assert_ptr_equal(found.heap, thread_heap());
            assert_int_equal(pool_class(found.pool), class);
            assert_ptr_equal(found.pool->heap, thread_heap());
            check_inside(blocks[i], bytes, 16);
        }
        for (unsigned i = 0; i < 9; i++)
            tarn_free(blocks[i]);
        assert_int_equal(classify(blocks[0]).kind, KIND_POOL); /* free, and known as such to others */
    }
}

static void runs(void **state)
{
    (void)state;
    for (size_t bytes = 33 * KIB; bytes <= 512 * KIB; bytes += 97 * KIB) {
        char *run = tarn_malloc(bytes);
        struct classified found = classify(run);
        assert_int_equal(found.kind, KIND_RUN);
        assert_int_equal(found.bytes, (bytes + 16 * KIB - 1) / (16 * KIB) * 16 * KIB);
        check_inside(run, found.bytes, 1024);
        tarn_free(run);
        assert_true(is_invalid(run));
    }
}

static void raw_blocks(void **state)
{
    (void)state;
    char *block = tarn_malloc(9 * MIB);
    struct classified found = classify(block);
    assert_int_equal(found.kind, KIND_RAW);
    assert_int_equal(found.bytes, 9 * MIB);
    memset(block, 0x40, 9 * MIB); /* whatever stands in it */
    check_inside(block, 9 * MIB, 64 * KIB);
    assert_true(is_invalid(block + 4 * MIB));
    assert_true(is_invalid(block + 8 * MIB));
    assert_true(is_invalid(block - 4 * MIB));
    tarn_free(block);
    assert_true(is_invalid(block));
}

static char in_data[64];

static void what_is_not_of_the_heap(void **state)
{
    (void)state;
    char on_stack[64];
    for (unsigned i = 0; i < 64; i++) {
        assert_true(is_invalid(on_stack + i));
        assert_true(is_invalid(in_data + i));
    }
    assert_true(is_invalid((const void *)(uintptr_t)&what_is_not_of_the_heap));
    assert_true(is_invalid((const void *)(uintptr_t)16));
    assert_true(is_invalid((const void *)(uintptr_t)GRANULE_BYTES));
    assert_true(is_invalid((const void *)(uintptr_t)(GRANULE_BYTES + 16)));
    assert_true(is_invalid((const void *)(UINTPTR_MAX - 15)));
    assert_true(is_invalid((const void *)(UINTPTR_MAX << 22)));
    assert_true(is_invalid((const void *)(uintptr_t)(UINT64_C(1) << 60)));
}

/* The arena's header, and slots that nobody serves. */
static void arenas_outside_of_blocks(void **state)
{
    (void)state;
    char *block = tarn_malloc(100);
    struct arena *arena = arena_of(block);
    for (size_t offset = 16; offset < ARENA_HEADER_SLOTS * SLOT_BYTES; offset += 16)
        assert_true(is_invalid((char *)arena + offset));
    assert_true(is_invalid(arena));
    for (uint32_t slot = ARENA_HEADER_SLOTS; slot < ARENA_SLOTS; slot++)
        if (arena->slot_map[slot] == 0)
            for (size_t offset = 0; offset < SLOT_BYTES; offset += 16)
                assert_true(is_invalid(arena_slot_address(arena, slot) + offset));
    tarn_free(block);
}

static void blocks_never_carved(void **state)
{
    (void)state;
    (void)tarn_malloc_trim(0); /* so that the pool's pages are fresh, and carved one at a time */
    char *block = tarn_malloc(7000);
    struct pool *pool = classify(block).pool;
    assert_non_null(pool);
    assert_true(pool_carved(pool) < pool->capacity);
    for (uint32_t number = pool_carved(pool); number < pool->capacity; number++)
        assert_true(is_invalid(pool_start(pool) + (size_t)number * pool->block_bytes));
    tarn_free(block);
}

/* ---- live or else ---- */

static void want_live(void *context)
{
    (void)classify_live(context, "test_call");
}

static void live_blocks_only(void **state)
{
    (void)state;
    char line[256];
    static const size_t sizes[] = {100, 100000, 2 * MIB};
    for (unsigned i = 0; i < 3; i++) {
        char *block = tarn_malloc(sizes[i]);
        assert_true(classify_live(block, "test_call").bytes >= sizes[i]);
        snprintf(line, sizeof line,
                 "tarn: fatal: invalid pointer %p passed to test_call: no live block begins there",
                 (void *)(block + 16));
        child_must_die(want_live, block + 16, line);
        tarn_free(block);
        if (i == 0)
            snprintf(line, sizeof line, "tarn: fatal: freed memory %p passed to test_call (112-byte class)",
                     (void *)block);
        else
            snprintf(line, sizeof line,
                     "tarn: fatal: invalid pointer %p passed to test_call: no live block begins there",
                     (void *)block);
        child_must_die(want_live, block, line);
    }
}

static void free_it(void *context, unsigned index)
{
    (void)index;
    tarn_free(context);
}

/* Freed by another thread, it lies on that one's list, or is on its way home: no live block either. */
static void freed_elsewhere(void **state)
{
    (void)state;
    char line[256];
    char *block = tarn_malloc(200);
    threads_run(1, free_it, block);
    struct classified found = classify(block);
    assert_int_equal(found.kind, KIND_POOL);
    snprintf(line, sizeof line, "tarn: fatal: freed memory %p passed to test_call (208-byte class)",
             (void *)block);
    if (heap_marks_free(((struct block *)(void *)block)->canary, found.pool))
        child_must_die(want_live, block, line);
}

static void print_invalid(void *context)
{
    fatal_invalid(context, "free");
}

static void print_double(void *context)
{
    fatal_double_free(context, 64);
}

static void messages(void **state)
{
    (void)state;
    void *pointer = (void *)(uintptr_t)0x1230;
    child_must_die(print_invalid, pointer,
                   "tarn: fatal: invalid pointer 0x1230 passed to free: no live block begins there");
    child_must_die(print_double, pointer, "tarn: fatal: double free of 0x1230 (64-byte class)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_of_pools),
        cmocka_unit_test(runs),
        cmocka_unit_test(raw_blocks),
        cmocka_unit_test(what_is_not_of_the_heap),
        cmocka_unit_test(arenas_outside_of_blocks),
        cmocka_unit_test(blocks_never_carved),
        cmocka_unit_test(live_blocks_only),
        cmocka_unit_test(freed_elsewhere),
        cmocka_unit_test(messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
