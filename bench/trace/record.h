/*
 * The file that tarn-record.so writes: one page of header, then events of a fixed size, each at the place
 * that its sequence number gives. It is a shared mapping, so what was written is there however the process
 * ends.
 *
 * The sequence number of an allocation is taken after the allocator returned, that of a free before it is
 * called. Hence, in the order of the file: an allocation comes before its free, whatever threads do the two,
 * and the free of a block before the next allocation at that address. Of two events that have nothing to do
 * with each other the order is that of the two numbers, which may differ by a moment from that of the calls.
 */
#ifndef TARN_BENCH_TRACE_RECORD_H
#define TARN_BENCH_TRACE_RECORD_H

#include <stdatomic.h>
#include <stdint.h>

#define RECORDING_MAGIC "TARNREC1"

enum { RECORDING_HEADER_BYTES = 4096 };

enum raw_kind {
    RAW_NONE, /* a number was taken, and the process ended before the event was written */
    RAW_MALLOC,
    RAW_CALLOC,
    RAW_ALIGNED,
    RAW_FREE,
    RAW_REALLOC_BEGIN, /* `address` is that of the old block, which is gone from here on … */
    RAW_REALLOC_END,   /* … and this is the new one, next in the same thread; 0: there was none */
};

struct recording_header {
    char magic[8];
    uint64_t capacity;        /* events that the file has room for */
    _Atomic uint64_t claimed; /* events that happened; more than capacity: the rest was not written */
    _Atomic uint32_t threads; /* threads that had an event */
    uint32_t process;         /* its number */
};

struct raw_event {
    uint64_t address;
    uint64_t size_bytes;
    uint32_t thread; /* 0, 1, …: in the order of their first events */
    uint8_t alignment_log2;
    uint8_t reserved[2];
    _Atomic uint8_t kind; /* written last */
};

_Static_assert(sizeof(struct raw_event) == 24, "tarnbench/traces.py reads it so");

#endif
