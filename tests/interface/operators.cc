/*
 * The C++ operators: every form of new and delete, alignment, the new_handler's part, and bad_alloc for what
 * cannot be had. The operators are those of the library, as the memory they give is counted by its
 * statistics.
 */
#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include <sys/resource.h>

extern "C" {
#include <cmocka.h>
}

#include "../support.h"

#include "../interface.h"

namespace
{

constexpr std::size_t sizes[] = {0, 1, 16, 100, 513, 4096, 32768, 32769, 524288, 524289, 5000000};
constexpr std::size_t too_large = std::numeric_limits<std::size_t>::max() / 4;

int handler_calls;
int handler_calls_until_it_gives_up;

/* Has nothing to free: gives up after some calls by uninstalling itself. */
void handler_that_gives_up()
{
    if (++handler_calls >= handler_calls_until_it_gives_up)
        std::set_new_handler(nullptr);
}

struct handler_exception : std::bad_alloc {
};

void handler_that_throws()
{
    handler_calls++;
    throw handler_exception();
}

std::size_t in_use()
{
    mallinfo2_fields info = mallinfo2();

    return info.uordblks + info.hblkhd;
}

void assert_good_block(void *block, std::size_t size, std::size_t alignment)
{
    assert_non_null(block);
    assert_true(reinterpret_cast<std::uintptr_t>(block) % alignment == 0);
    pattern_write(block, size, size);
    assert_true(pattern_holds(block, size, size));
}

void plain_and_sized(void **)
{
    for (std::size_t size : sizes) {
        void *blocks[] = {::operator new(size),
                          ::operator new(size),
                          ::operator new[](size),
                          ::operator new[](size),
                          ::operator new(size, std::nothrow),
                          ::operator new[](size, std::nothrow)};

        for (void *block : blocks)
            assert_good_block(block, size, 16);
        ::operator delete(blocks[0]);
        ::operator delete(blocks[1], size);
        ::operator delete[](blocks[2]);
        ::operator delete[](blocks[3], size);
        ::operator delete(blocks[4], std::nothrow);
        ::operator delete[](blocks[5], std::nothrow);
    }
}

void aligned(void **)
{
    for (std::size_t size : sizes)
        for (std::size_t alignment = 1; alignment <= 1048576; alignment *= 2) {
            std::align_val_t a{alignment};
            void *blocks[] = {::operator new(size, a),
                              ::operator new(size, a),
                              ::operator new[](size, a),
                              ::operator new[](size, a),
                              ::operator new(size, a, std::nothrow),
                              ::operator new[](size, a, std::nothrow)};

            for (void *block : blocks)
                assert_good_block(block, size, alignment);
            ::operator delete(blocks[0], a);
            ::operator delete(blocks[1], size, a);
            ::operator delete[](blocks[2], a);
            ::operator delete[](blocks[3], size, a);
            ::operator delete(blocks[4], a, std::nothrow);
            ::operator delete[](blocks[5], a, std::nothrow);
        }
}

void null_is_deleted(void **)
{
    std::size_t before = in_use();

    ::operator delete(opaque(nullptr));
    ::operator delete[](opaque(nullptr));
    ::operator delete (opaque(nullptr), std::size_t{0});
    ::operator delete[](opaque(nullptr), std::size_t{0});
    ::operator delete(opaque(nullptr), std::nothrow);
    ::operator delete[](opaque(nullptr), std::nothrow);
    ::operator delete (opaque(nullptr), std::align_val_t{64});
    ::operator delete[](opaque(nullptr), std::align_val_t{64});
    ::operator delete (opaque(nullptr), std::size_t{0}, std::align_val_t{64});
    ::operator delete[](opaque(nullptr), std::size_t{0}, std::align_val_t{64});
    ::operator delete (opaque(nullptr), std::align_val_t{64}, std::nothrow);
    ::operator delete[](opaque(nullptr), std::align_val_t{64}, std::nothrow);
    assert_int_equal(in_use(), before);
}

void memory_is_counted_by_the_library(void **)
{
    std::size_t before = in_use();
    std::vector<void *> blocks(10000);

    for (void *&block : blocks)
        block = ::operator new(1000);
    assert_true(in_use() >= before + 10000000);
    for (void *block : blocks)
        ::operator delete (block, std::size_t{1000});
    assert_true(in_use() < before + 2000000);
}

template <typename Allocate> void must_throw_after_the_handler(Allocate allocate)
{
    bool thrown = false;

    handler_calls = 0;
    handler_calls_until_it_gives_up = 3;
    std::set_new_handler(handler_that_gives_up);
    try {
        (void)opaque(allocate());
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    assert_true(thrown);
    assert_int_equal(handler_calls, 3);
    assert_true(std::get_new_handler() == nullptr);

    thrown = false;
    try {
        (void)opaque(allocate());
    } catch (const std::bad_alloc &) {
        thrown = true;
    }
    assert_true(thrown);
    assert_int_equal(handler_calls, 3);

    thrown = false;
    handler_calls = 0;
    std::set_new_handler(handler_that_throws);
    try {
        (void)opaque(allocate());
    } catch (const handler_exception &) {
        thrown = true;
    }
    std::set_new_handler(nullptr);
    assert_true(thrown);
    assert_int_equal(handler_calls, 1);
}

void throwing_forms_throw(void **)
{
    std::size_t size = opaque_size(too_large);

    must_throw_after_the_handler([=] { return ::operator new(size); });
    must_throw_after_the_handler([=] { return ::operator new[](size); });
    must_throw_after_the_handler([=] { return ::operator new (size, std::align_val_t{256}); });
    must_throw_after_the_handler([=] { return ::operator new[](size, std::align_val_t{256}); });
}

template <typename Allocate> void must_return_null(Allocate allocate)
{
    std::set_new_handler(nullptr);
    assert_null(opaque(allocate()));

    handler_calls = 0;
    handler_calls_until_it_gives_up = 2;
    std::set_new_handler(handler_that_gives_up);
    assert_null(opaque(allocate()));
    assert_int_equal(handler_calls, 2);

    handler_calls = 0;
    std::set_new_handler(handler_that_throws);
    assert_null(opaque(allocate()));
    std::set_new_handler(nullptr);
    assert_int_equal(handler_calls, 1);
}

void nothrow_forms_return_null(void **)
{
    std::size_t size = opaque_size(too_large);

    must_return_null([=] { return ::operator new(size, std::nothrow); });
    must_return_null([=] { return ::operator new[](size, std::nothrow); });
    must_return_null([=] { return ::operator new (size, std::align_val_t{256}, std::nothrow); });
    must_return_null([=] { return ::operator new[](size, std::align_val_t{256}, std::nothrow); });
}

void *reserve;

void handler_that_frees_the_reserve()
{
    handler_calls++;
    ::operator delete(reserve);
    reserve = nullptr;
    std::set_new_handler(nullptr);
}

/* Room for a request comes about in the handler: the operator must try again after it. */
void a_handler_that_helps(void **)
{
    constexpr std::size_t reserve_bytes = 512 * MIB, wanted_bytes = 256 * MIB, headroom_bytes = 64 * MIB;
    struct rlimit limit, kept;
    void *block = nullptr;

    reserve = ::operator new(reserve_bytes);
    assert_int_equal(getrlimit(RLIMIT_AS, &kept), 0);
    limit = kept;
    limit.rlim_cur = address_space_bytes() + headroom_bytes;
    assert_int_equal(setrlimit(RLIMIT_AS, &limit), 0);
    handler_calls = 0;
    std::set_new_handler(handler_that_frees_the_reserve);
    try {
        block = ::operator new(opaque_size(wanted_bytes));
    } catch (const std::bad_alloc &) {
    }
    std::set_new_handler(nullptr);
    assert_int_equal(setrlimit(RLIMIT_AS, &kept), 0);
    assert_non_null(block);
    assert_int_equal(handler_calls, 1);
    ::operator delete(block);
}

struct alignas(128) wide {
    char bytes[300];
};

/* As programs use them: containers, over-aligned types, strings in several threads, freed by others. */
void containers(void **)
{
    std::vector<std::map<std::string, std::vector<std::string>>> maps(4);
    std::vector<std::thread> threads;

    for (std::size_t t = 0; t < maps.size(); t++)
        threads.emplace_back([t, &maps] {
            for (std::size_t i = 0; i < 3000; i++)
                maps[t][std::string(i % 100, 'k') + std::to_string(i)].push_back(std::string(i % 700, 'v'));
        });
    for (std::thread &thread : threads)
        thread.join();
    for (auto &map : maps) {
        assert_int_equal(map.size(), 3000);
        for (auto &entry : map)
            for (auto &text : entry.second)
                assert_true(text.find_first_not_of('v') == std::string::npos);
        map.clear();
    }
    for (std::size_t i = 0; i < 100; i++) {
        wide *array = new wide[i + 1];

        assert_true(reinterpret_cast<std::uintptr_t>(array) % 128 == 0);
        std::memset(static_cast<void *>(array), 1, sizeof(wide) * (i + 1));
        delete[] array;
    }
}

} // namespace

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_and_sized),      cmocka_unit_test(aligned),
        cmocka_unit_test(null_is_deleted),      cmocka_unit_test(memory_is_counted_by_the_library),
        cmocka_unit_test(throwing_forms_throw), cmocka_unit_test(nothrow_forms_return_null),
        cmocka_unit_test(a_handler_that_helps), cmocka_unit_test(containers),
    };

    return cmocka_run_group_tests_name("operators", tests, nullptr, nullptr);
}
