#include "table.h"

#include <stdlib.h>
#include <string.h>

/* The length of the UTF-8 character that begins here; 0 when there is none, or when it is not to be printed.
 */
static size_t character_length(const unsigned char *text)
{
    unsigned char first = text[0], second = text[1];
    if (first < 0x80)
        return first >= ' ' && first != 0x7f ? 1 : 0;
    if (first < 0xc2 || first > 0xf4)
        return 0;
    size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    for (size_t i = 1; i < length; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    bool overlong = (first == 0xe0 && second < 0xa0) || (first == 0xf0 && second < 0x90);
    bool no_character = (first == 0xed && second >= 0xa0) || (first == 0xf4 && second >= 0x90);
    bool control = first == 0xc2 && second < 0xa0;
    return overlong || no_character || control ? 0 : length;
}

char *clean_text(char *text)
{
    for (char *at = text; *at != '\0';) {
        size_t length = character_length((const unsigned char *)at);
        if (length == 0)
            *at = '?';
        at += length == 0 ? 1 : length;
    }
    return text;
}

const char *show_bytes(char *to, uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double number = (double)bytes;
    size_t unit = 0;
    for (; number >= 1024 && unit < 4; unit++)
        number /= 1024;
    snprintf(to, SHOWN_BYTES, unit == 0 ? "%.0f %s" : "%.1f %s", number, units[unit]);
    return to;
}

const char *show_count(char *to, double number)
{
    static const char *const units[] = {"", " k", " M", " G"};
    size_t unit = 0;
    for (; number >= 10000 && unit < 3; unit++)
        number /= 1000;
    snprintf(to, SHOWN_BYTES, "%.0f%s", number, units[unit]);
    return to;
}

static void show_cell(char *to, size_t room, enum cell_kind kind, const json_t *cell)
{
    char shown[SHOWN_BYTES];
    to[0] = '\0';
    if (cell == NULL || json_is_null(cell))
        return;
    switch (kind) {
    case CELL_TEXT:
        snprintf(to, room, "%s", json_is_string(cell) ? json_string_value(cell) : "");
        break;
    case CELL_COUNT:
        snprintf(to, room, "%.0f", json_number_value(cell));
        break;
    case CELL_BYTES:
        snprintf(to, room, "%s", show_bytes(shown, (uint64_t)json_number_value(cell)));
        break;
    case CELL_PERCENT:
        snprintf(to, room, "%.1f %%", json_number_value(cell));
        break;
    }
}

#define CELL_ROOM 512

static int width_of(const struct column *column, const json_t *rows)
{
    char shown[CELL_ROOM];
    size_t index;
    json_t *row;
    size_t width = strlen(column->title);
    json_array_foreach(rows, index, row)
    {
        show_cell(shown, sizeof shown, column->kind, json_object_get(row, column->key));
        if (strlen(shown) > width)
            width = strlen(shown);
    }
    return (int)width;
}

static void print_cell(FILE *to, const char *text, int width, bool left, bool last)
{
    if (left && last)
        fprintf(to, "%s", text);
    else
        fprintf(to, left ? "%-*s" : "%*s", width, text);
    if (!last)
        fputs("  ", to);
}

static void print_columns(const struct column *columns, size_t count, const json_t *rows, FILE *to)
{
    int widths[32];
    char shown[CELL_ROOM];
    size_t index;
    json_t *row;
    size_t last = 0;
    for (size_t i = 0; i < count; i++) {
        widths[i] = columns[i].title != NULL ? width_of(&columns[i], rows) : 0;
        last = columns[i].title != NULL ? i : last;
    }
    for (size_t i = 0; i < count; i++)
        if (columns[i].title != NULL)
            print_cell(to, columns[i].title, widths[i], columns[i].kind == CELL_TEXT, i == last);
    fputc('\n', to);
    json_array_foreach(rows, index, row)
    {
        for (size_t i = 0; i < count && json_object_size(row) > 0; i++) {
            if (columns[i].title == NULL)
                continue;
            show_cell(shown, sizeof shown, columns[i].kind, json_object_get(row, columns[i].key));
            print_cell(to, shown, widths[i], columns[i].kind == CELL_TEXT, i == last);
        }
        fputc('\n', to);
    }
}

void print_json(const json_t *value, FILE *to)
{
    json_dumpf(value, to, JSON_INDENT(2) | JSON_PRESERVE_ORDER | JSON_REAL_PRECISION(6));
    fputc('\n', to);
}

void table_print(const struct column *columns, size_t count, const json_t *rows, bool as_json, FILE *to)
{
    if (as_json)
        print_json(rows, to);
    else
        print_columns(columns, count, rows, to);
}
