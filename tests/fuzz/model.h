/*
 * The reference: what the blocks that live are, and what has to be true of each.
 *
 *   place ──► block, the bytes asked for, usable bytes, alignment, tag ──► contents of all usable bytes
 *
 * A worker takes a place for the time of a call. Where another has it, the call is left out, so a block has
 * one user at a time, as the library asks. Everything that is wrong ends the program.
 */
#ifndef TEST_FUZZ_MODEL_H
#define TEST_FUZZ_MODEL_H

#include "script.h"

/* One call for each place of the step. `tag` differs from step to step. */
void model_allocate(const struct step *step, uint64_t tag);
void model_resize(const struct step *step, uint64_t tag);
void model_free(const struct step *step);
void model_look(const struct step *step);

/* Calls that must fail and change nothing. */
void model_refused(const struct step *step);

/* Frees whatever lives. */
void model_free_all(void);

/* No two blocks overlap. Only while nobody is in a step. */
bool model_is_valid(void);

#endif
