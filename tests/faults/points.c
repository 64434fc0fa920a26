/*
 * Every system call of a workload fails once, in a process of its own: the n-th call of each kind alone, with
 * the two that follow, and with all that follow; for n = 1, 2, … until the workload makes no n-th.
 *
 *   points WORKLOAD                             all of them, and how many there were
 *   FAULTS=kind,first,count points WORKLOAD x   one of them, in this process, whose file 3 is open
 *
 * The process does its workload with the failures, frees all, and does it once more without any. It must hold
 * all the time that a request gives a whole block or ENOMEM; afterwards, that the rooms' invariants do; and
 * after everything is freed and trimmed, that what the process has is what it has in a run without failures.
 */
#include "faults.h"
#include "workloads.h"

#include "../unit/kernel.h"
#include "../unit/unit.h"
#include "arena/arena_list.h"
#include "heap/heap.h"
#include "heap/park.h"
#include "os/map.h"
#include "raw/raw.h"
#include "tarn/tarn.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_SECONDS 60
#define RESULT_FILE   3
#define NEVER         "any,1000000000,1"

/* What the process has when nothing is in use. */
struct ledger_of_all {
    size_t arenas;
    size_t held_slots;
    size_t dirty_slots;
    size_t raw_live_bytes;
    size_t raw_live_blocks;
    size_t raw_cached_bytes;
    size_t heaps;
    size_t mappings_counted;
    size_t mappings;
    size_t mapped_bytes;
};

struct result {
    unsigned long failed;
    unsigned long refusals;
    struct ledger_of_all ledger;
};

/* ---- in the child ---- */

/* There is one thread. */
static void rooms_must_be_valid(void)
{
    must(arena_list_is_valid());
    for (uint32_t number = 0; number < park_bound(); number++)
        must(heap_is_valid(park_heap(number)));
}

static struct ledger_of_all ledger_now(void)
{
    size_t arenas = 0;
    for (uint32_t number = 0; number < arena_list_bound(); number++)
        arenas += arena_list_get(number) != NULL;
    struct ledger slots = arena_list_ledger();
    struct raw_totals raw = raw_totals();
    return (struct ledger_of_all){
        .arenas = arenas,
        .held_slots = slots.held_slots,
        .dirty_slots = slots.dirty_slots,
        .raw_live_bytes = raw.live_bytes,
        .raw_live_blocks = raw.live_blocks,
        .raw_cached_bytes = raw.cached_bytes,
        .heaps = park_bound(),
        .mappings_counted = map_count(),
        .mappings = mappings(),
        .mapped_bytes = address_space_bytes(),
    };
}

static void free_and_trim(void)
{
    rooms_must_be_valid();
    workload_free_all();
    tarn_malloc_trim(0);
    rooms_must_be_valid();
}

static int run_one(const char *name)
{
    void (*workload)(void) = workload_named(name);
    must(workload != NULL);
    alarm(CHILD_SECONDS);
    workload();
    faults_end();
    struct result result = {.failed = faults_so_far(), .refusals = workload_refusals};
    free_and_trim();
    workload();
    must(workload_refusals == result.refusals);
    free_and_trim();
    result.ledger = ledger_now();
    must(write(RESULT_FILE, &result, sizeof result) == sizeof result);
    return 0;
}

/* ---- in the parent ---- */

static const char *program;
static const char *workload_name;

/* Of a block in several mappings, where the kernel moves one at a time, one may have been moved when the next
 * cannot be, nor be mapped again: the only failure that ends the process (docs/testing.md). */
static unsigned long torn;

static bool may_end_torn(const char *faults)
{
    const char *kind = fault_names[FAULT_ANY_LATE];
    return kernel_is_old() && strncmp(faults, kind, strlen(kind)) == 0 &&
           strcmp(strrchr(faults, ','), ",1") != 0;
}

