/* Bytes to steps; see script.h. */
#include "script.h"

#include "os/settings.h"
#include "pool/size_class.h"

#define OP_BYTES_MOST ((size_t)8 << 20) /* that one step may ask for, unless it is one block */

struct reader_of_bytes {
    const uint8_t *at;
    const uint8_t *end;
};

static unsigned take_byte(struct reader_of_bytes *bytes)
{
    return bytes->at < bytes->end ? *bytes->at++ : 0;
}

static unsigned take_two(struct reader_of_bytes *bytes)
{
    unsigned low = take_byte(bytes);
    return low | take_byte(bytes) << 8;
}

/* ---- settings ---- */

static void read_settings(struct reader_of_bytes *bytes)
{
    static const uint64_t delays_ms[] = {1000, 0, 10, 86400000};
    static const size_t dirty_limits[] = {4U << 20, 0, 64U << 10, 1U << 20};
    static const size_t raw_caches[] = {64U << 20, 0, 1U << 20, 8U << 20};
    static const size_t run_thresholds[] = {32U << 10, 1U << 10, 8U << 10, 20000};
    static const size_t raw_thresholds[] = {512U << 10, 64U << 10, 128U << 10, 300000};
    unsigned reserves = take_byte(bytes);
    unsigned thresholds = take_byte(bytes);
    settings.purge_delay_ms = delays_ms[reserves & 3];
    settings.dirty_limit_bytes = dirty_limits[reserves >> 2 & 3];
    settings.raw_cache_bytes = raw_caches[reserves >> 4 & 3];
    settings.huge_pages = (enum huge_pages)((reserves >> 6 & 3) ^ HUGE_PAGES_SYSTEM);
    settings.run_threshold_bytes = run_thresholds[thresholds & 3];
    settings.raw_threshold_bytes = raw_thresholds[thresholds >> 2 & 3];
    settings.check = (thresholds >> 4 & 3) == 3;
}

/* ---- steps ---- */

/* Around the borders of size classes, paths and caches. */
static size_t take_border(struct reader_of_bytes *bytes)
{
    static const size_t borders[] = {0,       1024,    4096,        16384,        32768,
                                     65536,   524288,  1048576 - 1, 4194304 - 16, 4194304,
                                     2097152, 1000000, 131072,      262144,       8388608};
    unsigned which = take_byte(bytes);
    size_t delta = which >> 6; /* 0 … 3 */
    size_t border = borders[which % 64 % (sizeof borders / sizeof borders[0])];
    return border + delta > 1 ? border + delta - 1 : border + delta;
}

static size_t take_size(struct reader_of_bytes *bytes)
{
    unsigned way = take_byte(bytes);
    switch (way % 8) {
    case 0:
        return way / 8;
    case 1:
        return class_bytes(take_byte(bytes) % CLASS_COUNT) + way / 8 % 3 - 1;
    case 2:
        return take_two(bytes);
    case 3:
        return take_border(bytes);
    case 4: /* runs */
        return 32768 + (size_t)take_two(bytes) * 8;
    case 5: /* raw blocks; some fill their granules, so that what is cut off them begins one */
        if (way / 8 % 4 == 0)
            return (size_t)(1 + take_byte(bytes) % 4) << 22;
        return 524288 + (size_t)take_two(bytes) * 64;
    case 6:
        return (size_t)take_byte(bytes) << way / 8 % 16;
    default:
        return 16 * (size_t)take_byte(bytes);
    }
}

static unsigned take_count(struct reader_of_bytes *bytes, size_t size)
{
    unsigned count = take_byte(bytes);
    count = count % 4 == 3 ? 2 * count + 1 : 1 + count / 4 % 16;
    size_t most = size == 0 ? PLACES : OP_BYTES_MOST / size;
    return count <= most ? count : most > 0 ? (unsigned)most : 1;
}

static void read_places(struct reader_of_bytes *bytes, struct step *step)
{
    step->first = take_two(bytes) % PLACES;
    step->count = take_count(bytes, step->size);
    step->stride = 1 + step->first / 7 % 3;
}

static void read_step(struct reader_of_bytes *bytes, struct step *step)
{
    switch (step->operation) {
    case STEP_ALLOCATE:
        step->variant = take_byte(bytes);
        step->alignment = (size_t)1 << step->variant / 16 * 2 % 25;
        step->variant = step->variant % 16 < CALLS ? step->variant % 16 : CALL_MALLOC;
        step->size = take_size(bytes);
        read_places(bytes, step);
        break;
    case STEP_RESIZE:
        step->size = take_size(bytes);
        read_places(bytes, step);
        step->variant = step->first;
        break;
    case STEP_FREE:
        step->variant = take_byte(bytes);
        read_places(bytes, step);
        break;
    case STEP_LOOK:
        read_places(bytes, step);
        break;
    case STEP_REFUSED:
    case STEP_TRIM:
    case STEP_NUMBERS:
    case STEP_CLOCK:
        step->variant = take_byte(bytes);
        step->size = step->variant;
        break;
    case STEP_END:
    case STEP_MEET:
        break;
    }
}

/* Half of all steps allocate, resize or free. */
static enum operation operation_of(unsigned byte)
{
    static const enum operation operations[16] = {
        STEP_ALLOCATE, STEP_FREE, STEP_ALLOCATE, STEP_FREE,    STEP_RESIZE, STEP_LOOK, STEP_CLOCK, STEP_END,
        STEP_MEET,     STEP_TRIM, STEP_NUMBERS,  STEP_REFUSED, STEP_RESIZE, STEP_FREE, STEP_CLOCK, STEP_MEET};
    return operations[byte % 16];
}

void script_read(struct script *script, const uint8_t *data, size_t length)
{
    struct reader_of_bytes bytes = {data, data + length};
    unsigned ways = take_byte(&bytes);
    script->concurrent = (ways & 1) != 0;
    script->freed_by_workers = (ways & 2) != 0;
    read_settings(&bytes);
    for (script->length = 0; bytes.at < bytes.end && script->length < STEPS_MOST; script->length++) {
        struct step *step = &script->steps[script->length];
        unsigned byte = take_byte(&bytes);
        *step = (struct step){.operation = operation_of(byte), .worker = byte / 16 % WORKERS};
        read_step(&bytes, step);
    }
}
