/* tarn top: every process on Tarn, or those asked for; again and again, from outside. */
#include "commands.h"

#include "survey.h"
#include "table.h"

#include <curses.h>
#include <dirent.h>
#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PROCESSES_MOST = 512, SEEN_MOST = 8192, THREAD_ROWS = 1024, MS = 1000, CTRL_L = 12 };

/* One process at one moment. */
struct sample {
    pid_t pid;
    uint64_t started;
    char name[32];
    double at; /* seconds */
    uint64_t resident;
    uint64_t live_bytes;
    uint64_t kept_bytes;
    uint64_t dirty_bytes;
    size_t arenas;
    uint64_t pools;
    size_t heaps;
    size_t parked;
    struct survey_rates sums;
    struct class_view classes[COUNTED_KINDS];
    struct {
        int thread;
        bool parked;
        uint32_t number;
        uint64_t calls;
        uint64_t sent;
        uint64_t kept_bytes;
        uint64_t foreign_bytes;
        uint64_t pool_bytes;
    } threads[THREAD_ROWS];
    size_t thread_count;
};

/* What was seen before is the base of the rates. */
struct watched {
    struct sample *now;
    struct sample *before;
};

static struct watched watched[PROCESSES_MOST];
static size_t watched_count;

/* Those that are not on Tarn are not looked into again while they live. */
static struct {
    pid_t pid;
    uint64_t started;
} seen[SEEN_MOST];
static size_t seen_count;

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- a sample ---- */

static void sum_slots(struct sample *sample, const struct survey *survey)
{
    for (size_t i = 0; i < survey->arena_count; i++)
        for (uint32_t slot = 0; slot < ARENA_SLOTS; slot++) {
            const struct slot_view *one = &survey->arenas[i].slots[slot];
            if (one->use == SLOT_DIRTY)
                sample->dirty_bytes += SLOT_BYTES;
            if (one->use == SLOT_RUN)
                sample->live_bytes += SLOT_BYTES;
            if (one->use == SLOT_POOL && one->begins)
                sample->live_bytes += (uint64_t)one->used * class_bytes(one->class);
        }
    for (size_t i = 0; i < survey->raw_count; i++) {
        if (survey->raws[i].cached)
            sample->kept_bytes += survey->raws[i].bytes;
        else
            sample->live_bytes += survey->raws[i].bytes;
    }
}

static void sum_heaps(struct sample *sample, const struct survey *survey)
{
    for (size_t i = 0; i < survey->heap_count; i++) {
        const struct heap_view *view = &survey->heaps[i];
        uint64_t calls = 0;
        for (uint32_t kind = 0; kind < COUNTED_KINDS; kind++)
            calls += owned_total_read(&view->heap.counts.kinds[kind].calls);
        sample->kept_bytes += survey_heap_kept_bytes(view) + view->heap.foreign_bytes;
        sample->parked += view->parked;
        if (sample->thread_count == THREAD_ROWS)
            continue;
        size_t at = sample->thread_count++;
        sample->threads[at].thread = view->thread;
        sample->threads[at].parked = view->parked;
        sample->threads[at].number = view->number;
        sample->threads[at].calls = calls;
        sample->threads[at].sent = owned_total_read(&view->heap.counts.sent_blocks);
        sample->threads[at].kept_bytes = survey_heap_kept_bytes(view);
        sample->threads[at].foreign_bytes = view->heap.foreign_bytes;
        sample->threads[at].pool_bytes = (uint64_t)view->heap.pool_slots * SLOT_BYTES;
    }
    sample->heaps = survey->heap_count;
}

static struct sample *take_sample(struct process *process)
{
    struct survey survey;
    struct sample *sample = calloc(1, sizeof *sample);
    bool taken = survey_take(&survey, process, false);
    if (sample == NULL || !taken) {
        survey_free(&survey);
        free(sample);
        return NULL;
    }
    sample->pid = process->pid;
    sample->started = process->started;
    memcpy(sample->name, process->name, sizeof sample->name);
    sample->at = seconds_now();
    sample->resident = process_resident_bytes(process);
    sample->arenas = survey.arena_count;
    sample->sums = survey_rates(&survey);
    memcpy(sample->classes, survey.classes, sizeof sample->classes);
    for (uint32_t class = 0; class < CLASS_COUNT; ++class)
        sample->pools += survey.classes[class].pools;
    sum_slots(sample, &survey);
    sum_heaps(sample, &survey);
    survey_free(&survey);
    return sample;
}

/* ---- all processes ---- */

static bool was_seen(pid_t pid, uint64_t started)
{
    for (size_t i = 0; i < seen_count; i++)
        if (seen[i].pid == pid)
            return seen[i].started == started;
    return false;
}

