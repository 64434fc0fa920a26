#include "raw/raw.h"

#include "arena/address_index.h"
#include "arena/housekeeper.h"
#include "base/bits.h"
#include "base/published.h"
#include "heap/thread.h"
#include "heap/tick.h"
#include "os/clock.h"
#include "os/lock.h"
#include "os/map.h"
#include "os/settings.h"
#include "pool/trailer.h"
#include "raw/raw_cache.h"
#include "raw/raw_guard.h"

#include <stdatomic.h>

#define RECORD_CHUNK_BYTES ((size_t)64 << 10)
#define HUGE_PAGE_BYTES    ((size_t)2 << 20)

/* Pieces moved into one new block at most. */
#define MOVES_MOST 16U

struct record {
    struct raw_piece piece;
    size_t asked_bytes; /* hardened build */
    struct record *next_free;
};

static lock raw_lock = LOCK_INITIAL;
static struct record *free_records; /* under raw_lock */
static _Atomic size_t live_bytes;
static _Atomic size_t live_blocks;
static _Atomic uint64_t oldest_cached_ms; /* 0: nothing cached; a hint for raw_age */

void raw_publish(struct published *out)
{
    out->record_bytes = sizeof(struct record);
    out->raw_live_bytes = (uintptr_t)&live_bytes;
    out->raw_live_blocks = (uintptr_t)&live_blocks;
}

/* ---- records ---- */

static bool make_records(void)
{
    struct record *chunk = map_pages(RECORD_CHUNK_BYTES);
    if (chunk == NULL)
        return false;
    for (size_t i = 0; i < RECORD_CHUNK_BYTES / sizeof *chunk; i++) {
        chunk[i].next_free = free_records;
        free_records = &chunk[i];
    }
    return true;
}

static struct record *take_record(void)
{
    struct record *record = NULL;
    if (free_records != NULL || make_records()) {
        record = free_records;
        free_records = record->next_free;
    }
    return record;
}

static void give_record(struct record *record)
{
    record->next_free = free_records;
    free_records = record;
}

static struct record *record_at(const void *pointer)
{
    uintptr_t entry = address_index_get(pointer);
    if (entry <= ADDRESS_EMPTY)
        return NULL;
    struct record *record = (struct record *)entry;
    return record->piece.address == pointer ? record : NULL;
}

/* ---- mappings ---- */

/* Beyond the safe number of mappings, blocks are made to fill their granules, so that neighbours merge into
 * one. */
static size_t bytes_to_map(size_t bytes)
{
    size_t unit = map_count() < map_count_limit() ? map_page_bytes() : GRANULE_BYTES;
    return bits_align_up(bytes, unit);
}

/* The kernel then has a border where the piece ends, if pages of the same mapping beyond it are not advised.
 */
static void advise(struct raw_piece *piece)
{
    if (SETTING(huge_pages) == HUGE_PAGES_SYSTEM || piece->bytes < HUGE_PAGE_BYTES)
        return;
    map_allow_huge(piece->address, piece->bytes, SETTING(huge_pages) != HUGE_PAGES_NEVER);
    piece->cut_begin = piece->cut_end = false;
}

static bool map_fresh(size_t bytes, size_t alignment, struct raw_piece *piece)
{
    if (!raw_piece_map(bytes, alignment, piece))
        return false;
    advise(piece);
    return true;
}

/* ---- the cache ---- */

/* Four times what is in use, up to four times the setting; a quarter of what is in use beyond: a program that
 * replaces its blocks then finds their pages again. */
static size_t cache_bytes_most(void)
{
    size_t least = SETTING(raw_cache_bytes);
    size_t live = atomic_load_explicit(&live_bytes, memory_order_relaxed);
    size_t share = 4 * (live < least ? live : least);
    if (share < live / 4)
        share = live / 4;
    return least == 0 || least > share ? least : share;
}

/* Under raw_lock. */
static bool put(const struct raw_piece *piece, uint64_t now_ms)
{
    if (map_count() >= map_count_limit() || !raw_cache_put(piece, now_ms, cache_bytes_most()))
        return false;
    if (atomic_load_explicit(&oldest_cached_ms, memory_order_relaxed) == 0) {
        atomic_store_explicit(&oldest_cached_ms, now_ms, memory_order_relaxed);
        tick_set_duty(raw_age);
    }
    return true;
}

