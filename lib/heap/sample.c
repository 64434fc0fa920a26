#include "heap/sample.h"

#include "guard/guard.h"
#include "os/settings.h"

static bool is_counted(void)
{
    return settings.guard_interval <= SAMPLE_COUNTED_MOST;
}

/* 1 to 2 N - 1 units, N on average. */
static int64_t next_interval(struct heap *heap)
{
    uint64_t units = 1 + heap_random(heap) % (2 * settings.guard_interval - 1);
    return (int64_t)(is_counted() ? units : units * SAMPLE_UNIT_BYTES);
}

void sample_begin(struct heap *heap)
{
    heap->random ^= (uintptr_t)heap >> 12; /* another process samples others */
    heap->random += heap->random == 0;
    heap->sample_rest_bytes = next_interval(heap);
    heap_set_budget(heap, -1);
    if (!is_counted())
        sample_shorten(heap, heap->sample_rest_bytes);
}

void sample_shorten(struct heap *heap, int64_t until_bytes)
{
    if (is_counted()) {
        heap_set_budget(heap, -1);
        return;
    }
    if (heap->budget_bytes < 0 || heap->budget_bytes > until_bytes)
        heap_set_budget(heap, until_bytes);
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
        due |= heap_random(heap) % weight < SAMPLE_UNIT_BYTES;
    heap->sample_rest_bytes = until - heap->budget_bytes;
    return due;
}

static bool is_due(struct heap *heap, size_t bytes)
{
    if (is_counted())
        return counted_is_due(heap);
    uint64_t weight = heap_budget_weight(bytes);
    if (heap->budget_bytes >= 0) /* its list was empty, and so it was not counted yet */
        heap_shorten_budget(heap, (int64_t)weight);
    return weighed_is_due(heap, weight == 0 ? 1 : weight);
}

void *sample_take(struct heap *heap, size_t bytes)
{
    return is_due(heap, bytes) ? guard_take(bytes, heap_random(heap)) : NULL;
}
