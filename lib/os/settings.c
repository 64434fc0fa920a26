#include "os/settings.h"

#include "base/fatal.h"
#include "base/published.h"
#include "base/text.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

struct settings settings = {
    .dirty_limit_bytes = 4U << 20,
    .purge_delay_ms = 1000,
    .raw_cache_bytes = 64U << 20,
    .run_threshold_bytes = 32U << 10,
    .raw_threshold_bytes = 512U << 10,
    .huge_pages = HUGE_PAGES_SYSTEM,
    .quarantine_bytes = 512U << 10,
    .exit_check = true,
    .check = false,
    .guard_interval = 0,
    .statistics = (uint64_t)STATISTICS_OFF << 32,
    .publish = true,
    .verbosity = 1,
};

enum kind {
    KIND_BYTES,
    KIND_MILLISECONDS,
    KIND_SWITCH,
    KIND_NUMBER,
    KIND_SHARE,
    KIND_HUGE_PAGES,
    KIND_STATISTICS,
    KIND_PATH
};

struct setting {
    const char *name;
    enum kind kind;
    uint64_t least;
    uint64_t most;
    void *value;
    bool changes; /* while the process runs; its value is atomic */
    const char *meaning;
};

/* For people: the library has no use for it, and does not carry it. */
#ifndef TARN_MEANINGS
#define TARN_MEANINGS 0
#endif
#define MEANING(text) (TARN_MEANINGS ? (text) : NULL)

static const struct setting table[] = {
    {"TARN_DIRTY_LIMIT", KIND_BYTES, 0, UINT64_C(1) << 46, &settings.dirty_limit_bytes, true,
     MEANING(
         "above this much free memory, or an eighth of that in use, it is given back four times as soon")},
    {"TARN_PURGE_DELAY", KIND_MILLISECONDS, 0, 86400000, &settings.purge_delay_ms, true,
     MEANING("free memory that nobody takes up for this long is given back")},
    {"TARN_RAW_CACHE", KIND_BYTES, 0, UINT64_C(1) << 46, &settings.raw_cache_bytes, true,
     MEANING("pages of freed blocks above the raw threshold that are kept for the next")},
    {"TARN_RUN_THRESHOLD", KIND_BYTES, 1U << 10, 32U << 10, &settings.run_threshold_bytes, true,
     MEANING("larger requests are runs of 16 KiB slots instead of blocks of a pool")},
    {"TARN_RAW_THRESHOLD", KIND_BYTES, 64U << 10, 512U << 10, &settings.raw_threshold_bytes, true,
     MEANING("larger requests get a mapping of their own")},
    {"TARN_HUGE_PAGES", KIND_HUGE_PAGES, 0, 0, &settings.huge_pages, true,
     MEANING("asks for transparent huge pages, forbids them, or leaves them to the system")},
    {"TARN_QUARANTINE", KIND_BYTES, 0, 1U << 30, &settings.quarantine_bytes, true,
     MEANING("hardened library: freed bytes of a thread that wait before they are used again")},
    {"TARN_EXIT_CHECK", KIND_SWITCH, 0, 1, &settings.exit_check, false,
     MEANING("looks for damage when the process ends")},
    {"TARN_CHECK", KIND_SWITCH, 0, 1, &settings.check, false, MEANING("checks every pointer that is freed")},
    {"TARN_GUARD_SAMPLE", KIND_SHARE, 0, UINT64_C(1) << 32, &settings.guard_interval, false,
     MEANING("one allocation in so many lies between forbidden pages")},
    {"TARN_STATS", KIND_STATISTICS, 0, 0, &settings.statistics, false,
     MEANING("writes statistics when the process ends, at intervals, or when a signal asks for them")},
    {"TARN_STATS_FILE", KIND_PATH, 0, 0, settings.statistics_file, false,
     MEANING("where to: %p is the process; .json and .prom choose the form; else stderr")},
    {"TARN_PUBLISH", KIND_SWITCH, 0, 1, &settings.publish, false,
     MEANING("lets the tarn command look at the process, and change its settings")},
    {"TARN_VERBOSE", KIND_NUMBER, 0, 2, &settings.verbosity, true,
     MEANING("0: no warnings; 2: says at the start that Tarn is in")},
};

