/*
 * The reader of traces, bench/trace/trace, with any file: it refuses it with one line and status 2, or what
 * it has read can be replayed; either way its tables are no larger than a small multiple of the file.
 *
 * The first byte of an input says whether the rest is a file as it is, or lacks magic and checksum, which no
 * fuzzer guesses; and how many lanes are wanted. The reader ends the program by _exit where it refuses a
 * file: here that leads back, and what was mapped by then is unmapped.
 */
#include "../../bench/trace/trace.h"

#include "../support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAPPINGS_MOST   64U
#define FILE_BYTES_MOST 65536U
#define FIRST_ROOM      MIB /* the file is read into */
#define TABLES_FACTOR   64U

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);
void __real__exit(int status) __attribute__((noreturn));
void __wrap__exit(int status) __attribute__((noreturn));
int __wrap_dprintf(int file, const char *format, ...);
void *__real_mmap64(void *address, size_t bytes, int protection, int flags, int file, off_t offset);
void *__wrap_mmap64(void *address, size_t bytes, int protection, int flags, int file, off_t offset);
void *__wrap_mremap(void *address, size_t old_bytes, size_t new_bytes, int flags, ...);
int __real_munmap(void *address, size_t bytes);
int __wrap_munmap(void *address, size_t bytes);

struct mapping {
    void *address;
    size_t bytes;
};

static bool reads;
static jmp_buf refused;
static unsigned lines;
static struct mapping mapped[MAPPINGS_MOST];
static unsigned mapping_count;
static size_t mapped_bytes;
static int file = -1;
static char path[32];

/* ---- in the place of the C library's ---- */

void __wrap__exit(int status)
{
    if (!reads)
        __real__exit(status);
    must(status == 2 && lines == 1);
    longjmp(refused, 1);
}

int __wrap_dprintf(int to, const char *format, ...)
{
    static const char begin[] = "tarn-replay: ";
    char line[512];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    must(to == STDERR_FILENO && length > 0 && (size_t)length < sizeof line);
    must(strncmp(line, begin, sizeof begin - 1) == 0 && strchr(line, '\n') == line + length - 1);
    lines++;
    return length;
}

void *__wrap_mmap64(void *address, size_t bytes, int protection, int flags, int descriptor, off_t offset)
{
    void *memory = __real_mmap64(address, bytes, protection, flags, descriptor, offset);
    if (!reads || memory == MAP_FAILED)
        return memory;
    must(mapping_count < MAPPINGS_MOST);
    mapped[mapping_count++] = (struct mapping){memory, bytes};
    mapped_bytes += bytes;
    return memory;
}

/* Inputs are shorter than the room that the reader begins with. */
void *__wrap_mremap(void *address, size_t old_bytes, size_t new_bytes, int flags, ...)
{
    (void)address;
    (void)old_bytes;
    (void)flags;
    must(new_bytes == 0);
    return MAP_FAILED;
}

int __wrap_munmap(void *address, size_t bytes)
{
    for (unsigned i = 0; i < mapping_count; i++) {
        if (mapped[i].address != address)
            continue;
        must(mapped[i].bytes == bytes);
        mapped[i] = mapped[--mapping_count];
        break;
    }
    return __real_munmap(address, bytes);
}

static void unmap_all(void)
{
    while (mapping_count > 0)
        must(munmap(mapped[mapping_count - 1].address, mapped[mapping_count - 1].bytes) == 0);
    mapped_bytes = 0;
}

/* ---- a file of the input ---- */

/* CRC-32 as in zlib, bit by bit. */
static uint32_t checksum(const uint8_t *data, size_t length)
{
    uint32_t sum = UINT32_MAX;
    for (size_t at = 0; at < length; at++) {
        sum ^= data[at];
        for (int bit = 0; bit < 8; bit++)
            sum = sum >> 1 ^ ((sum & 1) != 0 ? 0xEDB88320 : 0);
    }
    return ~sum;
}

static size_t make_whole(uint8_t *whole, const uint8_t *data, size_t length)
{
    memcpy(whole, "TARNTRC1", 8);
    memcpy(whole + 8, data, length);
    uint32_t sum = checksum(whole, 8 + length);
    for (unsigned i = 0; i < 4; i++)
        whole[8 + length + i] = (uint8_t)(sum >> 8 * i);
    return 8 + length + 4;
}

static void write_file(const uint8_t *data, size_t length)
{
    must(ftruncate(file, 0) == 0 && pwrite(file, data, length, 0) == (ssize_t)length);
}

/* ---- what was read ---- */

/* Of an object, while the events are gone through in their order. */
struct object {
    uint32_t steps;
    bool live;
};

static void must_go_on(struct object *object, const struct event *event)
{
    bool needs_block = event->kind == EVENT_REALLOC || event->kind == EVENT_FREE;
    must(event->kind < EVENT_THREAD && event->step == object->steps++ && object->live == needs_block);
    must(event->kind != EVENT_ALIGNED ||
         (event->alignment_log2 >= 3 && event->alignment_log2 <= MAX_ALIGNMENT_LOG2));
    must(event->kind != EVENT_REALLOC || event->size_bytes > 0);
    object->live = event->kind != EVENT_FREE;
}

/* Each lane is in the order of the file, and together they have every number of it once. */
static void must_be_replayable(const struct trace *trace)
{
    uint32_t next[MAX_LANES] = {0};
    uint32_t all = trace->events + trace->left;
    struct object *objects = calloc(trace->slots + 1, sizeof *objects);
    must(trace->lane_count >= 1 && trace->lane_count <= MAX_LANES && trace->slots <= trace->events);
    for (uint32_t order = 0; order < all; order++) {
        uint32_t lane = 0;
        while (lane < trace->lane_count && (next[lane] == trace->lanes[lane].count ||
                                            trace->lanes[lane].events[next[lane]].order != order))
            lane++;
        must(lane < trace->lane_count);
        const struct event *event = &trace->lanes[lane].events[next[lane]++];
        must(event->slot < trace->slots);
        must_go_on(&objects[event->slot], event);
    }
    for (uint32_t lane = 0; lane < trace->lane_count; lane++)
        must(next[lane] == trace->lanes[lane].count);
    for (uint32_t slot = 0; slot < trace->slots; slot++)
        must(!objects[slot].live);
    free(objects);
}

static void read_trace(size_t length, uint32_t most_lanes)
{
    static struct trace trace;
    lines = 0;
    reads = true;
    bool is_refused = setjmp(refused) != 0;
    if (!is_refused)
        trace_read(&trace, path, most_lanes);
    reads = false;
    must(mapped_bytes >= FIRST_ROOM && mapped_bytes <= FIRST_ROOM + MAX_LANES + 1 + TABLES_FACTOR * length);
    if (!is_refused) {
        must(lines == 0);
        must_be_replayable(&trace);
    }
    unmap_all();
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    (void)count;
    (void)arguments;
    file = memfd_create("trace", MFD_CLOEXEC);
    must(file >= 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
    static uint8_t whole[8 + FILE_BYTES_MOST + 4];
    if (length == 0 || length > FILE_BYTES_MOST)
        return 0;
    uint32_t most_lanes = 1 + data[0] / 2 % MAX_LANES;
    if ((data[0] & 1) != 0) {
        write_file(data + 1, length - 1);
        read_trace(length - 1, most_lanes);
    } else {
        size_t bytes = make_whole(whole, data + 1, length - 1);
        write_file(whole, bytes);
        read_trace(bytes, most_lanes);
    }
    return 0;
}
