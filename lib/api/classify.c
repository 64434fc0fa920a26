#include "api/classify.h"

#include "base/fatal.h"
#include "guard/guard.h"
#include "guard/guard_report.h"
#include "heap/run.h"
#include "raw/raw.h"

/* The slot map word of an address where a block of an arena could begin; 0 when none could. */
static uint64_t word_of(const void *pointer)
{
    if (((uintptr_t)pointer & (ARENA_BYTES - 1)) == 0 || address_index_get(pointer) != ADDRESS_ARENA)
        return 0;
    /* acquire: as in free_elsewhere (release). */
    return atomic_load_explicit(&arena_of(pointer)->slot_map[arena_slot_of(pointer)], memory_order_acquire);
}

static struct classified classify_raw(const void *pointer)
{
    size_t bytes = raw_bytes(pointer);
    return (struct classified){.kind = bytes > 0 ? KIND_RAW : KIND_INVALID, .bytes = bytes};
}

static struct classified classify_run(const void *pointer, uint64_t word)
{
    struct classified found = {.kind = KIND_INVALID};
    if (run_begins(pointer, word)) {
        found.kind = KIND_RUN;
        found.bytes = run_word_slots(word) * SLOT_BYTES;
    }
    return found;
}

struct classified classify(const void *pointer)
{
    uint64_t word = word_of(pointer);
    if (word == 0)
        return classify_raw(pointer);
    if (word_is_run(word))
        return classify_run(pointer, word);
    struct classified found = {.kind = KIND_INVALID};
    if (word == GUARDED_WORD) {
        found.kind = guard_is_live(pointer, &found.bytes) ? KIND_GUARDED : KIND_INVALID;
        return found;
    }
    uint32_t class;
    found.pool = pool_of_word(pointer, word);
    found.heap = pool_word_heap(word);
    if (pool_word_has_block(pointer, word, &class) && pool_is_block(found.pool, pointer)) {
        found.kind = KIND_POOL;
        found.bytes = class_bytes(class);
    }
    return found;
}

void fatal_freed_passed(const void *pointer, size_t bytes, const char *call)
{
    struct text line = {0};
    text_string(&line, "freed memory ");
    text_address(&line, pointer);
    text_string(&line, " passed to ");
    text_string(&line, call);
    text_string(&line, " (");
    text_decimal(&line, bytes);
    text_string(&line, "-byte class)");
    fatal_line(&line);
}

struct classified classify_live(const void *pointer, const char *call)
{
    struct classified found = classify(pointer);
    if (UNLIKELY(found.kind == KIND_INVALID))
        fatal_invalid(pointer, call);
    const struct pool *canary = block_canary(pointer);
    if (found.kind == KIND_POOL && UNLIKELY(heap_may_mark_free(canary, found.pool)) &&
        heap_marks_free(canary, found.pool))
        fatal_freed_passed(pointer, found.bytes, call);
    return found;
}

void fatal_invalid(const void *pointer, const char *call)
{
    struct text line = {0};
    text_string(&line, "invalid pointer ");
    text_address(&line, pointer);
    text_string(&line, " passed to ");
    text_string(&line, call);
    text_string(&line, ": no live block begins there");
    guard_report_misuse(&line, pointer);
}

void fatal_double_free(const void *pointer, size_t bytes)
{
    fatal_block("double free of", pointer, bytes, "class");
}

void fatal_size(const char *call, const void *pointer, size_t bytes, size_t block_bytes)
{
    struct text line = {0};
    text_string(&line, call);
    text_string(&line, " of ");
    text_address(&line, pointer);
    text_string(&line, " with size ");
    text_decimal(&line, bytes);
    text_string(&line, ", but the block has ");
    text_decimal(&line, block_bytes);
    text_string(&line, " bytes");
    guard_report_misuse(&line, pointer);
}
