/* Time for decisions that are taken seldom: coarse, monotonic, cheap. */
#ifndef TARN_OS_CLOCK_H
#define TARN_OS_CLOCK_H

#include <stdint.h>

/* Milliseconds since some fixed point, never going back; moves in steps of a few milliseconds. No system
 * call. */
uint64_t clock_now_ms(void);

#endif
