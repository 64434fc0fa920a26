#include "guard/guard.h"

#include "base/bits.h"
#include "base/fatal.h"
#include "base/published.h"
#include "guard/guard_report.h"
#include "os/lock.h"
#include "os/map.h"
#include "pool/size_class.h"

#include <string.h>

#define FORBIDDEN_BYTES ((size_t)16 << 10)
#define PATTERN         0xa7
/* Of so many blocks one begins a page instead of ending one. */
#define LEFT_INTERVAL 8U
/* A freed place waits until this share of all were freed after it. */
#define WAITING_DIVISOR 8U
/* A live block cuts its arena's mapping twice. */
#define CUTS 2

static lock guard_lock = LOCK_INITIAL;
static struct arena *_Atomic arenas[GUARD_ARENAS_MOST];
static size_t places_used; /* under guard_lock, as are those below */
static size_t places_made;
static size_t arenas_made;
static bool arenas_refused;
static struct guard_place *first_waiting;
static struct guard_place *last_waiting;
static size_t waiting;
static _Atomic size_t live_blocks;
static _Atomic size_t live_bytes;

/* The unwinder may allocate: not from here. */
static THREAD_LOCAL bool is_unwinding;

void guard_publish(struct published *out)
{
    out->guard_arenas = (uintptr_t)arenas;
    out->guard_arena_count = GUARD_ARENAS_MOST;
    out->guard_live_bytes = (uintptr_t)&live_bytes;
}

/* ---- where places are ---- */

static size_t forbidden_bytes(void)
{
    size_t page = map_page_bytes();
    return page > FORBIDDEN_BYTES ? page : FORBIDDEN_BYTES;
}

static size_t room_bytes(void)
{
    size_t page = map_page_bytes();
    return page > GUARD_BYTES_MOST ? page : GUARD_BYTES_MOST;
}

static size_t header_bytes(void)
{
    return bits_align_up(ARENA_HEADER_SLOTS * SLOT_BYTES, map_page_bytes());
}

static size_t place_bytes(void)
{
    return forbidden_bytes() + room_bytes();
}

/* Behind the last place of an arena something stays forbidden. */
static size_t places_per_arena(void)
{
    return (ARENA_BYTES - header_bytes() - forbidden_bytes()) / place_bytes();
}

static_assert((ARENA_BYTES - ARENA_HEADER_SLOTS * SLOT_BYTES) / (FORBIDDEN_BYTES + GUARD_BYTES_MOST) *
                      sizeof(struct guard_place) <=
                  ARENA_SLOTS * ARENA_DESCRIPTOR_BYTES,
              "the records fit where the descriptors of other arenas are");

static struct guard_place *place_of(struct arena *arena, size_t number)
{
    return (struct guard_place *)(void *)arena->descriptors + number;
}

/* What blocks of this place may use. */
static char *room_of(const struct guard_place *place)
{
    struct arena *arena = arena_of(place);
    size_t number = (size_t)(place - place_of(arena, 0));
    return (char *)arena + header_bytes() + number * place_bytes() + forbidden_bytes();
}

static enum guard_state state_of(const struct guard_place *place)
{
    /* acquire: pairs with the release in begin; publishes start, bytes and allocated. */
    return (enum guard_state)atomic_load_explicit(&place->state, memory_order_acquire);
}

/* ---- arenas and the queue, under the lock ---- */

static void enter(struct arena *arena)
{
    for (uint32_t slot = ARENA_HEADER_SLOTS; slot < ARENA_SLOTS; slot++)
        atomic_store_explicit(&arena->slot_map[slot], GUARDED_WORD, memory_order_relaxed);
    atomic_store_explicit(&arena->mark, arena_mark(arena), memory_order_relaxed);
    /* release: pairs with the acquire in guard_nearest. */
    atomic_store_explicit(&arenas[arenas_made++], arena, memory_order_release);
    places_made += places_per_arena();
}

