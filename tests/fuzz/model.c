/* The reference model; see model.h. */
#include "model.h"

#include "../support.h"
#include "os/map.h"
#include "tarn/tarn.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define LIVE_BYTES_MOST ((size_t)256 << 20)
#define KEPT_ERRNO      EILSEQ /* one that no call here sets */

struct place {
    atomic_flag taken; /* all else belongs to who has set it */
    char *block;       /* NULL: none */
    size_t size;
    size_t usable;
    size_t alignment;
    uint64_t tag;
};

static struct place places[PLACES];
static _Atomic size_t live_bytes;

static struct place *place_of(const struct step *step, unsigned index)
{
    return &places[(step->first + index * step->stride) % PLACES];
}

static bool take(struct place *place)
{
    return !atomic_flag_test_and_set_explicit(&place->taken, memory_order_acquire);
}

static void give(struct place *place)
{
    atomic_flag_clear_explicit(&place->taken, memory_order_release);
}

/* ---- contents ---- */

#define WHOLE_BYTES 256U /* that are all written; of the rest some words around the borders of pages */
#define PAGE_BYTES  ((size_t)4096)
#define WORD_BYTES  sizeof(uint64_t)

static size_t page_after(size_t page)
{
    return page + PAGE_BYTES + page / 16 / PAGE_BYTES * PAGE_BYTES;
}

static void fill(char *block, size_t bytes, uint64_t tag)
{
    pattern_write(block, bytes < WHOLE_BYTES ? bytes : WHOLE_BYTES, tag);
    for (size_t page = PAGE_BYTES; page + WORD_BYTES <= bytes; page = page_after(page)) {
        pattern_write(block + page - WORD_BYTES, WORD_BYTES, tag + page);
        pattern_write(block + page, WORD_BYTES, tag - page);
    }
    if (bytes > WHOLE_BYTES + WORD_BYTES)
        pattern_write(block + bytes - WORD_BYTES, WORD_BYTES, ~tag);
}

/* The first `bytes` of a block of `of` bytes that was filled. */
static bool holds(const char *block, size_t bytes, size_t of, uint64_t tag)
{
    bool last_overwrote = of > WHOLE_BYTES + WORD_BYTES; /* the last word, which may lie across a page's */
    size_t end = last_overwrote && bytes > of - WORD_BYTES ? of - WORD_BYTES : bytes;
    if (!pattern_holds(block, bytes < WHOLE_BYTES ? bytes : WHOLE_BYTES, tag))
        return false;
    for (size_t page = PAGE_BYTES; page + WORD_BYTES <= end; page = page_after(page))
        if (!pattern_holds(block + page - WORD_BYTES, WORD_BYTES, tag + page) ||
            !pattern_holds(block + page, WORD_BYTES, tag - page))
            return false;
    return !last_overwrote || bytes < of || pattern_holds(block + of - WORD_BYTES, WORD_BYTES, ~tag);
}

static bool is_zero(const char *block, size_t bytes)
{
    return bytes == 0 || (block[0] == 0 && memcmp(block, block + 1, bytes - 1) == 0);
}

/* ---- one block ---- */

static void enter(struct place *place, char *block, const struct step *step, size_t alignment, uint64_t tag)
{
    errno = KEPT_ERRNO;
    size_t usable = tarn_malloc_usable_size(block);
    must(errno == KEPT_ERRNO);
    must(usable >= step->size);
    must((uintptr_t)block % (alignment < 16 ? 16 : alignment) == 0);
    place->block = block;
    place->size = step->size;
    place->usable = usable;
    place->alignment = alignment;
    place->tag = tag;
    live_bytes += usable;
    fill(block, usable, tag);
}

static void leave(struct place *place)
{
    live_bytes -= place->usable;
    place->block = NULL;
}

static void verify(const struct place *place)
{
    must(holds(place->block, place->usable, place->usable, place->tag));
}

