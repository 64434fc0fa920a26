/* The process tells where its tables are (base/published), and does what is wished from outside. */
#ifndef TARN_OBSERVE_PUBLISH_H
#define TARN_OBSERVE_PUBLISH_H

#include <stdbool.h>
#include <stddef.h>

/* Fills `published` in; called again, does nothing more. With TARN_PUBLISH=0 nothing is found from outside
 * and nothing can be wished. `trim` is malloc_trim. While there is one thread. */
void publish_start(int (*trim)(size_t pad));

/* Does what is wished, if there is a wish; nothing at all mostly. On a slow path of a thread that holds no
 * lock. Two threads that come at once: one does it. */
void publish_look(void);

/* In the child of a fork, by its only thread: a wish that another thread was about to grant is nobody's. */
void publish_after_fork_child(void);

#endif
