#include "pool/size_class.h"

#define UNITS(bytes) ((bytes) / 16)
#define POOL_BYTES(bytes)                                                                                    \
    ((bytes) <= 512 ? 1 << 14 : (bytes) <= 2048 ? 1 << 16 : (bytes) <= 4096 ? 1 << 17 : 1 << 18)
#define SHAPE(bytes)                                                                                         \
    {                                                                                                        \
        (uint32_t)(((UINT64_C(1) << CLASS_RECIPROCAL_SHIFT) + UNITS(bytes) - 1) / UNITS(bytes)),             \
            UNITS(bytes), POOL_BYTES(bytes) / (bytes)                                                        \
    }
#define FOUR(first, step)                                                                                    \
    SHAPE(first), SHAPE((first) + (step)), SHAPE((first) + 2 * (step)), SHAPE((first) + 3 * (step))
#define EIGHT(first, step) FOUR(first, step), FOUR((first) + 4 * (step), step)
#define FIVE(first, step)  SHAPE((first) - (step) / 2), FOUR(first, step)

const struct class_shape class_shapes[CLASS_COUNT] = {
    EIGHT(16, 16),   EIGHT(144, 16),   EIGHT(288, 32),    FOUR(640, 128),    FOUR(1280, 256),
    FOUR(2560, 512), FIVE(5120, 1024), FIVE(10240, 2048), FIVE(20480, 4096),
};

#define TIMES_1(class)     class
#define TIMES_2(class)     class, class
#define TIMES_4(class)     TIMES_2(class), TIMES_2(class)
#define TIMES_8(class)     TIMES_4(class), TIMES_4(class)
#define TIMES_16(class)    TIMES_8(class), TIMES_8(class)
#define TIMES_32(class)    TIMES_16(class), TIMES_16(class)
#define FROM(class, times) times(class), times((class) + 1), times((class) + 2), times((class) + 3)
#define FROM_HALF(class, half, times)                                                                        \
    half(class), half((class) + 1), times((class) + 2), times((class) + 3), times((class) + 4)

/* The first four, of the sizes up to CLASS_FINE_BYTES, are not used. */
const uint8_t class_of_coarse[CLASS_BYTES_MOST / CLASS_COARSE_UNIT] = {FROM(20, TIMES_1),
                                                                       FROM(24, TIMES_1),
                                                                       FROM(28, TIMES_2),
                                                                       FROM(32, TIMES_4),
                                                                       FROM_HALF(36, TIMES_4, TIMES_8),
                                                                       FROM_HALF(41, TIMES_8, TIMES_16),
                                                                       FROM_HALF(46, TIMES_16, TIMES_32)};
