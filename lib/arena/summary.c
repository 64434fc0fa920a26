#include "arena/summary.h"

#include "base/bits.h"
#include "base/counters.h"

static void set_bit(_Atomic uint64_t *word, uint32_t bit)
{
    if ((atomic_load_explicit(word, memory_order_seq_cst) >> bit & 1) != 0)
        return;
    counter_locked();
    atomic_fetch_or_explicit(word, UINT64_C(1) << bit, memory_order_seq_cst);
}

/* True when the word is 0 afterwards. */
static bool clear_bit(_Atomic uint64_t *word, uint32_t bit)
{
    uint64_t mask = UINT64_C(1) << bit;
    counter_locked();
    return (atomic_fetch_and_explicit(word, ~mask, memory_order_seq_cst) & ~mask) == 0;
}

static bool is_empty(const _Atomic uint64_t *word)
{
    return atomic_load_explicit(word, memory_order_seq_cst) == 0;
}

static void set_above_leaf(struct summary *summary, unsigned bucket, uint32_t leaf)
{
    set_bit(&summary->middle[leaf / 64][bucket], leaf % 64);
    set_bit(&summary->root[bucket], leaf / 64);
}

/* The leaf word was seen empty: takes the bits above it away, and puts them back if that was too early. */
static void clear_above_leaf(struct summary *summary, unsigned bucket, uint32_t leaf)
{
    bool middle_empty = clear_bit(&summary->middle[leaf / 64][bucket], leaf % 64);
    if (!is_empty(&summary->leaf[leaf][bucket])) {
        set_above_leaf(summary, bucket, leaf);
        return;
    }
    if (!middle_empty)
        return;
    clear_bit(&summary->root[bucket], leaf / 64);
    if (!is_empty(&summary->middle[leaf / 64][bucket]))
        set_bit(&summary->root[bucket], leaf / 64);
}

void summary_add(struct summary *summary, unsigned bucket, uint32_t member)
{
    uint32_t leaf = member / 64;
    set_bit(&summary->leaf[leaf][bucket], member % 64);
    set_above_leaf(summary, bucket, leaf);
}

void summary_remove(struct summary *summary, unsigned bucket, uint32_t member)
{
    uint32_t leaf = member / 64;
    if (clear_bit(&summary->leaf[leaf][bucket], member % 64))
        clear_above_leaf(summary, bucket, leaf);
}

static uint32_t find_in_bucket(struct summary *summary, unsigned bucket)
{
    for (;;) {
        uint64_t root = atomic_load_explicit(&summary->root[bucket], memory_order_seq_cst);
        if (root == 0)
            return SUMMARY_NONE;
        uint32_t number = bits_lowest(root);
        uint64_t middle = atomic_load_explicit(&summary->middle[number][bucket], memory_order_seq_cst);
        if (middle == 0) { /* left over: as if its last leaf had just been emptied */
            clear_bit(&summary->root[bucket], number);
            if (!is_empty(&summary->middle[number][bucket]))
                set_bit(&summary->root[bucket], number);
            continue;
        }
        uint32_t leaf = number * 64 + bits_lowest(middle);
        uint64_t members = atomic_load_explicit(&summary->leaf[leaf][bucket], memory_order_seq_cst);
        if (members != 0)
            return leaf * 64 + bits_lowest(members);
        clear_above_leaf(summary, bucket, leaf);
    }
}

uint32_t summary_find(struct summary *summary, uint32_t buckets, uint32_t *bucket)
{
    for (; buckets != 0; buckets &= buckets - 1) {
        *bucket = bits_lowest(buckets);
        if (atomic_load_explicit(&summary->root[*bucket], memory_order_relaxed) == 0)
            continue;
        uint32_t member = find_in_bucket(summary, *bucket);
        if (member != SUMMARY_NONE)
            return member;
    }
    return SUMMARY_NONE;
}

uint32_t summary_buckets_of(struct summary *summary, uint32_t member)
{
    uint32_t buckets = 0;
    for (unsigned bucket = 0; bucket < SUMMARY_BUCKETS; bucket++)
        if ((atomic_load(&summary->leaf[member / 64][bucket]) >> member % 64 & 1) != 0)
            buckets |= 1U << bucket;
    return buckets;
}

/* Whether the bit stands where the word below holds something. */
static bool is_known_above(const _Atomic uint64_t *word, const _Atomic uint64_t *above, uint32_t bit)
{
    return is_empty(word) || (atomic_load(above) >> bit & 1) != 0;
}

bool summary_is_valid(struct summary *summary, uint32_t bound)
{
    uint32_t leaves = (bound + 63) / 64;
    for (unsigned bucket = 0; bucket < SUMMARY_BUCKETS; bucket++)
        for (uint32_t leaf = 0; leaf < leaves; leaf++)
            if (!is_known_above(&summary->leaf[leaf][bucket], &summary->middle[leaf / 64][bucket],
                                leaf % 64) ||
                !is_known_above(&summary->middle[leaf / 64][bucket], &summary->root[bucket], leaf / 64))
                return false;
    return true;
}
