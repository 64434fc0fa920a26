/*
 * Strings that grow by realloc to exactly the length they need: what readers of lines and builders of text do
 * when nobody has thought about capacity. Byte-wise, most calls ask for a size that the block already has
 * room for, so the price is that of finding it out; line-wise, every few calls move to another size class.
 * vectors.c grows with spare capacity; here every append is a realloc.
 *
 * A few strings grow at the same time, in turn, so the block behind the end of one is seldom free. Every byte
 * is checked when a string is complete.
 */
#include "../support.h"
#include "../workload.h"

enum { STRINGS_PER_THREAD = 8, ALPHABET = 251 /* a prime: the text has no period that is a power of two */ };

struct growth {
    uint32_t shortest_bytes; /* of the complete string */
    uint32_t longest_bytes;
    uint32_t smallest_step_bytes;
    uint32_t largest_step_bytes;
};

struct string {
    unsigned char *bytes;
    size_t length;
    size_t target;
};

struct strings {
    struct growth growth;
    int threads;
    struct size_table lengths;
    struct string *all; /* STRINGS_PER_THREAD of each thread */
};

static void string_append(struct string *string, size_t step)
{
    size_t length = string->length + step;

    string->bytes = must_realloc(string->bytes, length);
    for (size_t at = string->length; at < length; at++)
        string->bytes[at] = (unsigned char)(at % ALPHABET);
    string->length = length;
}

static void string_drop(struct string *string)
{
    for (size_t at = 0; at < string->length; at++)
        if (string->bytes[at] != at % ALPHABET)
            block_is_wrong(string->bytes, string->length, at);
    free(string->bytes);
}

static void round_of_appends(void *state, struct turn *turn)
{
    struct strings *strings = state;
    const struct growth *growth = &strings->growth;
    uint32_t steps = growth->largest_step_bytes - growth->smallest_step_bytes + 1;

    for (uint64_t count = 0; count < turn->operations; count++) {
        struct string *string =
            &strings->all[turn->thread * STRINGS_PER_THREAD + (int)(count % STRINGS_PER_THREAD)];

        if (string->length >= string->target) {
            string_drop(string);
            *string = (struct string){.target = size_table_draw(&strings->lengths, &turn->rng)};
        }
        string_append(string, growth->smallest_step_bytes + rng_below(&turn->rng, steps));
    }
}

static void *prepare(const struct workload *workload, int threads)
{
    struct strings *strings = must_malloc(sizeof(*strings));

    strings->growth = *(const struct growth *)workload->parameters;
    strings->threads = threads;
    size_table_fill(&strings->lengths, strings->growth.shortest_bytes, strings->growth.longest_bytes);
    strings->all = must_calloc((size_t)threads * STRINGS_PER_THREAD, sizeof(*strings->all));
    return strings;
}

static void finish(void *state)
{
    struct strings *strings = state;

    for (int index = 0; index < strings->threads * STRINGS_PER_THREAD; index++)
        string_drop(&strings->all[index]);
    free(strings->all);
    free(strings);
}

static const struct growth by_bytes = {8, 4096, 1, 1};
static const struct growth by_lines = {256, 256 * 1024, 10, 120};

static const struct workload strings_workloads[] = {
    {
        .name = "strings/bytes",
        .operation = "realloc of a string of up to 4 KiB for one more byte",
        .threads = {{1, false}, {2, false}, {4, false}, {16, false}, {64, false}},
        .operations = 3000000,
        .rounds = 3,
        .parameters = &by_bytes,
        .prepare = prepare,
        .round = round_of_appends,
        .finish = finish,
    },
    {
        .name = "strings/lines",
        .operation = "realloc of a string of up to 256 KiB for a line of 10 to 120 B more",
        .threads = {{1, false}, {2, false}, {4, false}, {16, false}, {64, false}},
        .operations = 200000,
        .rounds = 3,
        .parameters = &by_lines,
        .prepare = prepare,
        .round = round_of_appends,
        .finish = finish,
    },
};

const struct workload_family strings_family = {strings_workloads, WORKLOAD_COUNT(strings_workloads)};
