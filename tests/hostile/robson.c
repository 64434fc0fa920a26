/*
 * Hostile use: an adversary that knows how allocators place blocks. It keeps the bytes it holds below a bound
 * and frees so that what is left pins as much memory as possible; then it asks for blocks of another size.
 *
 * The goal is three times the bound of resident memory; Tarn does not reach it (docs/limits.md says why, and
 * what others need). The limits in here are what it needs and a little, so that it does not become worse.
 */
#include "../cmocka_headers.h"
#include "../support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../interface.h"

#define BOUND_BYTES (64 * MIB)

enum { SMALLEST = 16, LARGEST = 1 << 20, BLOCKS_MOST = 1 << 22 };

struct held {
    char *block;
    size_t size;
};

static struct held *held; /* not from malloc: mapped as static memory would be */
static size_t held_count, held_bytes, peak_bytes, base_bytes;
static struct held held_space[BLOCKS_MOST];

static void look(void)
{
    size_t now = resident_bytes();

    if (now > peak_bytes)
        peak_bytes = now;
}

/* Writes to every page of the block, so that it counts. */
static void take(size_t size)
{
    char *block = malloc(opaque_size(size));

    must(block != NULL && held_count < BLOCKS_MOST);
    for (size_t at = 0; at < size; at += 4096)
        block[at] = (char)size;
    block[size - 1] = (char)size;
    held[held_count++] = (struct held){block, size};
    held_bytes += size;
}

static void fill(size_t size)
{
    while (held_bytes + size <= BOUND_BYTES)
        take(size);
    look();
}

/* Frees all blocks but those that `keeps` says to keep. */
static void thin_out(bool (*keeps)(const struct held *one, size_t number, void *context), void *context)
{
    size_t kept = 0;

    for (size_t i = 0; i < held_count; i++) {
        if (keeps(&held[i], i, context)) {
            held[kept++] = held[i];
            continue;
        }
        must(held[i].block[held[i].size - 1] == (char)held[i].size);
        held_bytes -= held[i].size;
        free(held[i].block);
    }
    held_count = kept;
    look();
}

static bool keeps_none(const struct held *one, size_t number, void *context)
{
    (void)one, (void)number, (void)context;
    return false;
}

static bool keeps_every_other(const struct held *one, size_t number, void *context)
{
    (void)one, (void)context;
    return number % 2 == 0;
}

static bool keeps_one_in_16(const struct held *one, size_t number, void *context)
{
    (void)one, (void)context;
    return number % 16 == 0;
}

static bool keeps_at_random(const struct held *one, size_t number, void *context)
{
    (void)one, (void)number;
    return random_below(context, 2) == 0;
}

/* Robson's: what covers this offset of its window of addresses stays. */
static bool keeps_what_covers(const struct held *one, size_t number, void *context)
{
    const size_t *window_and_offset = context;
    uintptr_t first = (uintptr_t)one->block;

    (void)number;
    return (first - window_and_offset[1]) / window_and_offset[0] !=
               (first + one->size - 1 - window_and_offset[1]) / window_and_offset[0] ||
           (first - window_and_offset[1]) % window_and_offset[0] == 0;
}

/* One block per page survives: the least that keeps all pages. */
static bool keeps_one_per_page(const struct held *one, size_t number, void *context)
{
    uintptr_t *last = context, page = (uintptr_t)one->block / 4096;
    bool keeps = page != *last;

    (void)number;
    *last = page;
    return keeps;
}

static void begin(void)
{
    held = held_space;
    held_count = held_bytes = 0;
    memset(held_space, 1, sizeof held_space); /* resident from the start */
    (void)malloc_trim(0);
    base_bytes = peak_bytes = resident_bytes();
}

static void end(const char *name, double most)
{
    size_t used = peak_bytes - base_bytes;

    thin_out(keeps_none, NULL);
    printf("# %s: %.2f times the bound\n", name, (double)used / (double)BOUND_BYTES);
    assert_true(used >= BOUND_BYTES / 2); /* the adversary has done something */
    assert_true((double)used <= most * (double)BOUND_BYTES);
}

static void every_other_survives_while_sizes_double(void **state)
{
    (void)state;
    begin();
    for (size_t size = SMALLEST; size <= LARGEST; size *= 2) {
        fill(size);
        thin_out(keeps_every_other, NULL);
    }
    end("every other survives, sizes double", 7.5);
}

static void every_other_survives_while_sizes_halve(void **state)
{
    (void)state;
    begin();
    for (size_t size = LARGEST; size >= SMALLEST; size /= 2) {
        fill(size);
        thin_out(keeps_every_other, NULL);
    }
    end("every other survives, sizes halve", 5.2);
}

static void few_survive(void **state)
{
    (void)state;
    begin();
    for (size_t size = SMALLEST; size <= LARGEST; size += size / 2) {
        fill(size);
        thin_out(keeps_one_in_16, NULL);
    }
    end("one in 16 survives, sizes grow by half", 4.2);
}

static void random_survivors_of_random_sizes(void **state)
{
    struct random random = {1971};

    (void)state;
    begin();
    for (size_t round = 0; round < 40; round++) {
        size_t shift = random_below(&random, 17);

        fill(((size_t)SMALLEST << shift) + random_below(&random, (size_t)SMALLEST << shift) / 2);
        thin_out(keeps_at_random, &random);
    }
    end("random survivors of random sizes", 6.5);
}

/* What the survivors of this offset pin in their windows without holding it. */
static size_t pinned_by(size_t window, size_t offset)
{
    size_t window_and_offset[2] = {window, offset}, pinned = 0;

    for (size_t i = 0; i < held_count; i++)
        if (keeps_what_covers(&held[i], i, window_and_offset))
            pinned += window - held[i].size;
    return pinned;
}

static size_t better_offset(size_t offset, size_t size)
{
    return pinned_by(size * 2, offset) >= pinned_by(size * 2, offset + size) ? offset : offset + size;
}

static void robson(void **state)
{
    size_t window_and_offset[2] = {SMALLEST, 0};

    (void)state;
    begin();
    for (size_t size = SMALLEST; size <= LARGEST; size *= 2) {
        fill(size);
        window_and_offset[0] = size * 2;
        window_and_offset[1] = better_offset(window_and_offset[1], size);
        thin_out(keeps_what_covers, window_and_offset);
    }
    end("Robson's", 8);
}

/* Every class in turn is filled to the bound, then one block per page stays: the pages are pinned, the bytes
 * are free for the next class. */
static void a_block_per_page_survives(void **state)
{
    (void)state;
    begin();
    for (size_t size = SMALLEST; size <= 2048; size += size / 4 < 16 ? 16 : size / 4 / 16 * 16) {
        uintptr_t last = 0;

        fill(size);
        thin_out(keeps_one_per_page, &last);
    }
    end("one per page survives, all classes", 15.5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_other_survives_while_sizes_double),
        cmocka_unit_test(every_other_survives_while_sizes_halve),
        cmocka_unit_test(few_survive),
        cmocka_unit_test(random_survivors_of_random_sizes),
        cmocka_unit_test(robson),
        cmocka_unit_test(a_block_per_page_survives),
    };

    return cmocka_run_group_tests_name("robson", tests, NULL, NULL);
}
