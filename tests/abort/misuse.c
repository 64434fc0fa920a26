/*
 * Misuses the allocator in one way, named by the argument, and says so when nobody noticed.
 * tests/abort/check runs each way in a child and compares with its table. Without an argument: lists the
 * names.
 */
#include "../support.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "../interface.h"

#define SMALL  ((size_t)48)
#define MEDIUM (20 * KIB)
#define RUN    (100 * KIB)
#define RAW    (3 * MIB)
#define ARENA  (4 * MIB)

static char global[4096] __attribute__((aligned(64)));

static void *block_of(size_t size)
{
    char *block = opaque(malloc(opaque_size(size)));

    must(block != NULL);
    block[0] = 1;
    return block;
}

/* Keeps the pool, the arena and the run region of a block in use, so that a freed one does not vanish with
 * them. */
static void neighbours(size_t size)
{
    for (int i = 0; i < 3; i++)
        (void)block_of(size);
}

static void *free_it(void *block)
{
    free(opaque(block));
    return NULL;
}

static void *free_it_twice(void *block)
{
    free(opaque(block));
    free(opaque(block));
    return NULL;
}

static void in_another_thread(void *(*body)(void *), void *block)
{
    pthread_t thread;

    must(pthread_create(&thread, NULL, body, block) == 0);
    must(pthread_join(thread, NULL) == 0);
}

/* ---- freed twice ---- */

static void free_twice(size_t size)
{
    neighbours(size);
    void *block = block_of(size);

    neighbours(size);
    free(opaque(block));
    free(opaque(block));
}

static void double_free_small(void)
{
    free_twice(SMALL);
}

static void double_free_medium(void)
{
    free_twice(MEDIUM);
}

static void double_free_run(void)
{
    free_twice(RUN);
}

static void double_free_raw(void)
{
    free_twice(RAW);
}

/* The last block of its pool, the only run of its arena: after the first free nothing else holds the place.
 */
static void double_free_small_alone(void)
{
    void *block = block_of(1500);

    free(opaque(block));
    free(opaque(block));
}

static void double_free_small_with_others_between(void)
{
    void *blocks[20];

    for (size_t i = 0; i < 20; i++)
        blocks[i] = block_of(SMALL);
    for (size_t i = 0; i < 19; i++)
        free(opaque(blocks[i]));
    free(opaque(blocks[3]));
}

static void double_free_run_with_others_between(void)
{
    void *blocks[20];

    for (size_t i = 0; i < 20; i++)
        blocks[i] = block_of(RUN);
    for (size_t i = 0; i < 19; i++)
        free(opaque(blocks[i]));
    free(opaque(blocks[3]));
}

static void double_free_small_by_another_thread(void)
{
    void *block;

    neighbours(SMALL);
    block = block_of(SMALL);
    free(opaque(block));
    in_another_thread(free_it, block);
}

/* The owner frees a block that is on its way home already; it finds out when the block arrives. */
static void double_free_small_after_another_thread(void)
{
    void *block;

    neighbours(SMALL);
    block = block_of(SMALL);
    in_another_thread(free_it, block);
    free(opaque(block));
    for (size_t i = 0; i < 100000; i++)
        (void)block_of(SMALL);
}

/* Both frees are remote, one right after the other. */
static void double_free_small_twice_remote(void)
{
    void *block;

    neighbours(SMALL);
    block = block_of(SMALL);
    in_another_thread(free_it_twice, block);
    for (size_t i = 0; i < 100000; i++)
        (void)block_of(SMALL);
}

/* Two threads free it, neither is the owner; the owner finds out when it takes the blocks back. */
static void double_free_small_by_two_threads(void)
{
    void *block;

    neighbours(SMALL);
    block = block_of(SMALL);
    in_another_thread(free_it, block);
    in_another_thread(free_it, block);
    for (size_t i = 0; i < 100000; i++)
        (void)block_of(SMALL);
}

static void *do_nothing(void *argument)
{
    return argument;
}

static void double_free_run_by_another_thread(void)
{
    void *block;

    /* What pthread_create allocates shall find its place before: not where the run was. */
    in_another_thread(do_nothing, NULL);
    neighbours(RUN);
    block = block_of(RUN);
    free(opaque(block));
    in_another_thread(free_it, block);
}

static void double_free_raw_by_another_thread(void)
{
    void *block = block_of(RAW);

    free(opaque(block));
    in_another_thread(free_it, block);
}

/* ---- pointers that malloc never gave ---- */

static void free_stack(void)
{
    char local[256] __attribute__((aligned(64)));

    (void)block_of(SMALL);
    memset(opaque(local), 0, sizeof local);
    free(opaque(local + 64));
}

static void free_global(void)
{
    (void)block_of(SMALL);
    free(opaque(global + 64));
}

