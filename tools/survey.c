#include "survey.h"

#include "heap/mailbox.h"
#include "pool/pool.h"
#include "raw/raw_piece.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* No process has more; a damaged one may say so. */
#define ARENAS_MOST     (UINT32_C(1) << 21)
#define MESSAGES_MOST   1000000U
#define TABLE_PAGE      4096U
#define THREADS_MOST    4096U
#define GUARD_LOOKED_AT 4096U
#define CACHE_LOOKED_AT 4096U

static bool grow(void **array, size_t count, size_t *room, size_t element)
{
    if (count < *room)
        return true;
    size_t more = *room == 0 ? 64 : *room * 2;
    void *fresh = realloc(*array, more * element);
    if (fresh == NULL)
        return false;
    *array = fresh;
    *room = more;
    return true;
}

uint64_t survey_resident_in(const struct survey *survey, uint64_t address, uint64_t bytes)
{
    uint64_t page = survey->process->published.page_bytes;
    uint64_t found = 0;
    bool resident[1024];
    uint64_t end = (address + bytes + page - 1) / page * page;
    for (uint64_t at = address / page * page; at < end;) {
        size_t pages = (size_t)((end - at) / page);
        if (pages > 1024)
            pages = 1024;
        if (!process_resident_pages(survey->process, at, pages, resident))
            break;
        for (size_t i = 0; i < pages; i++)
            found += resident[i] ? page : 0;
        at += pages * page;
    }
    return found;
}

/* ---- arenas ---- */

/* Pools of larger pages share them: each page counts for the slot that it begins in. */
static void add_residence(const struct survey *survey, struct arena_view *view)
{
    uint64_t page = survey->process->published.page_bytes;
    bool resident[ARENA_BYTES / TABLE_PAGE];
    size_t pages = (size_t)(ARENA_BYTES / page);
    if (pages > ARENA_BYTES / TABLE_PAGE ||
        !process_resident_pages(survey->process, view->address, pages, resident))
        return;
    for (size_t i = 0; i < pages; i++)
        if (resident[i])
            view->slots[i * page / SLOT_BYTES].resident_bytes += page;
}

/* pool_used_of, on a copy. */
static uint32_t used_of(const struct pool *pool, uint32_t capacity)
{
    uint32_t count = owned_read(&pool->count);
    uint32_t used = 0;
    switch (pool_state(pool)) {
    case POOL_CURRENT:
        used = count > 0 ? count - 1 : 0;
        break;
    case POOL_QUEUED:
        used = count;
        break;
    case POOL_FULL:
        used = capacity - (count == 0);
        break;
    case POOL_NONE:
        break;
    }
    return used > capacity ? capacity : used;
}

static void view_pool(struct survey *survey, struct arena_view *view, const struct arena *arena,
                      uint32_t slot, uint64_t word)
{
    uint32_t descriptor = (uint32_t)((word & (POOL_WORD_CHECKED - 1)) - offsetof(struct arena, descriptors)) /
                          ARENA_DESCRIPTOR_BYTES;
    struct slot_view *one = &view->slots[slot];
    one->use = SLOT_POOL;
    if (descriptor != slot)
        return;
    struct pool pool;
    memcpy(&pool, arena->descriptors[slot], sizeof pool);
    uint32_t class = pool_class(&pool);
    if (class >= CLASS_COUNT)
        return;
    one->begins = true;
    one->class = class;
    one->capacity = class_pool_blocks(class);
    one->slots = class_pool_slots(class);
    one->used = used_of(&pool, one->capacity);
    struct class_view *sum = &survey->classes[class];
    sum->pools++;
    sum->used += one->used;
    sum->capacity += one->capacity;
}

static void view_free_slot(struct slot_view *one, const struct arena *arena, uint32_t slot)
{
    uint64_t bit = UINT64_C(1) << slot % WORD_SLOTS;
    if ((arena->free[slot / WORD_SLOTS] & bit) == 0)
        one->use = SLOT_KEPT;
    else
        one->use = (arena->dirty[slot / WORD_SLOTS] & bit) != 0 ? SLOT_DIRTY : SLOT_CLEAN;
}

