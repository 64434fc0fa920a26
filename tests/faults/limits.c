/*
 * Limits as systems have them: of address space, of data, of memory that is accounted when it is mapped, of
 * mappings, and of a control group. At each, every kind of call gives memory or ENOMEM, in eight threads too;
 * what was given is whole; and when what filled it is gone, all kinds work.
 */
#include "faults.h"

#include "../unit/unit.h"
#include "tarn/tarn.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define THREADS   8U
#define HELD_MOST 100U
#define PAGE      ((size_t)4096)
#define ROOM      (96 * MIB)

struct held {
    unsigned char *block;
    size_t bytes;
};

static _Atomic unsigned long refusals;

/* ---- use of all kinds ---- */

static size_t next_bytes(struct random *random)
{
    static const size_t most[] = {200, 4 * KIB, 32 * KIB, 512 * KIB, 3 * MIB};
    return 8 + random_below(random, most[random_below(random, sizeof most / sizeof most[0])]);
}

static size_t marked(size_t bytes)
{
    return bytes < PAGE ? bytes / 8 * 8 : PAGE;
}

static bool is_refused(const void *block)
{
    if (block != NULL)
        return false;
    must(errno == ENOMEM);
    atomic_fetch_add(&refusals, 1);
    return true;
}

static void *take(struct random *random, size_t bytes)
{
    errno = 0;
    switch (random_below(random, 4)) {
    case 0:
        return tarn_calloc(bytes, 1);
    case 1:
        return tarn_aligned_alloc((size_t)16 << random_below(random, 9), bytes);
    case 2:
        return tarn_realloc(NULL, bytes);
    default:
        return tarn_malloc(bytes);
    }
}

static void resize(struct held *one, struct random *random, uint64_t tag)
{
    size_t bytes = next_bytes(random);
    size_t kept = bytes < one->bytes ? bytes : one->bytes;
    errno = 0;
    unsigned char *resized = tarn_realloc(one->block, bytes);
    if (is_refused(resized)) {
        must(pattern_holds(one->block, marked(one->bytes), tag));
        return;
    }
    must(pattern_holds(resized, marked(kept), tag));
    *one = (struct held){resized, bytes};
    pattern_write(resized, marked(bytes), tag);
}

static void let_go(struct held *one, uint64_t tag)
{
    must(one->block == NULL || pattern_holds(one->block, marked(one->bytes), tag));
    errno = EDOM;
    tarn_free(one->block);
    must(errno == EDOM);
    *one = (struct held){NULL, 0};
}

/* Takes, resizes and frees; at the end all is free. */
static void use(uint64_t seed, size_t turns)
{
    struct held held[HELD_MOST] = {{NULL, 0}};
    struct random random = {seed};
    for (size_t turn = 0; turn < turns; turn++) {
        size_t place = random_below(&random, HELD_MOST);
        struct held *one = &held[place];
        if (one->block != NULL && random_below(&random, 3) == 0) {
            resize(one, &random, place);
        } else if (one->block != NULL) {
            let_go(one, place);
        } else {
            size_t bytes = next_bytes(&random);
            unsigned char *block = take(&random, bytes);
            if (is_refused(block))
                continue;
            *one = (struct held){block, bytes};
            pattern_write(block, marked(bytes), place);
        }
    }
    for (size_t place = 0; place < HELD_MOST; place++)
        let_go(&held[place], place);
}

static void must_work(void)
{
    unsigned long before = atomic_load(&refusals);
    use(7, 4000);
    must(atomic_load(&refusals) == before);
}

struct link {
    struct link *next;
};

static struct link *fill(size_t bytes)
{
    struct link *list = NULL;
    struct link *one;
    errno = 0;
    while ((one = tarn_malloc(bytes)) != NULL) {
        one->next = list;
        list = one;
    }
    must(errno == ENOMEM);
    return list;
}

static void empty(struct link *list)
{
    while (list != NULL) {
        struct link *next = list->next;
        tarn_free(list);
        list = next;
    }
}

