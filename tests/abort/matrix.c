/*
 * One kind of misuse, of a block of one size that was allocated in one place, and what the program does after
 * it: tests/abort/matrix runs every combination in a process of its own and compares with the table of
 * docs/misuse.md.
 *
 *     matrix KIND BYTES own|other|ended end|go-on       misuses, then ends with "not noticed" and status 0
 *     matrix                                            lists the kinds
 */
#include "../support.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "../interface.h"

#define NEIGHBOURS 3
#define TURNS      3000U

static size_t size;

/* ---- where the block comes from ---- */

static char *blocks[2 * NEIGHBOURS + 1];
static pthread_barrier_t made, done;

static void make_blocks(void)
{
    for (int i = 0; i < 2 * NEIGHBOURS + 1; i++) {
        blocks[i] = opaque(malloc(opaque_size(size)));
        must(blocks[i] != NULL);
        memset(blocks[i], 'a' + i, size);
    }
}

static void *make_and_end(void *unused)
{
    make_blocks();
    return unused;
}

static void *make_and_wait(void *unused)
{
    make_blocks();
    pthread_barrier_wait(&made);
    pthread_barrier_wait(&done);
    return unused;
}

static pthread_t thread;

static char *block_from(const char *place)
{
    if (strcmp(place, "own") == 0) {
        make_blocks();
    } else if (strcmp(place, "ended") == 0) {
        must(pthread_create(&thread, NULL, make_and_end, NULL) == 0);
        pthread_join(thread, NULL);
    } else {
        pthread_barrier_init(&made, NULL, 2);
        pthread_barrier_init(&done, NULL, 2);
        must(pthread_create(&thread, NULL, make_and_wait, NULL) == 0);
        pthread_barrier_wait(&made);
    }
    return blocks[NEIGHBOURS];
}

/* ---- kinds: each misuses the block once; those that leave it alive free it ---- */

static void double_free(char *block)
{
    free(block);
    free(opaque(block));
}

static void double_free_later(char *block)
{
    free(block);
    free(blocks[NEIGHBOURS + 1]);
    free(opaque(block));
}

/* What was freed is allocated again before it is freed a second and a third time. */
static void double_free_after_malloc(char *block)
{
    free(block);
    must(opaque(malloc(opaque_size(size))) != NULL);
    free(opaque(block));
    free(opaque(block));
}

static void free_at(char *block, size_t offset)
{
    free(opaque(block + offset));
}

static void free_odd(char *block)
{
    free_at(block, 1);
}

static void free_8_behind(char *block)
{
    free_at(block, 8);
}

static void free_16_behind(char *block)
{
    free_at(block, 16);
}

static void free_middle(char *block)
{
    free_at(block, size / 32 * 16);
}

static void write_at(char *block, ptrdiff_t offset, size_t bytes, int byte)
{
    memset(opaque(block + offset), byte, opaque_size(bytes));
}

static void overflow_by_1(char *block)
{
    write_at(block, (ptrdiff_t)size, 1, 'x');
    free(block);
}

static void overflow_by_a_zero(char *block)
{
    write_at(block, (ptrdiff_t)size, 1, 0);
    free(block);
}

static void overflow_by_8(char *block)
{
    write_at(block, (ptrdiff_t)size, 8, 'x');
    free(block);
}

static void overflow_by_64(char *block)
{
    write_at(block, (ptrdiff_t)size, 64, 'x');
    free(block);
}

static void overflow_not_freed(char *block)
{
    write_at(block, (ptrdiff_t)size, 8, 'x');
}

/* A quarter more, and a page, than was asked for. */
static void overflow_far(char *block)
{
    write_at(block, (ptrdiff_t)size, size / 4 + 4096, 'x');
    free(block);
}

static void underflow_by_1(char *block)
{
    write_at(block, -1, 1, 'x');
    for (int i = 0; i < 2 * NEIGHBOURS + 1; i++)
        free(blocks[i]);
}

static void underflow_by_16(char *block)
{
    write_at(block, -16, 16, 'x');
    for (int i = 0; i < 2 * NEIGHBOURS + 1; i++)
        free(blocks[i]);
}

static void write_first_after_free(char *block)
{
    free(block);
    write_at(opaque(block), 0, 8, 'x');
}

