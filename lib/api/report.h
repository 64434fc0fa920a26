#ifndef TARN_API_REPORT_H
#define TARN_API_REPORT_H

/* "It is in": the version, the process and the settings, on stderr. For TARN_VERBOSE=2. */
void report_start(void);

/* For TARN_STATS: opens where statistics go, before the program closes or forbids anything, and sets up when
 * they are written. While there is one thread. */
void report_prepare(void);

/* The statistics, at exit. */
void report_end(void);

#endif