/* Filled with one kind after the other; what the others get meanwhile is theirs or ENOMEM. */
static void live_at_the_limit(void)
{
    static const size_t sizes[] = {100, 9000, 100 * KIB, 1500 * KIB};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct link *list = fill(sizes[i]);
        use(i + 1, 2000);
        empty(list);
        tarn_malloc_trim(0);
        must_work();
    }
    must(atomic_load(&refusals) > 0);
}

/* ---- in threads ---- */

static void fill_and_use(void *context, unsigned index)
{
    static const size_t sizes[] = {64, 3000, 20000, 60 * KIB, 300 * KIB, MIB, 2 * MIB, 5 * MIB};
    (void)context;
    for (unsigned round = 0; round < 3; round++) {
        struct link *list = fill(sizes[(index + round) % THREADS]);
        use(index * 10 + round + 1, 500);
        empty(list);
    }
}

static void *ask(void *argument)
{
    struct tarn_mallinfo2_result info = tarn_mallinfo2();
    (void)info;
    return argument;
}

/* ---- address space ---- */

static void limit_address_space_in_threads(void *context)
{
    (void)context;
    must_work();
    limit_address_space(ROOM + THREADS * 10 * MIB);
    threads_run(THREADS, fill_and_use, NULL);
    must(atomic_load(&refusals) > 0);
    tarn_malloc_trim(0);
    must_work();
}

static void address_space_in_eight_threads(void **state)
{
    (void)state;
    child_must_succeed(limit_address_space_in_threads, NULL);
}

static pthread_barrier_t barrier;

static void *ask_at_the_limit(void *argument)
{
    pthread_barrier_wait(&barrier);
    return ask(argument);
}

