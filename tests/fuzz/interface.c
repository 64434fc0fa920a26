/*
 * Sequences of calls of the whole public interface, by several threads that begin and end, against a
 * reference model; every room is looked at whenever no thread is in a call.
 *
 * The clock goes by the script: so purging, retiring, parking and ageing happen, and happen again when an
 * input is repeated. With `concurrent` scripts the threads' interleaving is the scheduler's: such an input is
 * repeated many times (-runs=1000) to see its failure again.
 */
#include "../support.h"
#include "model.h"
#include "os/clock.h"
#include "os/rcu.h"
#include "rooms.h"
#include "tarn/tarn.h"
#include "workers.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#define HOUR_MS 3600000U

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);
uint64_t __wrap_clock_now_ms(void);

static _Atomic uint64_t time_ms = HOUR_MS;
static FILE *nowhere;
static bool one_at_a_time;
static struct reader section;
static bool section_is_open;

uint64_t __wrap_clock_now_ms(void)
{
    return time_ms;
}

static void pass_time(unsigned variant)
{
    static const unsigned steps_ms[] = {1, 10, 130, 500, 1000, 2000, 60000, HOUR_MS};
    time_ms += steps_ms[variant % 8];
}

/* A section that lasts: as if a thread were stopped inside one, so that retired arenas wait, and are revived.
 */
static void section_set(bool open)
{
    if (open == section_is_open)
        return;
    section_is_open = open;
    if (open)
        reader_enter(&section);
    else
        reader_leave(&section);
}

/* malloc_stats writes to stderr: for that time it leads elsewhere. Only while no other thread writes there.
 */
static void show_stats(void)
{
    int saved = dup(STDERR_FILENO);
    must(saved >= 0 && dup2(fileno(nowhere), STDERR_FILENO) == STDERR_FILENO);
    tarn_malloc_stats();
    must(dup2(saved, STDERR_FILENO) == STDERR_FILENO && close(saved) == 0);
}

static void look_at_numbers(unsigned variant)
{
    struct tarn_mallinfo2_result info = tarn_mallinfo2();
    must(!one_at_a_time || info.arena - info.uordblks == info.fordblks);
    must(!one_at_a_time || (info.hblks == 0) == (info.hblkhd == 0));
    struct tarn_mallinfo_result small = tarn_mallinfo();
    must(!one_at_a_time || (size_t)small.uordblks == info.uordblks);
    must(tarn_malloc_info(0, nowhere) == 0);
    errno = 0;
    must(tarn_malloc_info(1 + (int)variant, nowhere) == EINVAL || errno == EINVAL);
    must(tarn_mallopt(M_MMAP_THRESHOLD, (int)variant) == 1 && tarn_mallopt(1000 + (int)variant, 1) == 0);
    must(tarn_version() != NULL);
    if (one_at_a_time && variant % 8 == 0)
        show_stats();
}

static void perform(const struct step *step, unsigned number)
{
    uint64_t tag = (uint64_t)number * PLACES;
    switch (step->operation) {
    case STEP_ALLOCATE:
        model_allocate(step, tag);
        break;
    case STEP_FREE:
        model_free(step);
        break;
    case STEP_RESIZE:
        model_resize(step, tag);
        break;
    case STEP_LOOK:
        model_look(step);
        break;
    case STEP_REFUSED:
        model_refused(step);
        break;
    case STEP_TRIM:
        tarn_malloc_trim((size_t)step->variant % 8 << 20);
        break;
    case STEP_NUMBERS:
        look_at_numbers(step->variant);
        break;
    case STEP_CLOCK:
        pass_time(step->variant);
        if (one_at_a_time && step->variant >= 128)
            section_set(!section_is_open);
        break;
    case STEP_END:
    case STEP_MEET:
        break;
    }
}

static void must_be_valid(void)
{
    rooms_must_be_valid();
    must(model_is_valid());
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    (void)count;
    (void)arguments;
    nowhere = fopen("/dev/null", "w");
    must(nowhere != NULL);
    reader_publish(&section);
    workers_initialise(perform, must_be_valid);
    return 0;
}

static void run(const struct script *script)
{
    for (unsigned from = 0; from < script->length;) {
        unsigned to = from;
        while (to < script->length && script->steps[to].operation != STEP_MEET)
            to++;
        workers_do(script, from, to);
        from = to + 1;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
    static struct script script;
    script_read(&script, data, length);
    one_at_a_time = !script.concurrent;
    run(&script);
    section_set(false);
    if (script.freed_by_workers)
        model_free_all();
    workers_end();
    must_be_valid();
    model_free_all();
    must_be_valid();
    time_ms += HOUR_MS;
    rooms_must_be_empty();
    rooms_must_be_valid();
    return 0;
}
