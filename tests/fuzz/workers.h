/*
 * The threads that do the steps of a script.
 *
 * A worker is a thread at a time: where a script ends it, the next step of the same worker is done by a new
 * one. Between two hand-overs only the workers that were told to go are in the library.
 */
#ifndef TEST_FUZZ_WORKERS_H
#define TEST_FUZZ_WORKERS_H

#include "script.h"

/* Once, before the first script. `between` is called whenever no worker is in a step. */
void workers_initialise(void (*perform)(const struct step *step, unsigned number), void (*between)(void));

/* Does the steps from … to - 1, and returns when they are done and threads that they end have ended. All
 * workers at once, or one after the other in the order of the steps. */
void workers_do(const struct script *script, unsigned from, unsigned to);

/* Ends all threads. */
void workers_end(void);

#endif
