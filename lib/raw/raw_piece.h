/* A piece of raw memory: page-aligned addresses, and what is known of the kernel's mappings below them.
 *
 *   address                                                     address + bytes
 *   │ part 0          │ part 1   │ part 2                       │
 *   │ dirty: may hold anything               │ reads as zeroes  │
 *                                            address + dirty_bytes
 *
 * A part lies in one mapping of the kernel. That matters because before Linux 6.17 mremap(2) moves pages of
 * one mapping only, and fails after it has unmapped the target: so no call is made that could fail for that
 * reason. Pages that were moved do not merge with their new neighbours, so a piece put together from others
 * has several parts. Where the kernel moves several mappings at once (map_moves_several), only their number
 * is kept, as an estimate.
 *
 * Two pieces that were one and still touch are joined again without a system call. Whether one mapping goes
 * through their border is known from the cut: it set cut_end of the one and cut_begin of the other, and what
 * puts other pages at an end of a piece takes its flag back.
 *
 * Equations: 1 <= parts; dirty_bytes <= bytes; and, where part_end is kept, parts <= PARTS_MOST,
 * 0 < part_end[0] < … < part_end[parts - 1] == bytes, and clean pages are in the last part only:
 * part_end[parts - 2] <= dirty_bytes. The sum of all parts is what this room adds to map_count() (os/map).
 *
 * No state of its own but how many forks lie behind this process; a piece belongs to its holder.
 */
#ifndef TARN_RAW_RAW_PIECE_H
#define TARN_RAW_RAW_PIECE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PARTS_MOST 8U

struct raw_piece {
    char *address;
    size_t bytes;
    size_t dirty_bytes;
    uint32_t parts;
    uint32_t forks;   /* that lay behind this process when the last part was mapped: see raw_piece_extend */
    bool moved;       /* the last part holds moved pages: fresh ones behind it are a part of their own */
    bool cut_begin;   /* a cut inside a mapping made this beginning */
    bool cut_end;     /* and this end */
    bool guard_begin; /* an inaccessible page lies before it, and one behind: raw_guard */
    bool guard_end;
    bool untouched; /* hardly a page was resident when its holder last looked: not worth moving */
    size_t part_end[PARTS_MOST];
};

/* Fresh zeroed pages at a multiple of `alignment`. False without memory. `bytes` are whole pages here and
 * below. */
bool raw_piece_map(size_t bytes, size_t alignment, struct raw_piece *piece);

void raw_piece_unmap(const struct raw_piece *piece);

/* Makes the piece `bytes` long, 0 < bytes < piece->bytes; the rest becomes a piece of its own. */
void raw_piece_cut(struct raw_piece *piece, size_t bytes, struct raw_piece *tail);

/* Adds the piece that begins where this one ends. False, and nothing changed, when the parts would be too
 * many. */
bool raw_piece_join(struct raw_piece *piece, const struct raw_piece *tail);

/* Whether their parts are few enough, also when no mapping goes through the border. */
bool raw_piece_may_join(const struct raw_piece *piece, const struct raw_piece *tail);

/* Adds fresh pages behind the piece, in its last part where the kernel merges them: not with moved pages, nor
 * in the child of a fork with inherited ones. False, and nothing changed, where the addresses are taken or
 * the parts too many. */
bool raw_piece_extend(struct raw_piece *piece, size_t bytes);

/* Moves all pages of `from` to where the clean pages of `to` begin; `from` is gone then. False, and nothing
 * changed, when the parts would be too many. False also when the system had no memory for it and took the
 * clean pages away: `to` then ends where they began, and is no piece any more when it has 0 bytes; `from` is
 * as it was. from->bytes <= to->bytes - to->dirty_bytes. */
bool raw_piece_move_into(const struct raw_piece *from, struct raw_piece *to);

/* The same by copying. */
void raw_piece_copy_into(const struct raw_piece *from, struct raw_piece *to);

/* In the child of a fork, by its only thread. */
void raw_piece_after_fork_child(void);

bool raw_piece_is_valid(const struct raw_piece *piece);

#endif