static void remember(pid_t pid, uint64_t started)
{
    size_t at = 0;
    while (at < seen_count && seen[at].pid != pid)
        at++;
    if (at == SEEN_MOST)
        at = (size_t)pid % SEEN_MOST;
    seen[at].pid = pid;
    seen[at].started = started;
    if (at == seen_count)
        seen_count++;
}

static void forget(struct watched *one)
{
    free(one->now);
    free(one->before);
    *one = watched[--watched_count];
}

/* Puts the sample in the place of the one before. A process that was replaced by exec begins anew. */
static void enter(struct sample *sample)
{
    for (size_t i = 0; i < watched_count; i++) {
        struct watched *one = &watched[i];
        if (one->now->pid != sample->pid)
            continue;
        free(one->before);
        one->before = one->now;
        if (one->before->started != sample->started || one->before->sums.calls > sample->sums.calls) {
            free(one->before);
            one->before = NULL;
        }
        one->now = sample;
        return;
    }
    if (watched_count < PROCESSES_MOST)
        watched[watched_count++] = (struct watched){.now = sample};
    else
        free(sample);
}

static void look_at(pid_t pid)
{
    struct process process = {.pid = pid};
    char link[64];
    char target[8];
    snprintf(link, sizeof link, "/proc/%d/exe", (int)pid);
    if (readlink(link, target, sizeof target) <= 0 && errno == ENOENT)
        return; /* a thread of the kernel */
    process_open(&process, pid);
    if (process.state == PROCESS_ON_TARN) {
        struct sample *sample = take_sample(&process);
        if (sample != NULL)
            enter(sample);
    } else {
        remember(pid, process.started);
    }
    process_close(&process);
}

static uint64_t started_of(pid_t pid)
{
    uint64_t started;
    char name[32];
    return process_started(pid, name, sizeof name, &started) ? started : 0;
}

static void look_at_all(const pid_t *pids, size_t count)
{
    double begin = seconds_now();
    struct dirent *entry;
    DIR *folder = count == 0 ? opendir("/proc") : NULL;
    for (size_t i = 0; i < count; i++)
        look_at(pids[i]);
    while (folder != NULL && (entry = readdir(folder)) != NULL) {
        pid_t pid = (pid_t)atoi(entry->d_name);
        if (pid > 0 && pid != getpid() && !was_seen(pid, started_of(pid)))
            look_at(pid);
    }
    if (folder != NULL)
        closedir(folder);
    for (size_t i = watched_count; i-- > 0;)
        if (watched[i].now->at < begin)
            forget(&watched[i]);
}

/* ---- rows ---- */

static double rate(const struct watched *one, uint64_t now, uint64_t before)
{
    if (one->before == NULL || now < before || one->now->at <= one->before->at)
        return 0;
    return (double)(now - before) / (one->now->at - one->before->at);
}

static double call_rate(const struct watched *one)
{
    return rate(one, one->now->sums.calls, one->before != NULL ? one->before->sums.calls : 0);
}

/* What came and did not stay. */
static double free_rate(const struct watched *one)
{
    if (one->before == NULL)
        return 0;
    double stayed = ((double)one->now->sums.live_blocks - (double)one->before->sums.live_blocks) /
                    (one->now->at - one->before->at);
    double frees = call_rate(one) - stayed;
    return frees > 0 ? frees : 0;
}

static const struct column process_columns[] = {
    {"pid", "pid", CELL_COUNT},           {"name", "name", CELL_TEXT},
    {"mallocs", "malloc/s", CELL_COUNT},  {"frees", "free/s", CELL_COUNT},
    {"bytes", "asked/s", CELL_BYTES},     {"live", "live", CELL_BYTES},
    {"cached", "cached", CELL_BYTES},     {"dirty", "dirty", CELL_BYTES},
    {"resident", "resident", CELL_BYTES}, {"arenas", "arenas", CELL_COUNT},
    {"pools", "pools", CELL_COUNT},       {"remote", "remote/s", CELL_COUNT},
    {"threads", "threads", CELL_COUNT},   {"parked", "parked", CELL_COUNT},
};

static json_t *process_row(const struct watched *one)
{
    const struct sample *now = one->now;
    const struct sample *before = one->before != NULL ? one->before : now;
    return json_pack("{s:i, s:s, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:I, s:I}", "pid",
                     (int)now->pid, "name", now->name, "mallocs", call_rate(one), "frees", free_rate(one),
                     "bytes", rate(one, now->sums.bytes, before->sums.bytes), "live",
                     (json_int_t)now->live_bytes, "cached", (json_int_t)now->kept_bytes, "dirty",
                     (json_int_t)now->dirty_bytes, "resident", (json_int_t)now->resident, "arenas",
                     (json_int_t)now->arenas, "pools", (json_int_t)now->pools, "remote",
                     rate(one, now->sums.sent_blocks, before->sums.sent_blocks), "threads",
                     (json_int_t)(now->heaps - now->parked), "parked", (json_int_t)now->parked);
}

