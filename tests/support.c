/*
 * Helpers of tests and stress programs; see support.h. Nothing in here allocates.
 */
#include "support.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void (*must_explain)(void);

static void write_text(const char *text)
{
    ssize_t written = write(STDERR_FILENO, text, strlen(text));

    (void)written;
}

static void write_number(unsigned long number)
{
    char digits[24];
    char *first = digits + sizeof digits - 1;

    *first = '\0';
    do {
        *--first = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    write_text(first);
}

void must_failed(const char *condition, const char *file, int line)
{
    write_text(file);
    write_text(":");
    write_number((unsigned long)line);
    write_text(": failed: ");
    write_text(condition);
    write_text("\n");
    if (must_explain != NULL)
        must_explain();
    abort();
}

static uint64_t pattern_word(uint64_t tag, size_t index)
{
    uint64_t word = (tag + 0x632be59bd9b4e019u) * 0x9e3779b97f4a7c15u + (uint64_t)index * 0xd1342543de82ef95u;

    return word ^ (word >> 29);
}

void pattern_write(void *block, size_t size_bytes, uint64_t tag)
{
    unsigned char *bytes = block;
    size_t words = size_bytes / sizeof(uint64_t);

    for (size_t i = 0; i < words; i++) {
        uint64_t word = pattern_word(tag, i);

        memcpy(bytes + i * sizeof word, &word, sizeof word);
    }
    if (size_bytes % sizeof(uint64_t) != 0) {
        uint64_t word = pattern_word(tag, words);

        memcpy(bytes + words * sizeof word, &word, size_bytes % sizeof word);
    }
}

bool pattern_holds(const void *block, size_t size_bytes, uint64_t tag)
{
    const unsigned char *bytes = block;
    size_t words = size_bytes / sizeof(uint64_t);

    for (size_t i = 0; i < words; i++) {
        uint64_t word = pattern_word(tag, i);

        if (memcmp(bytes + i * sizeof word, &word, sizeof word) != 0)
            return false;
    }
    if (size_bytes % sizeof(uint64_t) != 0) {
        uint64_t word = pattern_word(tag, words);

        return memcmp(bytes + words * sizeof word, &word, size_bytes % sizeof word) == 0;
    }
    return true;
}

bool all_zero(const void *block, size_t size_bytes)
{
    const unsigned char *bytes = block;

    return size_bytes == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, size_bytes - 1) == 0);
}

size_t random_size(struct random *random)
{
    size_t kind = random_below(random, 1000);

    if (kind < 700)
        return random_below(random, 513);
    if (kind < 930)
        return random_below(random, 4 * KIB);
    if (kind < 985)
        return random_below(random, 32 * KIB + 64);
    if (kind < 998)
        return random_below(random, 512 * KIB + 64);
    return random_below(random, 4 * MIB);
}

uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void sleep_ms(unsigned milliseconds)
{
    struct timespec left = {(time_t)(milliseconds / 1000), (long)(milliseconds % 1000) * 1000000L};

    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        continue;
}

/* The number behind a name at the start of a line of a file in /proc, in KiB there, in bytes here. */
static size_t proc_bytes(const char *path, const char *name)
{
    char text[4096];
    const char *at = text;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    size_t length = 0;
    ssize_t got;

    must(file >= 0);
    while (length < sizeof text - 1 && (got = read(file, text + length, sizeof text - 1 - length)) > 0)
        length += (size_t)got;
    close(file);
    text[length] = '\0';
    while (strncmp(at, name, strlen(name)) != 0) {
        at = strchr(at, '\n');
        must(at != NULL);
        at++;
    }
    return (size_t)strtoul(at + strlen(name), NULL, 10) * KIB;
}

/* Counted from the page tables: the sum in /proc/self/statm lags behind by some pages per processor. */
size_t resident_bytes(void)
{
    return proc_bytes("/proc/self/smaps_rollup", "Anonymous:");
}

size_t address_space_bytes(void)
{
    return proc_bytes("/proc/self/status", "VmSize:");
}

size_t mappings(void)
{
    static const char newline = '\n';
    char text[4096];
    size_t lines = 0;
    ssize_t length;
    int file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);

    must(file >= 0);
    while ((length = read(file, text, sizeof text)) > 0)
        for (ssize_t i = 0; i < length; i++)
            lines += text[i] == newline;
    close(file);
    return lines;
}

void libc_free(void *block)
{
    free(block);
}

static void write_file(const char *path)
{
    char text[512];
    ssize_t length;
    int file = open(path, O_RDONLY | O_CLOEXEC);

    if (file < 0)
        return;
    while ((length = read(file, text, sizeof text - 1)) > 0) {
        text[length] = '\0';
        write_text(text);
    }
    close(file);
    write_text("\n");
}

/* Its state, the function of the kernel in which it waits, and its system call with the arguments. */
static void explain_thread(const char *tasks, const char *thread)
{
    static const char *const files[] = {"stat", "wchan", "syscall"};
    char path[128];

    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        (void)snprintf(path, sizeof path, "%s/%s/%s", tasks, thread, files[i]);
        write_text(files[i]);
        write_text(": ");
        write_file(path);
    }
}

/* What getdents64(2) writes. */
struct entry {
    uint64_t inode;
    int64_t offset;
    unsigned short length;
    unsigned char type;
    char name[];
};

static void explain_threads(int pid)
{
    _Alignas(struct entry) char entries[4096];
    char tasks[64];
    long length;
    int folder;

    (void)snprintf(tasks, sizeof tasks, "/proc/%d/task", pid);
    folder = open(tasks, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        return;
    while ((length = syscall(SYS_getdents64, folder, entries, sizeof entries)) > 0)
        for (long at = 0; at < length;) {
            const struct entry *entry = (const struct entry *)(const void *)(entries + at);

            if (entry->name[0] != '.')
                explain_thread(tasks, entry->name);
            at += entry->length;
        }
    close(folder);
}

/* By posix_spawn, which runs no handlers of fork. */
static void explain_stacks(int pid)
{
    static char shell[] = "sh", option[] = "-c";
    char command[96];
    char *arguments[] = {shell, option, command, NULL};
    pid_t debugger;
    int status;

    (void)snprintf(command, sizeof command, "timeout 30 gdb -batch -p %d -ex 'thread apply all bt' >&2", pid);
    if (posix_spawnp(&debugger, shell, NULL, NULL, arguments, environ) == 0)
        (void)waitpid(debugger, &status, 0);
}

void explain_hung_process(int pid)
{
    write_text("process ");
    write_number((unsigned long)pid);
    write_text(" hangs\n");
    explain_threads(pid);
    explain_stacks(pid);
}

int wait_for_child(int pid, unsigned seconds)
{
    uint64_t end = now_ns() + (uint64_t)seconds * 1000000000u;
    bool killed = false;
    int status;

    for (;;) {
        pid_t ended = waitpid(pid, &status, killed ? 0 : WNOHANG);

        if (ended == pid)
            return status;
        must(ended == 0 || errno == EINTR);
        if (!killed && now_ns() > end) {
            explain_hung_process(pid);
            write_text("a child did not end in time and was killed\n");
            kill(pid, SIGKILL);
            killed = true;
        }
        sleep_ms(1);
    }
}
