/*
 * tarn-record.so: writes down what a program asks of its allocator. It is preloaded, and hands every call on
 * to glibc.
 *
 *     LD_PRELOAD=tarn-record.so ALLOC_TRACE_FILE=FILE [ALLOC_TRACE_EVENTS=N] PROGRAM …
 *
 * FILE must not exist yet. A `%p` in it becomes the number of the process: then every process that is forked
 * or started by the program writes a file of its own. Without it only the first process writes. N bounds the
 * file (default: a million events, 24 bytes each); later events are counted and left out, and
 * bench/trace/pack says so.
 *
 * Nothing is allocated in here: events go to a shared mapping of the file (record.h), where a thread takes a
 * place by adding to an atomic counter. There is no buffer to be written at the end, so threads may exit and
 * the process may be killed at any time, and a signal handler may interrupt at any point.
 *
 * Calls that come before the C library knows the environment are not recorded; the free of such a block is,
 * and pack leaves it out. So it is with blocks that a forked process has from its parent.
 *
 * A fork is noticed without a handler: the struct recorder is in a page that the kernel hands to the child
 * filled with zeros (MADV_WIPEONFORK), which is the state of a recorder that has not begun.
 */
#include "record.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    DEFAULT_EVENTS = 1000000,
    MOST_EVENTS = 100000000,
    PATH_BYTES = 4096,
    RECORDER_BYTES = 65536, /* a whole page on every machine */
};

/* glibc's own names, for which neither dlsym nor a search is needed, and which no other library can take. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *block);

/* Not all of these are declared by the headers under the names used here. */
void *valloc(size_t size);
void *pvalloc(size_t size);
void *memalign(size_t alignment, size_t size);
size_t malloc_usable_size(void *block);

enum phase { NOT_BEGUN, BEGINNING, ON, OFF };

struct recorder {
    _Atomic int phase;
    struct recording_header *header; /* set before phase is ON, with the next one; fixed from then on */
    struct raw_event *events;
    uint64_t capacity;
    uint32_t process;
};

static struct recorder *_Atomic the_recorder;
static bool has_begun; /* survives a fork, unlike the recorder */

/* The number of this thread, valid in this process alone. */
static __thread __attribute__((tls_model("initial-exec"))) struct {
    uint32_t process;
    uint32_t number;
} this_thread;

static void say(const char *what, const char *path)
{
    char line[PATH_BYTES + 128];
    int length = snprintf(line, sizeof(line), "tarn-record: %s: %s\n", path, what);

    if (length > 0 && write(STDERR_FILENO, line, (size_t)length) < 0)
        return;
}

/* Writes the name with the process number in the place of %p. */
static bool path_expand(char *path, const char *pattern)
{
    const char *mark = strstr(pattern, "%p");
    int length;

    if (mark == NULL)
        length = snprintf(path, PATH_BYTES, "%s", pattern);
    else
        length =
            snprintf(path, PATH_BYTES, "%.*s%d%s", (int)(mark - pattern), pattern, (int)getpid(), mark + 2);
    return length > 0 && length < PATH_BYTES;
}

static uint64_t events_wanted(void)
{
    const char *text = getenv("ALLOC_TRACE_EVENTS");
    char *end;
    unsigned long value;

    if (text == NULL || *text == '\0')
        return DEFAULT_EVENTS;
    value = strtoul(text, &end, 10);
    if (*end != '\0' || value == 0 || value > MOST_EVENTS) {
        say("ALLOC_TRACE_EVENTS is not a number of 1 to 100000000; the default is used", text);
        return DEFAULT_EVENTS;
    }
    return value;
}

/* Makes the file and maps it: false, with a line, when that cannot be. */
static bool recorder_open(struct recorder *recorder, const char *pattern)
{
    char path[PATH_BYTES];
    uint64_t capacity = events_wanted();
    size_t bytes = RECORDING_HEADER_BYTES + capacity * sizeof(struct raw_event);
    void *mapping;
    int file;

    if (!path_expand(path, pattern)) {
        say("the name is too long; nothing is recorded", "ALLOC_TRACE_FILE");
        return false;
    }
    file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0) {
        if (!has_begun) /* a child without a file of its own has nothing to complain of */
            say(errno == EEXIST ? "exists already; nothing is recorded"
                                : "cannot be written; nothing is recorded",
                path);
        return false;
    }
    /* Taken from the disk now: a disk that is full later would end the program by SIGBUS. */
    if (posix_fallocate(file, 0, (off_t)bytes) != 0) {
        say("there is no room for it; nothing is recorded", path);
        unlink(path);
        close(file);
        return false;
    }
    mapping = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapping == MAP_FAILED) {
        say("it cannot be mapped; nothing is recorded", path);
        return false;
    }
    madvise(mapping, bytes, MADV_DONTFORK);
    recorder->header = mapping;
    recorder->events = (struct raw_event *)((char *)mapping + RECORDING_HEADER_BYTES);
    recorder->capacity = capacity;
    recorder->process = (uint32_t)getpid();
    recorder->header->capacity = capacity;
    recorder->header->process = recorder->process;
    memcpy(recorder->header->magic, RECORDING_MAGIC, sizeof(recorder->header->magic));
    return true;
}