#define TABLE_LENGTH (sizeof table / sizeof table[0])

static const char *const huge_pages_names[] = {"never", "system", "raw", "always"};

/* A suffix that multiplies a number, longest first where one begins another. */
struct unit {
    const char *suffix;
    uint64_t factor;
};

static const struct unit byte_units[] = {{"KiB", UINT64_C(1) << 10},
                                         {"MiB", UINT64_C(1) << 20},
                                         {"GiB", UINT64_C(1) << 30},
                                         {"TiB", UINT64_C(1) << 40},
                                         {"K", UINT64_C(1) << 10},
                                         {"M", UINT64_C(1) << 20},
                                         {"G", UINT64_C(1) << 30},
                                         {"T", UINT64_C(1) << 40},
                                         {"B", 1},
                                         {"", 1},
                                         {NULL, 0}};

static const struct unit time_units[] = {{"ms", 1}, {"s", 1000}, {"min", 60000}, {NULL, 0}};
static const struct unit no_units[] = {{"", 1}, {NULL, 0}};

static bool parse_number(const char *text, const struct unit *units, uint64_t *result)
{
    uint64_t number = 0;
    const char *rest = text;
    for (; *rest >= '0' && *rest <= '9'; rest++) {
        if (__builtin_mul_overflow(number, 10, &number) ||
            __builtin_add_overflow(number, (uint64_t)(*rest - '0'), &number))
            return false;
    }
    if (rest == text)
        return false;
    if (number == 0 && *rest == '\0') { /* zero needs no unit */
        *result = 0;
        return true;
    }
    for (; units->suffix != NULL; units++)
        if (strcasecmp(rest, units->suffix) == 0)
            return !__builtin_mul_overflow(number, units->factor, result);
    return false;
}

static bool parse_word(const char *text, const char *const *words, size_t count, uint64_t *result)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(text, words[i]) == 0) {
            *result = i;
            return true;
        }
    }
    return false;
}

/* "1/N" is N, one in N; "0" and "off" are 0, none. */
static bool parse_share(const char *text, uint64_t *result)
{
    *result = 0;
    if (strcmp(text, "0") == 0 || strcmp(text, "off") == 0)
        return true;
    return strncmp(text, "1/", 2) == 0 && parse_number(text + 2, no_units, result) && *result > 0;
}

/* Signals that end a process which knows nothing of them, so that nobody sends one by chance. */
static const struct {
    const char *name;
    int number;
} report_signals[] = {{"SIGUSR1", SIGUSR1}, {"SIGUSR2", SIGUSR2}};

#define REPORT_SIGNALS      (sizeof report_signals / sizeof report_signals[0])
#define STATISTICS_MS_LEAST 100
#define STATISTICS_MS_MOST  86400000

static const char *const switch_words[] = {"0", "1", "off", "on", "no", "yes"};

static bool parse_statistics(const char *text, uint64_t *result)
{
    uint64_t number;
    if (strcmp(text, "exit") == 0) {
        *result = (uint64_t)STATISTICS_AT_EXIT << 32;
        return true;
    }
    for (size_t i = 0; i < REPORT_SIGNALS; i++) {
        if (strcmp(text, report_signals[i].name) == 0) {
            *result = (uint64_t)STATISTICS_ON_SIGNAL << 32 | (uint32_t)report_signals[i].number;
            return true;
        }
    }
    if (parse_word(text, switch_words, 6, &number)) {
        *result = (uint64_t)((number & 1) != 0 ? STATISTICS_AT_EXIT : STATISTICS_OFF) << 32;
        return true;
    }
    if (!parse_number(text, time_units, &number) || number < STATISTICS_MS_LEAST ||
        number > STATISTICS_MS_MOST)
        return false;
    *result = (uint64_t)STATISTICS_EACH << 32 | number;
    return true;
}

