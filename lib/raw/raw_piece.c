#include "raw/raw_piece.h"

#include "base/fatal.h"
#include "base/probe.h"
#include "os/map.h"

#include <sched.h>
#include <string.h>

#define TRIES_MOST 1000U

static uint32_t forks; /* between the first process and this one */

void raw_piece_after_fork_child(void)
{
    forks++;
}

bool raw_piece_map(size_t bytes, size_t alignment, struct raw_piece *piece)
{
    *piece = (struct raw_piece){
        .address = map_pages_aligned(bytes, alignment), .bytes = bytes, .parts = 1, .forks = forks};
    piece->part_end[0] = bytes;
    PROBE_2(raw_map, piece->address, bytes);
    return piece->address != NULL;
}

void raw_piece_unmap(const struct raw_piece *piece)
{
    PROBE_2(raw_unmap, piece->address, piece->bytes);
    map_unmap(piece->address, piece->bytes);
    map_count_add(1 - (long)piece->parts);
}

/* Returns whether the cut goes through a part. */
static bool cut_parts(struct raw_piece *piece, size_t bytes, struct raw_piece *tail)
{
    uint32_t kept = 0;
    while (piece->part_end[kept] < bytes)
        kept++;
    bool splits = piece->part_end[kept] > bytes;
    for (uint32_t part = splits ? kept : kept + 1; part < piece->parts; part++)
        tail->part_end[tail->parts++] = piece->part_end[part] - bytes;
    map_count_add(splits ? 1 : 0);
    bool in_last = kept + 1 == piece->parts;
    piece->part_end[kept] = bytes;
    piece->parts = kept + 1;
    piece->moved |= !(splits && in_last); /* not known of another part */
    return splits;
}

void raw_piece_cut(struct raw_piece *piece, size_t bytes, struct raw_piece *tail)
{
    CHECK(bytes > 0 && bytes < piece->bytes);
    *tail = (struct raw_piece){
        .address = piece->address + bytes,
        .bytes = piece->bytes - bytes,
        .dirty_bytes = piece->dirty_bytes > bytes ? piece->dirty_bytes - bytes : 0,
        .forks = piece->forks,
        .moved = piece->moved,
        .cut_end = piece->cut_end,
        .untouched = piece->untouched,
    };
    bool splits = true;
    if (map_moves_several()) {
        uint32_t parts = piece->parts;
        piece->parts = 1 + (uint32_t)((parts - 1) * (bytes >> 12) / (piece->bytes >> 12));
        tail->parts = parts + 1 - piece->parts;
        map_count_add(1);
    } else {
        splits = cut_parts(piece, bytes, tail);
    }
    piece->cut_end = splits;
    tail->cut_begin = splits;
    piece->bytes = bytes;
    if (piece->dirty_bytes > bytes)
        piece->dirty_bytes = bytes;
    CHECK(raw_piece_is_valid(piece) && raw_piece_is_valid(tail));
}

bool raw_piece_may_join(const struct raw_piece *piece, const struct raw_piece *tail)
{
    return map_moves_several() || piece->parts + tail->parts <= PARTS_MOST;
}

bool raw_piece_join(struct raw_piece *piece, const struct raw_piece *tail)
{
    CHECK(piece->address + piece->bytes == tail->address);
    uint32_t shared = piece->cut_end && tail->cut_begin ? 1 : 0;
    uint32_t parts = piece->parts + tail->parts - shared;
    if (!map_moves_several()) {
        if (parts > PARTS_MOST)
            return false;
        for (uint32_t part = 0; part < tail->parts; part++)
            piece->part_end[piece->parts - shared + part] = piece->bytes + tail->part_end[part];
    }
    map_count_add(-(long)shared);
    piece->parts = parts;
    if (tail->dirty_bytes > 0 || shared == 0) /* clean pages are in the last part only */
        piece->dirty_bytes = piece->bytes + tail->dirty_bytes;
    piece->bytes += tail->bytes;
    piece->forks = tail->forks;
    piece->moved = tail->moved;
    piece->cut_end = tail->cut_end;
    piece->untouched &= tail->untouched;
    CHECK(raw_piece_is_valid(piece));
    return true;
}

static void begin_part(struct raw_piece *piece)
{
    piece->dirty_bytes = piece->bytes; /* clean pages are in the last part only */
    piece->parts++;
    piece->forks = forks;
    piece->moved = false;
    map_count_add(1);
}

bool raw_piece_extend(struct raw_piece *piece, size_t bytes)
{
    bool merges = !piece->moved && piece->forks == forks;
    if ((!merges && piece->parts >= PARTS_MOST && !map_moves_several()) ||
        !map_extend(piece->address + piece->bytes, bytes))
        return false;
    if (!merges)
        begin_part(piece);
    piece->bytes += bytes;
    piece->cut_end = false;
    if (!map_moves_several())
        piece->part_end[piece->parts - 1] = piece->bytes;
    CHECK(raw_piece_is_valid(piece));
    return true;
}

