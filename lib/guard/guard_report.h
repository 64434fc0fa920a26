/* What is said of a guarded block when something is wrong with it: what happened, who allocated it, who freed
 * it. Three lines at most, each beginning "tarn: fatal: "; then the process ends.
 *
 * Distances count from the block: the byte right behind its last one is "1 byte after the end", that right
 * before its first one "1 byte before the start".
 */
#ifndef TARN_GUARD_GUARD_REPORT_H
#define TARN_GUARD_GUARD_REPORT_H

#include "base/compiler.h"
#include "base/text.h"
#include "guard/guard.h"

/* Watches for faults on forbidden pages (os/fault), and readies the stacks. In the constructor. */
void guard_report_start(void);

/* Says the line, then what is known of the guarded block at or near the pointer, if any; then aborts. */
COLD __attribute__((noreturn)) void guard_report_misuse(struct text *line, const void *pointer);

/* No live guarded block begins there, but was passed to free. */
COLD __attribute__((noreturn)) void guard_report_wrong_free(const void *pointer);

/* The block is being freed, and this byte outside of it was written to. */
COLD __attribute__((noreturn)) void guard_report_damage(const struct guard_place *place, const char *damage);

#endif