/* The one recorder of the process, not begun; null when there cannot be one. */
static struct recorder *recorder_make(void)
{
    struct recorder *recorder =
        mmap(NULL, RECORDER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct recorder *other = NULL;

    if (recorder == MAP_FAILED)
        return NULL;
    if (madvise(recorder, RECORDER_BYTES, MADV_WIPEONFORK) != 0)
        atomic_store_explicit(&recorder->phase, OFF, memory_order_relaxed);
    /* Release: publishes phase; pairs with the acquire in recorder_begun. */
    if (!atomic_compare_exchange_strong_explicit(&the_recorder, &other, recorder, memory_order_release,
                                                 memory_order_acquire)) {
        munmap(recorder, RECORDER_BYTES);
        return other;
    }
    return recorder;
}

__attribute__((noinline, cold)) static struct recorder *recorder_begin(struct recorder *recorder)
{
    const char *pattern;
    int saved = errno;
    int phase = NOT_BEGUN;

    if (environ == NULL)
        return NULL;
    if (recorder == NULL)
        recorder = recorder_make();
    if (recorder != NULL &&
        atomic_compare_exchange_strong_explicit(&recorder->phase, &phase, BEGINNING, memory_order_relaxed,
                                                memory_order_relaxed)) {
        pattern = getenv("ALLOC_TRACE_FILE");
        phase = pattern != NULL && *pattern != '\0' && recorder_open(recorder, pattern) ? ON : OFF;
        has_begun = true;
        /* Release: publishes header and events; pairs with the acquire in recorder_begun. */
        atomic_store_explicit(&recorder->phase, phase, memory_order_release);
    }
    errno = saved;
    return phase == ON ? recorder : NULL;
}

/* Null when nothing is to be recorded. */
static inline struct recorder *recorder_begun(void)
{
    struct recorder *recorder = atomic_load_explicit(&the_recorder, memory_order_acquire);
    int phase = recorder == NULL ? NOT_BEGUN : atomic_load_explicit(&recorder->phase, memory_order_acquire);

    if (phase == ON)
        return recorder;
    return phase == NOT_BEGUN ? recorder_begin(recorder) : NULL;
}

static uint32_t thread_number(struct recorder *recorder)
{
    if (this_thread.process != recorder->process) {
        this_thread.number = atomic_fetch_add_explicit(&recorder->header->threads, 1, memory_order_relaxed);
        this_thread.process = recorder->process;
    }
    return this_thread.number;
}

static unsigned log2_of(size_t alignment)
{
    return alignment == 0 ? 0 : (unsigned)(8 * sizeof(long) - 1) - (unsigned)__builtin_clzl(alignment);
}

/*
 * The counter is one word, so its changes have one order, and that order agrees with what happens before
 * what: relaxed is enough for the promise in record.h, as a block that changes hands does so by the program's
 * own synchronisation.
 */
static void record(enum raw_kind kind, const void *address, size_t size, size_t alignment)
{
    struct recorder *recorder = recorder_begun();
    struct raw_event *event;
    uint64_t number;

    if (recorder == NULL)
        return;
    number = atomic_fetch_add_explicit(&recorder->header->claimed, 1, memory_order_relaxed);
    if (number >= recorder->capacity)
        return;
    event = &recorder->events[number];
    event->address = (uintptr_t)address;
    event->size_bytes = size;
    event->thread = thread_number(recorder);
    event->alignment_log2 = (uint8_t)log2_of(alignment);
    /* Release: a kind that is seen comes with its event, for a reader after the end of the process. */
    atomic_store_explicit(&event->kind, (uint8_t)kind, memory_order_release);
}

static void *recorded(enum raw_kind kind, void *block, size_t size, size_t alignment)
{
    if (block != NULL)
        record(kind, block, size, alignment);
    return block;
}

void *malloc(size_t size)
{
    return recorded(RAW_MALLOC, __libc_malloc(size), size, 0);
}

void *calloc(size_t count, size_t size)
{
    return recorded(RAW_CALLOC, __libc_calloc(count, size), count * size, 0);
}

void free(void *block)
{
    if (block != NULL)
        record(RAW_FREE, block, 0, 0);
    __libc_free(block);
}

void *realloc(void *block, size_t size)
{
    void *moved;

    if (block == NULL)
        return malloc(size);
    record(RAW_REALLOC_BEGIN, block, size, 0);
    moved = __libc_realloc(block, size);
    record(RAW_REALLOC_END, moved, size, 0);
    return moved;
}

void *reallocarray(void *block, size_t count, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(count, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return realloc(block, bytes);
}

void *memalign(size_t alignment, size_t size)
{
    return recorded(RAW_ALIGNED, __libc_memalign(alignment, size), size, alignment);
}

void *aligned_alloc(size_t alignment, size_t size)
{
    return memalign(alignment, size);
}

int posix_memalign(void **result, size_t alignment, size_t size)
{
    int saved = errno;
    void *block;

    if (alignment < sizeof(void *) || (alignment & (alignment - 1)) != 0)
        return EINVAL;
    block = memalign(alignment, size);
    errno = saved;
    if (block == NULL)
        return ENOMEM;
    *result = block;
    return 0;
}

void *valloc(size_t size)
{
    return memalign((size_t)getpagesize(), size);
}

void *pvalloc(size_t size)
{
    size_t page = (size_t)getpagesize();

    return memalign(page, (size + page - 1) & ~(page - 1));
}

/* glibc has no second name for this one, and the next library may be another allocator: libc itself is asked.
 */
size_t malloc_usable_size(void *block)
{
    static size_t (*_Atomic usable_size)(void *);
    size_t (*function)(void *) = atomic_load_explicit(&usable_size, memory_order_relaxed);

    if (function == NULL) {
        void *libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
        void *found = libc == NULL ? NULL : dlsym(libc, "malloc_usable_size");

        memcpy(&function, &found, sizeof(function)); /* ISO C has no cast from the one to the other */
        if (function == NULL)
            abort();
        atomic_store_explicit(&usable_size, function, memory_order_relaxed);
    }
    return function(block);
}

/* Begins while there is one thread. */
__attribute__((constructor)) static void begin_early(void)
{
    recorder_begun();
}