static bool make_arena(void)
{
    if (arenas_made == GUARD_ARENAS_MOST || arenas_refused)
        return false;
    char *arena = map_pages_aligned(ARENA_BYTES, ARENA_BYTES);
    if (arena != NULL && map_forbid(arena + header_bytes(), ARENA_BYTES - header_bytes()) &&
        address_index_set(arena, ADDRESS_ARENA)) {
        map_count_add(1);
        enter((struct arena *)(void *)arena);
        return true;
    }
    if (arena != NULL)
        map_unmap(arena, ARENA_BYTES);
    arenas_refused = true;
    return false;
}

static struct guard_place *take_waiting(void)
{
    if (waiting == 0 || waiting < places_made / WAITING_DIVISOR)
        return NULL;
    struct guard_place *place = first_waiting;
    first_waiting = place->next;
    waiting--;
    return place;
}

static struct guard_place *take_place(void)
{
    struct guard_place *place;
    lock_acquire(&guard_lock);
    if (places_used < places_made || make_arena()) {
        size_t number = places_used++;
        struct arena *arena =
            atomic_load_explicit(&arenas[number / places_per_arena()], memory_order_relaxed);
        place = place_of(arena, number % places_per_arena());
    } else {
        place = take_waiting();
    }
    lock_release(&guard_lock);
    return place;
}

static void give_place(struct guard_place *place)
{
    place->next = NULL;
    lock_acquire(&guard_lock);
    if (waiting++ == 0)
        first_waiting = place;
    else
        last_waiting->next = place;
    last_waiting = place;
    lock_release(&guard_lock);
}

/* ---- blocks ---- */

struct pages {
    char *begin;
    char *end;
};

/* What the block lies in: it and the rest up to a multiple of the alignment. */
static struct pages pages_of(const struct guard_place *place)
{
    size_t page = map_page_bytes();
    size_t held = bits_align_up(place->bytes == 0 ? 1 : place->bytes, BLOCK_ALIGNMENT);
    char *room = room_of(place);
    size_t offset = (size_t)(place->start - room);
    return (struct pages){room + bits_align_down(offset, page), room + bits_align_up(offset + held, page)};
}

static void set_block(struct guard_place *place, size_t bytes, uint64_t random)
{
    size_t held = bits_align_up(bytes == 0 ? 1 : bytes, BLOCK_ALIGNMENT);
    place->bytes = bytes;
    place->start = room_of(place);
    if (random % LEFT_INTERVAL != 0)
        place->start += room_bytes() - held;
}

static void take_stack(struct stack *stack)
{
    if (is_unwinding) {
        stack_take_thread(stack);
        return;
    }
    is_unwinding = true;
    stack_take(stack);
    is_unwinding = false;
}

static void count_live(size_t bytes, size_t blocks)
{
    atomic_fetch_add_explicit(&live_bytes, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&live_blocks, blocks, memory_order_relaxed);
}

static void fill_pattern(struct guard_place *place, struct pages pages)
{
    char *end = place->start + place->bytes;
    memset(pages.begin, PATTERN, (size_t)(place->start - pages.begin));
    memset(end, PATTERN, (size_t)(pages.end - end));
}

static void *begin(struct guard_place *place, struct pages pages)
{
    map_count_add(CUTS);
    fill_pattern(place, pages);
    place->freed.thread = 0;
    take_stack(&place->allocated);
    count_live(place->bytes, 1);
    /* release: pairs with the acquire in state_of. */
    atomic_store_explicit(&place->state, GUARD_LIVE, memory_order_release);
    return place->start;
}

void *guard_take(size_t bytes, uint64_t random)
{
    if (is_unwinding || bytes > GUARD_BYTES_MOST || map_count() >= map_count_limit() / 2)
        return NULL;
    struct guard_place *place = take_place();
    if (place == NULL)
        return NULL;
    atomic_store_explicit(&place->state, GUARD_NEVER, memory_order_relaxed);
    set_block(place, bytes, random);
    struct pages pages = pages_of(place);
    if (map_permit(pages.begin, (size_t)(pages.end - pages.begin)))
        return begin(place, pages);
    give_place(place);
    return NULL;
}

/* Whether all bytes hold the pattern: the first does, and each is like the one before. */
static bool is_whole(const char *begin, const char *end)
{
    size_t bytes = (size_t)(end - begin);
    return bytes == 0 ||
           (*(const unsigned char *)begin == PATTERN && memcmp(begin, begin + 1, bytes - 1) == 0);
}

