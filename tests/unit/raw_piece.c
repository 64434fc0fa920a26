/*
 * raw/raw_piece: what is cut, joined, extended, moved together and copied keeps its contents, its clean end,
 * and its count of mappings; and no call is ever made that a kernel before 6.17 would fail half-way.
 *
 * Each test runs in a child; the program runs twice, with mremap(2) as the running kernel has it, and as old
 * kernels had it (kernel.h).
 */
#include "raw/raw_piece.h"

#include "kernel.h"
#include "os/map.h"
#include "unit.h"

#include <string.h>
#include <sys/mman.h>

static size_t page;

struct body {
    void (*run)(void);
};

static void run_body(void *context)
{
    const struct body *body = context;
    kernel_faults = 0; /* but for the one by which the library found out */
    size_t count = map_count();
    body->run();
    must(map_count() == count);
    must(kernel_faults == 0);
}

static void run_in_child(void (*run)(void))
{
    page = map_page_bytes();
    child_must_succeed(run_body, &(struct body){run});
}

static struct raw_piece map_piece(size_t pages)
{
    struct raw_piece piece;
    must(raw_piece_map(pages * page, MIB, &piece));
    must(piece.bytes == pages * page && piece.dirty_bytes == 0 && piece.parts == 1 && !piece.moved);
    must((uintptr_t)piece.address % MIB == 0);
    must(raw_piece_is_valid(&piece));
    return piece;
}

/* A piece whose first pages hold something. */
static struct raw_piece dirty_piece(size_t pages, size_t dirty_pages, uint64_t tag)
{
    struct raw_piece piece = map_piece(pages);
    pattern_write(piece.address, dirty_pages * page, tag);
    piece.dirty_bytes = dirty_pages * page;
    return piece;
}

/* ---- one thing at a time ---- */

static void fresh(void)
{
    size_t count = map_count();
    struct raw_piece piece = map_piece(5);
    must(map_count() == count + 1);
    must(all_zero(piece.address, piece.bytes));
    raw_piece_unmap(&piece);
    must(!page_is_mapped(piece.address));
}

static void cut_at(size_t dirty_pages, size_t at_pages)
{
    struct raw_piece piece = dirty_piece(10, dirty_pages, 1);
    struct raw_piece tail;
    char contents[16384];
    memcpy(contents, piece.address + at_pages * page, sizeof contents);
    raw_piece_cut(&piece, at_pages * page, &tail);
    must(raw_piece_is_valid(&piece) && raw_piece_is_valid(&tail));
    must(piece.bytes == at_pages * page && tail.bytes == (10 - at_pages) * page);
    must(tail.address == piece.address + piece.bytes);
    must(piece.dirty_bytes == (dirty_pages < at_pages ? dirty_pages : at_pages) * page);
    must(tail.dirty_bytes == (dirty_pages < at_pages ? 0 : dirty_pages - at_pages) * page);
    must(memcmp(tail.address, contents, sizeof contents) == 0);
    must(all_zero(tail.address + tail.dirty_bytes, tail.bytes - tail.dirty_bytes));
    raw_piece_unmap(&piece);
    must(page_is_mapped(tail.address) && tail.address[tail.bytes - 1] == 0);
    raw_piece_unmap(&tail);
}

static void cuts(void)
{
    for (size_t dirty = 0; dirty <= 9; dirty += 3)
        for (size_t at = 1; at <= 6; at++)
            cut_at(dirty, at);
}

static void extensions(void)
{
    struct raw_piece piece = dirty_piece(12, 4, 2);
    struct raw_piece tail;
    raw_piece_cut(&piece, 4 * page, &tail);
    struct raw_piece before = piece;
    must(!raw_piece_extend(&piece, page));
    must(memcmp(&piece, &before, sizeof piece) == 0);
    raw_piece_unmap(&tail);
    must(raw_piece_extend(&piece, 6 * page));
    must(raw_piece_is_valid(&piece));
    must(piece.bytes == 10 * page && piece.dirty_bytes == 4 * page);
    must(pattern_holds(piece.address, 4 * page, 2));
    must(all_zero(piece.address + 4 * page, 6 * page));
    struct raw_piece longer = map_piece(20);
    piece.dirty_bytes = piece.bytes;
    must(raw_piece_move_into(&piece, &longer));
    must(pattern_holds(longer.address, 4 * page, 2));
    raw_piece_unmap(&longer);
}

