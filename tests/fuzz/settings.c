/*
 * settings_apply with any text: it takes the setting, or writes one line and changes nothing; every value is
 * within its limits.
 *
 * An input is a list of assignments, one behind the other, each ended by a zero byte; as in the environment
 * any byte but that may stand in one.
 */
#include "os/settings.h"

#include "../support.h"

#include <string.h>
#include <unistd.h>

#define TEXT_BYTES_MOST 4096U

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);
ssize_t __real_write(int file, const void *bytes, size_t count);
ssize_t __wrap_write(int file, const void *bytes, size_t count);

static bool captures;
static char captured[TEXT_BYTES_MOST];
static size_t captured_length;

ssize_t __wrap_write(int file, const void *bytes, size_t count)
{
    if (!captures)
        return __real_write(file, bytes, count);
    must(file == STDERR_FILENO && captured_length + count < sizeof captured);
    memcpy(captured + captured_length, bytes, count);
    captured_length += count;
    return (ssize_t)count;
}

static bool values_are_within_limits(void)
{
    return settings.dirty_limit_bytes <= UINT64_C(1) << 46 && settings.raw_cache_bytes <= UINT64_C(1) << 46 &&
           settings.purge_delay_ms <= 86400000 && settings.run_threshold_bytes >= 1 << 10 &&
           settings.run_threshold_bytes <= 32 << 10 && settings.raw_threshold_bytes >= 64 << 10 &&
           settings.raw_threshold_bytes <= 512 << 10 && settings.huge_pages <= HUGE_PAGES_ALWAYS &&
           settings.verbosity <= 2;
}

/* A terminal or a log is shown nothing but a line of text. */
static bool is_one_line(const char *text, size_t length)
{
    static const char begin[] = "tarn: warning: ";
    if (length < sizeof begin || memcmp(text, begin, sizeof begin - 1) != 0 || text[length - 1] != '\n')
        return false;
    for (size_t i = 0; i < length - 1; i++)
        if ((unsigned char)text[i] < ' ' || text[i] == 0x7f)
            return false;
    return true;
}

/* The name and value that settings_each tells are an assignment that changes nothing. */
static void must_be_shown(const char *name, const char *value, void *context)
{
    (void)context;
    bool is_path = strcmp(name, "TARN_STATS_FILE") == 0;
    must(strncmp(name, "TARN_", 5) == 0 && (is_path || value[0] != '\0') &&
         strlen(value) < (is_path ? SETTING_PATH_BYTES : 32));
}

static void apply(const char *assignment)
{
    unsigned verbosity = settings.verbosity;
    struct settings before;
    memcpy(&before, &settings, sizeof before);
    captured_length = 0;
    captures = true;
    bool applied = settings_apply(assignment);
    captures = false;
    must(values_are_within_limits());
    if (applied) {
        must(captured_length == 0);
        settings_each(must_be_shown, NULL);
    } else {
        must(memcmp(&before, &settings, sizeof before) == 0);
        must(verbosity == 0 ? captured_length == 0 : is_one_line(captured, captured_length));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
    char text[TEXT_BYTES_MOST];
    struct settings before = settings;
    if (length >= sizeof text)
        return 0;
    memcpy(text, data, length);
    text[length] = '\0';
    for (const char *one = text; one < text + length; one += strlen(one) + 1)
        apply(one);
    settings = before;
    return 0;
}
