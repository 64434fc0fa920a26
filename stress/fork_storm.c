/*
 * A busy process forks again and again. Of its threads half live long, half start one short-lived thread
 * after another; they allocate every kind of block, free each other's, trim, read statistics, and fill and
 * empty whole arenas. What a child does is drawn by its number: it verifies, resizes and frees what it
 * inherited, also blocks of threads that it has not; allocates from every path; starts threads; forks once
 * more, three generations deep; executes another program. Some are started by vfork and posix_spawn instead.
 *
 * A child that does not end within 60 s is taken for a deadlock, and so is a parent that starts none for as
 * long: its threads' places are printed. Afterwards the parent's blocks are intact, and with all freed its
 * memory is back near where it began.
 *
 * --forks N ends the run after so many processes were started, if that is before the time is over.
 */
#include "stress.h"

#include <errno.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../tests/interface.h"

enum { INHERITED = 500, OFFERED = 256, CHILD_SECONDS = 60, HANG_SECONDS = 90, GENERATIONS = 3 };

static struct block *inherited[INHERITED];

/* Without locks: a child may take from here too. */
static _Atomic(struct block *) offered[OFFERED];

static atomic_bool stop;
static atomic_uint_fast64_t progress;

/* What was done, by all generations: shared memory. */
struct deeds {
    atomic_uint_fast64_t started, grandchildren, executed, spawned, with_threads, trimmed;
};

static struct deeds *deeds;

static char own_path[] = "/proc/self/exe";
static char executed_argument[] = "--executed";

/* ---- the parent's threads ---- */

static void offer(struct random *random, struct block *block)
{
    block_free(atomic_exchange(&offered[random_below(random, OFFERED)], block), random);
}

static uint64_t allocate_and_exchange(uint64_t seed, size_t operations)
{
    struct random random = stress_random(seed);

    for (size_t i = 0; i < operations; i++) {
        struct block *block = block_make(&random, block_random_size(&random));

        if (random_below(&random, 2) == 0)
            offer(&random, block);
        else
            block_free(mailbox_exchange(random_below(&random, MAILBOXES), &random, block), &random);
    }
    return operations;
}

static void *short_life(void *argument)
{
    uint64_t *seed = argument;

    *seed = allocate_and_exchange(*seed, 20);
    return NULL;
}

/* A fork may come while a thread begins or ends. */
static uint64_t in_a_thread_of_its_own(uint64_t seed)
{
    pthread_t thread;

    must(pthread_create(&thread, NULL, short_life, &seed) == 0);
    must(pthread_join(thread, NULL) == 0);
    return seed;
}

/* More than an arena, and with the trim that follows it is retired. */
static uint64_t fill_and_empty_arenas(void)
{
    enum { BLOCKS = 200 };
    void *blocks[BLOCKS];

    for (size_t i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(opaque_size(31 * KIB));
        must(blocks[i] != NULL);
        memset(blocks[i], 1, 16);
    }
    for (size_t i = 0; i < BLOCKS; i++)
        free(blocks[i]);
    return BLOCKS;
}

/* So many rounds of a thread for each fork: on few processors it would else be the forks that wait. */
static void keep_pace(uint64_t round)
{
    while (!atomic_load(&stop) && round > 8 + 3 * atomic_load(&progress))
        sleep_ms(1);
}

static void *busy(void *argument)
{
    uint64_t *result = argument, seed = *result;

    *result = 0;
    for (uint64_t i = 0; !atomic_load(&stop); i++) {
        keep_pace(i);
        if (seed % 2 == 0)
            *result += allocate_and_exchange(seed + i * 10000, 50);
        else
            *result += in_a_thread_of_its_own(seed + i * 10000);
        if (i % 16 == 5)
            *result += fill_and_empty_arenas();
        if (i % 64 == 6)
            (void)malloc_trim(0);
        if (i % 16 == 0)
            (void)mallinfo2();
    }
    return NULL;
}

/* ---- children ---- */

static void *allocate_alone(void *argument)
{
    struct random random = stress_random((uintptr_t)argument);
    struct block *held[100] = {NULL};

    for (size_t i = 0; i < 600; i++) {
        size_t at = random_below(&random, 100);

        block_free(held[at], &random);
        held[at] = block_make(&random, block_random_size(&random));
    }
    for (size_t i = 0; i < 100; i++)
        block_free(held[i], &random);
    return NULL;
}