static bool parse(const struct setting *setting, const char *text, uint64_t *result)
{
    bool parsed = false;
    switch (setting->kind) {
    case KIND_BYTES:
        parsed = parse_number(text, byte_units, result);
        break;
    case KIND_MILLISECONDS:
        parsed = parse_number(text, time_units, result);
        break;
    case KIND_NUMBER:
        parsed = parse_number(text, no_units, result);
        break;
    case KIND_SHARE:
        parsed = parse_share(text, result);
        break;
    case KIND_SWITCH:
        parsed = parse_word(text, switch_words, 6, result);
        *result &= 1;
        break;
    case KIND_HUGE_PAGES:
        return parse_word(text, huge_pages_names, 4, result);
    case KIND_STATISTICS:
        return parse_statistics(text, result);
    case KIND_PATH:
        *result = (uintptr_t)text;
        return text[0] != '\0' && strlen(text) < SETTING_PATH_BYTES;
    }
    return parsed && *result >= setting->least && *result <= setting->most;
}

static void store(const struct setting *setting, uint64_t value)
{
    switch (setting->kind) {
    case KIND_BYTES:
        atomic_store_explicit((_Atomic(size_t) *)setting->value, (size_t)value, memory_order_relaxed);
        break;
    case KIND_MILLISECONDS:
        atomic_store_explicit((_Atomic(uint64_t) *)setting->value, value, memory_order_relaxed);
        break;
    case KIND_SHARE:
    case KIND_STATISTICS:
        *(uint64_t *)setting->value = value;
        break;
    case KIND_PATH:
        strncpy(setting->value, (const char *)(uintptr_t)value, SETTING_PATH_BYTES - 1);
        break;
    case KIND_NUMBER:
        atomic_store_explicit((_Atomic(unsigned) *)setting->value, (unsigned)value, memory_order_relaxed);
        break;
    case KIND_SWITCH:
        *(bool *)setting->value = value != 0;
        break;
    case KIND_HUGE_PAGES:
        atomic_store_explicit((_Atomic(enum huge_pages) *)setting->value, (enum huge_pages)value,
                              memory_order_relaxed);
        break;
    }
}

static void show_limit(struct text *line, enum kind kind, uint64_t number)
{
    if (kind == KIND_SHARE) {
        text_string(line, number == 0 ? "off" : "1/");
        if (number > 0)
            text_decimal(line, number);
    } else if (kind == KIND_BYTES) {
        text_bytes(line, number);
    } else {
        text_decimal(line, number);
        if (kind == KIND_MILLISECONDS)
            text_string(line, " ms");
    }
}

static void show_expected(struct text *line, const struct setting *setting)
{

    switch (setting->kind) {
    case KIND_SWITCH:
        text_string(line, "0 or 1");
        return;
    case KIND_SHARE:
        text_string(line, "1/N with N from 1 to 4294967296, or off");
        return;
    case KIND_HUGE_PAGES:
        text_string(line, "never, system, raw or always");
        return;
    case KIND_STATISTICS:
        text_string(line, "0, 1, exit, a time such as 10s (100 ms to a day), SIGUSR1 or SIGUSR2");
        return;
    case KIND_PATH:
        text_string(line, "a path of at most 255 bytes");
        return;
    case KIND_BYTES:
        text_string(line, "a number with a unit such as 64M");
        break;
    case KIND_MILLISECONDS:
        text_string(line, "a number with a unit such as 250ms");
        break;
    case KIND_NUMBER:
        text_string(line, "a number");
        break;
    }
    text_string(line, " from ");
    show_limit(line, setting->kind, setting->least);
    text_string(line, " to ");
    show_limit(line, setting->kind, setting->most);
}

