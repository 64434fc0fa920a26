#ifndef TARN_API_REPORT_H
#define TARN_API_REPORT_H

/* "It is in": the version, the process and the settings, on stderr. For TARN_VERBOSE=2. */
void report_start(void);

#endif
