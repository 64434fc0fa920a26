#ifndef TARN_API_REPORT_H
#define TARN_API_REPORT_H

/* "It is in": the version, the process and the settings, on stderr. For TARN_VERBOSE=2. */
void report_start(void);

/* Keeps stderr open for report_end, whatever the program does to it. */
void report_keep_stderr(void);

/* The statistics, at exit. For TARN_STATS=1. */
void report_end(void);

#endif
