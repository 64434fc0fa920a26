/* All that Tarn holds in a process: every arena slot by slot, every heap, every raw block, and what of it is
 * resident. Read while the process goes on: each part was so at some moment, and sums are off by what changed
 * meanwhile. */
#ifndef TARN_TOOLS_SURVEY_H
#define TARN_TOOLS_SURVEY_H

#include "process.h"

#include "arena/arena.h"
#include "heap/heap.h"
#include "os/settings.h"

enum slot_use {
    SLOT_HEADER,
    SLOT_CLEAN, /* free; reads as zeroes */
    SLOT_DIRTY, /* free, perhaps resident */
    SLOT_KEPT,  /* empty, held by a heap or waiting to be unmapped */
    SLOT_POOL,
    SLOT_RUN,
    SLOT_GUARDED,
    SLOT_USES
};

struct slot_view {
    enum slot_use use;
    bool begins; /* a pool or run */
    uint32_t slots;
    uint32_t class;
    uint32_t used; /* blocks of the pool, 0 to capacity */
    uint32_t capacity;
    uint64_t resident_bytes;
};

enum arena_kind { ARENA_LISTED, ARENA_RETIRED, ARENA_GUARDED };

struct arena_view {
    uint64_t address;
    enum arena_kind kind;
    struct slot_view slots[ARENA_SLOTS];
};

struct heap_view {
    uint64_t address;
    uint32_t number;
    bool parked;
    int thread; /* as gettid(2); 0: parked, or not found (its thread was another process's) */
    uint64_t quarantine_bytes;
    struct heap heap;
};

struct raw_view {
    uint64_t address;
    uint64_t bytes;
    uint64_t resident_bytes;
    bool cached;
};

struct class_view {
    uint64_t pools;
    uint64_t used; /* blocks, those on their way to their owner too */
    uint64_t capacity;
    uint64_t resident_bytes; /* of its pools */
    uint64_t calls;          /* since the start; estimated */
    uint64_t asked_bytes;    /* by these calls */
};

struct survey {
    struct process *process;
    struct arena_view *arenas;
    size_t arena_count;
    struct heap_view *heaps;
    size_t heap_count;
    struct raw_view *raws;
    size_t raw_count;
    struct class_view classes[COUNTED_KINDS]; /* and runs, raw blocks */
    uint64_t way_bytes;                       /* blocks in inboxes */
    bool way_is_known;                        /* not in the hardened library, which encodes them */
    uint64_t guard_live_bytes;
    uint64_t table_bytes; /* resident, of heaps, index and records */
    struct {
        uint64_t purged_bytes, purge_calls, retired_arenas, unmapped_arenas;
    } housekeeper;
    unsigned char settings[sizeof(struct settings)];
};

/* Fills in all of it; `with_pages`: also what is resident. False, without a word, when the process has ended.
 */
bool survey_take(struct survey *survey, struct process *process, bool with_pages);
void survey_free(struct survey *survey);

/* Sums of what all heaps did since they were made. */
struct survey_rates {
    uint64_t calls;
    uint64_t bytes;
    uint64_t sent_blocks;
    uint64_t refills;
    uint64_t live_blocks; /* now */
};
struct survey_rates survey_rates(const struct survey *survey);

/* Resident bytes of these addresses. */
uint64_t survey_resident_in(const struct survey *survey, uint64_t address, uint64_t bytes);

/* Bytes a heap holds in empty slots, empty pools and runs; and in blocks of other heaps. */
uint64_t survey_heap_kept_bytes(const struct heap_view *heap);

#endif
