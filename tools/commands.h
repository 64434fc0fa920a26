/* The subcommands of tarn, and what they share. Each gets its own arguments, argument 0 being its name, and
 * returns the exit status: 0 yes or done, 1 no or failed, 2 wrong usage. */
#ifndef TARN_TOOLS_COMMANDS_H
#define TARN_TOOLS_COMMANDS_H

#include <stdbool.h>
#include <sys/types.h>

enum { STATUS_OK, STATUS_NO, STATUS_USAGE };

int command_classes(int count, char **arguments);
int command_doctor(int count, char **arguments);
int command_explain(int count, char **arguments);
int command_map(int count, char **arguments);
int command_metrics(int count, char **arguments);
int command_options(int count, char **arguments);
int command_run(int count, char **arguments);
int command_set(int count, char **arguments);
int command_top(int count, char **arguments);
int command_trim(int count, char **arguments);

/* One line on stderr: "tarn: " and the text. Returns STATUS_NO, and STATUS_USAGE. */
__attribute__((format(printf, 1, 2))) int complain(const char *format, ...);
__attribute__((format(printf, 1, 2))) int complain_usage(const char *format, ...);

/* A process number; complains and returns false for anything else. */
bool parse_pid(const char *text, pid_t *pid);

/* Takes `--json` out of the arguments; whether it was there. */
bool take_json(int *count, char **arguments);

#endif
