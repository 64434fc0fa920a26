/*
 * Trap: allocation before the library's constructors and after its destructors. This file is compiled both
 * into a shared object whose constructors run before (its destructors after) those of the allocator, and into
 * the program itself. Blocks allocated at each stage are kept to the next and verified and freed there. When
 * all is over each of the two writes a line, which tests/traps/early_and_late_check waits for.
 *
 * The stages, in order: .preinit_array (program only), constructor 101, constructor, main, atexit,
 * destructor, destructor 101.
 */
#include "../support.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../interface.h"

/* Called in main, from both of the compiled copies. */
void library_in_main(void);
void program_in_main(void);

#ifdef EARLY_AND_LATE_PROGRAM
#define in_main   program_in_main
#define LAST_LINE "program: all stages ran\n"
#else
#define in_main   library_in_main
#define LAST_LINE "library: all stages ran\n"
#endif

enum { BLOCKS = 60 };

static void *blocks[BLOCKS];
static unsigned stages_run;

static size_t block_size(size_t i)
{
    return i % 20 == 0 ? 700 * KIB : i % 10 == 0 ? 40 * KIB : 16 + i * 40;
}

static void *allocate_and_free(void *argument)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        void *block = calloc(1, opaque_size(block_size(i)));

        must(block != NULL && all_zero(block, block_size(i)));
        free(block);
    }
    return argument;
}

/* Takes over the blocks of the stage before, leaves new ones to the next. Large ones by realloc, some by
 * threads. */
static void stage(unsigned number, bool with_a_thread)
{
    must(number >= stages_run);
    for (size_t i = 0; i < BLOCKS; i++) {
        if (blocks[i] != NULL)
            must(pattern_holds(blocks[i], block_size(i), i));
        if (i % 3 == 0) {
            blocks[i] = realloc(blocks[i], opaque_size(block_size(i) * 2));
            must(blocks[i] != NULL);
            blocks[i] = realloc(blocks[i], opaque_size(block_size(i)));
        } else {
            free(blocks[i]);
            blocks[i] = malloc(opaque_size(block_size(i)));
        }
        must(blocks[i] != NULL);
        pattern_write(blocks[i], block_size(i), i);
    }
    if (with_a_thread) {
        pthread_t thread;

        must(pthread_create(&thread, NULL, allocate_and_free, NULL) == 0);
        must(pthread_join(thread, NULL) == 0);
    }
    stages_run = number;
}

__attribute__((constructor(101))) static void early(void)
{
    stage(2, true);
}

__attribute__((constructor)) static void later(void)
{
    stage(3, false);
}

static void at_exit(void)
{
    stage(5, true);
}

void in_main(void)
{
    must(stages_run == 3);
    must(atexit(at_exit) == 0);
    stage(4, true);
}

__attribute__((destructor)) static void late(void)
{
    must(stages_run == 5);
    stage(6, false);
}

/* The last of all: what is left is freed, and the outcome told, as nobody else could. */
__attribute__((destructor(101))) static void later_still(void)
{
    stage(7, false);
    for (size_t i = 0; i < BLOCKS; i++) {
        must(pattern_holds(blocks[i], block_size(i), i));
        free(blocks[i]);
    }
    allocate_and_free(NULL);
    must(write(STDOUT_FILENO, LAST_LINE, sizeof LAST_LINE - 1) == sizeof LAST_LINE - 1);
}

#ifdef EARLY_AND_LATE_PROGRAM

static void earliest(void)
{
    stage(1, false);
}

__attribute__((section(".preinit_array"), used)) static void (*const preinit)(void) = earliest;

int main(void)
{
    library_in_main();
    program_in_main();
    return 0;
}

#endif