static void moves(void)
{
    for (size_t pages = 3; pages <= 8; pages++) {
        struct raw_piece from = dirty_piece(3, 3, pages);
        struct raw_piece to = map_piece(pages);
        must(raw_piece_move_into(&from, &to));
        must(raw_piece_is_valid(&to));
        must(to.bytes == pages * page && to.dirty_bytes == 3 * page);
        must(pattern_holds(to.address, 3 * page, pages));
        must(all_zero(to.address + 3 * page, (pages - 3) * page));
        must(!page_is_mapped(from.address));
        to.address[to.bytes - 1] = 'w';
        raw_piece_unmap(&to);
    }
}

/* No fewer mappings are counted than the kernel has. */
static void moves_into_the_middle(void)
{
    static const uint32_t mappings[] = {3, 4, 3};
    for (size_t dirty = 0; dirty <= 4; dirty += 2) {
        struct raw_piece one = dirty_piece(3, 3, 1);
        struct raw_piece two = dirty_piece(3, 3, 2);
        struct raw_piece to = dirty_piece(10, dirty, 3);
        must(raw_piece_move_into(&one, &to));
        must(to.parts == (dirty > 0 ? 3 : 2));
        must(raw_piece_move_into(&two, &to));
        must(to.parts >= mappings[dirty / 2]);
        must(map_moves_several() || to.parts == mappings[dirty / 2]);
        raw_piece_unmap(&to);
    }
}

static void copies(void)
{
    struct raw_piece from = dirty_piece(3, 3, 5);
    struct raw_piece to = dirty_piece(9, 2, 6);
    raw_piece_copy_into(&from, &to);
    must(raw_piece_is_valid(&to) && to.dirty_bytes == 5 * page && to.parts == 1);
    must(pattern_holds(to.address, 2 * page, 6));
    must(pattern_holds(to.address + 2 * page, 3 * page, 5));
    must(all_zero(to.address + 5 * page, 4 * page));
    must(!page_is_mapped(from.address));
    raw_piece_unmap(&to);
}

/* Put together from many, moved as a whole into another, cut in two across the seams. */
static void assembled(void)
{
    struct raw_piece whole = map_piece(20);
    for (uint64_t i = 0; i < 4; i++) {
        struct raw_piece one = dirty_piece(3, 3, 10 + i);
        must(raw_piece_move_into(&one, &whole));
        must(raw_piece_is_valid(&whole));
    }
    struct raw_piece larger = dirty_piece(40, 1, 9);
    whole.dirty_bytes = whole.bytes;
    must(raw_piece_move_into(&whole, &larger));
    must(raw_piece_is_valid(&larger) && larger.dirty_bytes == 21 * page);
    must(pattern_holds(larger.address, page, 9));
    for (uint64_t i = 0; i < 4; i++)
        must(pattern_holds(larger.address + (1 + 3 * i) * page, 3 * page, 10 + i));
    must(all_zero(larger.address + 13 * page, 27 * page));
    struct raw_piece tail;
    raw_piece_cut(&larger, 6 * page, &tail); /* inside the second */
    struct raw_piece target = map_piece(40);
    must(raw_piece_move_into(&tail, &target));
    must(pattern_holds(target.address + page, 3 * page, 12));
    must(pattern_holds(target.address + 4 * page, 3 * page, 13));
    must(pattern_holds(larger.address + page, 3 * page, 10));
    raw_piece_unmap(&larger);
    raw_piece_unmap(&target);
}

/* What was moved does not merge with fresh pages behind it, also when its end was cut off before. */
static void cut_and_extended(void)
{
    for (size_t at = 1; at <= 4; at++) {
        struct raw_piece one = dirty_piece(3, 3, 20);
        struct raw_piece piece = map_piece(10);
        struct raw_piece tail;
        struct raw_piece target = map_piece(12);
        must(raw_piece_move_into(&one, &piece));
        raw_piece_cut(&piece, at * page, &tail);
        raw_piece_unmap(&tail);
        must(raw_piece_extend(&piece, 4 * page));
        piece.dirty_bytes = piece.bytes;
        must(raw_piece_move_into(&piece, &target));
        must(pattern_holds(target.address, (at < 3 ? at : 3) * page, 20));
        raw_piece_unmap(&target);
    }
}