static bool run_point(const char *faults, struct result *result)
{
    int ends[2];
    must(pipe(ends) == 0);
    pid_t child = fork();
    must(child >= 0);
    if (child == 0) {
        char variable[64];
        snprintf(variable, sizeof variable, "FAULTS=%s", faults);
        must(dup2(ends[1], RESULT_FILE) == RESULT_FILE);
        must(putenv(variable) == 0);
        must(personality(ADDR_NO_RANDOMIZE) >= 0); /* the same addresses each time */
        execl(program, program, workload_name, "x", (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    bool told = read(ends[0], result, sizeof *result) == sizeof *result;
    close(ends[0]);
    int status = wait_for_child(child, 2 * CHILD_SECONDS);
    if (told && status == 0)
        return true;
    if (may_end_torn(faults) && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT) {
        torn++;
        return true;
    }
    printf("# again: FAULTS=%s setarch -R %s %s x 3> /dev/null (wait status 0x%x)\n", faults, program,
           workload_name, (unsigned)status);
    return false;
}

/* What may be more than without failures: one heap, the late threads'; two of the kernel's mappings, which
 * merge or not by where they come to lie. */
static bool ledgers_match(const struct ledger_of_all *before, const struct ledger_of_all *after,
                          const char *faults)
{
    const struct {
        const char *name;
        size_t before, after, more;
        bool may_be_less;
    } numbers[] = {
        {"arenas", before->arenas, after->arenas, 0, false},
        {"held slots", before->held_slots, after->held_slots, 0, false},
        {"dirty slots", before->dirty_slots, after->dirty_slots, 0, false},
        {"raw live bytes", before->raw_live_bytes, after->raw_live_bytes, 0, false},
        {"raw live blocks", before->raw_live_blocks, after->raw_live_blocks, 0, false},
        {"raw cached bytes", before->raw_cached_bytes, after->raw_cached_bytes, 0, false},
        {"heaps", before->heaps, after->heaps, 1, true},
        {"mappings counted", before->mappings_counted, after->mappings_counted, 0, false},
        {"mappings", before->mappings, after->mappings, 2, true},
        {"mapped bytes", before->mapped_bytes, after->mapped_bytes, 0, false},
    };
    bool match = true;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (numbers[i].after <= numbers[i].before + numbers[i].more &&
            (numbers[i].may_be_less || numbers[i].after >= numbers[i].before))
            continue;
        printf("# FAULTS=%s %s: %s: %zu, without failures %zu\n", faults, workload_name, numbers[i].name,
               numbers[i].after, numbers[i].before);
        match = false;
    }
    return match;
}

struct sums {
    unsigned long points;
    unsigned long failed;
    unsigned long refusals;
    unsigned long wrong;
};

/* Counts of one mode of failing, until the workload makes no n-th call. */
static unsigned long run_series(enum fault_kind kind, unsigned long count, const struct ledger_of_all *clean,
                                struct sums *sums)
{
    unsigned long first = 1;
    for (;; first++) {
        char faults[64];
        struct result result = {.failed = 1};
        unsigned long torn_before = torn;
        snprintf(faults, sizeof faults, "%s,%lu,%lu", fault_names[kind], first, count);
        bool right = run_point(faults, &result);
        if (right && result.failed == 0)
            return first - 1;
        if (torn > torn_before)
            continue;
        right = right && ledgers_match(clean, &result.ledger, faults);
        sums->points++;
        sums->failed += result.failed;
        sums->refusals += result.refusals;
        sums->wrong += !right;
        if (sums->wrong > 20)
            return first;
    }
}

int main(int count, char **arguments)
{
    static const struct {
        const char *name;
        unsigned long count;
    } modes[] = {{"one", 1}, {"three in a row", 3}, {"all from there on", LONG_MAX}};
    must(count == 2 || count == 3);
    if (count == 3)
        return run_one(arguments[1]);
    program = arguments[0];
    workload_name = arguments[1];
    struct result clean;
    printf("1..%zu\n", sizeof modes / sizeof modes[0]);
    bool all_right = run_point(NEVER, &clean);
    struct sums total = {0, 0, 0, 0};
    for (size_t mode = 0; mode < sizeof modes / sizeof modes[0] && all_right; mode++) {
        struct sums sums = {0, 0, 0, 0};
        printf("# points:");
        unsigned long maps = 0;
        for (enum fault_kind kind = 0; kind < FAULT_KINDS; kind++) {
            unsigned long points = run_series(kind, modes[mode].count, &clean.ledger, &sums);
            maps += kind == FAULT_MAP ? points : 0;
            printf(" %s %lu", fault_names[kind], points);
        }
        /* Every workload maps something: else the calls do not come by here. */
        printf("\n%s %zu - %s, %s: %lu points, %lu calls failed, %lu requests refused\n",
               sums.wrong == 0 && maps > 0 ? "ok" : "not ok", mode + 1, workload_name, modes[mode].name,
               sums.points, sums.failed, sums.refusals);
        fflush(stdout);
        total.points += sums.points;
        total.wrong += sums.wrong;
    }
    printf("# %s: %lu points, %lu of them wrong", workload_name, total.points, total.wrong);
    if (torn > 0)
        printf(", and %lu half way in a move", torn);
    printf("\n");
    return all_right && total.wrong == 0 ? 0 : 1;
}
