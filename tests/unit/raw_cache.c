/*
 * raw/raw_cache: against a naive list of pieces. The room never looks at the memory it keeps, so the pieces
 * are made up; where cmocka runs on Tarn, none of its requests is large enough to come here. What joins and
 * cuts pieces is raw/raw_piece, here and in the room: which pieces, and when, is what is tested.
 *
 * The program runs twice, with mremap(2) as the running kernel has it, and as old kernels had it (kernel.h),
 * where pieces of too many parts cannot be joined.
 */
#include "raw/raw_cache.h"

#include "arena/address_index.h"
#include "os/map.h"
#include "unit.h"

#include <string.h>

#define NO_LIMIT SIZE_MAX

/* Addresses and lengths of made-up pieces are multiples of this. Two are worth keeping. */
#define UNIT (PIECE_LEAST_BYTES / 2)

struct kept {
    struct raw_piece piece;
    uint64_t put_ms;
    bool was_cut; /* since its neighbours were looked at */
};

/* The pieces in the order of putting. */
static struct kept model[RAW_CACHE_PIECES];
static size_t count;

static size_t model_bytes(void)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += model[i].piece.bytes;
    return bytes;
}

static bool is_aligned(const struct raw_piece *piece, size_t alignment)
{
    return (uintptr_t)piece->address % alignment == 0;
}

static bool touch(const struct raw_piece *piece, const struct raw_piece *tail)
{
    return piece->address + piece->bytes == tail->address;
}

/* What the model does counts for nothing. */
static bool model_join(struct raw_piece *piece, const struct raw_piece *tail)
{
    size_t mappings = map_count();
    bool joined = touch(piece, tail) && !is_aligned(tail, GRANULE_BYTES) && raw_piece_join(piece, tail);
    map_count_add((long)(mappings - map_count()));
    return joined;
}

static void model_cut(struct raw_piece *piece, size_t bytes, struct raw_piece *tail)
{
    size_t mappings = map_count();
    raw_piece_cut(piece, bytes, tail);
    map_count_add((long)(mappings - map_count()));
}

/* No piece ends where another begins, unless that other begins a granule, or the kernel could not move the
 * two as one when the later was put. */
static void check_invariant(void)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < count; j++) {
            struct raw_piece piece = model[i].piece;
            if (!model[i].was_cut && !model[j].was_cut)
                assert_false(model_join(&piece, &model[j].piece));
        }
    }
}

static void check_totals(void)
{
    assert_int_equal(raw_cache_count(), count);
    assert_int_equal(raw_cache_bytes(), model_bytes());
}

static int start_empty(void **state)
{
    (void)state;
    struct raw_piece piece;
    while (raw_cache_take_older(UINT64_MAX, &piece))
        continue;
    count = 0;
    return raw_cache_count() == 0 && raw_cache_bytes() == 0 ? 0 : -1;
}

/* ---- what is done to both ---- */

static struct raw_piece make_piece(uintptr_t address, size_t bytes)
{
    struct raw_piece piece = {
        .address = (char *)address, .bytes = bytes, .dirty_bytes = bytes / 2, .parts = 2};
    piece.moved = address / bytes % 2 != 0;
    piece.part_end[0] = bytes / 4;
    piece.part_end[1] = bytes;
    return piece;
}

/* Of many parts, and cut at both ends. */
static struct raw_piece parts_piece(uintptr_t address, size_t bytes, uint32_t parts)
{
    struct raw_piece piece = make_piece(address, bytes);
    piece.dirty_bytes = bytes;
    piece.parts = parts;
    piece.cut_begin = piece.cut_end = true;
    for (uint32_t part = 0; part < parts; part++)
        piece.part_end[part] = bytes / parts * (part + 1);
    piece.part_end[parts - 1] = bytes;
    return piece;
}

static void forget(size_t index)
{
    count--;
    memmove(&model[index], &model[index + 1], (count - index) * sizeof model[0]);
}