/* Filled to its end by moved pages, and made longer after that. */
static void filled_and_extended(void)
{
    struct raw_piece one = dirty_piece(3, 3, 30);
    struct raw_piece piece = dirty_piece(10, 2, 31);
    struct raw_piece tail;
    struct raw_piece target = map_piece(12);
    raw_piece_cut(&piece, 5 * page, &tail);
    must(raw_piece_move_into(&one, &piece));
    raw_piece_unmap(&tail);
    must(raw_piece_extend(&piece, 4 * page));
    must(raw_piece_is_valid(&piece));
    piece.dirty_bytes = piece.bytes;
    must(raw_piece_move_into(&piece, &target));
    must(pattern_holds(target.address, 2 * page, 31));
    must(pattern_holds(target.address + 2 * page, 3 * page, 30));
    raw_piece_unmap(&target);
}

/* In the child of a fork, fresh pages do not merge with inherited ones. */
static void extend_and_move(void *context)
{
    struct raw_piece piece = *(const struct raw_piece *)context;
    struct raw_piece target = map_piece(12);
    uint32_t parts = piece.parts;
    must(raw_piece_extend(&piece, 3 * page) && raw_piece_extend(&piece, 3 * page));
    must(raw_piece_is_valid(&piece) && piece.parts == parts + 1);
    must(all_zero(piece.address + piece.dirty_bytes, piece.bytes - piece.dirty_bytes));
    memset(piece.address + piece.dirty_bytes, 'd', piece.bytes - piece.dirty_bytes);
    piece.dirty_bytes = piece.bytes;
    must(raw_piece_move_into(&piece, &target));
    must(kernel_faults == 0);
    must(pattern_holds(target.address, 2 * page, 32));
    raw_piece_unmap(&target);
}

/* Fresh pages between inherited ones: what comes behind the latter is no part of them either. */
static void fill_a_gap(void *context)
{
    struct raw_piece piece = *(const struct raw_piece *)context;
    struct raw_piece middle;
    struct raw_piece tail;
    raw_piece_cut(&piece, 3 * page, &tail);
    raw_piece_cut(&piece, 2 * page, &middle);
    raw_piece_unmap(&middle);
    must(raw_piece_extend(&piece, page) && raw_piece_join(&piece, &tail));
    must(raw_piece_extend(&piece, page));
    must(piece.parts == 4 && raw_piece_is_valid(&piece));
    memset(piece.address, 'd', piece.bytes);
    struct raw_piece moved = map_piece(piece.bytes / page + 1);
    piece.dirty_bytes = piece.bytes;
    must(raw_piece_move_into(&piece, &moved));
    must(kernel_faults == 0);
}

static void inherited_and_extended(void)
{
    for (unsigned cut = 0; cut < 2; cut++) {
        struct outcome outcome;
        struct raw_piece piece = dirty_piece(4 + cut, 2, 32);
        struct raw_piece tail;
        if (cut > 0) {
            raw_piece_cut(&piece, 4 * page, &tail);
            raw_piece_unmap(&tail);
        }
        child_run(extend_and_move, &piece, &outcome);
        must(outcome.status == 0 && outcome.length == 0);
        child_run(fill_a_gap, &piece, &outcome);
        must(outcome.status == 0 && outcome.length == 0);
        must(raw_piece_extend(&piece, page) && piece.parts == 1); /* here they do */
        raw_piece_unmap(&piece);
    }
}

/* Never more parts than there is room for: then the move is declined, and nothing has changed. */
static void too_many(void)
{
    struct raw_piece whole = map_piece(40);
    struct raw_piece one;
    size_t moved = 0;
    bool declined = false;
    while (!declined && moved < 30) {
        one = dirty_piece(1, 1, moved);
        struct raw_piece before = whole;
        declined = !raw_piece_move_into(&one, &whole);
        if (declined)
            must(memcmp(&before, &whole, sizeof whole) == 0 && pattern_holds(one.address, page, moved));
        else
            moved++;
        must(raw_piece_is_valid(&whole));
    }
    must(declined == !map_moves_several());
    must(moved >= 6);
    for (size_t i = 0; i < moved; i++)
        must(pattern_holds(whole.address + i * page, page, i));
    must(all_zero(whole.address + moved * page, (40 - moved) * page));
    if (declined)
        raw_piece_unmap(&one);
    raw_piece_unmap(&whole);
}

