/* tarn map: each arena a row, each slot a cell; as SVG, or in the terminal with half-blocks. */
#include "commands.h"

#include "survey.h"
#include "table.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    CELL = 5, /* wide, in SVG units */
    ROW = 10, /* high, with the line between two */
    LABEL_FONT = 9,
    LABEL_WIDTH = 150, /* room for an address */
    TOP = 120,
    FULL = 255,
    SCALE_STEPS = 64,
};

struct colour {
    int red, green, blue;
};

/* A pool's colour says its class, from blue (small) over green to red (large); its strength how full it is.
 */
static struct colour of_class(uint32_t class)
{
    static const struct colour stops[] = {
        {49, 104, 190}, {38, 152, 170}, {63, 170, 92}, {214, 168, 40}, {204, 82, 52}};
    double at = 4.0 * class / (CLASS_COUNT - 1);
    int stop = at >= 4 ? 3 : (int)at;
    double part = at - stop;
    const struct colour *a = &stops[stop];
    const struct colour *b = &stops[stop + 1];
    return (struct colour){(int)(a->red + part * (b->red - a->red)),
                           (int)(a->green + part * (b->green - a->green)),
                           (int)(a->blue + part * (b->blue - a->blue))};
}

static struct colour towards_white(struct colour colour, double part)
{
    return (struct colour){(int)(colour.red + part * (FULL - colour.red)),
                           (int)(colour.green + part * (FULL - colour.green)),
                           (int)(colour.blue + part * (FULL - colour.blue))};
}

static const struct colour of_use[SLOT_USES] = {
    [SLOT_HEADER] = {70, 70, 78},  [SLOT_CLEAN] = {247, 247, 248},   [SLOT_DIRTY] = {196, 189, 205},
    [SLOT_KEPT] = {228, 214, 236}, [SLOT_GUARDED] = {230, 120, 190}, [SLOT_RUN] = {122, 84, 160},
};

/* The colour of every slot; those of a pool have that of where it begins. */
static void colour_arena(const struct arena_view *arena, struct colour colours[ARENA_SLOTS])
{
    for (uint32_t slot = 0; slot < ARENA_SLOTS;) {
        const struct slot_view *one = &arena->slots[slot];
        uint32_t slots = one->begins && one->slots > 0 ? one->slots : 1;
        struct colour colour = of_use[one->use];
        if (one->use == SLOT_POOL && one->begins) {
            double full = one->capacity > 0 ? (double)one->used / one->capacity : 0;
            colour = towards_white(of_class(one->class), 0.8 * (1 - full));
        } else if (one->use == SLOT_POOL) {
            colour = of_use[SLOT_KEPT];
        }
        for (uint32_t i = 0; i < slots && slot + i < ARENA_SLOTS; i++)
            colours[slot + i] = colour;
        slot += slots;
    }
}

/* ---- SVG ---- */

static void rectangle(FILE *to, double x, double y, double width, double height, struct colour colour)
{
    fprintf(to, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"#%02x%02x%02x\"/>\n", x, y,
            width, height, colour.red, colour.green, colour.blue);
}

static void legend_entry(FILE *to, double *x, double y, struct colour colour, const char *text)
{
    rectangle(to, *x, y - 9, 10, 10, colour);
    fprintf(to, "<text x=\"%.1f\" y=\"%.1f\">%s</text>\n", *x + 15, y, text);
    *x += 30 + 6.6 * (double)strlen(text);
}

static void write_legend(FILE *to)
{
    double x = LABEL_WIDTH;
    fprintf(to, "<text x=\"10\" y=\"66\">pools</text>\n");
    for (int i = 0; i < SCALE_STEPS; i++)
        rectangle(to, x + 3.0 * i, 57, 3, 10,
                  of_class((uint32_t)(i * (int)(CLASS_COUNT - 1) / (SCALE_STEPS - 1))));
    fprintf(to, "<text x=\"%.1f\" y=\"66\">16 B to 32 KiB; paler: emptier</text>\n",
            x + 3.0 * SCALE_STEPS + 10);
    fprintf(to, "<text x=\"10\" y=\"90\">other slots</text>\n");
    legend_entry(to, &x, 90, of_use[SLOT_RUN], "run");
    legend_entry(to, &x, 90, of_use[SLOT_DIRTY], "free, dirty");
    legend_entry(to, &x, 90, of_use[SLOT_CLEAN], "free, purged");
    legend_entry(to, &x, 90, of_use[SLOT_KEPT], "kept by a thread");
    legend_entry(to, &x, 90, of_use[SLOT_HEADER], "header");
    legend_entry(to, &x, 90, of_use[SLOT_GUARDED], "guarded blocks");
}

