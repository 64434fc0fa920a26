/*
 * Reading a trace. Nothing in the file is believed: every number has a bound, tables are no larger than a
 * small multiple of the file, and the life of every object is followed, so the replayer need not check
 * anything.
 *
 * The file is walked twice, first to check and to count the events of each lane, then to fill the lanes.
 */
#include "trace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    EXIT_DAMAGED = 2,
    MAGIC_BYTES = 8,
    CHECKSUM_BYTES = 4,
    LEAST_EVENT_BYTES = 2,
    FIRST_ROOM_BYTES = 1 << 20,
    MAX_FILE_BYTES = 1 << 30,
    VARINT_BITS = 64,
    VARINT_BITS_PER_BYTE = 7,
    FLAG_CUT = 1,
};

static const char magic[MAGIC_BYTES + 1] = "TARNTRC1";
static const char magic_of_xz[] = "\xfd"
                                  "7zXZ";
static const uint64_t most_peak_bytes = (uint64_t)4 << 30;

/* What is known of an object while the file is walked. */
struct slot_state {
    uint32_t steps;
    uint32_t size_bytes;
    uint16_t owner; /* recorded thread */
    uint16_t lane;  /* that had the last event */
    bool live;
};

struct reader {
    const char *path;
    const unsigned char *at;
    const unsigned char *end;
    struct slot_state *states;
};

__attribute__((noreturn, format(printf, 2, 3))) static void refuse(const char *path, const char *format, ...)
{
    char what[160];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(what, sizeof(what), format, arguments);
    va_end(arguments);
    dprintf(STDERR_FILENO, "tarn-replay: %s: %s\n", path, what);
    _exit(EXIT_DAMAGED);
}

static void *map(const char *path, size_t bytes)
{
    void *memory =
        mmap(NULL, bytes > 0 ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        refuse(path, "no memory for %zu bytes", bytes);
    return memory;
}

/* The whole file in mapped memory of *room bytes, of which *length are in use. */
static unsigned char *read_file(const char *path, size_t *length, size_t *room)
{
    int file = strcmp(path, "-") == 0 ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    unsigned char *data;
    ssize_t got;

    if (file < 0)
        refuse(path, "%s", strerror(errno));
    *length = 0;
    *room = FIRST_ROOM_BYTES;
    data = map(path, *room);
    while ((got = read(file, data + *length, *room - *length)) > 0) {
        *length += (size_t)got;
        if (*length < *room)
            continue;
        if (*room >= MAX_FILE_BYTES)
            refuse(path, "it is too long");
        data = mremap(data, *room, 2 * *room, MREMAP_MAYMOVE);
        if (data == MAP_FAILED)
            refuse(path, "no memory for %zu bytes", 2 * *room);
        *room *= 2;
    }
    if (got < 0)
        refuse(path, "%s", strerror(errno));
    if (file != STDIN_FILENO)
        close(file);
    return data;
}

/* CRC-32 as in zlib. */
static uint32_t checksum(const unsigned char *data, size_t length)
{
    enum { BYTE_VALUES = 256, BITS = 8 };
    const uint32_t polynomial = 0xEDB88320;
    uint32_t table[BYTE_VALUES];
    uint32_t sum = UINT32_MAX;

    for (uint32_t byte = 0; byte < BYTE_VALUES; byte++) {
        table[byte] = byte;
        for (int bit = 0; bit < BITS; bit++)
            table[byte] = (table[byte] >> 1) ^ ((table[byte] & 1) != 0 ? polynomial : 0);
    }
    for (size_t at = 0; at < length; at++)
        sum = (sum >> BITS) ^ table[(sum ^ data[at]) & (BYTE_VALUES - 1)];
    return ~sum;
}

/* Seven bits in each byte, the lowest first; the highest bit says that another byte follows. */
static uint64_t take(struct reader *reader, const char *what, uint64_t most)
{
    uint64_t value = 0;

    for (unsigned shift = 0; shift < VARINT_BITS; shift += VARINT_BITS_PER_BYTE) {
        unsigned char byte;

        if (reader->at == reader->end)
            refuse(reader->path, "damaged: it ends within an event");
        byte = *reader->at++;
        value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80) {
            if (value > most)
                refuse(reader->path, "damaged: %s is %llu, of at most %llu", what, (unsigned long long)value,
                       (unsigned long long)most);
            return value;
        }
    }
    refuse(reader->path, "damaged: %s is too long a number", what);
}

static void begin(struct reader *reader, const unsigned char *data, size_t length)
{
    const unsigned char *sum;
    uint32_t stored;

    if (length >= sizeof(magic_of_xz) - 1 && memcmp(data, magic_of_xz, sizeof(magic_of_xz) - 1) == 0)
        refuse(reader->path, "it is compressed: xz -dc FILE | tarn-replay -");
    if (length < MAGIC_BYTES + CHECKSUM_BYTES || memcmp(data, magic, MAGIC_BYTES) != 0)
        refuse(reader->path, "this is not a trace of version 1");
    sum = data + length - CHECKSUM_BYTES;
    stored = (uint32_t)sum[0] | (uint32_t)sum[1] << 8 | (uint32_t)sum[2] << 16 | (uint32_t)sum[3] << 24;
    if (stored != checksum(data, length - CHECKSUM_BYTES))
        refuse(reader->path, "damaged: its checksum is wrong");
    reader->at = data + MAGIC_BYTES;
    reader->end = sum;
}