/* ---- joining ---- */

/* Moves the piece: an old kernel fails that, if a part lies in more than one of its mappings. */
static struct raw_piece moved_piece(struct raw_piece *piece)
{
    struct raw_piece target = map_piece(piece->bytes / page + 1);
    piece->dirty_bytes = piece->bytes;
    must(raw_piece_move_into(piece, &target));
    must(kernel_faults == 0);
    return target;
}

static void join_again(size_t dirty_pages, size_t at_pages)
{
    struct raw_piece piece = dirty_piece(10, dirty_pages, 40);
    struct raw_piece before = piece;
    struct raw_piece tail;
    size_t count = map_count();
    raw_piece_cut(&piece, at_pages * page, &tail);
    must(map_count() == count + 1);
    must(raw_piece_join(&piece, &tail));
    must(map_count() == count);
    must(piece.bytes == before.bytes && piece.dirty_bytes == before.dirty_bytes && piece.parts == 1);
    must(piece.moved == before.moved && !piece.cut_begin && !piece.cut_end);
    must(raw_piece_is_valid(&piece) && pattern_holds(piece.address, dirty_pages * page, 40));
    must(all_zero(piece.address + piece.dirty_bytes, piece.bytes - piece.dirty_bytes));
    must(raw_piece_extend(&piece, 2 * page) && piece.parts == 1); /* nothing was moved here */
    struct raw_piece moved = moved_piece(&piece);
    must(pattern_holds(moved.address, dirty_pages * page, 40));
    raw_piece_unmap(&moved);
}

static void cut_and_joined(void)
{
    for (size_t dirty = 0; dirty <= 10; dirty += 2)
        for (size_t at = 1; at <= 9; at += 2)
            join_again(dirty, at);
}

/* Cut in three and joined in either order; a cut through moved pages, and one between them and others. */
static void joined_in_any_order(void)
{
    for (unsigned order = 0; order < 2; order++) {
        struct raw_piece one = dirty_piece(6, 6, 50);
        struct raw_piece piece = dirty_piece(12, 2, 51);
        struct raw_piece middle;
        struct raw_piece last;
        must(raw_piece_move_into(&one, &piece)); /* 0, 2, 8, 12 */
        size_t count = map_count();
        uint32_t parts = piece.parts;
        raw_piece_cut(&piece, 8 * page, &last);
        raw_piece_cut(&piece, 5 * page, &middle);
        must(order == 0 ? raw_piece_join(&piece, &middle) : raw_piece_join(&middle, &last));
        must(order == 0 ? raw_piece_join(&piece, &last) : raw_piece_join(&piece, &middle));
        must(map_count() == count && piece.parts == parts);
        must(piece.bytes == 12 * page && piece.dirty_bytes == 8 * page && !piece.moved);
        must(map_moves_several() || (piece.part_end[0] == 2 * page && piece.part_end[1] == 8 * page));
        struct raw_piece moved = moved_piece(&piece);
        must(pattern_holds(moved.address, 2 * page, 51));
        must(pattern_holds(moved.address + 2 * page, 6 * page, 50));
        raw_piece_unmap(&moved);
    }
}

/* Other pages were moved to the end, or the beginning, that the cut had made: the kernel's mapping does not
 * go through it any more. */
static void moved_to_the_cut(bool to_the_end)
{
    for (size_t pages = 2; pages <= 4; pages++) {
        struct raw_piece one = dirty_piece(pages, pages, 60);
        struct raw_piece piece = map_piece(8);
        struct raw_piece tail;
        raw_piece_cut(&piece, 4 * page, &tail);
        must(raw_piece_move_into(&one, to_the_end ? &piece : &tail));
        uint32_t parts = piece.parts + tail.parts;
        must(raw_piece_join(&piece, &tail));
        must(piece.parts == (to_the_end && pages < 4 ? parts - 1 : parts));
        must(pattern_holds(piece.address + (to_the_end ? 0 : 4) * page, pages * page, 60));
        must(all_zero(piece.address + piece.dirty_bytes, piece.bytes - piece.dirty_bytes));
        struct raw_piece moved = moved_piece(&piece);
        must(pattern_holds(moved.address + (to_the_end ? 0 : 4) * page, pages * page, 60));
        raw_piece_unmap(&moved);
    }
}

