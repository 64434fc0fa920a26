/*
 * tarn-measure: runs one program under one allocator and says what it cost.
 *
 *     tarn-measure [--report FD] [--preload FILE] [--expect FILE] [--set NAME=VALUE]… -- PROGRAM [ARGUMENT]…
 *
 * A small program does this, not the driver, because the kernel hands the peak resident memory of the process
 * that forks down to the one that is started: under a Python of 20 MiB every child would seem to need 20 MiB.
 *
 * LD_PRELOAD and the variables of --set reach the program alone. With --expect, /proc/PID/maps of the program
 * is read until FILE is seen in it; a program that ends without it was not measured under that allocator.
 *
 * The report goes to file descriptor FD (stderr where none is given), one `name value` on a line: first the
 * pid, as soon as the program runs, then the rest when it has ended. The program does not inherit that
 * descriptor. Should this process or the driver die, the program is ended by the kernel.
 *
 * Exit status: 0 when the program was run, whatever became of it; 1 when it could not be; 2 for wrong
 * arguments.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    EXIT_NOT_RUN = 1,
    EXIT_USAGE = 2,
    FIRST_POLL_US = 500,
    LAST_POLL_US = 16000,
    US_PER_S = 1000000,
    NS_PER_S = 1000000000,
};

struct request {
    int report; /* file descriptor */
    const char *preload;
    const char *expect;
    char **program; /* ends with a null pointer */
};

static struct request parse(int argc, char **argv)
{
    struct request request = {.report = STDERR_FILENO};
    int at = 1;

    for (; at + 1 < argc && strcmp(argv[at], "--") != 0; at += 2) {
        if (strcmp(argv[at], "--report") == 0)
            request.report = atoi(argv[at + 1]);
        else if (strcmp(argv[at], "--preload") == 0)
            request.preload = argv[at + 1];
        else if (strcmp(argv[at], "--expect") == 0)
            request.expect = argv[at + 1];
        else if (strcmp(argv[at], "--set") == 0 && strchr(argv[at + 1], '=') != NULL)
            putenv(argv[at + 1]);
        else
            break;
    }
    if (at + 1 >= argc || strcmp(argv[at], "--") != 0) {
        fprintf(stderr, "usage: tarn-measure [--report FD] [--preload FILE] [--expect FILE] [--set "
                        "NAME=VALUE]... -- PROGRAM "
                        "[ARGUMENT]...\n");
        exit(EXIT_USAGE);
    }
    request.program = argv + at + 1;
    return request;
}

static double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / NS_PER_S;
}

static double seconds_of(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / US_PER_S;
}

/* Becomes the program. A failure travels through `channel`, which exec closes. */
__attribute__((noreturn)) static void become(const struct request *request, int channel)
{
    int error;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (request->preload != NULL)
        setenv("LD_PRELOAD", request->preload, 1);
    else
        unsetenv("LD_PRELOAD");
    execvp(request->program[0], request->program);
    error = errno;
    if (write(channel, &error, sizeof(error)) != sizeof(error))
        _exit(EXIT_NOT_RUN);
    _exit(EXIT_NOT_RUN);
}

/* Returns the pid once exec has succeeded. */
static pid_t start(const struct request *request)
{
    int channel[2];
    int error;
    pid_t pid;

    if (pipe2(channel, O_CLOEXEC) != 0 || (pid = fork()) < 0) {
        perror("tarn-measure");
        exit(EXIT_NOT_RUN);
    }
    if (pid == 0)
        become(request, channel[1]);
    close(channel[1]);
    if (read(channel[0], &error, sizeof(error)) == sizeof(error)) {
        fprintf(stderr, "tarn-measure: %s: %s\n", request->program[0], strerror(error));
        exit(EXIT_NOT_RUN);
    }
    close(channel[0]);
    return pid;
}

static bool maps_hold(pid_t pid, const char *file)
{
    size_t wanted = strlen(file);
    char name[64];
    char *line = NULL;
    size_t room = 0;
    ssize_t length;
    bool found = false;
    FILE *maps;

    snprintf(name, sizeof(name), "/proc/%d/maps", (int)pid);
    maps = fopen(name, "re");
    if (maps == NULL)
        return false;
    while (!found && (length = getline(&line, &room, maps)) > 0) {
        size_t end = (size_t)length;

        if (line[end - 1] == '\n')
            line[--end] = '\0';
        found = end > wanted && line[end - wanted - 1] == ' ' && strcmp(line + end - wanted, file) == 0;
    }
    free(line);
    fclose(maps);
    return found;
}

static bool has_ended(pid_t pid)
{
    siginfo_t info = {0};

    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

/* The loader maps the file within the first milliseconds, so this is seldom more than two or three looks. */
static bool see(pid_t pid, const char *file)
{
    useconds_t pause = FIRST_POLL_US;

    while (!maps_hold(pid, file)) {
        if (has_ended(pid))
            return false;
        usleep(pause);
        if (pause < LAST_POLL_US)
            pause *= 2;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct request request = parse(argc, argv);
    struct rusage usage;
    double started, ended;
    bool seen = true;
    int status;
    pid_t pid;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (request.report > STDERR_FILENO && fcntl(request.report, F_SETFD, FD_CLOEXEC) != 0) {
        perror("tarn-measure: the report");
        return EXIT_NOT_RUN;
    }
    started = seconds_now();
    pid = start(&request);
    dprintf(request.report, "pid %d\n", (int)pid);
    if (request.expect != NULL)
        seen = see(pid, request.expect);
    while (wait4(pid, &status, 0, &usage) != pid)
        if (errno != EINTR)
            return EXIT_NOT_RUN;
    ended = seconds_now();
    dprintf(
        request.report,
        "status %d\nsignal %d\nexpected_seen %d\nwall_s %.6f\nuser_s %.6f\nsystem_s %.6f\npeak_rss_kib %ld\n"
        "minor_faults %ld\nmajor_faults %ld\nvoluntary_switches %ld\ninvoluntary_switches %ld\n",
        WIFEXITED(status) ? WEXITSTATUS(status) : -1, WIFSIGNALED(status) ? WTERMSIG(status) : 0, seen,
        ended - started, seconds_of(usage.ru_utime), seconds_of(usage.ru_stime), usage.ru_maxrss,
        usage.ru_minflt, usage.ru_majflt, usage.ru_nvcsw, usage.ru_nivcsw);
    return 0;
}
