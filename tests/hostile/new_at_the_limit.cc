/*
 * Hostile use: operator new when there is no memory left at all: the new_handler is called, may itself
 * allocate and free, its reserve lets the request succeed; without one bad_alloc is thrown, the nothrow forms
 * give NULL, and none of them recurs.
 */
#include "../support.h"

#include <cstdio>
#include <new>
#include <sys/resource.h>
#include <unistd.h>

#include "../interface.h"

namespace
{

constexpr std::size_t RESERVE_BYTES = 64 * MIB, REQUEST_BYTES = 32 * MIB;
constexpr int MOST = 100000;

void *taken[MOST];
int count, handler_calls, depth, deepest;
void *reserve;

/* Needs memory itself, of which there is none: that must not lead back here. */
void give_reserve()
{
    handler_calls++;
    if (++depth > deepest)
        deepest = depth;
    free(malloc(opaque_size(REQUEST_BYTES)));
    if (reserve != nullptr) {
        ::operator delete(reserve);
        reserve = nullptr;
    } else {
        std::set_new_handler(nullptr);
    }
    depth--;
}

/* Takes all that the limit leaves, in ever smaller pieces. */
void take_all_memory()
{
    for (std::size_t size = 16 * MIB; size >= 1024; size /= 4)
        while (count < MOST && (taken[count] = ::operator new(size, std::nothrow)) != nullptr)
            count++;
}

bool throws(std::size_t size, bool is_aligned)
{
    try {
        void *block = is_aligned ? ::operator new (size, std::align_val_t{4096}) : ::operator new(size);
        ::operator delete(opaque(block));
        return false;
    } catch (const std::bad_alloc &) {
        return true;
    }
}

void check_without_memory()
{
    must(throws(opaque_size(REQUEST_BYTES), false) && throws(opaque_size(REQUEST_BYTES), true));
    must(opaque(::operator new(opaque_size(REQUEST_BYTES), std::nothrow)) == nullptr);
    must(opaque(::operator new[](opaque_size(REQUEST_BYTES), std::nothrow)) == nullptr);
    must(opaque(::operator new (opaque_size(REQUEST_BYTES), std::align_val_t{64}, std::nothrow)) == nullptr);
}

} // namespace

int main()
{
    struct rlimit limit = {address_space_bytes() + 256 * MIB, RLIM_INFINITY};

    must(throws(opaque_size(SIZE_MAX / 2),
                false)); /* the runtime's own first needs are met before the limit */
    must(setrlimit(RLIMIT_AS, &limit) == 0);
    reserve = ::operator new(RESERVE_BYTES);
    take_all_memory();
    must(count > 20 && count < MOST);
    check_without_memory();
    puts("ok 1 - without a new_handler bad_alloc or NULL");

    std::set_new_handler(give_reserve);
    void *block = ::operator new(opaque_size(REQUEST_BYTES));
    must(block != nullptr && handler_calls == 1 && deepest == 1);
    static_cast<char *>(block)[REQUEST_BYTES - 1] = 1;
    ::operator delete(block);
    puts("ok 2 - the new_handler's reserve serves the request");

    while (count < MOST && (taken[count] = malloc(4 * MIB)) != nullptr)
        count++;
    must(throws(opaque_size(REQUEST_BYTES), false) && handler_calls == 2 && deepest == 1);
    check_without_memory();
    puts("ok 3 - a new_handler that gives up is called once");

    while (count > 0)
        ::operator delete(taken[--count]);
    must(!throws(opaque_size(REQUEST_BYTES), false));
    puts("ok 4 - memory is usable afterwards\n1..4");
    return 0;
}
