#include "guard/guard_report.h"

#include "base/fatal.h"
#include "os/fault.h"

#include <stdlib.h>

static void add_distance(struct text *line, size_t bytes, const char *where)
{
    text_decimal(line, bytes);
    text_string(line, bytes == 1 ? " byte " : " bytes ");
    text_string(line, where);
}

/* "3 bytes after the end of a freed 40-byte block at 0x…" */
static void add_position(struct text *line, const struct guard_place *place, const char *address)
{
    if (address < place->start) {
        add_distance(line, (size_t)(place->start - address), "before the start of");
    } else if (address >= place->start + place->bytes) {
        add_distance(line, (size_t)(address - place->start) - place->bytes + 1, "after the end of");
    } else {
        text_string(line, "at byte ");
        text_decimal(line, (uint64_t)(address - place->start));
        text_string(line, " of");
    }
    text_string(line, atomic_load(&place->state) == GUARD_FREED ? " a freed " : " a ");
    text_decimal(line, place->bytes);
    text_string(line, "-byte block at ");
    text_address(line, place->start);
}

static void say_stack(const char *what, const struct stack *stack)
{
    struct text line = {0};
    text_string(&line, what);
    text_string(&line, " by thread ");
    text_decimal(&line, (uint64_t)stack->thread);
    text_string(&line, " at:");
    stack_describe(&line, stack);
    fatal_say(&line);
}

static void say_stacks(const struct guard_place *place)
{
    if (place == NULL)
        return;
    say_stack("allocated", &place->allocated);
    if (place->freed.thread != 0)
        say_stack("freed", &place->freed);
}

static bool look_at_fault(const void *address, enum fault_access access)
{
    static const char *const words[] = {"access ", "read ", "write "};
    static atomic_flag busy = ATOMIC_FLAG_INIT;
    const struct guard_place *place = guard_nearest(address);
    if (place == NULL)
        return false;
    if (atomic_flag_test_and_set(&busy)) /* another thread's fault is being reported: one is enough */
        return true;
    struct text line = {0};
    text_string(&line, words[access]);
    add_position(&line, place, address);
    fatal_say(&line);
    say_stacks(place);
    return true;
}

void guard_report_start(void)
{
    stack_prepare();
    fault_watch(look_at_fault);
}

void guard_report_misuse(struct text *line, const void *pointer)
{
    fatal_say(line);
    say_stacks(guard_nearest(pointer));
    abort();
}

void guard_report_wrong_free(const void *pointer)
{
    const struct guard_place *place = guard_nearest(pointer);
    struct text line = {0};
    bool again = place != NULL && place->start == (const char *)pointer;
    text_string(&line, again ? "double free of " : "invalid pointer ");
    text_address(&line, pointer);
    text_string(&line, again ? "" : " passed to free: no live block begins there");
    if (place != NULL) {
        text_string(&line, ", ");
        add_position(&line, place, pointer);
    }
    guard_report_misuse(&line, pointer);
}

void guard_report_damage(const struct guard_place *place, const char *damage)
{
    struct text line = {0};
    text_string(&line, "heap corruption, seen by free: write ");
    add_position(&line, place, damage);
    guard_report_misuse(&line, place->start);
}
