/* The two names of a public function: tarn_NAME always, and the libc's NAME as an alias of it in a build that
 * overrides the libc. TARN_OVERRIDE comes from the build.
 */
#ifndef TARN_API_NAMES_H
#define TARN_API_NAMES_H

#include "base/compiler.h"

#if __has_attribute(copy)
#define ATTRIBUTES_OF(name) __attribute__((copy(name)))
#else
#define ATTRIBUTES_OF(name)
#endif

#if TARN_OVERRIDE
#define ALSO_AS(name, result, ...)                                                                           \
    EXPORT ATTRIBUTES_OF(tarn_##name) __attribute__((alias("tarn_" #name))) result name(__VA_ARGS__);
#else
#define ALSO_AS(name, result, ...)
#endif

#endif
