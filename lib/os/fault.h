/* Faults: who touches memory that may not be touched, seen before the process ends.
 *
 * A handler for SIGSEGV and SIGBUS is installed when first asked for, runs on the faulting thread (on its
 * signal stack, if it has one), and asks `look` about every fault. What `look` knows is reported there; then
 * the action that was set before is set again, and the instruction repeated, so that it ends as it would have
 * without us, with the same signal. Anything else goes to the action that was set before, at once.
 *
 * A program that sets its own action later replaces this one; if it calls the action that it found, reports
 * are made all the same.
 */
#ifndef TARN_OS_FAULT_H
#define TARN_OS_FAULT_H

#include <stdbool.h>

enum fault_access { FAULT_ACCESS, FAULT_READ, FAULT_WRITE };

/* `look` is async-signal-safe, and says whether it knew about the address. Once, while there is one thread.
 */
void fault_watch(bool (*look)(const void *address, enum fault_access access));

#endif
