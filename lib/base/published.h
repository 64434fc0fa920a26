/* What a process on Tarn tells to readers outside of it: where its tables are. One structure in the library's
 * own data, which a reader finds by its magic in the writable mappings of the program or library, and reads,
 * as all that it leads to, with process_vm_readv(2) or /proc/PID/mem. So the kernel decides who may: the same
 * user, or root. Nothing is mapped, opened or written for it while the process runs, and the child of a fork
 * has it too.
 *
 * A reader knows this structure by its version, and the structures of lib/ that it leads to because it was
 * built from the same sources: it compares `library`, and the sizes. All addresses are of the process.
 *
 * Written by publish_start, the magic last; `control` by who has a wish (observe/publish).
 */
#ifndef TARN_BASE_PUBLISHED_H
#define TARN_BASE_PUBLISHED_H

#include <stdatomic.h>
#include <stdint.h>

#define PUBLISHED_MAGIC   UINT64_C(0x6873696c6275706e) /* "npublish" */
#define PUBLISHED_MAGIC_2 UINT64_C(0x0a1a7f6e72617401) /* not text, as little as other memory will hold */
#define PUBLISHED_VERSION 1U

#define CONTROL_NAME_BYTES   32U
#define CONTROL_VALUE_BYTES  64U
#define CONTROL_ANSWER_BYTES 256U

enum control_wish { CONTROL_NOTHING, CONTROL_SET, CONTROL_TRIM };

/* A wish: its fields first, then `wished` becomes answered + 1. A thread that allocates sees it at its next
 * heartbeat, does it, writes the answer, and makes `answered` the same. */
struct control {
    _Atomic uint32_t wished;
    _Atomic uint32_t answered;
    uint32_t wish;    /* enum control_wish */
    uint32_t granted; /* 1 or 0, of the last that was answered */
    char name[CONTROL_NAME_BYTES];
    char value[CONTROL_VALUE_BYTES];
    char answer[CONTROL_ANSWER_BYTES]; /* one line */
};

struct published {
    uint64_t magic[2];
    uint64_t self;    /* its address: what is found elsewhere is a copy */
    uint32_t version; /* PUBLISHED_VERSION */
    uint32_t bytes;   /* of this structure */
    char library[16]; /* "0.1.0" */
    uint32_t hardened;
    uint32_t overrides; /* malloc, not only tarn_malloc */
    uint32_t page_bytes;

    /* must be what the reader was built with */
    uint32_t arena_header_bytes;
    uint32_t pool_bytes;
    uint32_t heap_bytes; /* up to where the hardened build differs */
    uint32_t heap_count_bytes;
    uint32_t heap_quarantine; /* offset of quarantine.bytes */
    uint32_t record_bytes;
    uint32_t cache_entry_bytes;
    uint32_t setting_bytes;

    /* arenas */
    uint64_t index_root;
    uint64_t arenas; /* struct arena *[], NULL where there is none */
    uint64_t arena_bound;
    uint64_t retired; /* two lists, struct arena *, through next_retired */
    uint64_t in_grace;
    uint64_t guard_arenas;
    uint32_t guard_arena_count;

    /* heaps, heaps_in_chunk of them one after another in each chunk */
    uint32_t heaps_in_chunk;
    uint64_t heap_chunks; /* char *[], NULL from where there is none yet */
    uint64_t heap_count;  /* uint32_t */
    uint64_t parked;      /* uint64_t[], a bit each */

    /* raw blocks: found through the index */
    uint64_t raw_live_bytes; /* size_t */
    uint64_t raw_live_blocks;
    uint64_t raw_cache; /* entries */
    uint64_t raw_cache_count;

    /* uint64_t each */
    uint64_t purged_bytes;
    uint64_t purge_calls;
    uint64_t retired_arenas;
    uint64_t unmapped_arenas;

    uint64_t guard_live_bytes; /* size_t */
    uint64_t settings;         /* struct settings (os/settings) */
    struct control control;
};

extern struct published published;

#endif