static void *ask(const struct step *step)
{
    size_t size = step->size;
    size_t part = size % 8 == 0 ? 8 : size % 3 == 0 ? 3 : 1;
    size_t aligned = step->alignment;
    void *block = NULL;
    switch ((enum call)step->variant) {
    case CALL_MALLOC:
    case CALLS:
        return tarn_malloc(size);
    case CALL_CALLOC:
        return tarn_calloc(size / part, part);
    case CALL_REALLOC_NULL:
        return tarn_realloc(NULL, size);
    case CALL_REALLOCARRAY_NULL:
        return tarn_reallocarray(NULL, part, size / part);
    case CALL_ALIGNED_ALLOC:
        return tarn_aligned_alloc(aligned, size);
    case CALL_POSIX_MEMALIGN:
        errno = KEPT_ERRNO;
        must(tarn_posix_memalign(&block, aligned < sizeof(void *) ? sizeof(void *) : aligned, size) == 0);
        must(errno == KEPT_ERRNO);
        return block;
    case CALL_MEMALIGN: /* any number; the next power of two is meant */
        return tarn_memalign(aligned > 2 ? aligned - aligned / 4 : aligned, size);
    case CALL_VALLOC:
        return tarn_valloc(size);
    case CALL_PVALLOC:
        return tarn_pvalloc(size);
    }
    return NULL;
}

static size_t alignment_of(const struct step *step)
{
    if (step->variant == CALL_VALLOC || step->variant == CALL_PVALLOC)
        return map_page_bytes();
    if (step->variant == CALL_ALIGNED_ALLOC || step->variant == CALL_MEMALIGN)
        return step->alignment;
    if (step->variant == CALL_POSIX_MEMALIGN)
        return step->alignment < sizeof(void *) ? sizeof(void *) : step->alignment;
    return 1;
}

static void allocate_at(struct place *place, const struct step *step, uint64_t tag)
{
    if (place->block != NULL || live_bytes + step->size > LIVE_BYTES_MOST)
        return;
    char *block = opaque(ask(step));
    must(block != NULL);
    if (step->variant == CALL_CALLOC)
        must(is_zero(block, step->size));
    enter(place, block, step, alignment_of(step), tag);
    if (step->variant == CALL_PVALLOC)
        must(place->usable >= map_page_bytes() && place->usable % map_page_bytes() == 0);
}

static void free_at(struct place *place, unsigned variant)
{
    if (place->block == NULL)
        return;
    verify(place);
    char *block = place->block;
    size_t size = place->size;
    size_t alignment = place->alignment;
    leave(place);
    errno = KEPT_ERRNO;
    switch (variant % 8) {
    case 0:
        if (alignment == 1) /* C23: not of a block that an aligned call gave */
            tarn_free_sized(block, size);
        else
            tarn_free_aligned_sized(block, alignment, size);
        break;
    case 1:
        tarn_free_aligned_sized(block, alignment, size);
        break;
    case 2:
        tarn_cfree(block);
        break;
    case 3:
        must(tarn_realloc(block, 0) == NULL);
        break;
    default:
        tarn_free(block);
        break;
    }
    must(errno == KEPT_ERRNO);
}

static void resize_at(struct place *place, const struct step *step, uint64_t tag)
{
    if (place->block == NULL || step->size == 0 || live_bytes + step->size > LIVE_BYTES_MOST)
        return;
    verify(place);
    struct place old = *place;
    leave(place);
    char *block = step->variant % 4 == 0 && step->size % 8 == 0
                      ? tarn_reallocarray(old.block, step->size / 8, 8)
                      : tarn_realloc(old.block, step->size);
    must(block != NULL);
    must(holds(block, old.size < step->size ? old.size : step->size, old.usable, old.tag));
    enter(place, block, step, 1, tag);
}

static void look_at(const struct place *place)
{
    if (place->block == NULL)
        return;
    verify(place);
    must(tarn_malloc_usable_size(place->block) == place->usable);
}

/* ---- steps ---- */

void model_allocate(const struct step *step, uint64_t tag)
{
    for (unsigned i = 0; i < step->count; i++) {
        struct place *place = place_of(step, i);
        if (!take(place))
            continue;
        allocate_at(place, step, tag + i);
        give(place);
    }
}

void model_resize(const struct step *step, uint64_t tag)
{
    for (unsigned i = 0; i < step->count; i++) {
        struct place *place = place_of(step, i);
        if (!take(place))
            continue;
        resize_at(place, step, tag + i);
        give(place);
    }
}

void model_free(const struct step *step)
{
    for (unsigned i = 0; i < step->count; i++) {
        struct place *place = place_of(step, i);
        if (!take(place))
            continue;
        free_at(place, step->variant);
        give(place);
    }
}