/* Into the cache, in the place of older pieces if need be. */
static void keep_piece(const struct raw_piece *piece)
{
    uint64_t now_ms = clock_now_ms();
    size_t most = cache_bytes_most();
    bool is_wanted = piece->bytes <= most;
    bool kept = false;
    bool evicted = true;
    while (!kept && evicted) {
        struct raw_piece oldest;
        lock_acquire_after_fork(&raw_lock);
        kept = is_wanted && put(piece, now_ms);
        evicted =
            !kept && (is_wanted || raw_cache_bytes() > most) && raw_cache_take_older(UINT64_MAX, &oldest);
        lock_release(&raw_lock);
        if (evicted)
            raw_piece_unmap(&oldest);
    }
    if (!kept)
        raw_piece_unmap(piece);
}

/* Cuts what is beyond `bytes` off, to be kept, if it is worth it. */
static void keep_tail(struct raw_piece *piece, size_t bytes)
{
    size_t want = bytes_to_map(bytes);
    if (piece->bytes < want + PIECE_LEAST_BYTES)
        return;
    struct raw_piece tail;
    raw_piece_cut(piece, want, &tail);
    keep_piece(&tail);
}

static bool take_whole(size_t bytes, size_t alignment, struct raw_piece *piece)
{
    lock_acquire_after_fork(&raw_lock);
    bool taken = raw_cache_take_whole(bytes, alignment, piece);
    lock_release(&raw_lock);
    if (taken)
        keep_tail(piece, bytes);
    return taken;
}

/* Whether the next source is worth moving; one that is not is noted, and is no source from then on. *none is
 * set where there is no source. Whatever other threads do with it meanwhile: no page of it is touched here.
 */
static bool source_is_touched(size_t bytes, bool *none)
{
    struct raw_piece source;
    lock_acquire_after_fork(&raw_lock);
    *none = !raw_cache_look_at_source(bytes, &source);
    lock_release(&raw_lock);
    if (*none || map_is_resident(source.address, source.bytes))
        return !*none;
    lock_acquire_after_fork(&raw_lock);
    raw_cache_note_untouched(&source);
    lock_release(&raw_lock);
    return false;
}

/* Cached pages to be moved, `bytes` at most. What the program never touched is not worth moving, and stays
 * where it is. */
static bool take_pages(size_t bytes, struct raw_piece *piece)
{
    bool touched = false;
    bool none = false;
    for (unsigned looks = 0; looks < MOVES_MOST && !touched && !none; looks++)
        touched = source_is_touched(bytes, &none);
    if (!touched)
        return false;
    lock_acquire_after_fork(&raw_lock);
    bool taken = raw_cache_take_pages(bytes, piece);
    lock_release(&raw_lock);
    return taken;
}

/* Moves cached pages to where the clean part of a piece begins, up to `end_bytes`, so that only the rest has
 * to be faulted in. The piece may lose its clean part by that. */
static void fill_from_cache(struct raw_piece *piece, size_t end_bytes)
{
    for (unsigned moves = 0; moves < MOVES_MOST; moves++) {
        size_t room = bits_align_down(end_bytes, map_page_bytes()) - piece->dirty_bytes;
        struct raw_piece source;
        if (end_bytes < piece->dirty_bytes + PIECE_LEAST_BYTES || !take_pages(room, &source))
            return;
        if (source.bytes > room) {
            struct raw_piece rest;
            raw_piece_cut(&source, room, &rest);
            raw_piece_unmap(&rest);
        }
        if (!raw_piece_move_into(&source, piece)) {
            keep_piece(&source);
            return;
        }
    }
}

/* Takes back what lies behind the piece, if it is cached. */
static void join_tail(struct raw_piece *piece)
{
    struct raw_piece tail;
    lock_acquire_after_fork(&raw_lock);
    bool taken = raw_cache_take_at(piece->address + piece->bytes, &tail);
    lock_release(&raw_lock);
    if (taken && !raw_piece_join(piece, &tail))
        keep_piece(&tail);
}

/* Fresh addresses for all of it, of which what is new comes from the cache as far as `end_bytes`. */
static bool map_longer(size_t old_bytes, size_t bytes, size_t end_bytes, struct raw_piece *longer,
                       struct raw_piece *tail)
{
    if (!map_fresh(bytes, GRANULE_BYTES, longer))
        return false;
    raw_piece_cut(longer, old_bytes, tail);
    if (address_index_set(longer->address, ADDRESS_NOTHING)) { /* else no memory to enter it later */
        fill_from_cache(tail, end_bytes - old_bytes);
        if (tail->bytes >= end_bytes - old_bytes)
            return true;
    }
    raw_piece_unmap(longer);
    if (tail->bytes > 0)
        raw_piece_unmap(tail);
    return false;
}