static void view_slots(struct survey *survey, struct arena_view *view, const struct arena *arena)
{
    uint32_t end = ARENA_SLOTS - survey->process->published.hardened;
    for (uint32_t slot = 0; slot < ARENA_SLOTS; slot++) {
        struct slot_view *one = &view->slots[slot];
        uint64_t word = arena->slot_map[slot];
        if (slot < ARENA_HEADER_SLOTS || slot >= end) {
            one->use = SLOT_HEADER;
        } else if (view->kind == ARENA_GUARDED) {
            one->use = SLOT_GUARDED;
        } else if (word_is_run(word)) {
            uint32_t slots = run_word_slots(word);
            one->begins = true;
            one->slots = slots <= end - slot ? slots : end - slot;
            for (uint32_t i = 0; i < one->slots; i++)
                view->slots[slot + i].use = SLOT_RUN;
            slot += one->slots > 0 ? one->slots - 1 : 0;
            survey->classes[COUNTED_RUN].used++;
        } else if (word != 0) {
            view_pool(survey, view, arena, slot, word);
        } else {
            view_free_slot(one, arena, slot);
        }
    }
}

static void sum_residence(struct survey *survey, const struct arena_view *view)
{
    uint32_t class = CLASS_COUNT;
    for (uint32_t slot = 0; slot < ARENA_SLOTS; slot++) {
        const struct slot_view *one = &view->slots[slot];
        if (one->use == SLOT_RUN)
            survey->classes[COUNTED_RUN].resident_bytes += one->resident_bytes;
        if (one->use != SLOT_POOL)
            continue;
        if (one->begins)
            class = one->class;
        if (class < CLASS_COUNT)
            survey->classes[class].resident_bytes += one->resident_bytes;
    }
}

static bool add_arena(struct survey *survey, size_t *room, uint64_t address, enum arena_kind kind,
                      bool with_pages)
{
    static struct arena arena;
    if (address == 0 || address % ARENA_BYTES != 0)
        return true;
    if (!process_read(survey->process, address, &arena, sizeof arena) ||
        arena.mark != (address ^ survey->process->published.index_root))
        return true; /* gone meanwhile */
    if (!grow((void **)&survey->arenas, survey->arena_count, room, sizeof *survey->arenas))
        return false;
    struct arena_view *view = &survey->arenas[survey->arena_count++];
    *view = (struct arena_view){.address = address, .kind = kind};
    view_slots(survey, view, &arena);
    if (with_pages) {
        add_residence(survey, view);
        sum_residence(survey, view);
    }
    return true;
}

static int by_address(const void *a, const void *b)
{
    const struct arena_view *one = a;
    const struct arena_view *other = b;
    return one->address < other->address ? -1 : one->address > other->address;
}

static void take_list(struct survey *survey, size_t *room, uint64_t head, bool with_pages)
{
    uint64_t address = process_read_word(survey->process, head);
    for (uint32_t i = 0; address != 0 && i < ARENAS_MOST; i++) {
        if (!add_arena(survey, room, address, ARENA_RETIRED, with_pages))
            return;
        address = process_read_word(survey->process, address + offsetof(struct arena, next_retired));
    }
}

static void take_arenas(struct survey *survey, bool with_pages)
{
    const struct published *p = &survey->process->published;
    size_t room = 0;
    uint32_t bound = process_read_uint32(survey->process, p->arena_bound);
    if (bound > ARENAS_MOST)
        bound = 0;
    for (uint32_t number = 0; number < bound; number++)
        add_arena(survey, &room, process_read_word(survey->process, p->arenas + 8 * (uint64_t)number),
                  ARENA_LISTED, with_pages);
    take_list(survey, &room, p->retired, with_pages);
    take_list(survey, &room, p->in_grace, with_pages);
    for (uint32_t i = 0; i < p->guard_arena_count && i < GUARD_LOOKED_AT; i++)
        add_arena(survey, &room, process_read_word(survey->process, p->guard_arenas + 8 * (uint64_t)i),
                  ARENA_GUARDED, with_pages);
    qsort(survey->arenas, survey->arena_count, sizeof *survey->arenas, by_address);
}

/* ---- heaps ---- */

/* Blocks in the inbox: the last of a message holds the next message and the number of its blocks. */
static void add_inbox(struct survey *survey, const struct heap *heap)
{
    uint64_t last = (uintptr_t)heap->inbox;
    for (unsigned i = 0; last != 0 && i < MESSAGES_MOST; i++) {
        uint64_t word = process_read_word(survey->process, last);
        uint64_t arena = last & ~(uint64_t)(ARENA_BYTES - 1);
        uint8_t class;
        if ((word & MESSAGE_TAG_MASK) != MESSAGE_TAG ||
            !process_read(survey->process,
                          arena + offsetof(struct arena, slot_class) + last % ARENA_BYTES / SLOT_BYTES,
                          &class, 1) ||
            class >= CLASS_COUNT)
            return; /* taken meanwhile */
        survey->way_bytes += (word >> MESSAGE_BLOCKS_SHIFT) * class_bytes(class);
        last = word & MESSAGE_ADDRESS_MASK;
    }
}