void model_look(const struct step *step)
{
    for (unsigned i = 0; i < step->count; i++) {
        struct place *place = place_of(step, i);
        if (!take(place))
            continue;
        look_at(place);
        give(place);
    }
}

void model_free_all(void)
{
    const struct step all = {.first = 0, .count = PLACES, .stride = 1, .variant = 7};
    model_free(&all);
}

/* ---- what must fail ---- */

/* What a call that returned `result` has to have done. */
static void must_refuse(const void *result, int error)
{
    must(result == NULL && errno == error);
    errno = 0;
}

static size_t absurd_size(unsigned variant)
{
    return (size_t)PTRDIFF_MAX + 1 + ((size_t)variant << 55);
}

static void refuse_sizes(size_t size)
{
    errno = 0;
    must_refuse(opaque(tarn_malloc(size)), ENOMEM);
    must_refuse(opaque(tarn_calloc(size / 8 + 1, 32)), ENOMEM);
    must_refuse(opaque(tarn_calloc(1, size)), ENOMEM);
    must_refuse(opaque(tarn_realloc(NULL, size)), ENOMEM);
    must_refuse(opaque(tarn_reallocarray(NULL, size / 8 + 1, 32)), ENOMEM);
    must_refuse(opaque(tarn_aligned_alloc(64, size)), ENOMEM);
    must_refuse(opaque(tarn_aligned_alloc(1 << 20, size)), ENOMEM);
    must_refuse(opaque(tarn_memalign(64, size)), ENOMEM);
    must_refuse(opaque(tarn_valloc(size)), ENOMEM);
    must_refuse(opaque(tarn_pvalloc(size)), ENOMEM);
}

static void refuse_alignments(size_t size, size_t alignment)
{
    char other;
    void *block = &other;
    errno = KEPT_ERRNO;
    must(tarn_posix_memalign(&block, 64, (size_t)PTRDIFF_MAX + 1 + size) == ENOMEM);
    must(tarn_posix_memalign(&block, 3 * alignment, size) == EINVAL);
    must(tarn_posix_memalign(&block, 0, size) == EINVAL);
    must(tarn_posix_memalign(&block, sizeof(void *) / 2, size) == EINVAL);
    must(block == &other && errno == KEPT_ERRNO);
    must_refuse(opaque(tarn_aligned_alloc(3 * alignment, size)), EINVAL);
    must_refuse(opaque(tarn_aligned_alloc(0, size)), EINVAL);
    must_refuse(opaque(tarn_memalign(((SIZE_MAX >> 1) + 2) | alignment, size)), EINVAL);
}

/* A block that cannot become so large stays as it was. */
static void refuse_growth(struct place *place, size_t size)
{
    if (place->block == NULL)
        return;
    errno = 0;
    must_refuse(opaque(tarn_realloc(place->block, size)), ENOMEM);
    must_refuse(opaque(tarn_reallocarray(place->block, size / 8 + 1, 32)), ENOMEM);
    look_at(place);
}

static void refuse_nothing(void)
{
    errno = KEPT_ERRNO;
    tarn_free(NULL);
    tarn_cfree(NULL);
    tarn_free_sized(NULL, 17);
    tarn_free_aligned_sized(NULL, 64, 17);
    must(tarn_malloc_usable_size(NULL) == 0);
    must(errno == KEPT_ERRNO);
}

void model_refused(const struct step *step)
{
    size_t size = absurd_size(step->variant);
    refuse_sizes(size);
    refuse_alignments(step->size, (size_t)1 << step->variant % 24);
    refuse_nothing();
    struct place *place = &places[step->variant * 4 % PLACES];
    if (!take(place))
        return;
    refuse_growth(place, size);
    give(place);
}

/* ---- overlap ---- */

static int by_address(const void *one, const void *other)
{
    const struct place *const *first = one;
    const struct place *const *second = other;
    return ((*first)->block > (*second)->block) - ((*first)->block < (*second)->block);
}

bool model_is_valid(void)
{
    static const struct place *live[PLACES];
    size_t count = 0;
    for (unsigned i = 0; i < PLACES; i++)
        if (places[i].block != NULL)
            live[count++] = &places[i];
    qsort(live, count, sizeof live[0], by_address);
    for (size_t i = 1; i < count; i++)
        if (live[i - 1]->block + live[i - 1]->usable > live[i]->block)
            return false;
    return true;
}