/* The tail's pages of several mappings are too many, where the kernel moves one at a time: fresh ones
 * instead. */
static bool make_fresh(struct raw_piece *longer, struct raw_piece *tail)
{
    size_t bytes = tail->bytes;
    raw_piece_unmap(tail);
    if (raw_piece_extend(longer, bytes)) {
        raw_piece_cut(longer, longer->bytes - bytes, tail);
        return true;
    }
    raw_piece_unmap(longer);
    return false;
}

/* The pages move last: what fails before leaves the piece where it is. */
static bool lengthen_elsewhere(struct raw_piece *piece, size_t bytes, size_t end_bytes)
{
    struct raw_piece longer;
    struct raw_piece tail;
    if (!map_longer(piece->bytes, bytes, end_bytes, &longer, &tail) ||
        (!raw_piece_may_join(piece, &tail) && !make_fresh(&longer, &tail)))
        return false;
    /* Not where it has all the parts that a piece may have. */
    bool moved = raw_piece_may_join(piece, &tail) && raw_piece_move_into(piece, &longer);
    if (longer.bytes == 0) {
        raw_piece_unmap(&tail);
        return false;
    }
    if (!moved)
        raw_piece_copy_into(piece, &longer);
    raw_piece_join(&longer, &tail);
    *piece = longer;
    return true;
}

/* Fresh addresses for the rest, behind the piece or elsewhere. */
static bool lengthen(struct raw_piece *piece, size_t bytes, size_t end_bytes)
{
    return raw_piece_extend(piece, bytes - piece->bytes) || lengthen_elsewhere(piece, bytes, end_bytes);
}

/* All of the piece is dirty, and stays so: what is new comes from the cache as far as `end_bytes`, and what
 * is beyond `bytes` goes there. False without memory; the piece is where it was then, and no shorter. */
static bool grow_piece(struct raw_piece *piece, size_t bytes, size_t end_bytes)
{
    const char *address = piece->address;
    piece->dirty_bytes = piece->bytes;
    join_tail(piece);
    if (piece->bytes < end_bytes) {
        piece->dirty_bytes = piece->bytes;
        if (!lengthen(piece, bytes, end_bytes))
            return false;
    }
    advise(piece); /* what is new must be like what is old, or the kernel keeps them apart */
    if (piece->address == address)
        fill_from_cache(piece, end_bytes);
    if (piece->bytes < end_bytes)
        return false;
    keep_tail(piece, bytes);
    return true;
}

/* A cached piece that begins where a block may, is shorter than wanted but not by much, and can be made
 * longer. */
static bool take_and_grow(size_t bytes, size_t alignment, struct raw_piece *piece)
{
    if (alignment != GRANULE_BYTES)
        return false;
    lock_acquire_after_fork(&raw_lock);
    bool taken = raw_cache_take_largest(bytes / 2, alignment, piece);
    lock_release(&raw_lock);
    if (!taken)
        return false;
    piece->untouched = !map_is_resident(piece->address, piece->bytes);
    /* grow_piece cuts it, if it has become too large by now. */
    if (!piece->untouched && grow_piece(piece, bytes_to_map(bytes), bytes))
        return true;
    keep_piece(piece);
    return false;
}

/* In need: the cache, and empty arenas. */
static bool make_room(void)
{
    bool gave_back = raw_drop_cache() > 0;
    if (thread_heap() != NULL)
        tick_reclaim(thread_heap());
    return housekeeper_reclaim() || gave_back;
}

static bool obtain_guarded(size_t bytes, size_t alignment, struct raw_piece *piece)
{
    size_t mapped = bytes_to_map(bytes == 0 ? 1 : bytes);
    return raw_guard_map(mapped, alignment, piece) ||
           (make_room() && raw_guard_map(mapped, alignment, piece));
}

static bool obtain(size_t bytes, size_t alignment, struct raw_piece *piece)
{
    if (TARN_HARDENED)
        return obtain_guarded(bytes, alignment, piece);
    if (take_whole(bytes, alignment, piece) || take_and_grow(bytes, alignment, piece))
        return true;
    if (map_fresh(bytes_to_map(bytes), alignment, piece)) {
        fill_from_cache(piece, bytes);
        if (piece->bytes >= bytes)
            return true;
        if (piece->bytes > 0)
            raw_piece_unmap(piece);
    }
    return make_room() && map_fresh(bytes_to_map(bytes), alignment, piece);
}

/* ---- blocks ---- */

