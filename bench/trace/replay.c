/*
 * tarn-replay: does again what a recorded program asked of its allocator, under whatever allocator is
 * preloaded.
 *
 *     tarn-replay [--rounds N | --operations N] [--threads N] TRACE
 *     tarn-replay --check TRACE
 *
 * TRACE is a compact trace that is not compressed, or «-» for stdin. Each recorded thread is a real one;
 * above 16, or the number of --threads, they are folded: thread t is played by thread t modulo that number.
 *
 * Order. An event of an object waits until the one before it is done, by whichever thread: the slot of the
 * object has an atomic count of events. And no thread is ahead of another by more than WINDOW_EVENTS of the
 * file, so that the phases of the program, and with them its peak of memory, stay as they were; a thread that
 * had nothing to do for a while is not waited for. Neither can lock up: the earliest event of the file that
 * is not done never has to wait.
 *
 * Memory. The first bytes, the last byte, and the first and last byte of each page of a block are written
 * after it is allocated, and read before it is freed and after it is moved; what calloc gives has to be zero
 * there. Blocks that the program had not freed are freed at the end of a round, by the thread that used them
 * last.
 *
 * A round before the clock starts warms up. The rounds after it are timed as one. --operations asks for as
 * many rounds as have at least so many operations.
 *
 * Exit status: 0; 2 for wrong arguments or a damaged trace; 3 for memory that is wrong or is not given.
 */
#include "../process.h"
#include "../support.h"
#include "trace.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
    EXIT_USAGE = 2,
    DEFAULT_ROUNDS = 5,
    MOST_ROUNDS = 1000000,
    WINDOW_EVENTS = 4096,
    PROGRESS_EVENTS = 64, /* a thread says how far it is after so many */
    PAGE_BYTES = 4096,
    MARK_BYTES = 8,
    LINE_BYTES = 64,
    KIB = 1024,
    SPINS_BEFORE_YIELD = 100,
    YIELDS_BEFORE_SLEEP = 1000,
    SLEEP_NS = 50000,
    NS_PER_S = 1000000000,
};

/* One object after the other. Written by the thread whose event it is; `steps` hands the rest to the next
 * one. */
struct slot {
    unsigned char *block;
    uint32_t size_bytes;
    _Atomic uint32_t steps; /* events that are done in this round */
};

struct replay;

struct player {
    _Alignas(LINE_BYTES) _Atomic uint32_t progress; /* all events of this thread before this place are done */
    struct replay *replay;
    const struct lane *lane;
    uint32_t horizon; /* how far this thread may go, by the progress of the others when it looked last */
    pthread_t thread;
};

struct replay {
    struct trace trace;
    struct slot *slots;
    struct player players[MAX_LANES];
    pthread_barrier_t barrier; /* all players meet at the beginning and at the end of a round */
    uint32_t rounds;           /* the warm-up not counted */
};

struct request {
    const char *path;
    uint32_t rounds;
    uint64_t operations;
    uint32_t threads;
    bool check;
};

static struct replay replay;

static double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / NS_PER_S;
}

/* Called again and again while something is waited for. */
static void pause_a_little(uint32_t *turns)
{
    const struct timespec nap = {.tv_nsec = SLEEP_NS};

    if (++*turns < SPINS_BEFORE_YIELD)
        return;
    if (*turns < SPINS_BEFORE_YIELD + YIELDS_BEFORE_SLEEP)
        sched_yield();
    else
        nanosleep(&nap, NULL);
}

/* Relaxed: only says how far a thread may run; what it may touch is said by `steps`. */
static void progress_tell(struct player *player, uint32_t order)
{
    atomic_store_explicit(&player->progress, order, memory_order_relaxed);
}

__attribute__((noinline, cold)) static void wait_for_the_others(struct player *player, uint32_t order)
{
    uint32_t turns = 0;

    progress_tell(player, order);
    for (;;) {
        uint32_t least = order;

        for (uint32_t index = 0; index < player->replay->trace.lane_count; index++) {
            uint32_t other =
                atomic_load_explicit(&player->replay->players[index].progress, memory_order_relaxed);

            if (other < least)
                least = other;
        }
        player->horizon = least + WINDOW_EVENTS;
        if (order <= player->horizon)
            return;
        pause_a_little(&turns);
    }
}

__attribute__((noinline, cold)) static void
wait_for_the_object(struct player *player, const struct slot *slot, const struct event *event)
{
    uint32_t turns = 0;

    progress_tell(player, event->order);
    /* Acquire: pairs with the release in play; block, size and content are those of the event before. */
    while (atomic_load_explicit(&slot->steps, memory_order_acquire) != event->step)
        pause_a_little(&turns);
}