/* One block of every kind, whatever the random numbers are. */
static void use_every_path(struct random *random)
{
    static const size_t sizes[] = {24, 300, 3 * KIB, 30 * KIB, 100 * KIB, 500 * KIB, 600 * KIB, 2 * MIB};
    enum { SIZES = sizeof sizes / sizeof *sizes };
    struct block *blocks[SIZES];
    void *aligned = NULL;

    for (size_t i = 0; i < SIZES; i++) {
        blocks[i] = block_make(random, sizes[i]);
        blocks[i] = block_resize(blocks[i], sizes[(i + 1) % SIZES]);
    }
    for (size_t alignment = 64; alignment <= 8 * MIB; alignment *= 8) {
        must(posix_memalign(&aligned, alignment, opaque_size(1000)) == 0);
        must((uintptr_t)aligned % alignment == 0);
        free(aligned);
    }
    for (size_t i = 0; i < SIZES; i++) {
        unsigned char *zeroed = calloc(2, opaque_size(sizes[i] / 2));

        must(zeroed != NULL && all_zero(zeroed, sizes[i]));
        free(zeroed);
    }
    must(mallinfo2().hblkhd > 0);
    for (size_t i = 0; i < SIZES; i++)
        block_free(blocks[i], random);
}

static void take_what_was_offered(struct random *random)
{
    for (size_t i = 0; i < OFFERED; i++) {
        struct block *block = atomic_exchange(&offered[i], NULL);

        if (block != NULL && random_below(random, 2) == 0)
            block = block_resize(block, block_random_size(random));
        block_free(block, random);
    }
}

static void start_threads(uint64_t seed)
{
    pthread_t threads[4];

    atomic_fetch_add(&deeds->with_threads, 1);
    for (size_t i = 0; i < 4; i++)
        must(pthread_create(&threads[i], NULL, allocate_alone, (void *)(uintptr_t)(seed + i + 1)) == 0);
    for (size_t i = 0; i < 4; i++)
        must(pthread_join(threads[i], NULL) == 0);
}

static void execute(void)
{
    char *arguments[] = {own_path, executed_argument, NULL};

    (void)execv(own_path, arguments);
    _exit(111);
}

static void be_child(uint64_t seed, unsigned generation);

static void fork_once_more(uint64_t seed, unsigned generation)
{
    pid_t pid = fork();

    if (pid == 0) {
        be_child(seed + 77, generation + 1);
        _exit(0);
    }
    must(pid > 0);
    atomic_fetch_add(&deeds->grandchildren, 1);
    must(wait_for_child(pid, CHILD_SECONDS) == 0);
}

static void verify_inherited(struct random *random)
{
    for (size_t i = 0; i < INHERITED; i++) {
        block_verify(inherited[i]);
        if (random_below(random, 8) == 0)
            inherited[i] = block_resize(inherited[i], block_random_size(random));
    }
}

/* Most children: many of them matter more than much in each. */
static void do_little(struct random *random)
{
    for (size_t i = 0; i < 20; i++) {
        size_t at = random_below(random, INHERITED);

        inherited[at] = block_resize(inherited[at], block_random_size(random));
        block_free(atomic_exchange(&offered[random_below(random, OFFERED)], NULL), random);
        block_free(block_make(random, block_random_size(random)), random);
    }
    free(malloc(opaque_size(MIB)));
    if (random_below(random, 8) == 0)
        exit(0);
}

static void be_child(uint64_t seed, unsigned generation)
{
    struct random random = stress_random(seed);

    if (random_below(&random, 12) == 0) {
        atomic_fetch_add(&deeds->executed, 1);
        execute();
    }
    if (generation == 1 && random_below(&random, 4) != 0) {
        do_little(&random);
        return;
    }
    use_every_path(&random);
    verify_inherited(&random);
    if (random_below(&random, 2) == 0)
        take_what_was_offered(&random);
    if (random_below(&random, 4) == 0)
        (void)allocate_alone((void *)(uintptr_t)seed);
    if (random_below(&random, 6) == 0)
        start_threads(seed);
    if (generation < GENERATIONS && random_below(&random, 4) == 0)
        fork_once_more(seed, generation);
    for (size_t i = 0; i < INHERITED; i++)
        block_free(inherited[i], &random);
    if (random_below(&random, 2) == 0) {
        atomic_fetch_add(&deeds->trimmed, 1);
        (void)malloc_trim(0);
        use_every_path(&random);
    }
    if (random_below(&random, 2) == 0)
        exit(0); /* destructors and atexit handlers run */
}