static void read_header(struct trace *trace, struct reader *reader)
{
    uint64_t most_events;

    trace->cut = take(reader, "the flag", FLAG_CUT) == FLAG_CUT;
    trace->recorded_threads = (uint32_t)take(reader, "the number of threads", MAX_RECORDED_THREADS);
    trace->slots = (uint32_t)take(reader, "the number of objects", MAX_SLOTS);
    most_events = (uint64_t)(reader->end - reader->at) / LEAST_EVENT_BYTES;
    trace->events = (uint32_t)take(reader, "the number of events", most_events);
    trace->peak_bytes = take(reader, "the peak", most_peak_bytes);
    if (trace->recorded_threads == 0 || trace->events == 0)
        refuse(reader->path, "damaged: nothing happens in it");
    if (trace->slots > trace->events)
        refuse(reader->path, "damaged: more objects than events");
}

/* Reads what follows the kind, and takes the object through the event. */
static struct event take_event(struct trace *trace, struct reader *reader, unsigned kind, uint32_t thread)
{
    struct event event = {.kind = kind & 7};
    struct slot_state *state;

    event.slot = (uint32_t)take(reader, "an object", MAX_SLOTS - 1) & (MAX_SLOTS - 1);
    if (event.slot >= trace->slots)
        refuse(reader->path, "damaged: object %u of %u", (unsigned)event.slot, trace->slots);
    state = &reader->states[event.slot];
    if (state->live != (kind == EVENT_REALLOC || kind == EVENT_FREE))
        refuse(reader->path, "damaged: object %u is %s", (unsigned)event.slot,
               state->live ? "allocated twice" : "used before it is allocated");
    if (kind == EVENT_ALIGNED) {
        event.alignment_log2 = (uint32_t)take(reader, "an alignment", MAX_ALIGNMENT_LOG2) & 63;
        if ((size_t)1 << event.alignment_log2 < sizeof(void *))
            refuse(reader->path, "damaged: an alignment of %d", 1 << event.alignment_log2);
    }
    if (kind != EVENT_FREE)
        event.size_bytes = (uint32_t)take(reader, "a size", UINT32_MAX);
    if (kind == EVENT_REALLOC && event.size_bytes == 0)
        refuse(reader->path, "damaged: a realloc to no bytes");
    event.step = state->steps++;
    state->live = kind != EVENT_FREE;
    if (kind == EVENT_FREE) {
        trace->frees++;
        trace->foreign_frees += state->owner != thread;
    } else {
        state->owner = (uint16_t)thread;
    }
    return event;
}

static void lane_add(struct trace *trace, uint32_t lane, struct event event, bool fill)
{
    struct lane *into = &trace->lanes[lane];

    if (fill)
        into->events[into->count] = event;
    into->count++;
}

static void walk(struct trace *trace, struct reader reader, bool fill)
{
    uint64_t live_bytes = 0, peak_bytes = 0;
    uint32_t order = 0, thread = 0;

    trace->frees = trace->foreign_frees = trace->left = 0;
    for (uint32_t lane = 0; lane < trace->lane_count; lane++)
        trace->lanes[lane].count = 0;
    while (reader.at < reader.end) {
        unsigned kind = (unsigned)take(&reader, "the kind of an event", EVENT_THREAD);
        struct event event;
        struct slot_state *state;
        uint32_t old_bytes;

        if (kind == EVENT_THREAD) {
            thread = (uint32_t)take(&reader, "a thread", trace->recorded_threads - 1);
            continue;
        }
        if (order == trace->events)
            refuse(reader.path, "damaged: more events than its header says");
        event = take_event(trace, &reader, kind, thread);
        event.order = order++;
        state = &reader.states[event.slot];
        old_bytes = kind == EVENT_REALLOC || kind == EVENT_FREE ? state->size_bytes : 0;
        state->size_bytes = event.size_bytes;
        live_bytes += (uint64_t)event.size_bytes - old_bytes;
        if (live_bytes > peak_bytes)
            peak_bytes = live_bytes;
        state->lane = (uint16_t)(thread % trace->lane_count);
        lane_add(trace, state->lane, event, fill);
    }
    if (order != trace->events)
        refuse(reader.path, "damaged: %u events of %u", order, trace->events);
    if (peak_bytes != trace->peak_bytes)
        refuse(reader.path, "damaged: the peak is not that of its header");
    for (uint32_t slot = 0; slot < trace->slots; slot++) {
        const struct slot_state *state = &reader.states[slot];
        struct event event = {.kind = EVENT_FREE, .slot = slot & (MAX_SLOTS - 1), .step = state->steps};

        if (!state->live)
            continue;
        event.order = order++;
        trace->left++;
        lane_add(trace, state->lane, event, fill);
    }
}

void trace_read(struct trace *trace, const char *path, uint32_t most_lanes)
{
    struct reader reader = {.path = path};
    size_t length, room, states_bytes;
    unsigned char *data = read_file(path, &length, &room);

    memset(trace, 0, sizeof(*trace));
    begin(&reader, data, length);
    read_header(trace, &reader);
    trace->lane_count = trace->recorded_threads < most_lanes ? trace->recorded_threads : most_lanes;
    states_bytes = trace->slots * sizeof(struct slot_state);
    reader.states = map(path, states_bytes);
    walk(trace, reader, false);
    memset(reader.states, 0, states_bytes);
    for (uint32_t lane = 0; lane < trace->lane_count; lane++)
        trace->lanes[lane].events = map(path, trace->lanes[lane].count * sizeof(struct event));
    walk(trace, reader, true);
    munmap(reader.states, states_bytes > 0 ? states_bytes : 1);
    munmap(data, room);
}
