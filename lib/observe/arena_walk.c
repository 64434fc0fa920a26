#include "observe/arena_walk.h"

#include "arena/arena_list.h"
#include "heap/thread.h"
#include "os/rcu.h"

/* The walk begins before the late heap's lock is taken: it may allocate. */
void arena_walk(void (*each)(void *context, struct arena *arena), void *context)
{
    walk_begin();
    struct heap *own = thread_heap();
    struct heap *heap = own != NULL ? own : thread_late_heap();
    if (heap == NULL) {
        walk_end();
        return;
    }
    reader_enter(heap->reader);
    for (uint32_t number = 0; number < arena_list_bound(); number++) {
        struct arena *arena = arena_list_get(number);
        if (arena != NULL)
            each(context, arena);
    }
    reader_leave(heap->reader);
    if (own == NULL)
        thread_late_done();
    walk_end();
}
