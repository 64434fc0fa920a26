#include "os/stack.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifdef __GLIBC__
#include <execinfo.h>
#else
static int backtrace(void **frames, int most)
{
    (void)frames;
    (void)most;
    return 0;
}
#endif

/* The library's own frames lie below its callers': more than there ever are. */
#define OWN_FRAMES_MOST 10U

/* Where the shared library's code is; empty in a static program. Written once, by stack_prepare. */
static uintptr_t own_begin;
static uintptr_t own_end;

static int note_own(struct dl_phdr_info *module, size_t size, void *context)
{
    (void)size;
    (void)context;
    uintptr_t here = (uintptr_t)&note_own;
    for (size_t i = 0; i < module->dlpi_phnum; i++) {
        uintptr_t begin = module->dlpi_addr + module->dlpi_phdr[i].p_vaddr;
        if (module->dlpi_phdr[i].p_type == PT_LOAD && here - begin < module->dlpi_phdr[i].p_memsz &&
            module->dlpi_name[0] != '\0') {
            own_begin = begin;
            own_end = begin + module->dlpi_phdr[i].p_memsz;
        }
    }
    return 0;
}

void stack_prepare(void)
{
    void *frames[2];
    backtrace(frames, 2);
    dl_iterate_phdr(note_own, NULL);
}

void stack_take_thread(struct stack *stack)
{
    stack->count = 0;
    stack->thread = gettid();
}

static bool is_own(const void *frame)
{
    return (uintptr_t)frame - own_begin < own_end - own_begin;
}

void stack_take(struct stack *stack)
{
    void *frames[STACK_FRAMES_MOST + OWN_FRAMES_MOST];
    int saved_errno = errno;
    int count = backtrace(frames, STACK_FRAMES_MOST + OWN_FRAMES_MOST);
    int first = 0;
    /* A sanitizer stands in front of backtrace: its frame has one of ours above it. */
    while (first < count && (is_own(frames[first]) || (first + 1 < count && is_own(frames[first + 1]))))
        first++;
    stack_take_thread(stack);
    for (int i = first; i < count && stack->count < STACK_FRAMES_MOST; i++)
        stack->frames[stack->count++] = (uintptr_t)frames[i];
    errno = saved_errno;
}

/* ---- names ---- */

/* A file read line by line into static memory: the stack of a signal handler may be small. What is too long
 * for a line is cut. */
static struct {
    int file;
    size_t length;
    size_t at;
    char chunk[4096];
    char line[512];
} maps;

static bool next_character(char *character)
{
    if (maps.at == maps.length) {
        ssize_t count = read(maps.file, maps.chunk, sizeof maps.chunk);
        if (count <= 0)
            return false;
        maps.length = (size_t)count;
        maps.at = 0;
    }
    *character = maps.chunk[maps.at++];
    return true;
}

static bool next_line(void)
{
    size_t length = 0;
    char character = '\0';
    while (next_character(&character) && character != '\n')
        if (length + 1 < sizeof maps.line)
            maps.line[length++] = character;
    maps.line[length] = '\0';
    return length > 0;
}

static uintptr_t read_hexadecimal(const char **text)
{
    uintptr_t number = 0;
    for (;; ++*text) {
        char c = **text;
        if (c >= '0' && c <= '9')
            number = number * 16 + (uintptr_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            number = number * 16 + (uintptr_t)(c - 'a' + 10);
        else
            return number;
    }
}

struct module {
    uintptr_t begin; /* of its first mapping */
    char name[64];   /* without its folders */
};

/* Reads the present line; a mapping of a file's beginning begins a module. Whether the address is in it. */
static bool line_holds(uintptr_t address, struct module *module)
{
    const char *at = maps.line;
    uintptr_t begin = read_hexadecimal(&at);
    at++;
    uintptr_t end = read_hexadecimal(&at);
    at += strlen(" r-xp ");
    uintptr_t offset = read_hexadecimal(&at);
    const char *path = strchr(at, '/');
    if (path == NULL && (path = strchr(at, '[')) == NULL)
        path = "?";
    const char *slash = strrchr(path, '/');
    if (offset == 0) {
        module->begin = begin;
        memset(module->name, 0, sizeof module->name);
        strncpy(module->name, slash != NULL ? slash + 1 : path, sizeof module->name - 1);
    }
    return address >= begin && address < end;
}

static void describe_frame(struct text *line, uintptr_t address)
{
    struct module module = {0};
    bool found = false;
    maps.length = maps.at = 0;
    maps.file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    while (maps.file >= 0 && !found && next_line())
        found = line_holds(address, &module);
    if (maps.file >= 0)
        close(maps.file);
    text_string(line, " ");
    if (found) {
        text_string(line, module.name);
        text_string(line, "+");
    }
    text_address(line, (const void *)(found ? address - module.begin : address));
}

void stack_describe(struct text *line, const struct stack *stack)
{
    /* A return address is behind the call; the byte before it belongs to the call. */
    for (uint32_t i = 0; i < stack->count && i < STACK_FRAMES_MOST; i++)
        describe_frame(line, stack->frames[i] - 1);
    if (stack->count == 0)
        text_string(line, " unknown");
}
