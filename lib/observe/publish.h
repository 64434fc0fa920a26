/* The process tells where its tables are (base/published), and does what is wished from outside. */
#ifndef TARN_OBSERVE_PUBLISH_H
#define TARN_OBSERVE_PUBLISH_H

#include <stdbool.h>
#include <stdint.h>

/* Fills `published` in; called again, does nothing more. With TARN_PUBLISH=0 nothing is found from outside
 * and nothing can be wished. `trim` gives back what it can without waiting for anybody, as malloc does when
 * the system has no memory left; whether it did. While there is one thread. */
void publish_start(bool (*trim)(void));

/* Does what is wished, if there is a wish; nothing at all mostly. On a slow path of a thread that holds no
 * lock. Two threads that come at once: one does it. */
void publish_look(uint64_t now_ms);

/* In the child of a fork, by its only thread: a wish that another thread was about to grant is nobody's. */
void publish_after_fork_child(void);

#endif
