#include "raw/raw_guard.h"

#include "base/bits.h"
#include "os/map.h"

static struct raw_piece kept[RAW_GUARD_KEPT]; /* freed, oldest at kept_next; under the raw lock */
static uint32_t kept_next;

bool raw_guard_map(size_t bytes, size_t alignment, struct raw_piece *piece)
{
    size_t page = map_page_bytes();
    size_t with_guard;
    if (map_count() >= map_count_limit() || !bits_add(bytes, page, &with_guard))
        return raw_piece_map(bytes, alignment, piece);
    if (!raw_piece_map(with_guard, alignment, piece))
        return false;
    if (!map_forbid(piece->address + bytes, page)) {
        raw_piece_unmap(piece);
        return raw_piece_map(bytes, alignment, piece);
    }
    piece->bytes = bytes;
    piece->guard_end = true;
    map_count_add(1);
    piece->guard_begin = map_forbid_fresh(piece->address - page, page);
    return true;
}

void raw_guard_unmap(const struct raw_piece *piece)
{
    size_t before = piece->guard_begin ? map_page_bytes() : 0;
    size_t behind = piece->guard_end ? map_page_bytes() : 0;
    map_unmap(piece->address - before, before + piece->bytes + behind);
    map_count_add(-(long)piece->guard_begin - (long)piece->guard_end);
}

void raw_guard_retire(const struct raw_piece *piece)
{
    struct raw_piece *place = &kept[kept_next];
    if (!piece->guard_end || !map_forbid(piece->address, piece->bytes)) {
        raw_guard_unmap(piece);
        return;
    }
    if (place->address != NULL)
        raw_guard_unmap(place);
    *place = *piece;
    kept_next = (kept_next + 1) % RAW_GUARD_KEPT;
}

bool raw_guard_has(const void *address)
{
    bool has = false;
    for (uint32_t i = 0; i < RAW_GUARD_KEPT; i++)
        has |= address != NULL && kept[i].address == address;
    return has;
}

size_t raw_guard_drop(void)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < RAW_GUARD_KEPT; i++) {
        if (kept[i].address == NULL)
            continue;
        bytes += kept[i].bytes;
        raw_guard_unmap(&kept[i]);
        kept[i] = (struct raw_piece){.address = NULL};
    }
    return bytes;
}