static void add_calls(struct survey *survey, const struct heap_counts *counts)
{
    for (uint32_t kind = 0; kind < COUNTED_KINDS; kind++) {
        survey->classes[kind].calls += owned_total_read(&counts->kinds[kind].calls);
        survey->classes[kind].asked_bytes += owned_total_read(&counts->kinds[kind].bytes);
    }
}

static void take_heaps(struct survey *survey)
{
    const struct published *p = &survey->process->published;
    uint32_t count = process_read_uint32(survey->process, p->heap_count);
    if (count > HEAP_COUNT_MOST || p->heaps_in_chunk == 0)
        return;
    survey->heaps = calloc(count > 0 ? count : 1, sizeof *survey->heaps);
    if (survey->heaps == NULL)
        return;
    survey->way_is_known = !p->hardened;
    for (uint32_t number = 0; number < count; number++) {
        uint64_t chunk =
            process_read_word(survey->process, p->heap_chunks + number / p->heaps_in_chunk * UINT64_C(8));
        uint64_t address = chunk + number % p->heaps_in_chunk * (uint64_t)HEAP_ALIGNMENT;
        uint64_t parked = process_read_word(survey->process, p->parked + number / 64 * UINT64_C(8));
        struct heap_view *view = &survey->heaps[survey->heap_count];
        if (chunk == 0 || !process_read(survey->process, address, &view->heap, sizeof view->heap))
            continue;
        if (p->hardened)
            view->quarantine_bytes = process_read_word(survey->process, address + p->heap_quarantine);
        view->number = number;
        view->address = address;
        view->parked = (parked >> number % 64 & 1) != 0;
        survey->heap_count++;
        add_calls(survey, &view->heap.counts);
        if (survey->way_is_known)
            add_inbox(survey, &view->heap);
    }
}

/* ---- which thread runs a heap ---- */

/* The C library keeps a thread's number in its own structure, which pthread_self() points to. Where in it, is
 * found by looking for the place that holds a thread of this process for every heap that is run. */
#define THREAD_WORDS 512U

static size_t list_threads(pid_t pid, int *threads)
{
    char path[64];
    size_t count = 0;
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *folder = opendir(path);
    struct dirent *entry;
    while (folder != NULL && count < THREADS_MOST && (entry = readdir(folder)) != NULL)
        if (entry->d_name[0] != '.')
            threads[count++] = atoi(entry->d_name);
    if (folder != NULL)
        closedir(folder);
    return count;
}

static bool is_among(int thread, const int *threads, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (threads[i] == thread)
            return true;
    return false;
}

static void name_threads(struct survey *survey)
{
    static int threads[THREADS_MOST];
    static int words[THREAD_WORDS];
    static unsigned hits[THREAD_WORDS];
    size_t count = list_threads(survey->process->pid, threads);
    memset(hits, 0, sizeof hits);
    for (size_t i = 0; i < survey->heap_count; i++) {
        uint64_t self = owned_total_read(&survey->heaps[i].heap.counts.thread);
        if (self == 0 || !process_read(survey->process, self, words, sizeof words))
            continue;
        for (size_t at = 0; at < THREAD_WORDS; at++)
            hits[at] += is_among(words[at], threads, count);
    }
    size_t best = 0;
    for (size_t at = 1; at < THREAD_WORDS; at++)
        if (hits[at] > hits[best])
            best = at;
    for (size_t i = 0; i < survey->heap_count && hits[best] > 0; i++) {
        uint64_t self = owned_total_read(&survey->heaps[i].heap.counts.thread);
        int thread = (int)process_read_uint32(survey->process, self + best * sizeof(int));
        if (self != 0 && is_among(thread, threads, count))
            survey->heaps[i].thread = thread;
    }
}

/* ---- raw blocks ---- */

static bool add_raw(struct survey *survey, size_t *room, uint64_t address, uint64_t bytes, bool cached,
                    bool with_pages)
{
    if (!grow((void **)&survey->raws, survey->raw_count, room, sizeof *survey->raws))
        return false;
    struct raw_view *view = &survey->raws[survey->raw_count++];
    *view = (struct raw_view){.address = address, .bytes = bytes, .cached = cached};
    if (with_pages)
        view->resident_bytes = survey_resident_in(survey, address, bytes);
    if (!cached) {
        survey->classes[COUNTED_RAW].used++;
        survey->classes[COUNTED_RAW].resident_bytes += view->resident_bytes;
    }
    return true;
}

