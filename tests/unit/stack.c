/*
 * os/stack: who called is found, and named by a module and an offset into it.
 */
#include "os/stack.h"

#include "unit.h"

#include <execinfo.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static __attribute__((noinline)) void take_from_here(struct stack *stack)
{
    stack_take(stack);
    __asm__ volatile("" ::: "memory"); /* no tail call */
}

static void the_caller_is_among_the_frames(void **state)
{
    (void)state;
    struct stack stack;
    uintptr_t here = (uintptr_t)&take_from_here;
    bool found = false;
    take_from_here(&stack);
    assert_true(stack.count > 1 && stack.count <= STACK_FRAMES_MOST);
    assert_int_equal(stack.thread, gettid());
    for (uint32_t i = 0; i < stack.count; i++)
        found |= stack.frames[i] - here < 256;
    assert_true(found);
}

static void the_thread_alone(void **state)
{
    (void)state;
    struct stack stack = {.count = 3};
    stack_take_thread(&stack);
    assert_int_equal(stack.count, 0);
    assert_int_equal(stack.thread, gettid());
}

/* backtrace_symbols_fd names the same offset: "./unit-stack(+0x1234) [0x…]". */
static void a_frame_is_named_by_module_and_offset(void **state)
{
    (void)state;
    struct stack stack = {.count = 1, .frames = {(uintptr_t)&take_from_here + 1}};
    struct text line = {0};
    stack_describe(&line, &stack);
    line.bytes[line.length] = '\0';
    char **theirs = backtrace_symbols((void *[]){(void *)(uintptr_t)&take_from_here}, 1);
    must(theirs != NULL);
    const char *offset = strstr(line.bytes, "+0x");
    assert_true(strncmp(line.bytes, " unit-stack+0x", 14) == 0 && offset != NULL);
    assert_true(strstr(theirs[0], offset) != NULL);
    free(theirs);
}

static void an_address_of_no_module_stands_alone(void **state)
{
    (void)state;
    struct stack stack = {.count = 1, .frames = {0x18}};
    struct text line = {0};
    stack_describe(&line, &stack);
    line.bytes[line.length] = '\0';
    assert_string_equal(line.bytes, " 0x17");
    line.length = 0;
    stack.count = 0;
    stack_describe(&line, &stack);
    line.bytes[line.length] = '\0';
    assert_string_equal(line.bytes, " unknown");
}

int main(void)
{
    stack_prepare();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_caller_is_among_the_frames),
        cmocka_unit_test(the_thread_alone),
        cmocka_unit_test(a_frame_is_named_by_module_and_offset),
        cmocka_unit_test(an_address_of_no_module_stands_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
