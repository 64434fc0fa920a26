#include "pool/size_class.h"

uint32_t class_of_aligned_size(size_t bytes, size_t alignment)
{
    if (bytes > CLASS_BYTES_MOST)
        return CLASS_COUNT;
    uint32_t class = class_of_size(bytes == 0 ? 1 : bytes);
    while (class < CLASS_COUNT && class_bytes(class) % alignment != 0)
        class++;
    return class;
}