static const struct column class_columns[] = {
    {"block", "block", CELL_COUNT}, {"mallocs", "malloc/s", CELL_COUNT}, {"live", "live", CELL_COUNT},
    {"capacity", "of", CELL_COUNT}, {"pools", "pools", CELL_COUNT},      {"bytes", "live", CELL_BYTES},
};

static json_t *class_row(const struct watched *one, uint32_t class)
{
    const struct class_view *now = &one->now->classes[class];
    const struct class_view *before = one->before != NULL ? &one->before->classes[class] : now;
    return json_pack("{s:I, s:f, s:I, s:I, s:I, s:I}", "block", (json_int_t)class_bytes(class), "mallocs",
                     rate(one, now->calls, before->calls), "live", (json_int_t)now->used, "capacity",
                     (json_int_t)now->capacity, "pools", (json_int_t)now->pools, "bytes",
                     (json_int_t)(now->used * class_bytes(class)));
}

static const struct column thread_columns[] = {
    {"heap", "heap", CELL_COUNT},       {"thread", "thread", CELL_COUNT},
    {"state", "state", CELL_TEXT},      {"mallocs", "malloc/s", CELL_COUNT},
    {"remote", "remote/s", CELL_COUNT}, {"pools", "in pools", CELL_BYTES},
    {"kept", "kept empty", CELL_BYTES}, {"foreign", "of others", CELL_BYTES},
};

static json_t *thread_row(const struct watched *one, size_t i)
{
    const struct sample *now = one->now;
    const struct sample *before = one->before;
    bool has =
        before != NULL && i < before->thread_count && before->threads[i].number == now->threads[i].number;
    const char *state = now->threads[i].parked ? "parked" : now->threads[i].thread != 0 ? "runs" : "left";
    return json_pack("{s:I, s:i, s:s, s:f, s:f, s:I, s:I, s:I}", "heap", (json_int_t)now->threads[i].number,
                     "thread", now->threads[i].thread, "state", state, "mallocs",
                     has ? rate(one, now->threads[i].calls, before->threads[i].calls) : 0.0, "remote",
                     has ? rate(one, now->threads[i].sent, before->threads[i].sent) : 0.0, "pools",
                     (json_int_t)now->threads[i].pool_bytes, "kept", (json_int_t)now->threads[i].kept_bytes,
                     "foreign", (json_int_t)now->threads[i].foreign_bytes);
}

static int largest_first(const void *a, const void *b)
{
    const struct watched *one = a;
    const struct watched *other = b;
    return one->now->resident > other->now->resident ? -1 : one->now->resident < other->now->resident;
}

/* ---- the screen ---- */

enum view { VIEW_PROCESSES, VIEW_CLASSES, VIEW_THREADS };

static json_t *rows_of(enum view view, const struct watched *selected)
{
    json_t *rows = json_array();
    if (view == VIEW_PROCESSES)
        for (size_t i = 0; i < watched_count; i++)
            json_array_append_new(rows, process_row(&watched[i]));
    if (view == VIEW_CLASSES && selected != NULL)
        for (uint32_t class = 0; class < CLASS_COUNT; ++class)
            if (selected->now->classes[class].pools > 0)
                json_array_append_new(rows, class_row(selected, class));
    if (view == VIEW_THREADS && selected != NULL)
        for (size_t i = 0; i < selected->now->thread_count; i++)
            json_array_append_new(rows, thread_row(selected, i));
    return rows;
}

static void print_table(enum view view, const json_t *rows, bool as_json, FILE *to)
{
    if (view == VIEW_PROCESSES)
        table_print(process_columns, sizeof process_columns / sizeof *process_columns, rows, as_json, to);
    else if (view == VIEW_CLASSES)
        table_print(class_columns, sizeof class_columns / sizeof *class_columns, rows, as_json, to);
    else
        table_print(thread_columns, sizeof thread_columns / sizeof *thread_columns, rows, as_json, to);
}

struct screen {
    enum view view;
    size_t selected; /* row of the processes */
    size_t first;    /* line shown first */
};

static void draw_lines(const struct screen *screen, char *text)
{
    int line = 1;
    size_t number = 0;
    for (char *next = text; next != NULL && *next != '\0' && line < LINES - 1; number++) {
        char *end = strchr(next, '\n');
        if (end != NULL)
            *end = '\0';
        bool is_title = number == 0;
        if (is_title || number - 1 >= screen->first) {
            bool chosen = screen->view == VIEW_PROCESSES && number == screen->selected + 1;
            attrset(is_title ? A_BOLD : chosen ? A_REVERSE : A_NORMAL);
            mvaddnstr(line++, 0, next, COLS);
        }
        next = end != NULL ? end + 1 : NULL;
    }
    attrset(A_NORMAL);
}