/* The system took as many bytes of the clean pages as it was to move there, and gave nothing: what is behind
 * them goes too. */
static COLD void lose_clean_pages(struct raw_piece *to, size_t bytes)
{
    size_t lost_end = to->dirty_bytes + bytes;
    if (lost_end < to->bytes) {
        map_unmap(to->address + lost_end, to->bytes - lost_end);
        map_count_add(1);
    }
    uint32_t lost_parts = 0;
    if (to->dirty_bytes == 0)
        lost_parts = to->parts;
    else if (!map_moves_several() && to->parts > 1 && to->part_end[to->parts - 2] == to->dirty_bytes)
        lost_parts = 1;
    map_count_add(-(long)lost_parts);
    to->parts -= lost_parts;
    to->bytes = to->dirty_bytes;
    if (to->parts > 0)
        to->part_end[(to->parts - 1) % PARTS_MOST] = to->bytes;
    to->moved = true;
    to->cut_end = false;
}

COLD __attribute__((noreturn)) static void fatal_torn(const void *address)
{
    fatal_pointer("no memory for the kernel's tables, half way in moving", address);
}

/* Where the kernel moves one mapping at a time: the first can be given up, not those after it. */
static bool move_part(char *address, size_t bytes, char *target, bool is_first)
{
    for (unsigned tries = 0; tries < (is_first ? 1 : TRIES_MOST); tries++) {
        if (map_move_onto(address, bytes, target))
            return true;
        sched_yield();
    }
    if (!is_first)
        fatal_torn(address);
    return false;
}

/* Moved pages between others make two mappings of one: here this is assumed of all. */
static bool move_all(const struct raw_piece *from, struct raw_piece *to)
{
    if (!map_move_onto(from->address, from->bytes, to->address + to->dirty_bytes)) {
        lose_clean_pages(to, from->bytes);
        return false;
    }
    bool fills = to->dirty_bytes + from->bytes == to->bytes;
    bool splits = to->dirty_bytes > 0 && !fills;
    map_count_add(splits);
    to->parts += from->parts + splits;
    to->dirty_bytes += from->bytes;
    to->moved = fills;
    to->cut_end &= !fills;
    return true;
}

bool raw_piece_move_into(const struct raw_piece *from, struct raw_piece *to)
{
    CHECK(to->dirty_bytes + from->bytes <= to->bytes);
    bool keeps_begin = to->dirty_bytes > 0;
    if (map_moves_several()) {
        bool moved = move_all(from, to);
        to->cut_begin &= keeps_begin;
        return moved;
    }
    bool fills = to->dirty_bytes + from->bytes == to->bytes;
    /* The clean pages of `to` are its last part, or the end of it. */
    bool begins_part = to->parts == 1 ? to->dirty_bytes == 0 : to->part_end[to->parts - 2] == to->dirty_bytes;
    uint32_t before = begins_part ? to->parts - 1 : to->parts;
    uint32_t after = before + from->parts + (fills ? 0 : 1);
    if (after > PARTS_MOST)
        return false;
    size_t done = 0;
    for (uint32_t part = 0; part < from->parts; part++) {
        size_t bytes = from->part_end[part] - done;
        if (!move_part(from->address + done, bytes, to->address + to->dirty_bytes + done, part == 0)) {
            lose_clean_pages(to, bytes);
            return false;
        }
        done = from->part_end[part];
        if (part == 0 && !begins_part)
            to->part_end[before - 1] = to->dirty_bytes;
        to->part_end[before + part] = to->dirty_bytes + done;
    }
    if (!fills)
        to->part_end[after - 1] = to->bytes;
    map_count_add((long)after - (long)to->parts - (long)from->parts);
    to->parts = after;
    to->moved = fills;
    to->cut_begin &= keeps_begin;
    to->cut_end &= !fills;
    to->dirty_bytes += from->bytes;
    CHECK(raw_piece_is_valid(to));
    return true;
}

void raw_piece_copy_into(const struct raw_piece *from, struct raw_piece *to)
{
    memcpy(to->address + to->dirty_bytes, from->address, from->bytes);
    to->dirty_bytes += from->bytes;
    raw_piece_unmap(from);
}

bool raw_piece_is_valid(const struct raw_piece *piece)
{
    size_t before = 0;
    if (piece->parts < 1 || piece->dirty_bytes > piece->bytes)
        return false;
    if (map_moves_several())
        return true;
    if (piece->parts > PARTS_MOST)
        return false;
    for (uint32_t part = 0; part < piece->parts; before = piece->part_end[part], part++)
        if (piece->part_end[part] <= before)
            return false;
    return before == piece->bytes &&
           (piece->parts == 1 || piece->part_end[piece->parts - 2] <= piece->dirty_bytes);
}
