/* tarn run: starts a program on Tarn, or says why that cannot be. */
#include "commands.h"

#include "program.h"

#include "os/settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Puts it into the environment of the program. */
static int set_one(const char *assignment)
{
    struct text answer = {0};
    char whole[256];
    const char *rest = strncmp(assignment, "TARN_", 5) == 0 ? assignment + 5 : assignment;
    const char *value = strchr(rest, '=');
    if (value == NULL || value == rest)
        return complain_usage("\"%s\" is not NAME=VALUE", assignment);
    if (snprintf(whole, sizeof whole, "TARN_%s", rest) >= (int)sizeof whole)
        return complain("\"%.40s\" is too long", assignment);
    if (!settings_check(whole, &answer))
        return complain("%.*s", (int)answer.length, answer.bytes);
    *strchr(whole, '=') = '\0';
    return setenv(whole, value + 1, 1) == 0 ? STATUS_OK : complain("%s", strerror(errno));
}

static int preload(const char *library)
{
    const char *others = getenv("LD_PRELOAD");
    char *list = NULL;
    if (strpbrk(library, " :") != NULL) /* the loader would start the program without it */
        return complain("%s cannot be preloaded: the loader divides LD_PRELOAD at spaces and colons",
                        library);
    if (asprintf(&list, others != NULL && *others != '\0' ? "%s:%s" : "%s", library, others) < 0 ||
        setenv("LD_PRELOAD", list, 1) != 0)
        return complain("%s", strerror(errno));
    free(list);
    return STATUS_OK;
}

static int check_program(const struct program *program)
{
    struct program interpreter;
    if (program->interpreter[0] != '\0')
        return program_read(program->interpreter, &interpreter) ? check_program(&interpreter) : STATUS_OK;
    if (!program->is_elf)
        return STATUS_OK; /* the kernel will say */
    if (program->other_class)
        return complain("%s is for another processor or of 32 bits: Tarn cannot be loaded into it",
                        program->path);
    if (program->is_static && !program->has_tarn)
        return complain("%s is static: nothing can be preloaded; link it with libtarn.a", program->path);
    if (program->set_user_id)
        return complain(
            "%s is set-user-id, set-group-id or has capabilities: the loader ignores LD_PRELOAD, and Tarn "
            "its settings",
            program->path);
    if (program->allocates && !program->has_tarn)
        fprintf(stderr, "tarn: warning: %s defines malloc itself; its own goes before Tarn's\n",
                program->path);
    return STATUS_OK;
}

int command_run(int count, char **arguments)
{
    bool hardened = false;
    char library[4096];
    char path[4096];
    struct program program;
    int status = STATUS_OK;
    int at = 1;
    for (; at < count && strncmp(arguments[at], "--", 2) == 0 && status == STATUS_OK; at++) {
        if (strcmp(arguments[at], "--") == 0) {
            at++;
            break;
        }
        if (strcmp(arguments[at], "--hardened") == 0)
            hardened = true;
        else if (strcmp(arguments[at], "--set") == 0 && at + 1 < count)
            status = set_one(arguments[++at]);
        else
            return complain_usage("\"%s\" is not an option of run", arguments[at]);
    }
    if (status != STATUS_OK)
        return status;
    if (at >= count)
        return complain_usage("run wants a command");
    if (!program_find_library(hardened, library, sizeof library))
        return complain("%s is neither installed nor built beside this tool",
                        hardened ? "libtarn-hardened.so.0" : "libtarn.so.0");
    if (!program_find(arguments[at], path, sizeof path))
        return complain("there is no command %s", arguments[at]);
    if (program_read(path, &program) && (status = check_program(&program)) != STATUS_OK)
        return status;
    if ((status = preload(library)) != STATUS_OK)
        return status;
    execv(path, arguments + at);
    return complain("cannot start %s: %s", path, strerror(errno));
}
