/* Threads that do steps; see workers.h. */
#include "workers.h"

#include "../support.h"

#include <pthread.h>
#include <semaphore.h>

struct worker {
    pthread_t thread;
    bool runs;
    bool quits; /* set for it before `go` */
    bool ended; /* set by it before `done`: by a step, so that it is to be joined */
    unsigned number;
    unsigned destructor_calls;
    sem_t go;
    const struct script *script; /* what to do when it may go */
    unsigned from;
    unsigned to;
};

static struct worker workers[WORKERS];
static sem_t done;
static pthread_key_t late_key;
static void (*perform_step)(const struct step *step, unsigned number);
static void (*between_steps)(void);

/* True at a step that ends the thread; `from` is then the one behind it. */
static bool do_steps(struct worker *worker)
{
    while (worker->from < worker->to) {
        unsigned number = worker->from++;
        const struct step *step = &worker->script->steps[number];
        if (step->worker != worker->number)
            continue;
        if (step->operation == STEP_END)
            return true;
        perform_step(step, number);
    }
    return false;
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    must(pthread_setspecific(late_key, worker) == 0);
    for (;;) {
        while (sem_wait(&worker->go) != 0)
            continue;
        if (worker->quits)
            return NULL;
        if (do_steps(worker)) {
            worker->ended = true;
            return NULL;
        }
        sem_post(&done);
    }
}

/* Puts itself off until the library's own destructor has run. */
static void late(void *argument)
{
    struct worker *worker = argument;
    if (worker->destructor_calls++ == 0) {
        must(pthread_setspecific(late_key, worker) == 0);
        return;
    }
    if (worker->quits)
        return;
    while (do_steps(worker))
        continue; /* it has ended already */
    sem_post(&done);
}

void workers_initialise(void (*perform)(const struct step *step, unsigned number), void (*between)(void))
{
    perform_step = perform;
    between_steps = between;
    must(pthread_key_create(&late_key, late) == 0);
    must(sem_init(&done, 0, 0) == 0);
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i].number = i;
        must(sem_init(&workers[i].go, 0, 0) == 0);
    }
}

static void start(struct worker *worker)
{
    worker->quits = worker->ended = false;
    worker->destructor_calls = 0;
    must(pthread_create(&worker->thread, NULL, work, worker) == 0);
    worker->runs = true;
}

static void send(struct worker *worker, const struct script *script, unsigned from, unsigned to)
{
    worker->script = script;
    worker->from = from;
    worker->to = to;
    if (!worker->runs)
        start(worker);
    sem_post(&worker->go);
}

static void wait_for_all(unsigned count)
{
    while (count > 0)
        if (sem_wait(&done) == 0)
            count--;
    for (unsigned i = 0; i < WORKERS; i++) {
        if (!workers[i].runs || !workers[i].ended)
            continue;
        must(pthread_join(workers[i].thread, NULL) == 0);
        workers[i].runs = false;
    }
    between_steps();
}

static void do_at_once(const struct script *script, unsigned from, unsigned to)
{
    unsigned count = 0;
    for (unsigned i = 0; i < WORKERS; i++) {
        bool wanted = false;
        for (unsigned step = from; step < to; step++)
            wanted = wanted || script->steps[step].worker == i;
        if (!wanted)
            continue;
        send(&workers[i], script, from, to);
        count++;
    }
    wait_for_all(count);
}

void workers_do(const struct script *script, unsigned from, unsigned to)
{
    if (script->concurrent) {
        do_at_once(script, from, to);
        return;
    }
    while (from < to) {
        unsigned end = from + 1;
        while (end < to && script->steps[end].worker == script->steps[from].worker)
            end++;
        send(&workers[script->steps[from].worker], script, from, end);
        wait_for_all(1);
        from = end;
    }
}

void workers_end(void)
{
    for (unsigned i = 0; i < WORKERS; i++) {
        if (!workers[i].runs)
            continue;
        workers[i].quits = true;
        sem_post(&workers[i].go);
        must(pthread_join(workers[i].thread, NULL) == 0);
        workers[i].runs = false;
    }
}
