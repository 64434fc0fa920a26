/* Size classes: pure functions between a request and the size of the block that serves it.
 *
 *   class  0 … 7    16, 32, … 128                  multiples of 16
 *   class  8 … 23   8 per doubling up to 512       144, 160, … 256, 288, … 512
 *   class 24 … 50   4 per doubling up to 32 KiB    640, 768, 896, 1024, 1280, …
 *                   and from 4 KiB on an eighth    4608, 9216, 18432: a power of two and a header
 *                   more than a power of two
 *
 * A block is larger than the request by at most 12.5 % from 128 to 512 bytes, and 25 % above
 * (docs/decisions/0005). Every size is a multiple of 16, and a power of two that is at most 32 KiB is itself
 * a class.
 */
#ifndef TARN_POOL_SIZE_CLASS_H
#define TARN_POOL_SIZE_CLASS_H

#include "base/bits.h"
#include "base/compiler.h"

#define CLASS_COUNT          51U
#define CLASS_BYTES_MOST     (UINT64_C(32) << 10)
#define CLASS_LINEAR_BYTES   128U
#define CLASS_LINEAR_COUNT   8U
#define CLASS_FINE_BYTES     512U
#define CLASS_COARSE_UNIT    128U
#define CLASS_LARGE_FIRST    32U /* pools of 128 KiB and more: blocks above 2 KiB */
#define BLOCK_ALIGNMENT_LOG2 4U
#define BLOCK_ALIGNMENT      (1U << BLOCK_ALIGNMENT_LOG2)

/* The classes of requests above CLASS_FINE_BYTES, by (bytes - 1) / CLASS_COARSE_UNIT. */
extern const uint8_t class_of_coarse[CLASS_BYTES_MOST / CLASS_COARSE_UNIT];

/* The smallest class for a request of `bytes`, 1 <= bytes <= CLASS_BYTES_MOST. */
ALWAYS_INLINE uint32_t class_of_size(size_t bytes)
{
    if (bytes <= CLASS_LINEAR_BYTES)
        return (uint32_t)((bytes - 1) / BLOCK_ALIGNMENT);
    if (bytes <= CLASS_FINE_BYTES) {
        uint32_t log2 = bits_log2(bytes - 1);
        return (log2 - 7) * 8 + CLASS_LINEAR_COUNT + (uint32_t)((bytes - 1) >> (log2 - 3)) - 8;
    }
    return class_of_coarse[(bytes - 1) / CLASS_COARSE_UNIT];
}

/* What follows from a class, as a table: read by every free of another thread's block. */
struct class_shape {
    uint32_t reciprocal; /* 2^CLASS_RECIPROCAL_SHIFT / units, rounded up */
    uint16_t units;      /* block size in units of 16 bytes */
    uint16_t blocks;     /* in a pool */
};
extern const struct class_shape class_shapes[CLASS_COUNT];

#define CLASS_RECIPROCAL_SHIFT 31

/* Block size of a class, bytes. */
static inline uint32_t class_bytes(uint32_t class)
{
    return class_shapes[class].units * BLOCK_ALIGNMENT;
}

/* Blocks of a pool of this class. */
static inline uint32_t class_pool_blocks(uint32_t class)
{
    return class_shapes[class].blocks;
}

/* Slots of a pool of this class: 16 KiB of blocks up to 512 bytes, then 64, 128 and 256 KiB. */
static inline uint32_t class_pool_slots(uint32_t class)
{
    uint32_t bytes = class_bytes(class);
    if (bytes <= 512)
        return 1;
    if (bytes <= 2048)
        return 4;
    return bytes <= 4096 ? 8 : 16;
}

/* Whether a block of this class begins `offset` bytes behind its pool's start; its number.
 * Without a division, and exact: offsets are below 2^14 units and sizes at most 2^11, so rounding the
 * reciprocal up adds less than 2^14 / 2^31 to a quotient whose fraction is at most 1 - 2^-11. A remainder of
 * r units adds r times the reciprocal to the fraction, so below one reciprocal there is none. An offset that
 * is no multiple of a unit becomes one of 2^28 units at least, and so a number that no pool has. */
static inline bool class_has_block_at(uint32_t class, uint32_t offset, uint32_t *number)
{
    const struct class_shape *shape = &class_shapes[class];
    uint32_t units = bits_rotate_right(offset, BLOCK_ALIGNMENT_LOG2);
    uint64_t quotient = (uint64_t)units * shape->reciprocal;
    uint64_t fraction = quotient & ((UINT64_C(1) << CLASS_RECIPROCAL_SHIFT) - 1);
    *number = (uint32_t)(quotient >> CLASS_RECIPROCAL_SHIFT);
    return fraction < shape->reciprocal && *number < shape->blocks;
}

/* The size to ask for so that the smallest class that holds it has blocks that are multiples of `alignment`
 * (and so aligned to it, since pools begin at slots), and is the smallest such class that holds `bytes`. This
 * works because of what classes there are: from any multiple of a power of two to the next class above, that
 * class is one, too. alignment is a power of two, at most 16 KiB; bytes <= CLASS_BYTES_MOST. */
static inline size_t class_aligned_request(size_t bytes, size_t alignment)
{
    return bits_align_up(bytes == 0 ? 1 : bytes, alignment);
}

#endif
