/* A look at every arena that is listed. */
#ifndef TARN_OBSERVE_ARENA_WALK_H
#define TARN_OBSERVE_ARENA_WALK_H

#include "arena/arena.h"

/* Calls `each` for every arena, none of which is unmapped meanwhile. `each` must not allocate. Does nothing
 * without memory for the thread's heap. Any thread. */
void arena_walk(void (*each)(void *context, struct arena *arena), void *context);

#endif