static void moved_to_a_cut_end(void)
{
    moved_to_the_cut(true);
}

static void moved_to_a_cut_beginning(void)
{
    moved_to_the_cut(false);
}

/* The middle goes and fresh pages come in its place: they are no mapping with what was there before, when
 * that had been moved. */
static void extended_to_a_cut(void)
{
    for (unsigned times = 0; times < 2; times++) {
        struct raw_piece one = dirty_piece(12, 12, 70);
        struct raw_piece piece = map_piece(12);
        struct raw_piece middle;
        struct raw_piece tail;
        must(times == 0 || raw_piece_move_into(&one, &piece));
        uint32_t parts = piece.parts;
        raw_piece_cut(&piece, 8 * page, &tail);
        raw_piece_cut(&piece, 4 * page, &middle);
        raw_piece_unmap(&middle);
        must(raw_piece_extend(&piece, 4 * page) && piece.bytes == 8 * page);
        must(raw_piece_join(&piece, &tail));
        must(map_moves_several() || piece.parts == parts + 1 + times);
        must(all_zero(piece.address + 4 * page, 4 * page));
        struct raw_piece moved = moved_piece(&piece);
        must(times == 0 || pattern_holds(moved.address, 4 * page, 70));
        raw_piece_unmap(&moved);
        if (times == 0)
            raw_piece_unmap(&one);
    }
}

/* Clean pages of two mappings: those of the first count as dirty, since a move goes into the last part. */
static void clean_and_clean(void)
{
    struct raw_piece piece = dirty_piece(12, 2, 80);
    struct raw_piece one = dirty_piece(3, 3, 81);
    struct raw_piece middle;
    struct raw_piece tail;
    raw_piece_cut(&piece, 8 * page, &tail);
    raw_piece_cut(&piece, 4 * page, &middle);
    raw_piece_unmap(&middle);
    must(raw_piece_extend(&piece, 4 * page));
    must(raw_piece_join(&piece, &tail));
    must(raw_piece_is_valid(&piece));
    must(piece.dirty_bytes == 8 * page && tail.dirty_bytes == 0);
    must(all_zero(piece.address + 2 * page, 10 * page));
    must(raw_piece_move_into(&one, &piece));
    must(raw_piece_is_valid(&piece));
    must(pattern_holds(piece.address + 8 * page, 3 * page, 81));
    struct raw_piece moved = moved_piece(&piece);
    must(pattern_holds(moved.address, 2 * page, 80));
    must(pattern_holds(moved.address + 8 * page, 3 * page, 81));
    raw_piece_unmap(&moved);
}

static void move_single_pages(struct raw_piece *piece, unsigned pages)
{
    for (unsigned i = 0; i < pages; i++) {
        struct raw_piece one = dirty_piece(1, 1, i);
        must(raw_piece_move_into(&one, piece));
    }
}

/* Two pieces of that many parts each, of which one is shared or none. */
static void join_parts(unsigned first, unsigned second, bool shared)
{
    struct raw_piece piece = map_piece(40);
    struct raw_piece tail;
    raw_piece_cut(&piece, (shared ? 20 : first) * page, &tail);
    move_single_pages(&piece, shared ? first - 1 : first);
    /* The first page of the tail stays what it was. */
    tail.dirty_bytes = page;
    move_single_pages(&tail, second - 2);
    must(map_moves_several() || (piece.parts == first && tail.parts == second));
    must(shared == (piece.cut_end && tail.cut_begin));
    struct raw_piece before = piece;
    size_t count = map_count();
    uint32_t parts = piece.parts + tail.parts - (shared ? 1 : 0);
    bool joined = raw_piece_join(&piece, &tail);
    must(joined == (map_moves_several() || parts <= PARTS_MOST));
    must(map_count() == count - (joined && shared ? 1 : 0));
    must(raw_piece_is_valid(&piece));
    if (joined) {
        must(piece.parts == parts);
    } else {
        must(memcmp(&piece, &before, sizeof piece) == 0);
        raw_piece_unmap(&tail);
    }
    for (unsigned i = 0; i + 1 < first; i++)
        must(pattern_holds(piece.address + i * page, page, i));
    raw_piece_unmap(&piece);
}