/* Each piece in the order of putting is joined with what there is so far. */
static void model_put(struct kept kept)
{
    for (size_t i = 0; i < count;) {
        struct raw_piece before = model[i].piece;
        bool joined = true;
        if (model_join(&before, &kept.piece))
            kept.piece = before;
        else
            joined = model_join(&kept.piece, &model[i].piece);
        kept.was_cut |= joined && model[i].was_cut;
        if (joined)
            forget(i);
        else
            i++;
    }
    assert_true(count < RAW_CACHE_PIECES);
    model[count++] = kept;
}

static uint32_t model_parts(void)
{
    uint32_t parts = 0;
    for (size_t i = 0; i < count; i++)
        parts += model[i].piece.parts;
    return parts;
}

static bool has_neighbour(const struct raw_piece *piece)
{
    bool found = false;
    for (size_t i = 0; i < count; i++) {
        struct raw_piece before = model[i].piece;
        struct raw_piece itself = *piece;
        found |= model_join(&before, piece) || model_join(&itself, &model[i].piece);
    }
    return found;
}

static bool put_one(struct raw_piece piece, uint64_t now_ms, size_t bytes_most)
{
    bool fits =
        (count < RAW_CACHE_PIECES || has_neighbour(&piece)) && model_bytes() + piece.bytes <= bytes_most;
    size_t mappings = map_count();
    uint32_t parts = model_parts();
    assert_int_equal(raw_cache_put(&piece, now_ms, bytes_most), fits);
    if (fits) {
        model_put((struct kept){piece, now_ms, false});
        parts += piece.parts;
    }
    assert_int_equal(mappings - map_count(), parts - model_parts());
    check_totals();
    check_invariant();
    return fits;
}

static void check_same(const struct raw_piece *piece, const struct raw_piece *expected)
{
    assert_ptr_equal(piece->address, expected->address);
    assert_int_equal(piece->bytes, expected->bytes);
    assert_int_equal(piece->dirty_bytes, expected->dirty_bytes);
    assert_int_equal(piece->parts, expected->parts);
    assert_int_equal(piece->moved, expected->moved);
    assert_int_equal(piece->cut_begin, expected->cut_begin);
    assert_int_equal(piece->cut_end, expected->cut_end);
    assert_int_equal(piece->untouched, expected->untouched);
    if (!map_moves_several())
        assert_memory_equal(piece->part_end, expected->part_end, piece->parts * sizeof piece->part_end[0]);
}

/* The piece came out of this place of the model. */
static void check_taken(size_t index, const struct raw_piece *piece)
{
    check_same(piece, &model[index].piece);
    forget(index);
    check_totals();
}

enum choice { ANY, TOUCHED, TOUCHED_NO_GRANULE };

static bool is_chosen(const struct raw_piece *piece, enum choice choice)
{
    switch (choice) {
    case ANY:
        return true;
    case TOUCHED:
        return !piece->untouched;
    case TOUCHED_NO_GRANULE:
        return !piece->untouched && !is_aligned(piece, GRANULE_BYTES);
    }
    return false;
}

/* The smallest that is large enough, the youngest of equals. */
static size_t find_smallest(size_t bytes, size_t alignment, enum choice choice)
{
    size_t found = SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        const struct raw_piece *piece = &model[i].piece;
        if (piece->bytes >= bytes && is_aligned(piece, alignment) && is_chosen(piece, choice) &&
            (found == SIZE_MAX || piece->bytes <= model[found].piece.bytes))
            found = i;
    }
    return found;
}

static size_t find_largest(size_t least_bytes, size_t alignment, enum choice choice)
{
    size_t found = SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        const struct raw_piece *piece = &model[i].piece;
        if (piece->bytes >= least_bytes && is_aligned(piece, alignment) && is_chosen(piece, choice) &&
            (found == SIZE_MAX || piece->bytes >= model[found].piece.bytes))
            found = i;
    }
    return found;
}

static void take_whole(size_t bytes, size_t alignment)
{
    struct raw_piece piece;
    size_t expected = find_smallest(bytes, alignment, ANY);
    assert_int_equal(raw_cache_take_whole(bytes, alignment, &piece), expected != SIZE_MAX);
    if (expected != SIZE_MAX)
        check_taken(expected, &piece);
}

