#include "base/fatal.h"

#include <stdlib.h>
#include <unistd.h>

static void print_prefixed(const char *prefix, const struct text *line)
{
    struct text whole = {0};
    text_string(&whole, prefix);
    for (size_t i = 0; i < line->length; i++) {
        char one[2] = {line->bytes[i], '\0'};
        text_string(&whole, one);
    }
    text_write_line(&whole, STDERR_FILENO);
}

void fatal_say(struct text *line)
{
    print_prefixed("tarn: fatal: ", line);
    line->length = 0;
}

void fatal_line(struct text *line)
{
    fatal_say(line);
    abort();
}

void fatal_pointer(const char *what, const void *pointer)
{
    struct text line = {0};
    text_string(&line, what);
    text_string(&line, " ");
    text_address(&line, pointer);
    fatal_line(&line);
}

void fatal_block(const char *what, const void *pointer, size_t bytes, const char *kind)
{
    struct text line = {0};
    text_string(&line, what);
    text_string(&line, " ");
    text_address(&line, pointer);
    text_string(&line, " (");
    text_decimal(&line, bytes);
    text_string(&line, "-byte ");
    text_string(&line, kind);
    text_string(&line, ")");
    fatal_line(&line);
}

void warning_line(struct text *line)
{
    print_prefixed("tarn: warning: ", line);
}

void notice_line(struct text *line)
{
    print_prefixed("tarn: ", line);
}

void fatal_invariant(const char *condition, const char *file, unsigned line_number)
{
    struct text line = {0};
    text_string(&line, "invariant broken: ");
    text_string(&line, condition);
    text_string(&line, " at ");
    text_string(&line, file);
    text_string(&line, ":");
    text_decimal(&line, line_number);
    fatal_line(&line);
}
