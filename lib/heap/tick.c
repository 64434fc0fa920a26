#include "heap/tick.h"

#include "arena/housekeeper.h"
#include "heap/mailbox.h"
#include "heap/park.h"
#include "heap/quarantine.h"
#include "heap/run.h"
#include "heap/sample.h"
#include "heap/slot_cache.h"
#include "os/clock.h"
#include "os/settings.h"

static void no_duty(uint64_t now_ms)
{
    (void)now_ms;
}

static void (*_Atomic extra_duty)(uint64_t now_ms) = no_duty;

void tick_set_duty(void (*duty)(uint64_t now_ms))
{
    atomic_store_explicit(&extra_duty, duty, memory_order_relaxed);
}

static void adapt_budget(struct heap *heap, uint64_t now_ms)
{
    if (now_ms != heap->heartbeat_ms)
        heap->budget_full_bytes = TICK_BUDGET_LEAST_BYTES;
    else if (heap->budget_full_bytes < TICK_BUDGET_MOST_BYTES)
        heap->budget_full_bytes *= 2;
    heap->heartbeat_ms = now_ms;
    int64_t left_bytes = heap->budget_bytes;
    heap->budget_bytes = heap->budget_full_bytes;
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

void tick_heartbeat(struct heap *heap)
{
    uint64_t now_ms = clock_now_ms();
    adapt_budget(heap, now_ms);
    if (now_ms - heap->tick_ms >= housekeeper_interval_ms()) {
        heap->tick_ms = now_ms;
        tick_own(heap);
    }
    housekeeper_tick(now_ms);
    atomic_load_explicit(&extra_duty, memory_order_relaxed)(now_ms);
}