static void take_largest(size_t least_bytes, size_t alignment)
{
    struct raw_piece piece;
    size_t expected = find_largest(least_bytes, alignment, TOUCHED);
    assert_int_equal(raw_cache_take_largest(least_bytes, alignment, &piece), expected != SIZE_MAX);
    if (expected != SIZE_MAX)
        check_taken(expected, &piece);
}

static size_t find_source(size_t bytes)
{
    size_t found = find_smallest(bytes, 1, TOUCHED_NO_GRANULE);
    if (found == SIZE_MAX)
        found = find_largest(PIECE_LEAST_BYTES, 1, TOUCHED_NO_GRANULE);
    if (found == SIZE_MAX)
        found = find_smallest(bytes, 1, TOUCHED);
    return found == SIZE_MAX ? find_largest(PIECE_LEAST_BYTES, 1, TOUCHED) : found;
}

static void take_pages(size_t bytes)
{
    struct raw_piece piece;
    size_t expected = find_source(bytes);
    size_t mappings = map_count();
    uint32_t parts = model_parts();
    struct raw_piece source;
    assert_int_equal(raw_cache_look_at_source(bytes, &source), expected != SIZE_MAX);
    if (expected != SIZE_MAX)
        check_same(&source, &model[expected].piece);
    assert_int_equal(raw_cache_take_pages(bytes, &piece), expected != SIZE_MAX);
    if (expected == SIZE_MAX)
        return;
    mappings = map_count() - mappings;
    struct kept *kept = &model[expected];
    if (kept->piece.bytes < bytes + PIECE_LEAST_BYTES) {
        check_taken(expected, &piece);
    } else {
        struct raw_piece end;
        model_cut(&kept->piece, kept->piece.bytes - bytes, &end);
        kept->was_cut = true;
        check_same(&piece, &end);
        check_totals();
    }
    assert_int_equal(mappings, model_parts() + piece.parts - parts);
}

static void take_at(const char *address)
{
    struct raw_piece piece;
    size_t expected = SIZE_MAX;
    for (size_t i = 0; i < count; i++)
        if (model[i].piece.address == address)
            expected = i;
    assert_int_equal(raw_cache_take_at(address, &piece), expected != SIZE_MAX);
    if (expected != SIZE_MAX)
        check_taken(expected, &piece);
}

/* It is looked at, and hardly a page of it is resident. */
static void note_untouched(const struct raw_piece *piece)
{
    for (size_t i = 0; i < count; i++)
        if (model[i].piece.address == piece->address && model[i].piece.bytes == piece->bytes)
            model[i].piece.untouched = true;
    raw_cache_note_untouched(piece);
}

static void take_older(uint64_t then_ms)
{
    struct raw_piece piece;
    bool expected = count > 0 && model[0].put_ms <= then_ms;
    assert_int_equal(raw_cache_take_older(then_ms, &piece), expected);
    if (expected)
        check_taken(0, &piece);
}

static void take_all(void)
{
    while (count > 0)
        take_older(UINT64_MAX);
    take_older(UINT64_MAX);
}

/* ---- tests ---- */

static void the_best_fit_is_taken(void **state)
{
    (void)state;
    put_one(make_piece(16 * MIB, 9 * MIB), 1, NO_LIMIT);
    put_one(make_piece(32 * MIB, 5 * MIB), 2, NO_LIMIT);
    put_one(make_piece(48 * MIB, 5 * MIB), 3, NO_LIMIT);
    put_one(make_piece(64 * MIB + 4 * KIB, 6 * MIB), 4, NO_LIMIT);
    struct raw_piece piece;
    assert_true(raw_cache_take_whole(5 * MIB, 4 * MIB, &piece));
    assert_ptr_equal(piece.address, (char *)(48 * MIB)); /* the youngest of two */
    assert_int_equal(piece.dirty_bytes, 5 * MIB / 2);
    check_taken(2, &piece);
    assert_true(raw_cache_take_whole(5 * MIB + 1, 4 * MIB, &piece));
    assert_ptr_equal(piece.address, (char *)(16 * MIB)); /* the one of 6 MiB begins elsewhere */
    check_taken(0, &piece);
    assert_false(raw_cache_take_whole(5 * MIB + 1, 4 * MIB, &piece));
    assert_true(raw_cache_take_whole(5 * MIB + 1, 4 * KIB, &piece));
    check_taken(1, &piece);
}

