/* Tracing probes (USDT, provider `tarn`): places in the machine code that a tracer can find by name, one nop
 * each, with arguments that are in registers or memory already. On slow paths only. Built in where the
 * compiler finds sys/sdt.h (meson's option `probes`); else they are nothing. Documented in docs/probes.md,
 * which a test compares with this library's notes.
 */
#ifndef TARN_BASE_PROBE_H
#define TARN_BASE_PROBE_H

#if TARN_PROBES
#include <sys/sdt.h>

/* That header's macros leave the arguments of an ellipsis out. */
#ifdef __clang__
#pragma clang diagnostic ignored "-Wgnu-zero-variadic-macro-arguments"
#endif

#define PROBE_1(name, a)       DTRACE_PROBE1(tarn, name, a)
#define PROBE_2(name, a, b)    DTRACE_PROBE2(tarn, name, a, b)
#define PROBE_3(name, a, b, c) DTRACE_PROBE3(tarn, name, a, b, c)

#else

#define PROBE_1(name, a)       ((void)(a))
#define PROBE_2(name, a, b)    ((void)(a), (void)(b))
#define PROBE_3(name, a, b, c) ((void)(a), (void)(b), (void)(c))

#endif
#endif