/* Neighbours of one colour are one rectangle. */
static void write_row(FILE *to, const struct arena_view *arena, double y)
{
    struct colour colours[ARENA_SLOTS];
    colour_arena(arena, colours);
    fprintf(to, "<text x=\"10\" y=\"%.1f\" class=\"a\">%012" PRIx64 "%s</text>\n", y + ROW - 2,
            arena->address, arena->kind == ARENA_RETIRED ? " retired" : "");
    for (uint32_t slot = 0; slot < ARENA_SLOTS;) {
        uint32_t end = slot + 1;
        while (end < ARENA_SLOTS && memcmp(&colours[end], &colours[slot], sizeof *colours) == 0 &&
               !arena->slots[end].begins)
            end++;
        rectangle(to, LABEL_WIDTH + slot * (double)CELL + 0.3, y, (end - slot) * (double)CELL - 0.6,
                  ROW - 1.4, colours[slot]);
        slot = end;
    }
}

/* The text of another process, in XML. */
static void write_escaped(FILE *to, const char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte < ' ' || byte >= 0x7f || strchr("<>&\"'", byte) != NULL)
            fprintf(to, "?");
        else
            fputc(byte, to);
    }
}

static bool write_svg(const struct survey *survey, FILE *to)
{
    size_t height = TOP + survey->arena_count * ROW + 20;
    char shown[SHOWN_BYTES];
    size_t width = LABEL_WIDTH + ARENA_SLOTS * CELL + 10;
    fprintf(
        to,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%zu\" height=\"%zu\" viewBox=\"0 0 %zu %zu\" "
        "font-family=\"sans-serif\" font-size=\"12\">\n<style>.a{font:%dpx monospace;fill:#555}</style>\n",
        width, height, width, height, LABEL_FONT);
    fprintf(to, "<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n<text x=\"10\" y=\"28\" "
                "font-size=\"17\">");
    write_escaped(to, survey->process->name);
    fprintf(to, " (process %d): %zu arenas of 4 MiB, %s resident in all</text>\n", (int)survey->process->pid,
            survey->arena_count, show_bytes(shown, process_resident_bytes(survey->process)));
    fprintf(to, "<text x=\"10\" y=\"44\" fill=\"#555\">a row is an arena, a cell a slot of 16 KiB</text>\n");
    write_legend(to);
    fprintf(to, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%zu\" fill=\"#dcdce0\"/>\n", LABEL_WIDTH,
            TOP - 1, (int)ARENA_SLOTS * CELL, survey->arena_count * ROW + 1);
    for (size_t i = 0; i < survey->arena_count; i++)
        write_row(to, &survey->arenas[i], TOP + (double)i * ROW);
    fprintf(to, "</svg>\n");
    return ferror(to) == 0;
}

/* ---- the terminal ---- */

static const char letters[SLOT_USES] = {
    [SLOT_HEADER] = 'H', [SLOT_CLEAN] = '.', [SLOT_DIRTY] = 'd',   [SLOT_KEPT] = 'k',
    [SLOT_POOL] = 'P',   [SLOT_RUN] = 'R',   [SLOT_GUARDED] = 'G',
};

/* Two slots a character, one above the other. */
static void print_blocks(const struct arena_view *arena)
{
    struct colour colours[ARENA_SLOTS];
    colour_arena(arena, colours);
    printf("%012" PRIx64 " ", arena->address);
    for (uint32_t slot = 0; slot < ARENA_SLOTS; slot += 2) {
        const struct colour *above = &colours[slot];
        const struct colour *below = &colours[slot + 1];
        printf("\x1b[38;2;%d;%d;%dm\x1b[48;2;%d;%d;%dm▀", above->red, above->green, above->blue, below->red,
               below->green, below->blue);
    }
    printf("\x1b[0m\n");
}