static void the_largest_is_taken(void **state)
{
    (void)state;
    put_one(make_piece(16 * MIB, 3 * MIB), 1, NO_LIMIT);
    put_one(make_piece(32 * MIB, 3 * MIB), 2, NO_LIMIT);
    put_one(make_piece(48 * MIB, 2 * MIB), 3, NO_LIMIT);
    put_one(make_piece(64 * MIB + 4 * KIB, 6 * MIB), 4, NO_LIMIT);
    struct raw_piece piece;
    assert_false(raw_cache_take_largest(3 * MIB + 1, 4 * MIB, &piece));
    assert_true(raw_cache_take_largest(3 * MIB, 4 * MIB, &piece));
    assert_ptr_equal(piece.address, (char *)(32 * MIB)); /* the youngest of two */
    check_taken(1, &piece);
    assert_true(raw_cache_take_largest(1, 4 * KIB, &piece));
    check_taken(2, &piece);
    assert_false(raw_cache_take_largest(6 * MIB, 4 * KIB, &piece));
}

/* Not moved, and so neither taken as pages nor to be made longer; but whole. */
static void untouched_pieces_stay(void **state)
{
    (void)state;
    put_one(make_piece(16 * MIB, 2 * MIB), 1, NO_LIMIT);
    put_one(make_piece(33 * MIB, MIB), 2, NO_LIMIT);
    const struct raw_piece others[] = {make_piece(33 * MIB, 2 * MIB), make_piece(48 * MIB, MIB)};
    note_untouched(&others[0]); /* another by now */
    note_untouched(&others[1]); /* there is none */
    note_untouched(&model[1].piece);
    take_pages(MIB); /* of the first, though a block can begin there */
    assert_int_equal(count, 2);
    note_untouched(&model[0].piece);
    take_pages(MIB);
    take_largest(MIB, 4 * MIB);
    assert_int_equal(count, 2);
    put_one(make_piece(17 * MIB, MIB), 3, NO_LIMIT); /* touched: so is what it is joined with */
    take_largest(2 * MIB, 4 * MIB);
    assert_int_equal(count, 1);
    take_whole(MIB, 4 * KIB);
    assert_int_equal(count, 0);
}

