#include "heap/tick.h"

#include "arena/housekeeper.h"
#include "base/probe.h"
#include "heap/mailbox.h"
#include "heap/park.h"
#include "heap/quarantine.h"
#include "heap/run.h"
#include "heap/sample.h"
#include "heap/slot_cache.h"
#include "os/clock.h"
#include "os/lock.h"
#include "os/settings.h"

static void (*_Atomic looks[TICK_LOOKS])(uint64_t now_ms); /* NULL: none */

void tick_set_look(enum tick_look number, void (*look)(uint64_t now_ms))
{
    atomic_store_explicit(&looks[number], look, memory_order_relaxed);
}

/* When the thread holds no lock, and no heap but its own. */
static void look(uint64_t now_ms)
{
    for (unsigned i = 0; i < TICK_LOOKS; i++) {
        void (*one)(uint64_t) = atomic_load_explicit(&looks[i], memory_order_relaxed);
        if (one != NULL)
            one(now_ms);
    }
}

static void no_duty(uint64_t now_ms)
{
    (void)now_ms;
}

static void (*_Atomic extra_duty)(uint64_t now_ms) = no_duty;

void tick_set_duty(void (*duty)(uint64_t now_ms))
{
    atomic_store_explicit(&extra_duty, duty, memory_order_relaxed);
}

static uint32_t kind_of(size_t bytes)
{
    if (bytes <= SETTING(run_threshold_bytes))
        return class_of_size(bytes == 0 ? 1 : bytes);
    return bytes <= SETTING(raw_threshold_bytes) ? COUNTED_RUN : COUNTED_RAW;
}

/* A quarter less to a quarter more. */
static int64_t next_point(struct heap *heap)
{
    return POINT_BYTES - POINT_BYTES / 4 + (int64_t)(heap_random(heap) % (POINT_BYTES / 2));
}

/* The next point has been passed, by point_bytes below zero, in this request; perhaps several were. */
static void count_request(struct heap *heap, size_t bytes, uint64_t weight)
{
    int64_t passed = heap->point_interval;
    int64_t rest = heap->point_bytes;
    if (rest <= -POINT_BYTES) {
        passed += -rest / POINT_BYTES * POINT_BYTES;
        rest %= POINT_BYTES;
    }
    while (rest < 0) {
        heap->point_interval = next_point(heap);
        rest += heap->point_interval;
        if (rest < 0)
            passed += heap->point_interval;
    }
    heap->point_bytes = rest;
    uint64_t calls = weight == 0 ? 1 : ((uint64_t)passed + heap_random(heap) % weight) / weight;
    PROBE_3(sample, heap->number, bytes, calls);
    counts_add_calls(&heap->counts, kind_of(bytes), bytes, calls);
}

static void look_for_point(struct heap *heap, size_t bytes)
{
    uint64_t weight = heap_budget_weight(bytes);
    int64_t used = heap->budget_begin_bytes - heap->budget_bytes;
    if (heap->budget_bytes >= 0) /* a large request leaves the budget as it is when that does not do */
        used += (int64_t)weight;
    heap->point_bytes -= used;
    if (heap->point_bytes < 0)
        count_request(heap, bytes, weight);
}

static void adapt_budget(struct heap *heap, uint64_t now_ms)
{
    if (now_ms != heap->heartbeat_ms)
        heap->budget_full_bytes = TICK_BUDGET_LEAST_BYTES;
    else if (heap->budget_full_bytes < TICK_BUDGET_MOST_BYTES)
        heap->budget_full_bytes *= 2;
    heap->heartbeat_ms = now_ms;
    int64_t left_bytes = heap->budget_bytes;
    bool to_point = heap->budget_full_bytes >= TICK_BUDGET_MOST_BYTES;
    heap->budget_bytes =
        to_point || heap->point_bytes < heap->budget_full_bytes ? heap->point_bytes : heap->budget_full_bytes;
    heap->budget_begin_bytes = heap->budget_bytes;
    if (settings.guard_interval > 0)
        sample_shorten(heap, left_bytes + heap->sample_rest_bytes);
}

static void tick_own(struct heap *heap)
{
    mailbox_flush(heap);
    mailbox_drain(heap);
    heap_close_empty_pools(heap);
    run_flush(heap);
    slot_cache_age(heap);
    park_tend(heap);
}

void tick_reclaim(struct heap *heap)
{
    if (TARN_HARDENED)
        quarantine_flush(heap);
    tick_own(heap);
    slot_cache_flush(heap);
    park_settle_all(heap);
}

void tick_heartbeat(struct heap *heap, size_t bytes)
{
    uint64_t now_ms = clock_now_ms();
    owned_add(&heap->counts.heartbeats, 1);
    look_for_point(heap, bytes);
    adapt_budget(heap, now_ms);
    if (now_ms - heap->tick_ms >= housekeeper_interval_ms()) {
        heap->tick_ms = now_ms;
        owned_add(&heap->counts.ticks, 1);
        tick_own(heap);
    }
    housekeeper_tick(now_ms);
    atomic_load_explicit(&extra_duty, memory_order_relaxed)(now_ms);
    if (heap == heap_self && lock_inside == 0 && !lock_forking)
        look(now_ms);
}
