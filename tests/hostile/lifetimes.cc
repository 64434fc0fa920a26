/*
 * Hostile use: C++ objects that allocate in their constructors and free in their destructors: static ones,
 * thread_local ones of many threads and of the first, those of functions, made while others are destroyed,
 * and functions registered with atexit from within destructors. Each tells that it was destroyed with the
 * contents that it had; the last of all, the oldest, compares the counts and sets the exit status.
 */
#include "../support.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <list>
#include <map>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include "../interface.h"

namespace
{

constexpr int THREADS = 200;

std::atomic<int> made, destroyed, functions_run;

/* Is destroyed last, as it is made first. */
struct judge {
    ~judge()
    {
        /* main's, each thread's, and those made by destructors */
        bool good = made == destroyed && made >= 2 * THREADS + 4 && functions_run == 2;
        std::string line = (good ? "ok 1 - " : "not ok 1 - ") + std::to_string(made) + " objects made, " +
                           std::to_string(destroyed) + " destroyed\n1..1\n";

        must(write(STDOUT_FILENO, line.data(), line.size()) == static_cast<ssize_t>(line.size()));
        _exit(good ? 0 : 1);
    }
};

judge first_of_all;

class holder
{
  public:
    explicit holder(int given) : tag(given)
    {
        made++;
        for (int i = 0; i < 50; i++) {
            words.emplace_back(static_cast<std::size_t>(i) * 20 + 1, static_cast<char>('a' + given % 26));
            by_number[i] = words.back();
        }
        large.assign(200000, given);
    }
    holder(const holder &) = delete;
    holder &operator=(const holder &) = delete;
    ~holder()
    {
        for (int i = 0; i < 50; i++)
            must(by_number[i].size() == static_cast<std::size_t>(i) * 20 + 1 &&
                 by_number[i][0] == 'a' + tag % 26);
        must(large.size() == 200000 && large.front() == tag && large.back() == tag);
        words.clear();
        words.emplace_back("allocated in a destructor, too long to lie in the object itself");
        destroyed++;
    }
    void touch()
    {
        large[static_cast<std::size_t>(tag) % large.size()] = tag;
    }

  private:
    int tag;
    std::list<std::string> words;
    std::map<int, std::string> by_number;
    std::vector<int> large;
};

thread_local holder of_a_thread{3};

/* Its destructor makes another object of this thread, when those of the thread are being destroyed. */
struct maker {
    bool used = false;

    ~maker()
    {
        if (!used)
            return;
        thread_local holder made_late{5};
        made_late.touch();
    }
};

thread_local maker maker_of_a_thread;

void at_the_end()
{
    holder local{7};
    functions_run++;
}

/* A static object that registers a function while the process ends. */
struct registrar {
    std::string text = std::string(1000, 'r');

    ~registrar()
    {
        must(text == std::string(1000, 'r'));
        must(std::atexit(at_the_end) == 0);
    }
};

holder of_the_process{1};
registrar of_the_process_too;

void use_thread_locals()
{
    maker_of_a_thread.used = true;
    of_a_thread.touch();
}

} // namespace

int main()
{
    must(std::atexit(at_the_end) == 0);
    use_thread_locals();
    for (int i = 0; i < THREADS; i += 4) {
        std::thread threads[4];

        for (std::thread &thread : threads)
            thread = std::thread(use_thread_locals);
        for (std::thread &thread : threads)
            thread.join();
    }
    return 0;
}