static void neighbours_become_one(void **state)
{
    (void)state;
    static const unsigned orders[][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    for (size_t order = 0; order < sizeof orders / sizeof orders[0]; order++) {
        put_one(make_piece(64 * MIB, MIB), 1, NO_LIMIT);
        for (unsigned i = 0; i < 3; i++)
            put_one(parts_piece((16 + orders[order][i]) * MIB, MIB, 2), 2 + i, 4 * MIB);
        assert_int_equal(count, 2);
        assert_int_equal(raw_cache_bytes(), 4 * MIB);
        struct raw_piece piece;
        assert_true(raw_cache_take_whole(3 * MIB, 4 * MIB, &piece));
        assert_ptr_equal(piece.address, (char *)(16 * MIB));
        assert_int_equal(piece.parts, 2 + 2 + 2 - 2);
        check_taken(1, &piece);
        take_all();
    }
}

/* A block can begin there. */
static void a_granule_begins_a_piece(void **state)
{
    (void)state;
    put_one(parts_piece(15 * MIB, MIB, 1), 1, NO_LIMIT);
    put_one(parts_piece(16 * MIB, MIB, 1), 2, NO_LIMIT);
    put_one(parts_piece(17 * MIB, MIB, 1), 3, NO_LIMIT);
    assert_int_equal(count, 2);
    put_one(parts_piece(20 * MIB, MIB, 1), 4, NO_LIMIT);
    put_one(parts_piece(18 * MIB, 2 * MIB, 1), 5, NO_LIMIT);
    assert_int_equal(count, 3);
    struct raw_piece piece;
    assert_true(raw_cache_take_at((char *)(16 * MIB), &piece));
    assert_int_equal(piece.bytes, 4 * MIB);
    check_taken(2, &piece);
    take_all();
}

static void what_could_not_be_moved_is_not_joined(void **state)
{
    (void)state;
    put_one(parts_piece(16 * MIB, MIB, 5), 1, NO_LIMIT);
    struct raw_piece tail = parts_piece(17 * MIB, MIB, 4);
    tail.cut_begin = false;
    put_one(tail, 2, NO_LIMIT);
    assert_int_equal(count, map_moves_several() ? 1 : 2);
    take_all();
    put_one(parts_piece(17 * MIB, MIB, 4), 3, NO_LIMIT);
    put_one(parts_piece(16 * MIB, MIB, 5), 4, NO_LIMIT); /* one part goes through the border */
    assert_int_equal(count, 1);
    take_all();
}

static void bytes_and_number_are_bounded(void **state)
{
    (void)state;
    put_one(make_piece(16 * MIB, 3 * MIB), 1, 4 * MIB);
    put_one(make_piece(32 * MIB, MIB + 1), 1, 4 * MIB);
    put_one(make_piece(19 * MIB, MIB + 1), 1, 4 * MIB); /* a neighbour is no smaller for that */
    put_one(make_piece(32 * MIB, MIB), 1, 4 * MIB);
    assert_int_equal(count, 2);
    put_one(make_piece(48 * MIB, 1), 1, 4 * MIB);
    put_one(make_piece(48 * MIB, 1), 1, 0);
    assert_int_equal(count, 2);
    for (size_t i = 0; i < RAW_CACHE_PIECES; i++)
        put_one(make_piece((100 + 2 * i) * MIB, MIB), 2 + i, NO_LIMIT);
    assert_int_equal(count, RAW_CACHE_PIECES);
    /* One more has room where it is joined with another. */
    assert_false(put_one(make_piece(300 * MIB, MIB), 100, NO_LIMIT));
    assert_false(put_one(make_piece(35 * MIB, MIB), 100, NO_LIMIT));
    assert_true(put_one(make_piece(33 * MIB, MIB), 100, NO_LIMIT));
    assert_int_equal(count, RAW_CACHE_PIECES);
    assert_true(put_one(make_piece(101 * MIB, MIB), 100, NO_LIMIT));
    assert_int_equal(count, RAW_CACHE_PIECES - 1);
    take_all();
}

static void the_oldest_goes_first(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 5; i++)
        put_one(make_piece((1 + i) * 16 * MIB, (5 - i) * MIB), 100 + 10 * i, NO_LIMIT);
    take_older(99);
    assert_int_equal(count, 5);
    take_older(115);
    take_older(115);
    assert_int_equal(count, 3);
    take_older(120);
    take_older(UINT64_MAX);
    take_older(UINT64_MAX);
    assert_int_equal(count, 0);
    take_older(UINT64_MAX);
}

/* What is joined is as old as what was put last; what pages were taken from, as before. */
static void the_joined_are_young(void **state)
{
    (void)state;
    put_one(make_piece(16 * MIB, MIB), 100, NO_LIMIT);
    put_one(make_piece(33 * MIB, MIB), 110, NO_LIMIT);
    put_one(make_piece(17 * MIB, MIB), 120, NO_LIMIT);
    take_pages(PIECE_LEAST_BYTES); /* of the second */
    assert_int_equal(count, 2);
    take_older(109);
    assert_int_equal(count, 2);
    take_older(119);
    take_older(119);
    assert_int_equal(count, 1);
    take_older(120);
    assert_int_equal(count, 0);
}

static void check_pages(size_t bytes, uintptr_t address, size_t expected_bytes)
{
    struct raw_piece piece;
    size_t kept_bytes = raw_cache_bytes();
    assert_true(raw_cache_take_pages(bytes, &piece));
    assert_ptr_equal(piece.address, (char *)address);
    assert_int_equal(piece.bytes, expected_bytes);
    assert_int_equal(raw_cache_bytes(), kept_bytes - expected_bytes);
}

static void put_sources(void)
{
    start_empty(NULL);
    const struct raw_piece pieces[] = {
        make_piece(16 * MIB, 2 * MIB), /* a block can begin here, and here */
        make_piece(32 * MIB, 8 * MIB), make_piece(49 * MIB, 3 * MIB), make_piece(65 * MIB, MIB),
        make_piece(82 * MIB, 2 * MIB), make_piece(97 * MIB, UNIT), /* not worth it */
    };
    for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++)
        assert_true(raw_cache_put(&pieces[i], i, NO_LIMIT));
}