static void too_many_to_join(void)
{
    for (unsigned first = 2; first <= 6; first++)
        for (unsigned second = 3; second <= 6; second++)
            for (unsigned shared = 0; shared < 2; shared++)
                join_parts(first, second, shared != 0);
}

/* ---- cut and joined for long: no mapping is counted that is not there, and none forgotten ---- */

#define LONG_PAGES 64U

static void for_long(void)
{
    struct random random = {5};
    struct raw_piece one = dirty_piece(20, 20, 90);
    struct raw_piece piece = dirty_piece(LONG_PAGES, 10, 91);
    must(raw_piece_move_into(&one, &piece));
    uint32_t parts = piece.parts;
    size_t count = map_count();
    for (unsigned step = 0; step < 20000; step++) {
        struct raw_piece middle;
        struct raw_piece last;
        raw_piece_cut(&piece, (2 + random_below(&random, LONG_PAGES - 2)) * page, &last);
        raw_piece_cut(&piece, (1 + random_below(&random, piece.bytes / page - 1)) * page, &middle);
        must(raw_piece_join(&middle, &last) && raw_piece_join(&piece, &middle));
        must(piece.parts == parts && map_count() == count);
        must(piece.bytes == LONG_PAGES * page && piece.dirty_bytes == 30 * page);
        must(raw_piece_is_valid(&piece));
    }
    struct raw_piece moved = moved_piece(&piece);
    must(pattern_holds(moved.address, 10 * page, 91));
    must(pattern_holds(moved.address + 10 * page, 20 * page, 90));
    raw_piece_unmap(&moved);
}

/* ---- anything after anything, against a model: each page's stamp, 0 where it must be clean ---- */

#define PIECES     8U
#define PAGES_MOST 96U

static struct raw_piece pieces[PIECES];
static uint64_t stamps[PIECES][PAGES_MOST];
static uint64_t last_stamp;

/* Which cut through a mapping made the beginning and the end, 0: none. */
static uint64_t begin_cut[PIECES];
static uint64_t end_cut[PIECES];
static uint64_t last_cut;

static void check_piece(unsigned i)
{
    if (pieces[i].bytes == 0)
        return;
    must(raw_piece_is_valid(&pieces[i]));
    for (size_t number = 0; number < pieces[i].bytes / page; number++) {
        const uint64_t *start = (const uint64_t *)(const void *)(pieces[i].address + number * page);
        must(start[0] == stamps[i][number] && start[page / 8 - 1] == stamps[i][number]);
        must(number * page < pieces[i].dirty_bytes || stamps[i][number] == 0);
    }
}

/* The piece that begins where this one ends, PIECES when there is none. */
static unsigned piece_behind(unsigned i)
{
    unsigned behind = 0;
    while (behind < PIECES &&
           (pieces[behind].bytes == 0 || pieces[behind].address != pieces[i].address + pieces[i].bytes))
        behind++;
    return behind;
}

static size_t add_ranges_of(unsigned i, struct kernel_range *ranges)
{
    char *address = pieces[i].address;
    size_t count = 0;
    for (size_t done = 0; done < pieces[i].bytes; count++) {
        ranges[count] = (struct kernel_range){address + done, address + pieces[i].part_end[count]};
        done = pieces[i].part_end[count];
    }
    unsigned behind = piece_behind(i);
    char *end = address + pieces[i].bytes;
    if (behind < PIECES && pieces[i].cut_end && pieces[behind].cut_begin)
        ranges[count++] = (struct kernel_range){end - page, end + page};
    return count;
}

/* Each part is in one mapping of the kernel, and so are the pages on both sides of a cut. */
static void check_mappings(void)
{
    struct kernel_range ranges[PIECES * (PARTS_MOST + 1)];
    size_t count = 0;
    for (unsigned i = 0; i < PIECES; i++)
        if (pieces[i].bytes > 0)
            count += add_ranges_of(i, ranges + count);
    must(kernel_maps_as_one(ranges, count));
}

