#include "heap/sample.h"

#include "guard/guard.h"
#include "os/settings.h"

/* xorshift64*: Marsaglia (2003), Vigna (2016). */
static uint64_t next_random(struct heap *heap)
{
    uint64_t x = heap->sample_random;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    heap->sample_random = x;
    return (x * UINT64_C(0x2545f4914f6cdd1d)) >> 16;
}

static bool is_counted(void)
{
    return settings.guard_interval <= SAMPLE_COUNTED_MOST;
}

/* 1 to 2 N - 1 units, N on average. */
static int64_t next_interval(struct heap *heap)
{
    uint64_t units = 1 + next_random(heap) % (2 * settings.guard_interval - 1);
    return (int64_t)(is_counted() ? units : units * SAMPLE_UNIT_BYTES);
}

void sample_begin(struct heap *heap)
{
    heap->sample_random = (heap->number + UINT64_C(1)) * UINT64_C(0x9e3779b97f4a7c15) ^ (uintptr_t)heap;
    next_random(heap);
    heap->sample_rest_bytes = next_interval(heap);
    heap->budget_bytes = -1;
    if (!is_counted())
        sample_shorten(heap, heap->sample_rest_bytes);
}

void sample_shorten(struct heap *heap, int64_t until_bytes)
{
    if (is_counted()) {
        heap->budget_bytes = -1;
        return;
    }
    if (heap->budget_bytes < 0 || heap->budget_bytes > until_bytes)
        heap->budget_bytes = until_bytes;
    heap->sample_rest_bytes = until_bytes - heap->budget_bytes;
}

/* sample_rest_bytes counts allocations then. */
static bool counted_is_due(struct heap *heap)
{
    if (--heap->sample_rest_bytes > 0)
        return false;
    heap->sample_rest_bytes = next_interval(heap);
    return true;
}

/* Draws looks until the next one lies ahead. */
static bool weighed_is_due(struct heap *heap, uint64_t weight)
{
    int64_t until = heap->budget_bytes + heap->sample_rest_bytes;
    bool due = false;
    for (; until < 0; until += next_interval(heap))
        due |= next_random(heap) % weight < SAMPLE_UNIT_BYTES;
    heap->sample_rest_bytes = until - heap->budget_bytes;
    return due;
}

static bool is_due(struct heap *heap, size_t bytes)
{
    if (is_counted())
        return counted_is_due(heap);
    size_t weight = bytes <= DIRECT_BYTES_MOST ? bytes : MEDIUM_BUDGET_BYTES;
    if (heap->budget_bytes >= 0) /* its list was empty, and so it was not counted yet */
        heap->budget_bytes -= (int64_t)weight;
    return weighed_is_due(heap, weight == 0 ? 1 : weight);
}

void *sample_take(struct heap *heap, size_t bytes)
{
    return is_due(heap, bytes) ? guard_take(bytes, next_random(heap)) : NULL;
}
