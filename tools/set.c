/* tarn set, tarn trim: wishes, written into the process and granted by one of its threads when it allocates.
 */
#include "commands.h"

#include "survey.h"

#include "os/settings.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

enum { WAIT_SECONDS = 5, NS_PER_LOOK = 2000000, LOOKS_PER_SECOND = 500, BUDGET_MOST = 1 << 20 };

static uint64_t control_at(const struct process *process, size_t offset)
{
    return process->at + offsetof(struct published, control) + offset;
}

static uint32_t read_count(const struct process *process, size_t offset)
{
    return process_read_uint32(process, control_at(process, offset));
}

/* Another wish may wait: after it. */
static bool wait_for(const struct process *process, uint32_t number, double seconds)
{
    long looks = (long)(seconds * LOOKS_PER_SECOND);
    for (long i = 0; i <= looks && process_lives(process); i++) {
        if (read_count(process, offsetof(struct control, answered)) == number)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = NS_PER_LOOK}, NULL);
    }
    return false;
}

static int print_answer(const struct process *process, const struct control *control)
{
    char answer[CONTROL_ANSWER_BYTES];
    memcpy(answer, control->answer, sizeof answer);
    answer[sizeof answer - 1] = '\0';
    for (char *at = answer; *at != '\0'; at++)
        if (*at < ' ' || *at == 0x7f)
            *at = '?';
    if (control->granted == 0)
        return complain("process %d refused: %s", (int)process->pid, answer);
    printf("%s\n", answer);
    return STATUS_OK;
}

static int say_waits(const struct process *process, double seconds)
{
    if (!process_lives(process))
        return complain("process %d has ended", (int)process->pid);
    return complain("process %d has not allocated within %.3g s; it will be done when it does",
                    (int)process->pid, seconds);
}

/* A thread looks for wishes when it has used its budget up, which may be a while in one that allocates
 * little. What is left of it, 0 to about 80 KiB, is made 0, so that its next malloc looks; should that malloc
 * write the budget at the same moment, one of the two numbers stands, or bytes of both, which is as good. */
static void hurry(struct process *process)
{
    struct survey survey;
    const int64_t none = 0;
    if (survey_take(&survey, process, false))
        for (size_t i = 0; i < survey.heap_count; i++) {
            const struct heap_view *view = &survey.heaps[i];
            if (!view->parked && view->heap.budget_bytes > 0 && view->heap.budget_bytes < BUDGET_MOST)
                process_write(process, view->address + offsetof(struct heap, budget_bytes), &none,
                              sizeof none);
        }
    survey_free(&survey);
}

/* One tool at a time for each process: held by the file that says how the process is. -1: not within the
 * time. */
static int lock_process(const struct process *process, double seconds)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)process->pid);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    for (long i = 0; file >= 0 && flock(file, LOCK_EX | LOCK_NB) != 0; i++) {
        if (i > (long)(seconds * LOOKS_PER_SECOND)) {
            close(file);
            return -1;
        }
        nanosleep(&(struct timespec){.tv_nsec = NS_PER_LOOK}, NULL);
    }
    return file;
}

/* The lock is held. */
static int wish(struct process *process, struct control *wished, double seconds)
{
    uint32_t last = read_count(process, offsetof(struct control, wished));
    uint32_t next = last + 1;
    struct control control;
    hurry(process); /* there may be one that waits */
    if (!wait_for(process, last, seconds))
        return say_waits(process, seconds);
    size_t begin = offsetof(struct control, wish);
    if (!process_write(process, control_at(process, begin), (const char *)wished + begin,
                       offsetof(struct control, answer) - begin) ||
        !process_write(process, control_at(process, offsetof(struct control, wished)), &next, sizeof next))
        return complain("process %d may not be written to: be its user, or root", (int)process->pid);
    hurry(process);
    if (!wait_for(process, next, seconds))
        return say_waits(process, seconds);
    if (!process_read(process, control_at(process, 0), &control, sizeof control))
        return complain("process %d has ended", (int)process->pid);
    return print_answer(process, &control);
}

static int wish_alone(struct process *process, struct control *wished, double seconds)
{
    int lock = lock_process(process, seconds);
    if (lock < 0)
        return say_waits(process, seconds);
    int status = wish(process, wished, seconds);
    close(lock);
    return status;
}

/* NAME=VALUE; refused here already when it can be seen to be wrong. */
static bool fill_in(struct control *control, const char *assignment)
{
    struct text answer = {0};
    const char *value = strchr(assignment, '=');
    *control = (struct control){.wish = CONTROL_SET};
    if (value == NULL || value == assignment) {
        complain_usage("\"%s\" is not NAME=VALUE", assignment);
        return false;
    }
    if (value - assignment >= (long)sizeof control->name || strlen(value + 1) >= sizeof control->value) {
        complain("\"%.40s\" is too long", assignment);
        return false;
    }
    memcpy(control->name, assignment, (size_t)(value - assignment));
    memcpy(control->value, value + 1, strlen(value + 1));
    if (settings_change(control->name, control->value, &answer))
        return true;
    complain("%.*s", (int)answer.length, answer.bytes);
    return false;
}

/* Takes `--wait SECONDS` from the front. */
static bool take_wait(int *count, char ***arguments, double *seconds)
{
    *seconds = WAIT_SECONDS;
    if (*count < 3 || strcmp((*arguments)[1], "--wait") != 0)
        return true;
    char *end;
    *seconds = strtod((*arguments)[2], &end);
    if (*end != '\0' || end == (*arguments)[2] || !(*seconds >= 0 && *seconds <= 86400)) {
        complain_usage("\"%s\" is not a time in seconds", (*arguments)[2]);
        return false;
    }
    *count -= 2;
    *arguments += 2;
    return true;
}

static int for_process(const char *text, struct process *process)
{
    pid_t pid;
    if (!parse_pid(text, &pid)) {
        *process = (struct process){0};
        return STATUS_USAGE;
    }
    process_open(process, pid);
    return process_explain_state(process);
}

int command_set(int count, char **arguments)
{
    struct process process;
    struct control control;
    double seconds;
    if (!take_wait(&count, &arguments, &seconds))
        return STATUS_USAGE;
    if (count < 3)
        return complain_usage("set wants a process number and NAME=VALUE");
    for (int i = 2; i < count; i++)
        if (!fill_in(&control, arguments[i]))
            return strchr(arguments[i], '=') == NULL ? STATUS_USAGE : STATUS_NO;
    int status = for_process(arguments[1], &process);
    for (int i = 2; i < count && status == STATUS_OK; i++) {
        fill_in(&control, arguments[i]);
        status = wish_alone(&process, &control, seconds);
    }
    process_close(&process);
    return status;
}

int command_trim(int count, char **arguments)
{
    struct process process;
    struct control control = {.wish = CONTROL_TRIM};
    double seconds;
    if (!take_wait(&count, &arguments, &seconds))
        return STATUS_USAGE;
    if (count != 2)
        return complain_usage("trim wants one process number");
    int status = for_process(arguments[1], &process);
    if (status == STATUS_OK)
        status = wish_alone(&process, &control, seconds);
    process_close(&process);
    return status;
}
