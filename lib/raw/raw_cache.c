#include "raw/raw_cache.h"

#include "arena/address_index.h"
#include "base/published.h"

struct entry {
    struct raw_piece piece;
    uint64_t put_ms;
};

/* In the order of putting, oldest first. */
static struct entry entries[RAW_CACHE_PIECES];
static size_t count;
static size_t total_bytes;

size_t raw_cache_bytes(void)
{
    return total_bytes;
}

size_t raw_cache_count(void)
{
    return count;
}

void raw_cache_publish(struct published *out)
{
    out->cache_entry_bytes = sizeof(struct entry);
    out->raw_cache = (uintptr_t)entries;
    out->raw_cache_count = (uintptr_t)&count;
}

static bool is_aligned(const struct raw_piece *piece, size_t alignment)
{
    return ((uintptr_t)piece->address & (alignment - 1)) == 0;
}

static struct raw_piece take_out(size_t index)
{
    struct raw_piece piece = entries[index].piece;
    total_bytes -= piece.bytes;
    count--;
    for (size_t i = index; i < count; i++)
        entries[i] = entries[i + 1];
    return piece;
}

/* ---- putting ---- */

static bool join(struct raw_piece *piece, const struct raw_piece *tail)
{
    return piece->address + piece->bytes == tail->address && !is_aligned(tail, GRANULE_BYTES) &&
           raw_piece_join(piece, tail);
}

/* Takes out what can be joined with the piece. */
static void join_neighbours(struct raw_piece *piece)
{
    for (size_t i = 0; i < count;) {
        struct raw_piece other = entries[i].piece;
        if (join(&other, piece))
            *piece = other;
        else if (!join(piece, &entries[i].piece)) {
            i++;
            continue;
        }
        take_out(i);
    }
}

bool raw_cache_put(const struct raw_piece *piece, uint64_t now_ms, size_t bytes_most)
{
    if (total_bytes + piece->bytes > bytes_most)
        return false;
    struct raw_piece joined = *piece;
    join_neighbours(&joined);
    if (count == RAW_CACHE_PIECES) /* so nothing was joined */
        return false;
    entries[count++] = (struct entry){joined, now_ms};
    total_bytes += joined.bytes;
    return true;
}

/* ---- taking ---- */

enum choice { ANY, TOUCHED, TOUCHED_NO_GRANULE };

static bool is_chosen(const struct raw_piece *piece, size_t alignment, enum choice choice)
{
    return is_aligned(piece, alignment) && (choice == ANY || !piece->untouched) &&
           (choice != TOUCHED_NO_GRANULE || !is_aligned(piece, GRANULE_BYTES));
}

/* The smallest of at least `bytes`, the youngest of equals; `count` when there is none. */
static size_t smallest(size_t bytes, size_t alignment, enum choice choice)
{
    size_t found = count;
    for (size_t i = 0; i < count; i++) {
        const struct raw_piece *piece = &entries[i].piece;
        if (piece->bytes < bytes || !is_chosen(piece, alignment, choice))
            continue;
        if (found == count || piece->bytes <= entries[found].piece.bytes)
            found = i;
    }
    return found;
}

/* The largest of at least `least_bytes`, the youngest of equals. */
static size_t largest(size_t least_bytes, size_t alignment, enum choice choice)
{
    size_t found = count;
    size_t most = least_bytes;
    for (size_t i = 0; i < count; i++) {
        const struct raw_piece *piece = &entries[i].piece;
        if (piece->bytes < most || !is_chosen(piece, alignment, choice))
            continue;
        most = piece->bytes;
        found = i;
    }
    return found;
}

static bool take_found(size_t index, struct raw_piece *piece)
{
    if (index == count)
        return false;
    *piece = take_out(index);
    return true;
}

bool raw_cache_take_whole(size_t bytes, size_t alignment, struct raw_piece *piece)
{
    return take_found(smallest(bytes, alignment, ANY), piece);
}

bool raw_cache_take_largest(size_t least_bytes, size_t alignment, struct raw_piece *piece)
{
    return take_found(largest(least_bytes, alignment, TOUCHED), piece);
}

static size_t best_source(size_t bytes, enum choice choice)
{
    size_t found = smallest(bytes, 1, choice);
    return found < count ? found : largest(PIECE_LEAST_BYTES, 1, choice);
}

static size_t source(size_t bytes)
{
    size_t found = best_source(bytes, TOUCHED_NO_GRANULE);
    return found < count ? found : best_source(bytes, TOUCHED);
}

bool raw_cache_look_at_source(size_t bytes, struct raw_piece *piece)
{
    size_t found = source(bytes);
    if (found == count)
        return false;
    *piece = entries[found].piece;
    return true;
}

void raw_cache_note_untouched(const struct raw_piece *piece)
{
    for (size_t i = 0; i < count; i++)
        if (entries[i].piece.address == piece->address && entries[i].piece.bytes == piece->bytes)
            entries[i].piece.untouched = true;
}

bool raw_cache_take_pages(size_t bytes, struct raw_piece *piece)
{
    size_t found = source(bytes);
    if (found == count)
        return false;
    struct raw_piece *kept = &entries[found].piece;
    if (kept->bytes < bytes + PIECE_LEAST_BYTES)
        return take_found(found, piece);
    raw_piece_cut(kept, kept->bytes - bytes, piece);
    total_bytes -= bytes;
    return true;
}

bool raw_cache_take_at(const char *address, struct raw_piece *piece)
{
    for (size_t i = 0; i < count; i++)
        if (entries[i].piece.address == address)
            return take_found(i, piece);
    return false;
}

bool raw_cache_take_older(uint64_t then_ms, struct raw_piece *piece)
{
    return count > 0 && entries[0].put_ms <= then_ms && take_found(0, piece);
}

static bool lie_apart(const struct raw_piece *one, const struct raw_piece *other)
{
    return one->address + one->bytes <= other->address || other->address + other->bytes <= one->address;
}

static bool entry_is_valid(size_t index)
{
    const struct raw_piece *piece = &entries[index].piece;
    for (size_t i = 0; i < index; i++)
        if (!lie_apart(piece, &entries[i].piece))
            return false;
    return raw_piece_is_valid(piece);
}

bool raw_cache_is_valid(void)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        if (!entry_is_valid(i))
            return false;
        bytes += entries[i].piece.bytes;
    }
    return bytes == total_bytes && count <= RAW_CACHE_PIECES;
}
