#include "raw/raw_cache.h"

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

static struct raw_piece take_out(size_t index)
{
    struct raw_piece piece = entries[index].piece;
    total_bytes -= piece.bytes;
    count--;
    for (size_t i = index; i < count; i++)
        entries[i] = entries[i + 1];
    return piece;
}

bool raw_cache_put(const struct raw_piece *piece, uint64_t now_ms, size_t bytes_most)
{
    if (count == RAW_CACHE_PIECES || total_bytes + piece->bytes > bytes_most)
        return false;
    entries[count++] = (struct entry){*piece, now_ms};
    total_bytes += piece->bytes;
    return true;
}

static bool is_aligned(const struct raw_piece *piece, size_t alignment)
{
    return ((uintptr_t)piece->address & (alignment - 1)) == 0;
}

/* The smallest fitting entry, the youngest of equals; `count` when there is none. */
static size_t best_fit(size_t bytes, size_t alignment)
{
    size_t best = count;
    for (size_t i = 0; i < count; i++) {
        const struct raw_piece *piece = &entries[i].piece;
        if (piece->bytes < bytes || !is_aligned(piece, alignment))
            continue;
        if (best == count || piece->bytes <= entries[best].piece.bytes)
            best = i;
    }
    return best;
}

bool raw_cache_take_whole(size_t bytes, size_t alignment, struct raw_piece *piece)
{
    size_t best = best_fit(bytes, alignment);
    if (best == count)
        return false;
    *piece = take_out(best);
    return true;
}

bool raw_cache_take_part(size_t bytes, size_t least_bytes, size_t alignment, struct raw_piece *piece)
{
    size_t best = best_fit(bytes, alignment);
    if (best == count) {
        size_t most = least_bytes;
        for (size_t i = 0; i < count; i++) {
            if (entries[i].piece.bytes >= most && is_aligned(&entries[i].piece, alignment)) {
                most = entries[i].piece.bytes;
                best = i;
            }
        }
    }
    if (best == count)
        return false;
    *piece = take_out(best);
    return true;
}

bool raw_cache_take_older(uint64_t then_ms, struct raw_piece *piece)
{
    if (count == 0 || entries[0].put_ms > then_ms)
        return false;
    *piece = take_out(0);
    return true;
}
