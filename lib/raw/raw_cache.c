#include "raw/raw_cache.h"

#include "os/settings.h"

struct entry {
    struct raw_mapping mapping;
    uint64_t put_ms;
};

/* In the order of putting, oldest first. */
static struct entry entries[RAW_CACHE_ENTRIES];
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

static struct raw_mapping take_out(size_t index)
{
    struct raw_mapping mapping = entries[index].mapping;
    total_bytes -= mapping.bytes;
    count--;
    for (size_t i = index; i < count; i++)
        entries[i] = entries[i + 1];
    return mapping;
}

unsigned raw_cache_put(const struct raw_mapping *mapping, uint64_t now_ms,
                       struct raw_mapping evicted[RAW_CACHE_ENTRIES + 1])
{
    unsigned out = 0;
    if (mapping->bytes > settings.raw_cache_bytes) {
        evicted[out++] = *mapping;
        return out;
    }
    while (count > 0 && (count == RAW_CACHE_ENTRIES || total_bytes + mapping->bytes > settings.raw_cache_bytes))
        evicted[out++] = take_out(0);
    entries[count++] = (struct entry){*mapping, now_ms};
    total_bytes += mapping->bytes;
    return out;
}

bool raw_cache_take(size_t bytes, struct raw_mapping *mapping)
{
    size_t best = count;
    size_t largest = count;
    for (size_t i = 0; i < count; i++) {
        size_t have = entries[i].mapping.bytes;
        if (have >= bytes && (best == count || have <= entries[best].mapping.bytes))
            best = i;
        if (largest == count || have >= entries[largest].mapping.bytes)
            largest = i;
    }
    if (best == count && largest < count && entries[largest].mapping.bytes >= bytes / 4)
        best = largest;
    if (best == count)
        return false;
    *mapping = take_out(best);
    return true;
}

bool raw_cache_take_older(uint64_t then_ms, struct raw_mapping *mapping)
{
    if (count == 0 || entries[0].put_ms > then_ms)
        return false;
    *mapping = take_out(0);
    return true;
}
