/* The settings of the process, read once from the environment.
 *
 * A setting is a variable TARN_NAME. A value that does not fit, and a name that does not exist, give one
 * warning line on stderr each, and the default stands. In a set-user-id or set-group-id program (AT_SECURE,
 * getauxval(3)) the environment is not read at all. Every setting is described in docs/tuning.md.
 *
 * Written by settings_read, before a second thread can be in the allocator. Those that are atomic may be
 * changed later (settings_change): whoever reads one twice may see two values, both within the limits.
 */
#ifndef TARN_OS_SETTINGS_H
#define TARN_OS_SETTINGS_H

#include "base/text.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum huge_pages {
    HUGE_PAGES_NEVER,  /* forbid them */
    HUGE_PAGES_SYSTEM, /* leave the choice to the system's default for mappings that say nothing */
    HUGE_PAGES_RAW,    /* ask for them for large raw blocks */
    HUGE_PAGES_ALWAYS  /* ask for them for arenas too */
};

/* When statistics are written: one of these in the upper half, and in the lower one the milliseconds between
 * two times, or the number of the signal that asks for them. */
enum { STATISTICS_OFF, STATISTICS_AT_EXIT, STATISTICS_EACH, STATISTICS_ON_SIGNAL };

static inline unsigned statistics_kind(uint64_t value)
{
    return (unsigned)(value >> 32);
}

static inline uint32_t statistics_argument(uint64_t value)
{
    return (uint32_t)value;
}

#define SETTING_PATH_BYTES 256

struct settings {
    _Atomic(size_t) dirty_limit_bytes;   /* TARN_DIRTY_LIMIT */
    _Atomic(uint64_t) purge_delay_ms;    /* TARN_PURGE_DELAY */
    _Atomic(size_t) raw_cache_bytes;     /* TARN_RAW_CACHE */
    _Atomic(size_t) run_threshold_bytes; /* TARN_RUN_THRESHOLD: larger requests are runs */
    _Atomic(size_t) raw_threshold_bytes; /* TARN_RAW_THRESHOLD: larger requests are raw blocks */
    _Atomic(enum huge_pages) huge_pages; /* TARN_HUGE_PAGES */
    _Atomic(size_t) quarantine_bytes;    /* TARN_QUARANTINE, of a thread; hardened build */
    bool exit_check;                     /* TARN_EXIT_CHECK; hardened build */
    bool check;                          /* TARN_CHECK */
    uint64_t guard_interval; /* TARN_GUARD_SAMPLE: one allocation in so many is guarded; 0: none */
    uint64_t statistics;     /* TARN_STATS: see above */
    char statistics_file[SETTING_PATH_BYTES]; /* TARN_STATS_FILE: empty: stderr */
    bool publish;                             /* TARN_PUBLISH */
    _Atomic(unsigned) verbosity;              /* TARN_VERBOSE */
};

extern struct settings settings;

/* The present value of one that may change. */
#define SETTING(name) atomic_load_explicit(&settings.name, memory_order_relaxed)

/* Reads the environment at the first call that finds one; later calls do nothing. Never allocates. */
void settings_read(void);

/* Tells where the tables are (base/published). */
struct published;
void settings_publish(struct published *out);

/* For tests: applies one NAME=value text, as found in the environment; false after a warning. */
bool settings_apply(const char *assignment);

/* Whether NAME=value, as it may stand in the environment, would be understood; else says why not. */
bool settings_check(const char *assignment, struct text *answer);

/* Changes a setting of the running process, by its name with or without TARN_. The answer is one line of
 * text without its end: what was changed, or why not. Any thread, one at a time. */
bool settings_change(const char *name, const char *value, struct text *answer);

struct setting_description {
    const char *name;
    const char *meaning;  /* in the tarn command alone; NULL in the library */
    struct text value;    /* at present */
    struct text expected; /* values that it may have */
    bool changes;         /* while the process runs */
};

/* The setting with this number, from 0; false when there are not so many. */
bool settings_describe(size_t number, struct setting_description *description);

/* Calls `each` for every setting, with its name and its value as text. */
void settings_each(void (*each)(const char *name, const char *value, void *context), void *context);

#endif
