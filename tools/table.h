/* Rows of named cells, printed for people as columns or for programs as JSON. */
#ifndef TARN_TOOLS_TABLE_H
#define TARN_TOOLS_TABLE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum cell_kind { CELL_TEXT, CELL_COUNT, CELL_BYTES, CELL_PERCENT };

struct column {
    const char *key;   /* in JSON: a number for all kinds but text; bytes, percents as such */
    const char *title; /* NULL: in JSON only */
    enum cell_kind kind;
};

/* Prints the rows (objects, or NULL for an empty line) under their titles, or as a JSON array. Columns of
 * text are flush left, the last one of any length. */
void table_print(const struct column *columns, size_t count, const json_t *rows, bool as_json, FILE *to);

/* Prints any JSON value. */
void print_json(const json_t *value, FILE *to);

/* What comes from elsewhere (names of processes and files may hold any byte) is one line of text afterwards:
 * what is not UTF-8, or not to be printed, becomes a question mark. JSON takes no other text, and a terminal
 * must get none. Returns it. */
char *clean_text(char *text);

/* "12.3 MiB" into a buffer of at least 16 characters, which is returned. */
const char *show_bytes(char *to, uint64_t bytes);

/* "1.2 M" for counts and rates, the same. */
const char *show_count(char *to, double number);

#define SHOWN_BYTES 24

#endif