static void pages_are_taken_from_where_no_block_begins(void **state)
{
    (void)state;
    put_sources();
    check_pages(MIB, 65 * MIB, MIB); /* the smallest that has enough */
    check_pages(MIB, 83 * MIB, MIB); /* its end */
    check_pages(MIB, 82 * MIB, MIB);
    check_pages(MIB, 51 * MIB, MIB);
    check_pages(8 * MIB, 49 * MIB, 2 * MIB); /* less than enough, but no block begins there */
    check_pages(MIB, 17 * MIB, MIB);
    check_pages(MIB + 1, 39 * MIB - 1, MIB + 1);
    check_pages(8 * MIB, 32 * MIB, 7 * MIB - 1); /* the largest */
    check_pages(8 * MIB, 16 * MIB, MIB);
    struct raw_piece piece;
    assert_false(raw_cache_take_pages(PIECE_LEAST_BYTES, &piece));
    assert_int_equal(raw_cache_bytes(), UNIT);
    start_empty(NULL);
}

/* What would be left must be worth it, or all is taken. */
static void nothing_small_is_left(void **state)
{
    (void)state;
    put_sources();
    check_pages(MIB - PIECE_LEAST_BYTES, 65 * MIB + PIECE_LEAST_BYTES, MIB - PIECE_LEAST_BYTES);
    check_pages(PIECE_LEAST_BYTES, 65 * MIB, PIECE_LEAST_BYTES);
    put_sources();
    check_pages(MIB - PIECE_LEAST_BYTES + 1, 65 * MIB, MIB);
    check_pages(3 * MIB, 49 * MIB, 3 * MIB);
    start_empty(NULL);
}

static void a_piece_is_found_by_its_address(void **state)
{
    (void)state;
    put_one(make_piece(16 * MIB, 2 * MIB), 1, NO_LIMIT);
    put_one(make_piece(33 * MIB, MIB), 2, NO_LIMIT);
    put_one(make_piece(18 * MIB + 4 * KIB, MIB), 3, NO_LIMIT);
    take_at((char *)(17 * MIB));
    take_at((char *)(18 * MIB));
    take_at((char *)(34 * MIB));
    assert_int_equal(count, 3);
    take_at((char *)(33 * MIB));
    take_at((char *)(33 * MIB));
    take_at((char *)(18 * MIB + 4 * KIB));
    take_at((char *)(16 * MIB));
    assert_int_equal(count, 0);
}

/* ---- anything after anything ---- */

#define FIRST_ADDRESS (4 * GRANULE_BYTES)
#define GRANULES      64U

static uintptr_t random_address(struct random *random)
{
    size_t granule = FIRST_ADDRESS + random_below(random, GRANULES) * GRANULE_BYTES;
    return random_below(random, 4) == 0 ? granule
                                        : granule + random_below(random, GRANULE_BYTES / UNIT) * UNIT;
}

/* Often next to one that is there. */
static uintptr_t place_for(size_t bytes, struct random *random)
{
    if (count == 0 || random_below(random, 3) == 0)
        return random_address(random);
    const struct raw_piece *piece = &model[random_below(random, count)].piece;
    return (uintptr_t)piece->address + (random_below(random, 2) == 0 ? piece->bytes : -bytes);
}

static bool is_taken(uintptr_t address, size_t bytes)
{
    for (size_t i = 0; i < count; i++) {
        uintptr_t begin = (uintptr_t)model[i].piece.address;
        if (begin < address + bytes && address < begin + model[i].piece.bytes)
            return true;
    }
    return false;
}

