#include "pool/size_class.h"

#define RECIPROCAL(bytes) ((uint32_t)(((UINT64_C(1) << CLASS_RECIPROCAL_SHIFT) + (bytes) / 16 - 1) / ((bytes) / 16)))
#define EIGHT(first, step)                                                                                         \
    RECIPROCAL(first), RECIPROCAL((first) + (step)), RECIPROCAL((first) + 2 * (step)),                             \
        RECIPROCAL((first) + 3 * (step)), RECIPROCAL((first) + 4 * (step)), RECIPROCAL((first) + 5 * (step)),      \
        RECIPROCAL((first) + 6 * (step)), RECIPROCAL((first) + 7 * (step))
#define FOUR(first, step)                                                                                          \
    RECIPROCAL(first), RECIPROCAL((first) + (step)), RECIPROCAL((first) + 2 * (step)), RECIPROCAL((first) + 3 * (step))

const uint32_t class_reciprocals[CLASS_COUNT] = {
    EIGHT(16, 16),    EIGHT(144, 16),    EIGHT(288, 32),    FOUR(640, 128),    FOUR(1280, 256),
    FOUR(2560, 512),  FOUR(5120, 1024),  FOUR(10240, 2048), FOUR(20480, 4096),
};

uint32_t class_of_aligned_size(size_t bytes, size_t alignment)
{
    if (bytes > CLASS_BYTES_MOST)
        return CLASS_COUNT;
    uint32_t class = class_of_size(bytes == 0 ? 1 : bytes);
    while (class < CLASS_COUNT && class_bytes(class) % alignment != 0)
        class++;
    return class;
}