static void count_live(size_t bytes, size_t blocks)
{
    atomic_fetch_add_explicit(&live_bytes, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&live_blocks, blocks, memory_order_relaxed);
}

static struct record *new_record(const struct raw_piece *piece)
{
    lock_acquire_after_fork(&raw_lock);
    struct record *record = take_record();
    lock_release(&raw_lock);
    if (record == NULL)
        return NULL;
    record->piece = *piece;
    record->piece.dirty_bytes = piece->bytes; /* the program may write all of it */
    record->piece.untouched = false;
    if (address_index_set(piece->address, (uintptr_t)record))
        return record;
    lock_acquire_after_fork(&raw_lock);
    give_record(record);
    lock_release(&raw_lock);
    return NULL;
}

static void give_back(const struct raw_piece *piece)
{
    if (TARN_HARDENED)
        raw_guard_unmap(piece);
    else
        raw_piece_unmap(piece);
}

/* Of the last page that the program may have touched; there may be more behind it. */
static char *slack_end(const struct record *record)
{
    return record->piece.address + bits_align_up(record->asked_bytes, map_page_bytes());
}

static void set_asked(struct record *record, size_t bytes)
{
    record->asked_bytes = bytes;
    trailer_fill_slack(record->piece.address + bytes, slack_end(record));
}

static bool is_whole(const struct record *record)
{
    return trailer_slack_is_whole(record->piece.address + record->asked_bytes, slack_end(record));
}

size_t raw_asked_bytes(const void *pointer)
{
    return record_at(pointer)->asked_bytes;
}

bool raw_was_freed(const void *pointer)
{
    lock_acquire_after_fork(&raw_lock);
    bool was = raw_guard_has(pointer);
    lock_release(&raw_lock);
    return was;
}

static void check_entry(char *address, uintptr_t entry, void *context)
{
    (void)address;
    (void)context;
    const struct record *record = (const struct record *)entry;
    if (entry > ADDRESS_EMPTY && !is_whole(record))
        fatal_overflow(record->piece.address, record->asked_bytes, " bytes");
}

void raw_check_all(void)
{
    address_index_each(check_entry, NULL);
}

bool raw_ask_again(void *pointer, size_t bytes)
{
    struct record *record = record_at(pointer);
    if (UNLIKELY(!is_whole(record)))
        fatal_overflow(pointer, record->asked_bytes, " bytes");
    if (bytes_to_map(bytes) != record->piece.bytes)
        return false;
    set_asked(record, bytes);
    return true;
}

void *raw_malloc(size_t bytes, size_t alignment, size_t *dirty_bytes)
{
    struct raw_piece piece;
    if (!obtain(bytes, alignment < GRANULE_BYTES ? GRANULE_BYTES : alignment, &piece))
        return NULL;
    struct record *record = new_record(&piece);
    if (record == NULL) {
        give_back(&piece);
        return NULL;
    }
    if (TARN_HARDENED)
        set_asked(record, bytes);
    count_live(piece.bytes, 1);
    *dirty_bytes = piece.dirty_bytes;
    return piece.address;
}

size_t raw_bytes(const void *pointer)
{
    struct record *record = record_at(pointer);
    return record == NULL ? 0 : record->piece.bytes;
}

/* realloc moves what is below half of the threshold, leaves an eighth where it is, as a cut leaves what is
 * too short to be kept; and beyond the safe number of mappings all are whole granules. */
bool raw_fits(size_t block_bytes, size_t bytes)
{
    return bytes > SETTING(raw_threshold_bytes) / 2 &&
           (block_bytes - bytes <= bytes / 4 + PIECE_LEAST_BYTES || block_bytes % GRANULE_BYTES == 0);
}

bool raw_free(void *pointer)
{
    struct record *record = record_at(pointer);
    if (record == NULL || !address_index_take(pointer, (uintptr_t)record))
        return false;
    count_live(-record->piece.bytes, (size_t)-1);
    if (TARN_HARDENED && UNLIKELY(!is_whole(record)))
        fatal_overflow(pointer, record->asked_bytes, " bytes");
    struct raw_piece piece = record->piece;
    lock_acquire_after_fork(&raw_lock);
    give_record(record);
    if (TARN_HARDENED)
        raw_guard_retire(&piece);
    lock_release(&raw_lock);
    if (!TARN_HARDENED)
        keep_piece(&piece);
    if (heap_self != &heap_none)
        tick_soon(heap_self); /* or the cache ages late, when the program grows idle */
    return true;
}