/* The first byte outside of the block that is not as it was, looked for from the block outwards, or NULL. */
static const char *find_damage(const struct guard_place *place)
{
    struct pages pages = pages_of(place);
    if (LIKELY(is_whole(place->start + place->bytes, pages.end) && is_whole(pages.begin, place->start)))
        return NULL;
    for (const char *at = place->start + place->bytes; at < pages.end; at++)
        if (*(const unsigned char *)at != PATTERN)
            return at;
    for (const char *at = place->start - 1; at >= pages.begin; at--)
        if (*(const unsigned char *)at != PATTERN)
            return at;
    return NULL;
}

static void end(struct guard_place *place)
{
    struct pages pages = pages_of(place);
    const char *damage = find_damage(place);
    take_stack(&place->freed);
    if (UNLIKELY(damage != NULL))
        guard_report_damage(place, damage);
    bool forbidden = map_forbid(pages.begin, (size_t)(pages.end - pages.begin));
    count_live(0 - place->bytes, (size_t)-1);
    atomic_store_explicit(&place->state, GUARD_FREED, memory_order_release);
    if (!forbidden) /* the kernel has no memory: the place is never used again */
        return;
    map_count_add(-CUTS);
    give_place(place);
}

void guard_free(void *pointer)
{
    struct guard_place *place = guard_nearest(pointer);
    uint32_t live = GUARD_LIVE;
    /* Of several frees of one block one goes on. A place that was taken anew meanwhile has another block, or
     * the same again: that one is freed then, as with any allocator. */
    if (UNLIKELY(place == NULL || place->start != (char *)pointer ||
                 !atomic_compare_exchange_strong_explicit(&place->state, &live, GUARD_FREEING,
                                                          memory_order_acquire, memory_order_relaxed)))
        guard_report_wrong_free(pointer);
    end(place);
}

bool guard_is_live(const void *pointer, size_t *bytes)
{
    const struct guard_place *place = guard_nearest(pointer);
    if (place == NULL || state_of(place) != GUARD_LIVE || place->start != (const char *)pointer)
        return false;
    *bytes = place->bytes;
    return true;
}

static size_t distance_to(const struct guard_place *place, const char *address)
{
    if (address < place->start)
        return (size_t)(place->start - address);
    const char *block_end = place->start + place->bytes;
    return address < block_end ? 0 : (size_t)(address - block_end) + 1;
}

/* Either side of an address that is between two places. */
static struct guard_place *nearest_in(struct arena *arena, const char *address)
{
    size_t offset = (size_t)(address - (char *)arena);
    size_t header = header_bytes();
    if (offset < header)
        return NULL;
    size_t number = (offset - header) / place_bytes();
    struct guard_place *found = NULL;
    for (size_t i = number > 0 ? number - 1 : 0; i <= number && i < places_per_arena(); i++) {
        struct guard_place *place = place_of(arena, i);
        if (state_of(place) == GUARD_NEVER)
            continue;
        if (found == NULL || distance_to(place, address) < distance_to(found, address))
            found = place;
    }
    return found;
}

struct guard_place *guard_nearest(const void *address)
{
    struct arena *arena = arena_of(address);
    for (size_t i = 0; i < GUARD_ARENAS_MOST; i++) {
        struct arena *one = atomic_load_explicit(&arenas[i], memory_order_acquire);
        if (one == NULL)
            break;
        if (one == arena)
            return nearest_in(arena, address);
    }
    return NULL;
}

struct guard_totals guard_totals(void)
{
    lock_acquire(&guard_lock);
    struct guard_totals totals = {
        .live_blocks = atomic_load_explicit(&live_blocks, memory_order_relaxed),
        .live_bytes = atomic_load_explicit(&live_bytes, memory_order_relaxed),
        .places = places_used,
        .waiting = waiting,
    };
    lock_release(&guard_lock);
    return totals;
}

void guard_before_fork(void)
{
    lock_acquire(&guard_lock);
}

void guard_after_fork(void)
{
    lock_release(&guard_lock);
}