static void ask_where_nothing_is_left(void)
{
    pthread_t threads[THREADS];
    must(pthread_barrier_init(&barrier, NULL, THREADS + 1) == 0);
    for (unsigned i = 0; i < THREADS; i++)
        must(pthread_create(&threads[i], NULL, ask_at_the_limit, NULL) == 0);
    limit_address_space(0);
    struct link *list = fill(50000);
    struct link *small = fill(16);
    for (size_t bytes = 64 * MIB; bytes >= PAGE; bytes /= 2)
        while (mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
            continue; /* what the library gave back meanwhile */
    pthread_barrier_wait(&barrier);
    for (unsigned i = 0; i < THREADS; i++)
        must(pthread_join(threads[i], NULL) == 0);
    tarn_malloc_trim(0);
    empty(list);
    empty(small);
    lift_limit();
    must_work();
}

/* A forked child does without liburcu: it begins anew. */
static void begin_anew(void *context)
{
    execl("/proc/self/exe", "limits", "statistics", (char *)NULL);
    must(context != NULL);
}

/* Threads that ask for the first time, when liburcu can get no memory for them. */
static void statistics_at_the_limit(void **state)
{
    (void)state;
    child_must_succeed(begin_anew, NULL);
}

/* ---- data, commit ---- */

static void limit_data(void *context)
{
    (void)context;
    must_work();
    tarn_malloc_trim(0);
    struct rlimit limit = {ROOM, RLIM_INFINITY};
    must(setrlimit(RLIMIT_DATA, &limit) == 0);
    live_at_the_limit();
}

static void data(void **state)
{
    (void)state;
    child_must_succeed(limit_data, NULL);
}

static void limit_commit(void *context)
{
    (void)context;
    must_work();
    tarn_malloc_trim(0);
    faults_cap_bytes(ROOM);
    live_at_the_limit();
    faults_cap_bytes(SIZE_MAX);
    must_work();
}

/* As with vm.overcommit_memory = 2, which would concern every process of the machine: what is accounted is
 * counted by the wrapped calls. */
static void commit(void **state)
{
    (void)state;
    child_must_succeed(limit_commit, NULL);
}

/* ---- mappings ---- */

/* Every second page is protected otherwise, so that none merge. Returns how many. */
static size_t fill_mappings(char **pages, size_t most)
{
    size_t count = 0;
    while (count < most) {
        int protection = count % 2 == 0 ? PROT_READ : PROT_NONE;
        pages[count] = mmap(NULL, PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (pages[count] == MAP_FAILED)
            break;
        count++;
    }
    must(count < most && errno == ENOMEM);
    return count;
}

static void exhaust_mappings(void *context)
{
    (void)context;
    enum { MOST = 4000000 };
    char **pages = mmap(NULL, MOST * sizeof *pages, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    static unsigned char *blocks[64];
    must(pages != MAP_FAILED);
    size_t before = address_space_bytes();
    for (size_t i = 0; i < 64; i++) { /* neighbours fill their granules, and are one mapping */
        blocks[i] = tarn_malloc(4 * MIB);
        must(blocks[i] != NULL);
        pattern_write(blocks[i], 600 * KIB, i);
    }
    size_t count = fill_mappings(pages, MOST);
    use(1, 3000);
    for (size_t i = 0; i < 64; i += 2) {
        must(pattern_holds(blocks[i], 600 * KIB, i));
        tarn_free(blocks[i]);
    }
    tarn_malloc_trim(0);
    use(2, 3000);
    for (size_t i = 1; i < 64; i += 2) {
        errno = 0;
        unsigned char *resized = tarn_realloc(blocks[i], (i % 8 + 1) * MIB);
        if (!is_refused(resized))
            blocks[i] = resized;
        must(pattern_holds(blocks[i], 600 * KIB, i));
    }
    must(atomic_load(&refusals) > 0);
    for (size_t i = 0; i < count; i++)
        must(munmap(pages[i], PAGE) == 0);
    must_work();
    for (size_t i = 1; i < 64; i += 2)
        tarn_free(blocks[i]);
    tarn_malloc_trim(0);
    must(address_space_bytes() < before + 16 * MIB); /* what could not be unmapped then is unmapped now */
}

static void mappings_of_the_program(void **state)
{
    (void)state;
    child_must_succeed(exhaust_mappings, NULL);
}

/* ---- a control group ---- */

static bool write_to(const char *folder, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    bool written = write(file, text, strlen(text)) == (ssize_t)strlen(text);
    close(file);
    return written;
}

/* A group ends a process that goes beyond it, whatever its allocator does: what must hold is that a program
 * which uses less than that lives. 64 MiB, of which 24 are in use at most, come and go in ever other sizes.
 */
static void come_and_go(void *context)
{
    static const size_t sizes[] = {40, 700, 5000, 30000, 200 * KIB, 900 * KIB, 7 * MIB};
    if (context != NULL && !write_to(context, "cgroup.procs", "0"))
        _exit(77);
    for (size_t round = 0; round < 21; round++) {
        size_t bytes = sizes[round % 7];
        struct link *list = NULL;
        for (size_t total = 0; total + bytes <= 24 * MIB; total += bytes) {
            struct link *one = tarn_malloc(bytes);
            must(one != NULL);
            memset(one, 1, bytes);
            one->next = list;
            list = one;
        }
        empty(list);
        must(resident_bytes() < 64 * MIB);
    }
}

static bool make_group(char *folder, size_t bytes)
{
    static const char *const roots[] = {"/sys/fs/cgroup/memory", "/sys/fs/cgroup"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(folder, bytes, "%s/tarn-test-%d", roots[i], (int)getpid());
        if (mkdir(folder, 0755) != 0)
            continue;
        if (write_to(folder, i == 0 ? "memory.limit_in_bytes" : "memory.max", "67108864"))
            return true;
        rmdir(folder);
    }
    return false;
}

/* Where no group can be made, resident memory is looked at alone. */
static void control_group(void **state)
{
    (void)state;
    char folder[128];
    struct outcome outcome;
    bool made = make_group(folder, sizeof folder);
    print_message("# %s\n", made ? folder : "no control group can be made here: resident memory is measured");
    child_run(come_and_go, made ? folder : NULL, &outcome);
    if (made)
        rmdir(folder);
    if (outcome.status != 0)
        fail_msg("wait status 0x%x: %s", (unsigned)outcome.status, outcome.output);
}

int main(int count, char **arguments)
{
    if (count == 2 && strcmp(arguments[1], "statistics") == 0) {
        ask_where_nothing_is_left();
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(address_space_in_eight_threads),
        cmocka_unit_test(statistics_at_the_limit),
        cmocka_unit_test(data),
        cmocka_unit_test(commit),
        cmocka_unit_test(mappings_of_the_program),
        cmocka_unit_test(control_group),
    };
    return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}