/* Different for every object that lives at the same time. */
static uint64_t mark_of(const struct event *event)
{
    return (event->slot + 1) * 0x9E3779B97F4A7C15;
}

static unsigned char mark_byte(uint64_t mark)
{
    return (unsigned char)(mark >> 56);
}

static void block_mark(unsigned char *block, size_t size, uint64_t mark)
{
    if (size == 0)
        return;
    memcpy(block, &mark, size < MARK_BYTES ? size : MARK_BYTES);
    if (size <= MARK_BYTES)
        return;
    for (size_t page = PAGE_BYTES; page < size; page += PAGE_BYTES)
        block[page - 1] = block[page] = mark_byte(mark);
    block[size - 1] = mark_byte(mark);
}

static void must_be(const unsigned char *block, size_t size, size_t at, unsigned char byte)
{
    if (block[at] != byte)
        block_is_wrong(block, size, at);
}

/* The first `kept` bytes of a block of so many bytes when it was marked. */
static void block_verify(const unsigned char *block, size_t size, size_t kept, uint64_t mark)
{
    if (kept == 0)
        return;
    if (memcmp(block, &mark, kept < MARK_BYTES ? kept : MARK_BYTES) != 0)
        block_is_wrong(block, size, 0);
    if (kept <= MARK_BYTES)
        return;
    for (size_t page = PAGE_BYTES; page < kept; page += PAGE_BYTES) {
        must_be(block, size, page - 1, mark_byte(mark));
        must_be(block, size, page, mark_byte(mark));
    }
    if (kept == size)
        must_be(block, size, size - 1, mark_byte(mark));
}

static void block_is_zero(const unsigned char *block, size_t size)
{
    for (size_t at = 0; at < size && at < MARK_BYTES; at++)
        must_be(block, size, at, 0);
    for (size_t page = PAGE_BYTES; page < size; page += PAGE_BYTES) {
        must_be(block, size, page - 1, 0);
        must_be(block, size, page, 0);
    }
    if (size > 0)
        must_be(block, size, size - 1, 0);
}

/* No bytes: null is an answer, too. */
static unsigned char *allocate(const struct event *event)
{
    size_t size = event->size_bytes;

    if (event->kind == EVENT_ALIGNED)
        return must_aligned((size_t)1 << event->alignment_log2, size);
    if (size == 0)
        return event->kind == EVENT_CALLOC ? calloc(1, 0) : malloc(0);
    return event->kind == EVENT_CALLOC ? must_calloc(1, size) : must_malloc(size);
}

static void play(struct player *player, const struct event *event)
{
    struct slot *slot = &player->replay->slots[event->slot];
    uint64_t mark = mark_of(event);
    size_t size = event->size_bytes;

    if (event->order > player->horizon)
        wait_for_the_others(player, event->order);
    /* Acquire: as in wait_for_the_object. */
    if (atomic_load_explicit(&slot->steps, memory_order_acquire) != event->step)
        wait_for_the_object(player, slot, event);
    if (event->kind == EVENT_FREE) {
        block_verify(slot->block, slot->size_bytes, slot->size_bytes, mark);
        free(slot->block);
        slot->block = NULL;
    } else if (event->kind == EVENT_REALLOC) {
        slot->block = must_realloc(slot->block, size);
        block_verify(slot->block, slot->size_bytes, size < slot->size_bytes ? size : slot->size_bytes, mark);
        block_mark(slot->block, size, mark);
    } else {
        slot->block = allocate(event);
        if (event->kind == EVENT_CALLOC)
            block_is_zero(slot->block, size);
        block_mark(slot->block, size, mark);
    }
    slot->size_bytes = event->size_bytes;
    /* Release: pairs with the acquire of the next event of this slot. */
    atomic_store_explicit(&slot->steps, event->step + 1, memory_order_release);
}

static void play_round(struct player *player)
{
    const struct event *event = player->lane->events;
    uint32_t count = player->lane->count;

    player->horizon = WINDOW_EVENTS;
    for (uint32_t index = 0; index < count; index++, event++) {
        if (index % PROGRESS_EVENTS == 0)
            progress_tell(player, event->order);
        play(player, event);
    }
    progress_tell(player, UINT32_MAX - WINDOW_EVENTS);
}

static void reset(struct replay *of)
{
    for (uint32_t slot = 0; slot < of->trace.slots; slot++)
        atomic_store_explicit(&of->slots[slot].steps, 0, memory_order_relaxed);
    for (uint32_t index = 0; index < of->trace.lane_count; index++)
        progress_tell(&of->players[index], 0);
}

