/* Compiler attributes, named once. No state, no includes from other rooms. */
#ifndef TARN_BASE_COMPILER_H
#define TARN_BASE_COMPILER_H

#if __SIZEOF_POINTER__ != 8
#error "Tarn needs 64-bit addresses"
#endif

#define LIKELY(condition)   __builtin_expect(!!(condition), 1)
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)

#define COLD __attribute__((cold, noinline))
/* Out of line, but not rare: the compiler would take it for that, since the hot path seldom comes here. */
#define OUT_OF_LINE   __attribute__((hot, noinline))
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define EXPORT        __attribute__((visibility("default")))
#define CACHE_LINE    64
#define LINE_ALIGNED  __attribute__((aligned(CACHE_LINE)))

/* Initial-exec: one load from the global offset table, never __tls_get_addr, which may call malloc. */
#define THREAD_LOCAL __thread __attribute__((tls_model("initial-exec")))

/* Build choices as constants, so that both sides of a choice compile everywhere. */
#ifndef TARN_CHECKED
#define TARN_CHECKED 0
#endif
#ifndef TARN_HARDENED
#define TARN_HARDENED 0
#endif
#ifndef TARN_COUNTERS
#define TARN_COUNTERS 0
#endif

#if defined(__SANITIZE_THREAD__)
#define TARN_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TARN_THREAD_SANITIZER 1
#endif
#endif
#ifndef TARN_THREAD_SANITIZER
#define TARN_THREAD_SANITIZER 0
#endif

#endif