static void check_model(size_t count)
{
    for (unsigned i = 0; i < PIECES; i++) {
        check_piece(i);
        count += pieces[i].bytes > 0 ? pieces[i].parts : 0;
    }
    must(map_count() == count);
    if (!map_moves_several())
        check_mappings();
}

static void write_on(unsigned i)
{
    for (size_t number = 0; number < pieces[i].bytes / page; number++) {
        uint64_t *start = (uint64_t *)(void *)(pieces[i].address + number * page);
        start[0] = start[page / 8 - 1] = stamps[i][number] = ++last_stamp;
    }
    pieces[i].dirty_bytes = pieces[i].bytes;
}

static void drop(unsigned i)
{
    raw_piece_unmap(&pieces[i]);
    must(!page_is_mapped(pieces[i].address));
    pieces[i].bytes = 0;
}

static void cut(unsigned i, unsigned j, struct random *random)
{
    size_t pages = pieces[i].bytes / page;
    if (pages < 2)
        return;
    size_t at = 1 + random_below(random, pages - 1);
    uint32_t parts = pieces[i].parts;
    raw_piece_cut(&pieces[i], at * page, &pieces[j]);
    bool splits = pieces[i].parts + pieces[j].parts > parts;
    memcpy(stamps[j], stamps[i] + at, (pages - at) * sizeof(uint64_t));
    end_cut[j] = end_cut[i];
    end_cut[i] = begin_cut[j] = splits ? ++last_cut : 0;
}

static void join_behind(unsigned i)
{
    unsigned j = piece_behind(i);
    size_t pages = pieces[i].bytes / page;
    if (j == PIECES || pages + pieces[j].bytes / page > PAGES_MOST)
        return;
    struct raw_piece before = pieces[i];
    bool shared = end_cut[i] != 0 && end_cut[i] == begin_cut[j];
    uint32_t parts = pieces[i].parts + pieces[j].parts - (shared ? 1 : 0);
    if (!raw_piece_join(&pieces[i], &pieces[j])) {
        must(!map_moves_several() && parts > PARTS_MOST);
        must(memcmp(&pieces[i], &before, sizeof before) == 0);
        return;
    }
    must(pieces[i].parts == parts && pieces[i].bytes == before.bytes + pieces[j].bytes);
    must(before.dirty_bytes == before.bytes || (pieces[j].dirty_bytes == 0 && shared) ||
         pieces[i].dirty_bytes == before.bytes + pieces[j].dirty_bytes);
    memcpy(stamps[i] + pages, stamps[j], pieces[j].bytes / page * sizeof(uint64_t));
    end_cut[i] = end_cut[j];
    pieces[j].bytes = 0;
}

static void extend(unsigned i, size_t more)
{
    size_t pages = pieces[i].bytes / page;
    if (pages + more > PAGES_MOST || !raw_piece_extend(&pieces[i], more * page))
        return;
    memset(stamps[i] + pages, 0, more * sizeof(uint64_t));
    end_cut[i] = 0;
}

static void move_or_copy(unsigned i, unsigned j, bool copy)
{
    size_t pages = pieces[i].bytes / page;
    size_t dirty = pieces[j].dirty_bytes / page;
    if (pieces[i].bytes > pieces[j].bytes - pieces[j].dirty_bytes || pieces[i].dirty_bytes < pieces[i].bytes)
        return;
    if (copy)
        raw_piece_copy_into(&pieces[i], &pieces[j]);
    else if (!raw_piece_move_into(&pieces[i], &pieces[j]))
        return;
    if (!copy && dirty == 0)
        begin_cut[j] = 0;
    if (!copy && pieces[j].dirty_bytes == pieces[j].bytes)
        end_cut[j] = 0;
    memcpy(stamps[j] + dirty, stamps[i], pages * sizeof(uint64_t));
    pieces[i].bytes = 0;
}

