#include "observe/publish.h"

#include "arena/arena_list.h"
#include "arena/housekeeper.h"
#include "base/fatal.h"
#include "base/published.h"
#include "guard/guard.h"
#include "heap/park.h"
#include "heap/tick.h"
#include "os/map.h"
#include "os/settings.h"
#include "raw/raw.h"
#include "raw/raw_cache.h"

#include <stdatomic.h>
#include <string.h>

__attribute__((section(".data"))) struct published published; /* where a reader looks first */

static bool (*trim_process)(void);
static atomic_flag granting = ATOMIC_FLAG_INIT;

/* ---- telling ---- */

static void describe(struct published *p)
{
    p->self = (uintptr_t)p;
    p->version = PUBLISHED_VERSION;
    p->bytes = sizeof *p;
    strncpy(p->library, TARN_VERSION, sizeof p->library - 1);
    p->hardened = TARN_HARDENED;
    p->overrides = TARN_OVERRIDE;
    p->page_bytes = (uint32_t)map_page_bytes();
    p->arena_header_bytes = sizeof(struct arena);
    p->pool_bytes = sizeof(struct pool);
    p->heap_bytes = offsetof(struct heap, quarantine);
    p->heap_count_bytes = sizeof(struct heap_counts);
    p->heap_quarantine = offsetof(struct heap, quarantine.bytes);
    p->index_root = (uintptr_t)address_index_root;
}

void publish_start(bool (*trim)(void))
{
    if (!settings.publish)
        return;
    struct published *p = &published;
    trim_process = trim;
    tick_set_look(TICK_LOOK_WISHES, publish_look);
    describe(p);
    arena_list_publish(p);
    housekeeper_publish(p);
    guard_publish(p);
    park_publish(p);
    raw_publish(p);
    raw_cache_publish(p);
    settings_publish(p);
    p->magic[1] = PUBLISHED_MAGIC_2;
    p->magic[0] = PUBLISHED_MAGIC;
}

/* ---- granting ---- */

/* What another process wrote may be anything. */
static void take_text(char *to, const char *from, size_t bytes)
{
    memcpy(to, from, bytes);
    to[bytes - 1] = '\0';
}

static bool grant_set(const struct control *control, struct text *answer)
{
    char name[CONTROL_NAME_BYTES];
    char value[CONTROL_VALUE_BYTES];
    take_text(name, control->name, sizeof name);
    take_text(value, control->value, sizeof value);
    return settings_change(name, value, answer);
}

static bool grant_trim(struct text *answer)
{
    text_string(answer, trim_process() ? "trimmed: memory was given back" : "trimmed: nothing to give back");
    return true;
}

static bool grant(const struct control *control, struct text *answer)
{
    switch (control->wish) {
    case CONTROL_SET:
        return grant_set(control, answer);
    case CONTROL_TRIM:
        return grant_trim(answer);
    default:
        text_string(answer, "this is not known here");
        return false;
    }
}

/* The process says what was done to it. */
static void note(const struct text *answer, bool granted)
{
    if (SETTING(verbosity) == 0)
        return;
    struct text line = {0};
    text_string(&line, "from outside: ");
    text_string(&line, answer->bytes);
    text_string(&line, granted ? "" : "; refused");
    notice_line(&line);
}

static void answer_wish(struct control *control)
{
    struct text answer = {0};
    bool granted = grant(control, &answer);
    if (answer.length > CONTROL_ANSWER_BYTES - 1)
        answer.length = CONTROL_ANSWER_BYTES - 1;
    answer.bytes[answer.length] = '\0';
    memcpy(control->answer, answer.bytes, answer.length + 1);
    control->granted = granted;
    note(&answer, granted);
}

void publish_look(uint64_t now_ms)
{
    (void)now_ms;
    struct control *control = &published.control;
    /* acquire: whoever wished wrote the other fields first. */
    uint32_t wished = atomic_load_explicit(&control->wished, memory_order_acquire);
    if (wished == atomic_load_explicit(&control->answered, memory_order_relaxed) ||
        atomic_flag_test_and_set_explicit(&granting, memory_order_acquire))
        return;
    if (wished != atomic_load_explicit(&control->answered, memory_order_relaxed)) {
        answer_wish(control);
        /* release: the answer stands before it counts. */
        atomic_store_explicit(&control->answered, wished, memory_order_release);
    }
    atomic_flag_clear_explicit(&granting, memory_order_release);
}

void publish_after_fork_child(void)
{
    struct control *control = &published.control;
    atomic_store_explicit(&control->answered, atomic_load_explicit(&control->wished, memory_order_relaxed),
                          memory_order_relaxed);
    atomic_flag_clear_explicit(&granting, memory_order_relaxed);
}