/* A program started with thousands of wrong variables is told of the first of them only. */
#define WARNINGS_MOST 16U
#define SHOWN_BYTES   41U

static bool silent;

static void warn(struct text *line)
{
    if (SETTING(verbosity) > 0 && !silent)
        warning_line(line);
}

/* The beginning of what the environment says, in one line whatever it holds. */
static void show_given(struct text *line, const char *given, size_t length)
{
    char shown[SETTING_PATH_BYTES] = {0};
    for (size_t i = 0; i < length && i < sizeof shown - 1 && given[i] != '\0'; i++)
        shown[i] = (unsigned char)given[i] < ' ' || given[i] == 0x7f ? '?' : given[i];
    text_string(line, shown);
}

static const struct setting *find(const char *name)
{
    const char *rest = strncmp(name, "TARN_", 5) == 0 ? name + 5 : name;
    for (size_t i = 0; i < TABLE_LENGTH; i++)
        if (strcmp(table[i].name + 5, rest) == 0)
            return &table[i];
    return NULL;
}

static void refuse_name(struct text *answer, const char *name)
{
    text_string(answer, "there is no setting ");
    show_given(answer, name, SHOWN_BYTES - 1);
}

static void refuse_value(struct text *answer, const struct setting *setting, const char *value)
{
    text_string(answer, setting->name);
    text_string(answer, "=");
    show_given(answer, value, SHOWN_BYTES - 1);
    text_string(answer, " is not understood, expected ");
    show_expected(answer, setting);
}

/* NAME=value: which setting, and what it would be; or why not. */
static bool understand(const char *assignment, const struct setting **setting, uint64_t *number,
                       struct text *answer)
{
    char name[SHOWN_BYTES] = {0};
    const char *value = strchr(assignment, '=');
    size_t length = value != NULL ? (size_t)(value - assignment) : strlen(assignment);
    memcpy(name, assignment, length < sizeof name ? length : sizeof name - 1);
    *setting = find(name);
    value = value != NULL ? value + 1 : "";
    if (*setting == NULL)
        refuse_name(answer, name);
    else if (!parse(*setting, value, number))
        refuse_value(answer, *setting, value);
    return answer->length == 0;
}

bool settings_check(const char *assignment, struct text *answer)
{
    const struct setting *setting;
    uint64_t number;
    return understand(assignment, &setting, &number, answer);
}

bool settings_apply(const char *assignment)
{
    const struct setting *setting;
    uint64_t number;
    struct text line = {0};
    if (understand(assignment, &setting, &number, &line)) {
        store(setting, number);
        return true;
    }
    text_string(&line, setting != NULL ? "; the default is used" : "; it is ignored");
    warn(&line);
    return false;
}

static void apply_counting(const char *assignment, unsigned *mistakes)
{
    if (settings_apply(assignment) || ++*mistakes != WARNINGS_MOST)
        return;
    struct text line = {0};
    text_string(&line, "further mistakes in settings are not shown");
    warn(&line);
    silent = true;
}

void settings_read(void)
{
    static atomic_flag done = ATOMIC_FLAG_INIT;
    if (environ == NULL || atomic_flag_test_and_set_explicit(&done, memory_order_relaxed))
        return;
    if (getauxval(AT_SECURE) != 0)
        return;
    unsigned mistakes = 0;
    /* The verbosity first: it decides whether the others' warnings are shown. */
    for (char **variable = environ; *variable != NULL; variable++)
        if (strncmp(*variable, "TARN_VERBOSE=", 13) == 0)
            apply_counting(*variable, &mistakes);
    for (char **variable = environ; *variable != NULL; variable++)
        if (strncmp(*variable, "TARN_", 5) == 0 && strncmp(*variable, "TARN_VERBOSE=", 13) != 0)
            apply_counting(*variable, &mistakes);
}