static void put_somewhere(struct random *random, uint64_t now_ms)
{
    size_t bytes = UNIT * (1 + random_below(random, random_below(random, 4) == 0 ? 200 : 20));
    uintptr_t address = place_for(bytes, random);
    if (is_taken(address, bytes))
        return;
    struct raw_piece piece = parts_piece(address, bytes, 1 + (uint32_t)random_below(random, 4));
    piece.cut_begin = random_below(random, 2) == 0;
    piece.cut_end = random_below(random, 2) == 0;
    piece.moved = random_below(random, 2) == 0;
    piece.untouched = random_below(random, 4) == 0;
    if (random_below(random, 3) == 0) /* clean pages are in the last part */
        piece.dirty_bytes = piece.parts == 1 ? 0 : piece.part_end[piece.parts - 2];
    put_one(piece, now_ms, random_below(random, 3) == 0 ? model_bytes() + 10 * UNIT : NO_LIMIT);
}

static void take_somewhere(struct random *random)
{
    if (count == 0 || random_below(random, 3) == 0) {
        take_at((char *)random_address(random));
        return;
    }
    const struct raw_piece *piece = &model[random_below(random, count)].piece;
    take_at(piece->address + (random_below(random, 3) == 0 ? piece->bytes : 0));
}

static void anything_after_anything(void **state)
{
    (void)state;
    struct random random = {1};
    uint64_t now_ms = 0;
    size_t fullest = 0;
    for (unsigned step = 0; step < 20000; step++) {
        size_t bytes = UNIT * (1 + random_below(&random, 60));
        size_t alignment = UNIT << random_below(&random, 8);
        now_ms += random_below(&random, 3);
        switch (random_below(&random, step / 2000 % 2 == 0 ? 9 : 40)) {
        case 0:
            take_older(now_ms - random_below(&random, 200));
            break;
        case 1:
            take_whole(bytes, alignment);
            break;
        case 2:
            take_largest(bytes, alignment);
            break;
        case 3:
        case 4:
            take_pages(bytes + UNIT);
            break;
        case 5:
            take_somewhere(&random);
            break;
        case 6:
            if (count > 0)
                note_untouched(&model[random_below(&random, count)].piece);
            break;
        default:
            put_somewhere(&random, now_ms);
        }
        fullest = count > fullest ? count : fullest;
        if (step % 4000 == 3999)
            take_all();
    }
    assert_int_equal(fullest, RAW_CACHE_PIECES);
    take_all();
}

static void what_is_wrong_is_seen(void **state)
{
    (void)state;
    uintptr_t begin = 16 * GRANULE_BYTES;
    struct raw_piece piece = make_piece(begin, 4 * UNIT);
    assert_true(raw_cache_put(&piece, 1, NO_LIMIT) && raw_cache_is_valid());
    struct raw_piece inside = make_piece(begin + UNIT, 2 * UNIT);
    assert_true(raw_cache_put(&inside, 2, NO_LIMIT));
    assert_false(raw_cache_is_valid());
    assert_true(raw_cache_take_at(inside.address, &inside) && raw_cache_is_valid());
    struct raw_piece torn = make_piece(begin + 32 * UNIT, 4 * UNIT);
    torn.dirty_bytes = torn.bytes + 1;
    assert_true(raw_cache_put(&torn, 3, NO_LIMIT));
    assert_false(raw_cache_is_valid());
    assert_true(raw_cache_take_at(torn.address, &torn) && raw_cache_is_valid());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_best_fit_is_taken, start_empty),
        cmocka_unit_test_setup(the_largest_is_taken, start_empty),
        cmocka_unit_test_setup(untouched_pieces_stay, start_empty),
        cmocka_unit_test_setup(neighbours_become_one, start_empty),
        cmocka_unit_test_setup(a_granule_begins_a_piece, start_empty),
        cmocka_unit_test_setup(what_could_not_be_moved_is_not_joined, start_empty),
        cmocka_unit_test_setup(bytes_and_number_are_bounded, start_empty),
        cmocka_unit_test_setup(the_oldest_goes_first, start_empty),
        cmocka_unit_test_setup(the_joined_are_young, start_empty),
        cmocka_unit_test_setup(pages_are_taken_from_where_no_block_begins, start_empty),
        cmocka_unit_test_setup(nothing_small_is_left, start_empty),
        cmocka_unit_test_setup(a_piece_is_found_by_its_address, start_empty),
        cmocka_unit_test_setup(what_is_wrong_is_seen, start_empty),
        cmocka_unit_test_setup(anything_after_anything, start_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
