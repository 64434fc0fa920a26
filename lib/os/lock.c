#include "os/lock.h"

THREAD_LOCAL bool lock_forking;
