/*
 * What the stress programs share: arguments, blocks with contents that can be checked, mailboxes through
 * which blocks go from thread to thread, and the one line that a run prints.
 *
 * Every program takes --seed N --seconds S --threads T, does the same for the same seed as far as threads
 * allow, checks the contents of every block before it lets it go, and ends with a line such as
 *
 *   remote_free: seed 7, 8 threads, 2.0 s, 1234567 blocks: ok
 *
 * A failed check prints the seed too and aborts.
 */
#ifndef STRESS_STRESS_H
#define STRESS_STRESS_H

#include "../tests/support.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- a run ---- */

struct stress {
    const char *name;
    uint64_t seed;
    double seconds;
    unsigned threads;
};

extern struct stress stress;

/* Reads the arguments; a wrong one ends the program with a message. Sets the default of --threads and
 * --seconds. */
void stress_begin(const char *name, int argc, char **argv);

/* As stress_begin, for a program with arguments of its own: takes the value of --NAME, given as a number, out
 * of the arguments beforehand; `absent` when it is not given. */
double stress_argument(int *argc, char **argv, const char *name, double absent);

/* Is the time over? Cheap enough to be asked every few operations. */
bool stress_is_over(void);

/* Runs the body in --threads threads, each with its number, and waits for them. Returns the sum of their
 * results. */
uint64_t stress_threads(uint64_t (*body)(unsigned number));

/* Random numbers of thread or part `number` of this run. */
struct random stress_random(uint64_t number);

/* A check of resident memory. (Under a sanitizer none is made: its own memory does not come back.) */
void stress_must_be_resident_below(size_t bytes);

/* Prints the line of a run that went well. */
void stress_end(uint64_t blocks);

/* ---- blocks ---- */

/* A block of the allocator with its size and tag in its first bytes and a pattern behind them. */
struct block {
    uint64_t size_bytes;
    uint64_t tag;
    unsigned char bytes[];
};

#define BLOCK_BYTES_MIN sizeof(struct block)

/* Allocates by whatever function the random number says: malloc, calloc (checked to be zero), realloc, an
 * aligned one (checked to be aligned). NULL, with errno checked to be ENOMEM, when there is no memory. */
struct block *block_try_make(struct random *random, size_t size_bytes);

/* As above; must not fail. */
struct block *block_make(struct random *random, size_t size_bytes);

/* A size as random_size gives, but large enough for a block. */
size_t block_random_size(struct random *random);

void block_verify(const struct block *block);

/* Verifies, resizes, verifies and writes anew. */
struct block *block_resize(struct block *block, size_t size_bytes);

/* Verifies, and frees with free, or with the free of C23 that fits. NULL is allowed. */
void block_free(struct block *block, struct random *random);

/* ---- mailboxes ---- */

/* One place, exchanged without a lock, and a queue behind a lock: both ways blocks go from thread to thread.
 */
struct mailbox;

#define MAILBOXES 64

/* Puts a block into the mailbox and takes one out that has been there before; NULL when there was none. */
struct block *mailbox_exchange(size_t number, struct random *random, struct block *block);

/* Takes all that is left, when no other thread runs, and frees it. */
void mailbox_free_all(struct random *random);

#endif