static uint64_t read_value(const struct setting *setting)
{
    switch (setting->kind) {
    case KIND_BYTES:
        return atomic_load_explicit((const _Atomic(size_t) *)setting->value, memory_order_relaxed);
    case KIND_MILLISECONDS:
        return atomic_load_explicit((const _Atomic(uint64_t) *)setting->value, memory_order_relaxed);
    case KIND_SHARE:
    case KIND_STATISTICS:
        return *(const uint64_t *)setting->value;
    case KIND_PATH:
        return (uintptr_t)setting->value;
    case KIND_NUMBER:
        return atomic_load_explicit((const _Atomic(unsigned) *)setting->value, memory_order_relaxed);
    case KIND_SWITCH:
        return *(const bool *)setting->value;
    case KIND_HUGE_PAGES:
        return atomic_load_explicit((const _Atomic(enum huge_pages) *)setting->value, memory_order_relaxed);
    }
    return 0;
}

static void show_statistics(struct text *text, uint64_t value)
{
    switch (statistics_kind(value)) {
    case STATISTICS_OFF:
        text_string(text, "0");
        break;
    case STATISTICS_AT_EXIT:
        text_string(text, "exit");
        break;
    case STATISTICS_EACH:
        show_limit(text, KIND_MILLISECONDS, statistics_argument(value));
        break;
    default:
        text_string(text, statistics_argument(value) == SIGUSR1 ? "SIGUSR1" : "SIGUSR2");
        break;
    }
}

static void show_value(struct text *text, const struct setting *setting)
{
    uint64_t number = read_value(setting);
    switch (setting->kind) {
    case KIND_HUGE_PAGES:
        text_string(text, number < 4 ? huge_pages_names[number] : "?");
        break;
    case KIND_STATISTICS:
        show_statistics(text, number);
        break;
    case KIND_PATH:
        show_given(text, (const char *)(uintptr_t)number, SETTING_PATH_BYTES);
        break;
    default:
        show_limit(text, setting->kind, number);
        break;
    }
}

void settings_publish(struct published *out)
{
    out->settings = (uintptr_t)&settings;
    out->setting_bytes = sizeof settings;
}

bool settings_change(const char *name, const char *value, struct text *answer)
{
    const struct setting *setting = find(name);
    uint64_t number = 0;
    if (setting == NULL)
        refuse_name(answer, name);
    else if (!setting->changes) {
        text_string(answer, setting->name);
        text_string(answer, " cannot be changed while the process runs");
    } else if (!parse(setting, value, &number))
        refuse_value(answer, setting, value);
    if (answer->length > 0)
        return false;
    struct text before = {0};
    show_value(&before, setting);
    before.bytes[before.length] = '\0';
    store(setting, number);
    text_string(answer, setting->name);
    text_string(answer, "=");
    show_value(answer, setting);
    text_string(answer, ", was ");
    text_string(answer, before.bytes);
    return true;
}

static void describe(const struct setting *setting, struct setting_description *description)
{
    struct text text = {0};
    description->name = setting->name;
    description->meaning = setting->meaning;
    description->changes = setting->changes;
    show_value(&text, setting);
    text.bytes[text.length] = '\0';
    description->value = text;
    text.length = 0;
    show_expected(&text, setting);
    text.bytes[text.length] = '\0';
    description->expected = text;
}

bool settings_describe(size_t number, struct setting_description *description)
{
    if (number >= TABLE_LENGTH)
        return false;
    describe(&table[number], description);
    return true;
}

void settings_each(void (*each)(const char *name, const char *value, void *context), void *context)
{
    for (size_t i = 0; i < TABLE_LENGTH; i++) {
        const struct setting *setting = &table[i];
        struct text value = {0};
        show_value(&value, setting);
        value.bytes[value.length] = '\0';
        each(setting->name, value.bytes, context);
    }
}
