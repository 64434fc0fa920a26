/* The replaceable C++ operators new and delete (C++17 [new.delete], C++14 sized forms). The one C++ file of
 * the library, since only C++ can throw and catch.
 *
 * The library must not need a C++ runtime in a C program, so everything of the runtime that this file touches
 * is weak: a program that calls operator new has the runtime, and a program without it never comes here.
 */
#include <cstddef>
#include <cstdint>
#include <dlfcn.h>
#include <new>

extern "C" {
#include "api/allocate.h"
#include "api/release.h"
}
#include "tarn/tarn.h"

/* References the compiler makes for try and catch. */
__asm__(".weak __gxx_personality_v0\n"
        ".weak __cxa_begin_catch\n"
        ".weak __cxa_end_catch\n"
        ".weak __cxa_rethrow\n"
        ".weak _ZSt9terminatev\n");

extern "C" [[noreturn]] __attribute__((weak)) void
runtime_throw_bad_alloc() __asm__("_ZSt17__throw_bad_allocv");
extern "C" __attribute__((weak)) std::new_handler runtime_get_new_handler() __asm__("_ZSt15get_new_handlerv");

#define OPERATOR __attribute__((visibility("default")))

namespace
{

/* A runtime that came in after this library, by dlopen, is not bound to the weak names. */
template <typename Function> Function find(Function bound, const char *name)
{
    if (bound != nullptr)
        return bound;
    void *found = dlsym(RTLD_DEFAULT, name);
    return reinterpret_cast<Function>(found);
}

/* One round of [new.delete.single] 4: calls the new_handler, or says that there is none. */
bool call_new_handler()
{
    auto get = find(&runtime_get_new_handler, "_ZSt15get_new_handlerv");
    std::new_handler handler = get != nullptr ? get() : nullptr;
    if (handler == nullptr)
        return false;
    handler();
    return true;
}

[[noreturn]] void throw_bad_alloc()
{
    auto thrower = find(&runtime_throw_bad_alloc, "_ZSt17__throw_bad_allocv");
    if (thrower != nullptr)
        thrower();
    __builtin_abort();
}

void *take(std::size_t bytes, std::size_t alignment)
{
    return alignment == 0 ? tarn_malloc(bytes) : allocate_aligned(bytes, alignment);
}

__attribute__((cold, noinline)) void *take_after_handler(std::size_t bytes, std::size_t alignment)
{
    for (;;) {
        if (!call_new_handler())
            throw_bad_alloc();
        void *block = take(bytes, alignment);
        if (block != nullptr)
            return block;
    }
}

__attribute__((cold, noinline)) void *take_after_handler_nothrow(std::size_t bytes,
                                                                 std::size_t alignment) noexcept
{
    try {
        while (call_new_handler()) {
            void *block = take(bytes, alignment);
            if (block != nullptr)
                return block;
        }
    } catch (...) {
    }
    return nullptr;
}

inline void *take_or_throw(std::size_t bytes, std::size_t alignment = 0)
{
    void *block = take(bytes, alignment);
    return __builtin_expect(block != nullptr, 1) ? block : take_after_handler(bytes, alignment);
}

inline void *take_or_null(std::size_t bytes, std::size_t alignment = 0) noexcept
{
    void *block = take(bytes, alignment);
    return __builtin_expect(block != nullptr, 1) ? block : take_after_handler_nothrow(bytes, alignment);
}

inline std::size_t number(std::align_val_t alignment)
{
    return static_cast<std::size_t>(alignment);
}

} // namespace

OPERATOR void *operator new(std::size_t bytes)
{
    return take_or_throw(bytes);
}

OPERATOR void *operator new[](std::size_t bytes)
{
    return take_or_throw(bytes);
}

OPERATOR void *operator new(std::size_t bytes, const std::nothrow_t &) noexcept
{
    return take_or_null(bytes);
}

OPERATOR void *operator new[](std::size_t bytes, const std::nothrow_t &) noexcept
{
    return take_or_null(bytes);
}

OPERATOR void *operator new(std::size_t bytes, std::align_val_t alignment)
{
    return take_or_throw(bytes, number(alignment));
}

OPERATOR void *operator new[](std::size_t bytes, std::align_val_t alignment)
{
    return take_or_throw(bytes, number(alignment));
}

OPERATOR void *operator new(std::size_t bytes, std::align_val_t alignment, const std::nothrow_t &) noexcept
{
    return take_or_null(bytes, number(alignment));
}

OPERATOR void *operator new[](std::size_t bytes, std::align_val_t alignment, const std::nothrow_t &) noexcept
{
    return take_or_null(bytes, number(alignment));
}

OPERATOR void operator delete(void *pointer) noexcept
{
    tarn_free(pointer);
}

OPERATOR void operator delete[](void *pointer) noexcept
{
    tarn_free(pointer);
}

OPERATOR void operator delete(void *pointer, const std::nothrow_t &) noexcept
{
    tarn_free(pointer);
}

OPERATOR void operator delete[](void *pointer, const std::nothrow_t &) noexcept
{
    tarn_free(pointer);
}

OPERATOR void operator delete(void *pointer, std::size_t bytes) noexcept
{
    release_sized(pointer, bytes, "operator delete");
}

OPERATOR void operator delete[](void *pointer, std::size_t bytes) noexcept
{
    release_sized(pointer, bytes, "operator delete[]");
}

OPERATOR void operator delete(void *pointer, std::align_val_t) noexcept
{
    tarn_free(pointer);
}

OPERATOR void operator delete[](void *pointer, std::align_val_t) noexcept
{
    tarn_free(pointer);
}

OPERATOR void operator delete(void *pointer, std::align_val_t, const std::nothrow_t &) noexcept
{
    tarn_free(pointer);
}

OPERATOR void operator delete[](void *pointer, std::align_val_t, const std::nothrow_t &) noexcept
{
    tarn_free(pointer);
}

OPERATOR void operator delete(void *pointer, std::size_t bytes, std::align_val_t alignment) noexcept
{
    release_aligned(pointer, number(alignment), bytes, "operator delete");
}

OPERATOR void operator delete[](void *pointer, std::size_t bytes, std::align_val_t alignment) noexcept
{
    release_aligned(pointer, number(alignment), bytes, "operator delete[]");
}