static void write_second_after_free(char *block)
{
    free(block);
    write_at(opaque(block), 8, 8, 'x');
}

static void write_middle_after_free(char *block)
{
    free(block);
    write_at(opaque(block), (ptrdiff_t)size / 2, 1, 'x');
}

static void write_last_after_free(char *block)
{
    free(block);
    write_at(opaque(block), (ptrdiff_t)size - 1, 1, 'x');
}

/* Noticed also where it finds nothing of what was there. */
static void read_after_free(char *block)
{
    free(block);
    char byte = *(volatile char *)opaque(block + size / 2);
    if (byte != 'a' + NEIGHBOURS)
        abort();
}

static void realloc_freed(char *block)
{
    free(block);
    must(realloc(opaque(block), opaque_size(size + 10)) != NULL);
}

static void realloc_interior(char *block)
{
    must(realloc(opaque(block + 16), opaque_size(size + 10)) != NULL);
}

static void usable_size_of_freed(char *block)
{
    free(block);
    (void)opaque_size(malloc_usable_size(opaque(block)));
}

static void usable_size_of_interior(char *block)
{
    (void)opaque_size(malloc_usable_size(opaque(block + 16)));
}

static void free_sized_third(char *block)
{
    free_sized(block, opaque_size(size / 3));
}

static void free_sized_1_less(char *block)
{
    free_sized(block, opaque_size(size - 1));
}

static void free_sized_threefold(char *block)
{
    free_sized(block, opaque_size(size * 3));
}

static void free_aligned_sized_wrong(char *block)
{
    free_aligned_sized(block, (uintptr_t)block & -(uintptr_t)block << 1, opaque_size(size));
}

/* A block of no bytes. */
static void touch_empty(char *block)
{
    char *empty = opaque(malloc(opaque_size(0)));
    must(empty != NULL);
    *(volatile char *)empty = *block;
    free(empty);
}

#define KIND(name)                                                                                           \
    {                                                                                                        \
#name, name                                                                                          \
    }

static const struct {
    const char *name;
    void (*misuse)(char *block);
} kinds[] = {
    KIND(double_free),
    KIND(double_free_later),
    KIND(double_free_after_malloc),
    KIND(free_odd),
    KIND(free_8_behind),
    KIND(free_16_behind),
    KIND(free_middle),
    KIND(overflow_by_1),
    KIND(overflow_by_a_zero),
    KIND(overflow_by_8),
    KIND(overflow_by_64),
    KIND(overflow_not_freed),
    KIND(overflow_far),
    KIND(underflow_by_1),
    KIND(underflow_by_16),
    KIND(write_first_after_free),
    KIND(write_second_after_free),
    KIND(write_middle_after_free),
    KIND(write_last_after_free),
    KIND(read_after_free),
    KIND(realloc_freed),
    KIND(realloc_interior),
    KIND(usable_size_of_freed),
    KIND(usable_size_of_interior),
    KIND(free_sized_third),
    KIND(free_sized_1_less),
    KIND(free_sized_threefold),
    KIND(free_aligned_sized_wrong),
    KIND(touch_empty),
};

/* What a program does that has not noticed. */
static void go_on(void)
{
    static char *others[TURNS];
    for (unsigned turn = 0; turn < TURNS; turn++) {
        others[turn] = opaque(malloc(opaque_size(size)));
        must(others[turn] != NULL);
        if (turn >= 100) {
            free(others[turn - 100]);
            others[turn - 100] = NULL;
        }
    }
    for (unsigned turn = 0; turn < TURNS; turn++)
        free(others[turn]);
}

int main(int argc, char **argv)
{
    const struct rlimit no_core = {0, 0};

    setrlimit(RLIMIT_CORE, &no_core);
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (argc < 5) {
            puts(kinds[i].name);
        } else if (strcmp(argv[1], kinds[i].name) == 0) {
            size = strtoul(argv[2], NULL, 10);
            kinds[i].misuse(opaque(block_from(argv[3])));
            if (strcmp(argv[4], "go-on") == 0)
                go_on();
            if (strcmp(argv[3], "other") == 0) {
                pthread_barrier_wait(&done);
                pthread_join(thread, NULL);
            }
            puts("not noticed");
            return 0;
        }
    }
    return argc < 5 ? 0 : 2;
}