static pid_t start_fork(uint64_t number)
{
    pid_t pid = fork();

    if (pid == 0) {
        be_child(number * 1000, 1);
        _exit(0);
    }
    return pid;
}

static pid_t start_vfork(void)
{
    pid_t pid = vfork();

    if (pid == 0)
        execute();
    return pid;
}

static pid_t start_spawn(void)
{
    char *arguments[] = {own_path, executed_argument, NULL};
    pid_t pid;

    must(posix_spawn(&pid, own_path, NULL, NULL, arguments, environ) == 0);
    return pid;
}

static pid_t start_child(uint64_t number)
{
    if (number % 20 == 7 || number % 20 == 13) {
        atomic_fetch_add(&deeds->spawned, 1);
        return number % 20 == 7 ? start_vfork() : start_spawn();
    }
    return start_fork(number);
}

/* ---- the parent ---- */

/* A fork that never comes back: its handlers wait for a lock. */
static void *watch(void *argument)
{
    uint64_t seen = atomic_load(&progress), since_ns = now_ns();

    while (!atomic_load(&stop)) {
        uint64_t now = atomic_load(&progress);

        sleep_ms(20);
        if (now != seen) {
            seen = now;
            since_ns = now_ns();
        } else if (now_ns() - since_ns > (uint64_t)HANG_SECONDS * 1000000000u) {
            explain_hung_process((int)getpid());
            must_failed("the parent hangs", __FILE__, __LINE__);
        }
    }
    return argument;
}

static void run_executed(void)
{
    struct random random = {1};

    must_explain = NULL;
    use_every_path(&random);
    exit(0);
}

static void begin(int argc, char **argv)
{
    stress_begin("fork_storm", argc, argv);
    deeds = mmap(NULL, sizeof *deeds, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    must(deeds != MAP_FAILED);
}

int main(int argc, char **argv)
{
    static pthread_t threads[4096];
    static uint64_t results[4096];
    uint64_t blocks = 0, forks_most;
    struct random random;
    pthread_t watcher;
    size_t before;

    if (argc == 2 && strcmp(argv[1], executed_argument) == 0)
        run_executed();
    forks_most = (uint64_t)stress_argument(&argc, argv, "forks", 1e9);
    begin(argc, argv);
    random = stress_random(1000000);
    before = resident_bytes();
    for (size_t i = 0; i < INHERITED; i++)
        inherited[i] = block_make(&random, block_random_size(&random));
    must(pthread_create(&watcher, NULL, watch, NULL) == 0);
    for (unsigned i = 0; i < stress.threads; i++) {
        results[i] = 2000000 + i;
        must(pthread_create(&threads[i], NULL, busy, &results[i]) == 0);
    }
    for (uint64_t number = 0; (!stress_is_over() && number < forks_most) || number < 5; number++) {
        pid_t pid = start_child(number);

        must(pid > 0);
        must(wait_for_child(pid, CHILD_SECONDS) == 0);
        atomic_fetch_add(&deeds->started, 1);
        atomic_fetch_add(&progress, 1);
    }
    atomic_store(&stop, true);
    must(pthread_join(watcher, NULL) == 0);
    for (unsigned i = 0; i < stress.threads; i++) {
        must(pthread_join(threads[i], NULL) == 0);
        blocks += results[i];
    }
    for (size_t i = 0; i < INHERITED; i++)
        block_free(inherited[i], &random);
    for (size_t i = 0; i < OFFERED; i++)
        block_free(atomic_exchange(&offered[i], NULL), &random);
    mailbox_free_all(&random);
    (void)malloc_trim(0);
    stress_must_be_resident_below(before + 48 * MIB);
    printf("fork_storm: %lu children (%lu by vfork and posix_spawn), %lu of children, %lu executed, %lu with "
           "threads, %lu trimmed\n",
           deeds->started, deeds->spawned, deeds->grandchildren, deeds->executed, deeds->with_threads,
           deeds->trimmed);
    stress_end(blocks);
    return 0;
}