/* Of someone else, as small as can be, where an arena could stand. */
static void free_in_small_mapping(void)
{
    char *place = mmap(NULL, 2 * ARENA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    must(place != MAP_FAILED);
    place += ARENA - (uintptr_t)place % ARENA;
    must(mprotect(place, 4 * KIB, PROT_READ | PROT_WRITE) == 0);
    (void)block_of(SMALL);
    free(opaque(place + 64));
}

static void free_global_as_first_call(void)
{
    free(opaque(global + 64));
}

static void free_small_number(void)
{
    free(opaque((void *)(uintptr_t)16));
}

static void free_odd_address(void)
{
    free(opaque((char *)block_of(SMALL) + 1));
}

static void free_address_of_no_process(void)
{
    free(opaque((void *)(((uintptr_t)1 << 63) + 4096)));
}

static void free_interior_small(void)
{
    neighbours(SMALL);
    free(opaque((char *)block_of(SMALL) + 16));
}

static void free_interior_medium(void)
{
    free(opaque((char *)block_of(MEDIUM) + 4096));
}

static void free_interior_run(void)
{
    free(opaque((char *)block_of(RUN) + 64));
}

/* The start of the run's second slot. */
static void free_interior_run_slot(void)
{
    free(opaque((char *)block_of(RUN) + 16 * KIB));
}

static void free_interior_raw(void)
{
    free(opaque((char *)block_of(RAW) + 4096));
}

static void free_interior_small_by_another_thread(void)
{
    neighbours(SMALL);
    in_another_thread(free_it, (char *)block_of(SMALL) + 16);
}

/* Where an arena keeps its header. */
static void free_arena_header(void)
{
    uintptr_t arena = (uintptr_t)block_of(SMALL) & ~((uintptr_t)ARENA - 1);

    free(opaque((void *)(arena + 4096)));
}

/* The far end of an arena of which only a little is in use: a slot that belongs to nobody. */
static void free_unused_slot(void)
{
    uintptr_t arena = (uintptr_t)block_of(SMALL) & ~((uintptr_t)ARENA - 1);

    free(opaque((void *)(arena + ARENA - 16 * KIB)));
}

static void *foreign_mapping(void)
{
    char *mapping =
        mmap(NULL, 2 * ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    must(mapping != MAP_FAILED);
    return mapping + (ARENA - (uintptr_t)mapping % ARENA) % ARENA;
}

static void free_foreign_aligned(void)
{
    (void)block_of(RAW);
    free(opaque(foreign_mapping()));
}

static void free_foreign(void)
{
    (void)block_of(RAW);
    free(opaque((char *)foreign_mapping() + 1024 * KIB));
}

/* ---- wrong sizes ---- */

static void free_sized_too_small(void)
{
    free_sized(block_of(100), opaque_size(20));
}

static void free_sized_too_large(void)
{
    free_sized(block_of(100), opaque_size(3000));
}

static void free_sized_small_as_run(void)
{
    free_sized(block_of(100), opaque_size(RUN));
}

static void free_sized_run(void)
{
    free_sized(block_of(RUN), opaque_size(RUN * 3));
}

static void free_sized_raw(void)
{
    free_sized(block_of(RAW), opaque_size(RAW * 3));
}

/* delete through a second base class that has no virtual destructor. */
static void free_sized_interior(void)
{
    free_sized((char *)block_of(100) + 16, opaque_size(20));
}

static void free_sized_interior_large(void)
{
    free_sized((char *)block_of(100) + 16, opaque_size(5000));
}

static void free_sized_odd_address(void)
{
    free_sized((char *)block_of(100) + 1, opaque_size(5000));
}

static void free_aligned_sized_interior(void)
{
    free_aligned_sized((char *)block_of(100) + 16, opaque_size(16), opaque_size(50));
}

static void free_sized_raw_as_small(void)
{
    free_sized(block_of(RAW), opaque_size(100));
}

/* The second of two neighbours of 48 bytes cannot be aligned to 4096 when the first one is. */
static void free_aligned_sized_wrong_alignment(void)
{
    char *block = block_of(SMALL);

    if ((uintptr_t)block % 4096 == 0)
        block = block_of(SMALL);
    free_aligned_sized(block, opaque_size(4096), opaque_size(SMALL));
}

static void free_aligned_sized_wrong_size(void)
{
    char *block = opaque(aligned_alloc(opaque_size(256), opaque_size(1024)));

    must(block != NULL);
    free_aligned_sized(block, opaque_size(256), opaque_size(16 * KIB));
}

/* ---- used after free ---- */

/* The first word of a free block is the allocator's. */
static void write_after_free(void)
{
    uint64_t *block;

    neighbours(SMALL);
    block = block_of(SMALL);
    free(opaque(block));
    *(volatile uint64_t *)opaque(block) = 0x4141414141414141u;
    for (size_t i = 0; i < 100000; i++)
        (void)block_of(SMALL);
}

/* As above, with an address that could be a block of the same class. */
static void write_after_free_pointer(void)
{
    uintptr_t *block;

    neighbours(SMALL);
    block = block_of(SMALL);
    free(opaque(block));
    *(volatile uintptr_t *)opaque(block) = (uintptr_t)global;
    for (size_t i = 0; i < 100000; i++)
        (void)block_of(SMALL);
}

static void realloc_freed(size_t size)
{
    void *block;

    neighbours(size);
    block = block_of(size);
    neighbours(size);
    free(opaque(block));
    block = realloc(opaque(block), opaque_size(size * 4));
    must(block != NULL);
}

static void realloc_freed_small(void)
{
    realloc_freed(SMALL);
}

static void realloc_freed_run(void)
{
    realloc_freed(RUN);
}

static void realloc_freed_raw(void)
{
    realloc_freed(RAW);
}

static void realloc_stack(void)
{
    char local[256] __attribute__((aligned(64)));

    memset(opaque(local), 0, sizeof local);
    must(realloc(opaque(local + 64), opaque_size(1000)) != NULL);
}

static void realloc_interior(void)
{
    must(realloc(opaque((char *)block_of(1000) + 32), opaque_size(5000)) != NULL);
}

/* ---- sizes of what is no block ---- */

static void usable_size_of_stack(void)
{
    char local[256] __attribute__((aligned(64)));

    memset(opaque(local), 0, sizeof local);
    (void)opaque_size(malloc_usable_size(opaque(local + 64)));
}

static void usable_size_of_global(void)
{
    (void)opaque_size(malloc_usable_size(opaque(global + 64)));
}

static void usable_size_of_foreign_aligned(void)
{
    (void)opaque_size(malloc_usable_size(opaque(foreign_mapping())));
}

static void usable_size_of_freed_raw(void)
{
    void *block = block_of(RAW);

    free(opaque(block));
    (void)opaque_size(malloc_usable_size(opaque(block)));
}

#define CASE(name)                                                                                           \
    {                                                                                                        \
#name, name                                                                                          \
    }

static const struct {
    const char *name;
    void (*misuse)(void);
} cases[] = {
    CASE(double_free_small),
    CASE(double_free_medium),
    CASE(double_free_run),
    CASE(double_free_raw),
    CASE(double_free_small_alone),
    CASE(double_free_small_with_others_between),
    CASE(double_free_run_with_others_between),
    CASE(double_free_small_by_another_thread),
    CASE(double_free_small_after_another_thread),
    CASE(double_free_small_twice_remote),
    CASE(double_free_small_by_two_threads),
    CASE(double_free_run_by_another_thread),
    CASE(double_free_raw_by_another_thread),
    CASE(free_stack),
    CASE(free_global),
    CASE(free_in_small_mapping),
    CASE(free_global_as_first_call),
    CASE(free_small_number),
    CASE(free_odd_address),
    CASE(free_address_of_no_process),
    CASE(free_interior_small),
    CASE(free_interior_medium),
    CASE(free_interior_run),
    CASE(free_interior_run_slot),
    CASE(free_interior_raw),
    CASE(free_interior_small_by_another_thread),
    CASE(free_arena_header),
    CASE(free_unused_slot),
    CASE(free_foreign_aligned),
    CASE(free_foreign),
    CASE(free_sized_too_small),
    CASE(free_sized_too_large),
    CASE(free_sized_small_as_run),
    CASE(free_sized_run),
    CASE(free_sized_raw),
    CASE(free_sized_raw_as_small),
    CASE(free_sized_interior),
    CASE(free_sized_interior_large),
    CASE(free_sized_odd_address),
    CASE(free_aligned_sized_interior),
    CASE(free_aligned_sized_wrong_alignment),
    CASE(free_aligned_sized_wrong_size),
    CASE(write_after_free),
    CASE(write_after_free_pointer),
    CASE(realloc_freed_small),
    CASE(realloc_freed_run),
    CASE(realloc_freed_raw),
    CASE(realloc_stack),
    CASE(realloc_interior),
    CASE(usable_size_of_stack),
    CASE(usable_size_of_global),
    CASE(usable_size_of_foreign_aligned),
    CASE(usable_size_of_freed_raw),
};

int main(int argc, char **argv)
{
    const struct rlimit no_core = {0, 0};

    setrlimit(RLIMIT_CORE, &no_core);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        if (argc < 2) {
            puts(cases[i].name);
        } else if (strcmp(argv[1], cases[i].name) == 0) {
            cases[i].misuse();
            puts("not noticed");
            return 0;
        }
    }
    return argc < 2 ? 0 : 2;
}