static void take_leaf(struct survey *survey, size_t *room, uint64_t number, uint64_t leaf, bool with_pages)
{
    static uint64_t entries[ADDRESS_LEAF_COUNT];
    uint64_t last_page = 0;
    if (!process_read(survey->process, leaf, entries, sizeof entries))
        return;
    if (with_pages)
        survey->table_bytes += survey_resident_in(survey, leaf, sizeof entries);
    for (uint64_t i = 0; i < ADDRESS_LEAF_COUNT; i++) {
        struct raw_piece piece;
        uint64_t address = (number * ADDRESS_LEAF_COUNT + i) << GRANULE_LOG2;
        if (entries[i] <= ADDRESS_EMPTY || !process_read(survey->process, entries[i], &piece, sizeof piece) ||
            (uintptr_t)piece.address != address || piece.bytes >> ADDRESS_BITS != 0)
            continue;
        if (!add_raw(survey, room, address, piece.bytes, false, with_pages))
            return;
        if (with_pages && entries[i] / TABLE_PAGE != last_page)
            survey->table_bytes += TABLE_PAGE;
        last_page = entries[i] / TABLE_PAGE;
    }
}

static void take_raws(struct survey *survey, bool with_pages)
{
    static uint64_t root[ADDRESS_ROOT_COUNT];
    const struct published *p = &survey->process->published;
    size_t room = 0;
    if (process_read(survey->process, p->index_root, root, sizeof root))
        for (uint64_t i = 0; i < ADDRESS_ROOT_COUNT; i++)
            if (root[i] != 0)
                take_leaf(survey, &room, i, root[i], with_pages);
    uint64_t count = process_read_word(survey->process, p->raw_cache_count);
    for (uint64_t i = 0; i < count && i < CACHE_LOOKED_AT; i++) {
        struct raw_piece piece;
        if (process_read(survey->process, p->raw_cache + i * p->cache_entry_bytes, &piece, sizeof piece) &&
            piece.bytes >> ADDRESS_BITS == 0)
            add_raw(survey, &room, (uintptr_t)piece.address, piece.bytes, true, with_pages);
    }
}

/* ---- all ---- */

static void add_tables(struct survey *survey)
{
    const struct published *p = &survey->process->published;
    for (size_t i = 0; i < survey->heap_count; i += p->heaps_in_chunk) {
        uint64_t chunk = process_read_word(
            survey->process, p->heap_chunks + survey->heaps[i].number / p->heaps_in_chunk * UINT64_C(8));
        survey->table_bytes +=
            survey_resident_in(survey, chunk, p->heaps_in_chunk * (uint64_t)HEAP_ALIGNMENT);
    }
}

bool survey_take(struct survey *survey, struct process *process, bool with_pages)
{
    const struct published *p = &process->published;
    *survey = (struct survey){.process = process};
    take_arenas(survey, with_pages);
    take_heaps(survey);
    take_raws(survey, with_pages);
    if (with_pages)
        add_tables(survey);
    name_threads(survey);
    survey->guard_live_bytes = process_read_word(process, p->guard_live_bytes);
    survey->housekeeper.purged_bytes = process_read_word(process, p->purged_bytes);
    survey->housekeeper.purge_calls = process_read_word(process, p->purge_calls);
    survey->housekeeper.retired_arenas = process_read_word(process, p->retired_arenas);
    survey->housekeeper.unmapped_arenas = process_read_word(process, p->unmapped_arenas);
    if (p->setting_bytes == sizeof survey->settings)
        process_read(process, p->settings, survey->settings, sizeof survey->settings);
    return process_lives(process);
}

void survey_free(struct survey *survey)
{
    free(survey->arenas);
    free(survey->heaps);
    free(survey->raws);
    *survey = (struct survey){0};
}

struct survey_rates survey_rates(const struct survey *survey)
{
    struct survey_rates sum = {0};
    for (uint32_t kind = 0; kind < COUNTED_KINDS; kind++) {
        sum.calls += survey->classes[kind].calls;
        sum.bytes += survey->classes[kind].asked_bytes;
        sum.live_blocks += survey->classes[kind].used;
    }
    for (size_t i = 0; i < survey->heap_count; i++) {
        sum.sent_blocks += owned_total_read(&survey->heaps[i].heap.counts.sent_blocks);
        sum.refills += owned_total_read(&survey->heaps[i].heap.counts.refills);
    }
    return sum;
}

uint64_t survey_heap_kept_bytes(const struct heap_view *heap)
{
    return (uint64_t)(heap->heap.empty_slots + heap->heap.span_slots + heap->heap.run_slots) * SLOT_BYTES;
}