void *raw_realloc(void *pointer, size_t bytes)
{
    struct record *record = record_at(pointer);
    if (record == NULL || !address_index_take(pointer, (uintptr_t)record))
        return NULL;
    size_t old_bytes = record->piece.bytes;
    bool resized = true;
    if (bytes_to_map(bytes) <= old_bytes)
        keep_tail(&record->piece, bytes);
    else /* One that grows will grow again: an eighth more addresses, which cost no memory until they are
            touched. */
        resized = grow_piece(&record->piece, bytes_to_map(bytes + bytes / 8), bytes) ||
                  grow_piece(&record->piece, bytes_to_map(bytes), bytes);
    record->piece.dirty_bytes = record->piece.bytes;
    count_live(record->piece.bytes - old_bytes, 0);
    void *address = record->piece.address;
    address_index_set(address, (uintptr_t)record); /* its leaf exists: grow_piece has seen to it */
    return resized ? address : NULL;
}

/* ---- giving back ---- */

/* Under raw_lock, which it lets go. */
static bool take_older_and_unlock(uint64_t then_ms, struct raw_piece *piece)
{
    bool taken = raw_cache_take_older(then_ms, piece);
    atomic_store_explicit(&oldest_cached_ms, raw_cache_count() > 0 ? then_ms + 1 : 0, memory_order_relaxed);
    lock_release(&raw_lock);
    return taken;
}

/* Called from ticks in any thread: if somebody has the lock, the next tick will do. */
void raw_age(uint64_t now_ms)
{
    uint64_t oldest = atomic_load_explicit(&oldest_cached_ms, memory_order_relaxed);
    if (oldest == 0 || now_ms < oldest + SETTING(purge_delay_ms))
        return;
    struct raw_piece piece;
    while (lock_try(&raw_lock) && take_older_and_unlock(now_ms - SETTING(purge_delay_ms), &piece))
        raw_piece_unmap(&piece);
}

void raw_make_way(size_t bytes)
{
    size_t gone = 0;
    bool taken = atomic_load_explicit(&oldest_cached_ms, memory_order_relaxed) != 0;
    while (taken && gone < bytes) {
        struct raw_piece piece;
        lock_acquire_after_fork(&raw_lock);
        taken = raw_cache_bytes() > SETTING(raw_cache_bytes) && raw_cache_take_older(UINT64_MAX, &piece);
        lock_release(&raw_lock);
        if (taken) {
            raw_piece_unmap(&piece);
            gone += piece.bytes;
        }
    }
}

size_t raw_drop_cache(void)
{
    size_t bytes = 0;
    struct raw_piece piece;
    for (;;) {
        lock_acquire_after_fork(&raw_lock);
        if (TARN_HARDENED)
            bytes += raw_guard_drop();
        if (!take_older_and_unlock(UINT64_MAX - 1, &piece))
            return bytes + map_unmap_leftovers();
        raw_piece_unmap(&piece);
        bytes += piece.bytes;
    }
}

struct raw_totals raw_totals(void)
{
    lock_acquire_after_fork(&raw_lock);
    struct raw_totals totals = {
        .live_bytes = atomic_load_explicit(&live_bytes, memory_order_relaxed),
        .live_blocks = atomic_load_explicit(&live_blocks, memory_order_relaxed),
        .cached_bytes = raw_cache_bytes(),
        .cached_blocks = raw_cache_count(),
    };
    lock_release(&raw_lock);
    return totals;
}

/* What the address index leads to, counted. */
struct indexed {
    size_t bytes;
    size_t blocks;
    bool valid;
};

static void look_at_entry(char *address, uintptr_t entry, void *context)
{
    struct indexed *indexed = context;
    const struct record *record = (const struct record *)entry;
    if (entry <= ADDRESS_EMPTY)
        return;
    indexed->valid = indexed->valid && record->piece.address == address &&
                     raw_piece_is_valid(&record->piece) && record->piece.dirty_bytes == record->piece.bytes;
    indexed->bytes += record->piece.bytes;
    indexed->blocks++;
}

bool raw_is_valid(void)
{
    struct indexed indexed = {.valid = true};
    address_index_each(look_at_entry, &indexed);
    return indexed.valid && indexed.bytes == atomic_load(&live_bytes) &&
           indexed.blocks == atomic_load(&live_blocks) && raw_cache_is_valid();
}

void raw_before_fork(void)
{
    lock_acquire(&raw_lock);
}

void raw_after_fork(void)
{
    lock_release(&raw_lock);
}

void raw_after_fork_child(void)
{
    raw_piece_after_fork_child();
}