static void print_letters(const struct arena_view *arena)
{
    printf("%012" PRIx64 " ", arena->address);
    for (uint32_t slot = 0; slot < ARENA_SLOTS; slot++)
        putchar(letters[arena->slots[slot].use]);
    putchar('\n');
}

static void print_map(const struct survey *survey)
{
    bool colour = isatty(STDOUT_FILENO);
    printf("%s (process %d): %zu arenas; a row is an arena of 256 slots%s\n", survey->process->name,
           (int)survey->process->pid, survey->arena_count, colour ? ", two in a character" : "");
    if (!colour)
        printf("H header, P pool, R run, d free and dirty, . free and purged, k kept by a thread, G guarded "
               "blocks\n");
    for (size_t i = 0; i < survey->arena_count; i++) {
        if (colour)
            print_blocks(&survey->arenas[i]);
        else
            print_letters(&survey->arenas[i]);
    }
}

/* ---- JSON ---- */

static const char *const use_names[SLOT_USES] = {
    [SLOT_HEADER] = "header", [SLOT_CLEAN] = "clean", [SLOT_DIRTY] = "dirty",     [SLOT_KEPT] = "kept",
    [SLOT_POOL] = "pool",     [SLOT_RUN] = "run",     [SLOT_GUARDED] = "guarded",
};

static json_t *slot_as_json(const struct slot_view *one, uint32_t slot)
{
    json_t *value = json_pack("{s:i, s:s, s:I}", "slot", (int)slot, "use", use_names[one->use], "resident",
                              (json_int_t)one->resident_bytes);
    if (one->begins)
        json_object_set_new(value, "slots", json_integer(one->slots));
    if (one->begins && one->use == SLOT_POOL) {
        json_object_set_new(value, "block", json_integer(class_bytes(one->class)));
        json_object_set_new(value, "used", json_integer(one->used));
        json_object_set_new(value, "capacity", json_integer(one->capacity));
    }
    return value;
}

static void print_as_json(const struct survey *survey)
{
    json_t *arenas = json_array();
    char address[32];
    for (size_t i = 0; i < survey->arena_count; i++) {
        json_t *slots = json_array();
        for (uint32_t slot = 0; slot < ARENA_SLOTS; slot++)
            json_array_append_new(slots, slot_as_json(&survey->arenas[i].slots[slot], slot));
        snprintf(address, sizeof address, "0x%" PRIx64, survey->arenas[i].address);
        json_array_append_new(arenas, json_pack("{s:s, s:o}", "address", address, "slots", slots));
    }
    print_json(arenas, stdout);
    json_decref(arenas);
}

/* ---- the command ---- */

static int save_svg(const struct survey *survey, const char *path)
{
    FILE *file = fopen(path, "we");
    if (file == NULL)
        return complain("cannot write %s: %s", path, strerror(errno));
    bool written = write_svg(survey, file);
    if (fclose(file) != 0 || !written)
        return complain("cannot write %s: %s", path, strerror(errno));
    return STATUS_OK;
}

static int show(const struct survey *survey, const char *path, bool as_json)
{
    if (path != NULL)
        return save_svg(survey, path);
    if (as_json)
        print_as_json(survey);
    else
        print_map(survey);
    return STATUS_OK;
}

int command_map(int count, char **arguments)
{
    bool as_json = take_json(&count, arguments);
    struct process process;
    struct survey survey;
    pid_t pid;
    bool has_path = count == 4 && strcmp(arguments[2], "-o") == 0;
    if (count != 2 && !has_path)
        return complain_usage("map wants a process number, and perhaps -o FILE.svg");
    if (!parse_pid(arguments[1], &pid))
        return STATUS_USAGE;
    process_open(&process, pid);
    int status = process_explain_state(&process);
    if (status == STATUS_OK) {
        status = survey_take(&survey, &process, true)
                     ? show(&survey, has_path ? arguments[3] : NULL, as_json)
                     : complain("process %d ended while it was looked at", (int)pid);
        survey_free(&survey);
    }
    process_close(&process);
    return status;
}