static void any_order(void)
{
    struct random random = {7};
    size_t count = map_count();
    for (unsigned step = 0; step < TURNS(8000); step++) {
        unsigned i = (unsigned)random_below(&random, PIECES);
        unsigned j = (unsigned)random_below(&random, PIECES);
        size_t choice = random_below(&random, 16);
        if (pieces[i].bytes == 0) {
            pieces[i] = map_piece(1 + random_below(&random, PAGES_MOST / 2));
            memset(stamps[i], 0, sizeof stamps[i]);
            begin_cut[i] = end_cut[i] = 0;
        } else if (choice < 3) {
            write_on(i);
        } else if (choice < 4) {
            drop(i);
        } else if (choice < 6) {
            extend(i, 1 + random_below(&random, 16));
        } else if (choice < 9) {
            join_behind(i);
        } else if (i != j && pieces[j].bytes == 0) {
            cut(i, j, &random);
        } else if (i != j) {
            move_or_copy(i, j, choice == 15);
        }
        check_model(count);
    }
    for (unsigned i = 0; i < PIECES; i++)
        if (pieces[i].bytes > 0)
            drop(i);
}

#define IN_CHILD(name)                                                                                       \
    static void name##_in_child(void **state)                                                                \
    {                                                                                                        \
        (void)state;                                                                                         \
        run_in_child(name);                                                                                  \
    }

IN_CHILD(fresh)
IN_CHILD(cuts)
IN_CHILD(extensions)
IN_CHILD(moves)
IN_CHILD(moves_into_the_middle)
IN_CHILD(copies)
IN_CHILD(assembled)
IN_CHILD(cut_and_extended)
IN_CHILD(filled_and_extended)
IN_CHILD(inherited_and_extended)
IN_CHILD(too_many)
IN_CHILD(cut_and_joined)
IN_CHILD(joined_in_any_order)
IN_CHILD(moved_to_a_cut_end)
IN_CHILD(moved_to_a_cut_beginning)
IN_CHILD(extended_to_a_cut)
IN_CHILD(clean_and_clean)
IN_CHILD(too_many_to_join)
IN_CHILD(for_long)
IN_CHILD(any_order)

static void damage_is_seen(void **state)
{
    (void)state;
    page = map_page_bytes();
    if (map_moves_several())
        not_here("the parts are not kept");
    struct raw_piece piece = map_piece(4);
    struct raw_piece damaged = piece;
    damaged.parts = 0;
    assert_false(raw_piece_is_valid(&damaged));
    damaged.parts = PARTS_MOST + 1;
    assert_false(raw_piece_is_valid(&damaged));
    damaged = piece;
    damaged.dirty_bytes = damaged.bytes + 1;
    assert_false(raw_piece_is_valid(&damaged));
    damaged = piece;
    damaged.part_end[0] = 3 * page;
    assert_false(raw_piece_is_valid(&damaged));
    damaged.parts = 2;
    damaged.part_end[1] = 4 * page;
    assert_false(raw_piece_is_valid(&damaged)); /* clean pages of both parts */
    damaged.dirty_bytes = 3 * page;
    assert_true(raw_piece_is_valid(&damaged));
    damaged.part_end[0] = 4 * page;
    assert_false(raw_piece_is_valid(&damaged));
    raw_piece_unmap(&piece);
    struct raw_piece none;
    assert_false(raw_piece_map(SIZE_MAX / page * page, MIB, &none));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fresh_in_child),
        cmocka_unit_test(cuts_in_child),
        cmocka_unit_test(extensions_in_child),
        cmocka_unit_test(moves_in_child),
        cmocka_unit_test(moves_into_the_middle_in_child),
        cmocka_unit_test(copies_in_child),
        cmocka_unit_test(assembled_in_child),
        cmocka_unit_test(too_many_in_child),
        cmocka_unit_test(any_order_in_child),
        cmocka_unit_test(cut_and_extended_in_child),
        cmocka_unit_test(filled_and_extended_in_child),
        cmocka_unit_test(inherited_and_extended_in_child),
        cmocka_unit_test(cut_and_joined_in_child),
        cmocka_unit_test(joined_in_any_order_in_child),
        cmocka_unit_test(moved_to_a_cut_end_in_child),
        cmocka_unit_test(moved_to_a_cut_beginning_in_child),
        cmocka_unit_test(extended_to_a_cut_in_child),
        cmocka_unit_test(clean_and_clean_in_child),
        cmocka_unit_test(too_many_to_join_in_child),
        cmocka_unit_test(for_long_in_child),
        cmocka_unit_test(damage_is_seen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