static void draw(const struct screen *screen)
{
    const struct watched *selected = screen->selected < watched_count ? &watched[screen->selected] : NULL;
    json_t *rows = rows_of(screen->view, selected);
    char *text = NULL;
    size_t bytes;
    FILE *to = open_memstream(&text, &bytes);
    erase();
    if (to != NULL) {
        print_table(screen->view, rows, false, to);
        fclose(to);
        draw_lines(screen, text);
        free(text);
    }
    if (screen->view == VIEW_PROCESSES)
        mvprintw(0, 0, "tarn top: %zu processes on Tarn", watched_count);
    else if (selected != NULL)
        mvprintw(0, 0, "tarn top: %s (%d), %s", selected->now->name, (int)selected->now->pid,
                 screen->view == VIEW_CLASSES ? "size classes" : "threads");
    attrset(A_REVERSE);
    mvaddnstr(LINES - 1, 0, " q quit   up/down choose   c classes   t threads   p processes ", COLS);
    attrset(A_NORMAL);
    refresh();
    json_decref(rows);
}

/* False: to end. */
static bool obey(struct screen *screen, int key)
{
    size_t *moved = screen->view == VIEW_PROCESSES ? &screen->selected : &screen->first;
    switch (key) {
    case 'q':
        return false;
    case 'c':
    case 't':
    case 'p':
    case '\n':
        screen->view = key == 't' ? VIEW_THREADS : key == 'p' ? VIEW_PROCESSES : VIEW_CLASSES;
        screen->first = 0;
        break;
    case CTRL_L:
        clearok(curscr, TRUE);
        break;
    case KEY_UP:
    case 'k':
        *moved -= *moved > 0;
        break;
    case KEY_DOWN:
    case 'j':
        ++*moved;
        break;
    default:
        break;
    }
    if (watched_count > 0 && screen->selected >= watched_count)
        screen->selected = watched_count - 1;
    return true;
}

static int run_screen(const pid_t *pids, size_t count, double delay)
{
    struct screen screen = {0};
    bool goes_on = true;
    double next = 0;
    setlocale(LC_ALL, "");
    if (initscr() == NULL)
        return complain("this terminal cannot be used");
    cbreak();
    noecho();
    keypad(stdscr, TRUE);
    curs_set(0);
    while (goes_on) {
        double now = seconds_now();
        if (now >= next) {
            look_at_all(pids, count);
            qsort(watched, watched_count, sizeof *watched, largest_first);
            next = now + delay;
        }
        draw(&screen);
        timeout((int)((next > now ? next - now : 0) * MS) + 1);
        int key = getch();
        goes_on = key == ERR || obey(&screen, key);
    }
    endwin();
    return STATUS_OK;
}

static int run_once(const pid_t *pids, size_t count, double delay, bool as_json)
{
    look_at_all(pids, count);
    nanosleep(&(struct timespec){(time_t)delay, (long)((delay - (double)(time_t)delay) * 1e9)}, NULL);
    look_at_all(pids, count);
    qsort(watched, watched_count, sizeof *watched, largest_first);
    json_t *rows = rows_of(VIEW_PROCESSES, NULL);
    print_table(VIEW_PROCESSES, rows, as_json, stdout);
    json_decref(rows);
    return watched_count > 0 ? STATUS_OK : STATUS_NO;
}

int command_top(int count, char **arguments)
{
    bool as_json = take_json(&count, arguments);
    bool once = as_json || !isatty(STDOUT_FILENO);
    static pid_t pids[PROCESSES_MOST];
    size_t pid_count = 0;
    double delay = 1;
    for (int i = 1; i < count; i++) {
        char *end = NULL;
        if (strcmp(arguments[i], "--once") == 0) {
            once = true;
        } else if (strcmp(arguments[i], "--delay") == 0 && i + 1 < count) {
            delay = strtod(arguments[++i], &end);
            if (end == arguments[i] || *end != '\0' || !(delay >= 0.1 && delay <= 3600))
                return complain_usage("\"%s\" is not a time from 0.1 to 3600 seconds", arguments[i]);
        } else if (pid_count == PROCESSES_MOST || !parse_pid(arguments[i], &pids[pid_count++])) {
            return STATUS_USAGE;
        }
    }
    for (size_t i = 0; i < pid_count; i++) {
        struct process process;
        process_open(&process, pids[i]);
        int status = process_explain_state(&process);
        process_close(&process);
        if (status != STATUS_OK)
            return status;
    }
    return once ? run_once(pids, pid_count, delay, as_json) : run_screen(pids, pid_count, delay);
}