/* The barrier makes visible what was written before it. Thread 0 resets what was used between two of them. */
static void play_one_round(struct player *player)
{
    pthread_barrier_wait(&player->replay->barrier);
    play_round(player);
    pthread_barrier_wait(&player->replay->barrier);
    if (player == player->replay->players)
        reset(player->replay);
}

static void *play_all(void *argument)
{
    struct player *player = argument;

    for (uint32_t round = 0; round <= player->replay->rounds; round++)
        play_one_round(player);
    return NULL;
}

static void start_players(struct replay *of)
{
    pthread_barrier_init(&of->barrier, NULL, of->trace.lane_count);
    for (uint32_t index = 0; index < of->trace.lane_count; index++) {
        struct player *player = &of->players[index];

        player->replay = of;
        player->lane = &of->trace.lanes[index];
        if (index > 0 && pthread_create(&player->thread, NULL, play_all, player) != 0)
            bench_fail("thread %u cannot be started", index);
    }
}

static uint32_t operations_of_round(const struct trace *trace)
{
    return trace->events + trace->left;
}

static void print_trace(const struct trace *trace)
{
    printf("events %u\nrecorded_threads %u\nobjects_at_once %u\npeak_bytes %llu\nfrees %u\nforeign_frees %u\n"
           "left %u\ncut %d\n",
           trace->events, trace->recorded_threads, trace->slots, (unsigned long long)trace->peak_bytes,
           trace->frees, trace->foreign_frees, trace->left, trace->cut);
}

static void run(struct replay *of)
{
    struct process_usage before, begun, ended;
    double started, seconds;

    before = process_usage_now();
    start_players(of);
    play_one_round(&of->players[0]);
    begun = process_usage_now();
    started = seconds_now();
    for (uint32_t round = 0; round < of->rounds; round++)
        play_one_round(&of->players[0]);
    seconds = seconds_now() - started;
    ended = process_usage_now();
    for (uint32_t index = 1; index < of->trace.lane_count; index++)
        pthread_join(of->players[index].thread, NULL);
    print_trace(&of->trace);
    printf("malloc %s\nthreads %u\nrounds %u\noperations %llu\ntime_s %.6f\nitems_per_second %.0f\n"
           "rss_before %ld\nrss_after %ld\nrss_peak %ld\nminor_faults_timed %ld\nswitches_timed %ld\n",
           process_malloc_provider(), of->trace.lane_count, of->rounds,
           (unsigned long long)operations_of_round(&of->trace) * of->rounds, seconds,
           (double)operations_of_round(&of->trace) * of->rounds / seconds, before.rss_kib * KIB,
           ended.rss_kib * KIB, ended.peak_rss_kib * KIB, ended.minor_faults - begun.minor_faults,
           ended.voluntary_switches + ended.involuntary_switches - begun.voluntary_switches -
               begun.involuntary_switches);
}

__attribute__((noreturn)) static void usage(void)
{
    fprintf(stderr, "usage: tarn-replay [--rounds N | --operations N] [--threads N] TRACE, or tarn-replay "
                    "--check TRACE\n");
    exit(EXIT_USAGE);
}

static uint64_t number_of(const char *text, uint64_t most)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);

    if (*text < '0' || *text > '9' || *end != '\0' || value == 0 || value > most)
        usage();
    return value;
}

static struct request parse(int argc, char **argv)
{
    struct request request = {.rounds = DEFAULT_ROUNDS, .threads = MAX_LANES};
    int at = 1;

    for (; at < argc && strncmp(argv[at], "--", 2) == 0; at++) {
        if (strcmp(argv[at], "--check") == 0) {
            request.check = true;
            continue;
        }
        if (at + 1 == argc)
            usage();
        if (strcmp(argv[at], "--rounds") == 0)
            request.rounds = (uint32_t)number_of(argv[++at], MOST_ROUNDS);
        else if (strcmp(argv[at], "--operations") == 0)
            request.operations = number_of(argv[++at], UINT32_MAX);
        else if (strcmp(argv[at], "--threads") == 0)
            request.threads = (uint32_t)number_of(argv[++at], MAX_LANES);
        else
            usage();
    }
    if (at + 1 != argc)
        usage();
    request.path = argv[at];
    return request;
}

int main(int argc, char **argv)
{
    struct request request = parse(argc, argv);

    trace_read(&replay.trace, request.path, request.threads);
    if (request.check) {
        print_trace(&replay.trace);
        return 0;
    }
    replay.rounds = request.rounds;
    if (request.operations > 0)
        replay.rounds = (uint32_t)((request.operations - 1) / operations_of_round(&replay.trace)) + 1;
    replay.slots = mmap(NULL, (replay.trace.slots + 1) * sizeof(struct slot), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (replay.slots == MAP_FAILED)
        bench_fail("no memory for the slots");
    run(&replay);
    return 0;
}
