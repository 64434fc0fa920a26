/* The state of the allocator in numbers, read while other threads go on.
 *
 * Collected by walking the listed arenas inside one read section. Each number was true at some moment during
 * the walk; sums may be off by what changed meanwhile. Empty slots that heaps keep count as held but not as
 * in use.
 */
#ifndef TARN_OBSERVE_STATISTICS_H
#define TARN_OBSERVE_STATISTICS_H

#include "arena/housekeeper.h"
#include "guard/guard.h"
#include "pool/size_class.h"
#include "raw/raw.h"

#include <stddef.h>
#include <stdint.h>

struct class_statistics {
    size_t pools;
    size_t blocks_used;     /* with those on their way to their owner */
    size_t blocks_capacity; /* in all pools */
    uint64_t calls;         /* of malloc and its relatives; estimated (heap/counts) */
};

struct statistics {
    struct class_statistics classes[CLASS_COUNT];
    size_t arenas;
    size_t arena_bytes;  /* mapped */
    size_t header_slots; /* taken by arena headers */
    size_t pool_slots;
    size_t run_slots;
    size_t free_slots;
    size_t dirty_slots; /* free, perhaps resident */
    size_t kept_slots;  /* empty, in some heap's cache */
    size_t runs;
    size_t block_bytes_used; /* in live blocks of pools */
    size_t heaps;
    size_t heaps_parked;
    uint64_t calls; /* since the start, runs and raw blocks too; estimated, as is the next */
    uint64_t asked_bytes;
    uint64_t refills;
    uint64_t sent_blocks; /* to the heaps that own them */
    struct guard_totals guard;
    struct raw_totals raw;
    struct housekeeper_totals housekeeper;
};

/* Any thread. */
void statistics_collect(struct statistics *statistics);

#endif
