#include "heap/run.h"

#include "arena/arena_list.h"
#include "base/bits.h"
#include "heap/slot_cache.h"

/* ---- kept runs ---- */

/* The one freed last first: it is warm. */
static void *take_kept(struct heap *heap, uint32_t slots)
{
    if (heap->runs[(heap->run_next - 1) % RUNS_KEPT].slots == slots)
        return run_take_last(heap);
    for (uint32_t back = 2; back <= RUNS_KEPT; back++)
        if (heap->runs[(heap->run_next - back) % RUNS_KEPT].slots == slots)
            return run_take_at(heap, heap->run_next - back);
    return NULL;
}

static struct span span_at(const void *pointer, uint32_t first, uint32_t slots)
{
    uint64_t mask = bits_ones(slots) << first % WORD_SLOTS;
    return (struct span){.arena = arena_of(pointer), .mask = mask, .dirty = mask, .word = first / WORD_SLOTS};
}

static void give_up(struct heap *heap, struct kept_run *kept)
{
    if (kept->run == NULL)
        return;
    struct span span = span_at(kept->run, arena_slot_of(kept->run), kept->slots);
    heap->run_slots -= kept->slots;
    *kept = (struct kept_run){NULL, 0};
    slot_cache_put(heap, &span);
}

/* The oldest go until there is room: one place, and so many slots. */
static void make_room(struct heap *heap, uint32_t slots)
{
    give_up(heap, &heap->runs[heap->run_next % RUNS_KEPT]);
    for (uint32_t i = 1; i < RUNS_KEPT && heap->run_slots + slots > RUN_SLOTS_KEPT; i++)
        give_up(heap, &heap->runs[(heap->run_next + i) % RUNS_KEPT]);
}

void run_flush(struct heap *heap)
{
    for (uint32_t i = 0; i < RUNS_KEPT && heap->run_slots > 0; i++)
        give_up(heap, &heap->runs[i]);
}

/* ---- blocks ---- */

void *run_malloc(struct heap *heap, size_t bytes)
{
    uint32_t slots = run_slots_for(bytes);
    void *kept = heap->run_slots >= slots ? take_kept(heap, slots) : NULL;
    if (kept != NULL)
        return kept;
    struct span span;
    if (!slot_cache_take(heap, slots, CLASS_COUNT, &span))
        return NULL;
    uint32_t first = span_first_slot(&span);
    /* release: as in run_take_at. */
    atomic_store_explicit(&span.arena->slot_map[first], run_word(first, slots), memory_order_release);
    return arena_slot_address(span.arena, first);
}

bool run_free(struct heap *heap, void *pointer)
{
    uint64_t word = run_word_at(pointer);
    if (UNLIKELY(!run_begins(pointer, word)))
        return false;
    uint32_t slots = run_word_slots(word);
    while (!run_kept_at_once(heap, pointer, slots))
        make_room(heap, slots);
    return true;
}

bool run_free_without_heap(struct reader *reader, void *pointer)
{
    uint64_t word = run_word_at(pointer);
    if (UNLIKELY(!run_begins(pointer, word)))
        return false;
    atomic_store_explicit(run_word_of(pointer), 0, memory_order_release);
    struct span span = span_at(pointer, arena_slot_of(pointer), run_word_slots(word));
    arena_list_release(reader, &span);
    return true;
}

size_t run_bytes(const void *pointer)
{
    uint64_t word = run_word_at(pointer);
    return run_begins(pointer, word) ? run_word_slots(word) * SLOT_BYTES : 0;
}

static bool grow(void *pointer, uint32_t first, uint32_t have, uint32_t want)
{
    if (first % WORD_SLOTS + want > WORD_SLOTS)
        return false;
    uint64_t more = bits_ones(want - have) << (first + have) % WORD_SLOTS;
    struct span span;
    if (!arena_list_extend(arena_of(pointer), first / WORD_SLOTS, more, &span))
        return false;
    atomic_store_explicit(run_word_of(pointer), run_word(first, want), memory_order_release);
    return true;
}

static void shrink(struct heap *heap, void *pointer, uint32_t first, uint32_t have, uint32_t want)
{
    atomic_store_explicit(run_word_of(pointer), run_word(first, want), memory_order_release);
    struct span span = span_at(pointer, first + want, have - want);
    slot_cache_put(heap, &span);
}

bool run_resize(struct heap *heap, void *pointer, size_t bytes)
{
    uint32_t first = arena_slot_of(pointer);
    uint32_t have = (uint32_t)(run_bytes(pointer) >> SLOT_LOG2);
    uint32_t want = run_slots_for(bytes);
    if (have == 0 || want == 0 || want > SPAN_SLOTS_MOST)
        return false;
    if (want > have)
        return grow(pointer, first, have, want);
    if (want < have)
        shrink(heap, pointer, first, have, want);
    return true;
}

static bool is_kept_right(const struct kept_run *kept)
{
    if (kept->run == NULL)
        return kept->slots == 0;
    struct span span = span_at(kept->run, arena_slot_of(kept->run), kept->slots);
    return run_word_at(kept->run) == 0 && (atomic_load(&span.arena->free[span.word]) & span.mask) == 0;
}

bool run_is_valid(const struct heap *heap)
{
    uint32_t slots = 0;
    for (uint32_t i = 0; i < RUNS_KEPT; i++) {
        if (!is_kept_right(&heap->runs[i]))
            return false;
        slots += heap->runs[i].slots;
    }
    return slots == heap->run_slots && slots <= RUN_SLOTS_KEPT;
}
