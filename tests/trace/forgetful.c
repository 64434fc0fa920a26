/* A realloc that forgets what was in the block: the replayer has to notice. */
#include <stdlib.h>

void *realloc(void *block, size_t size)
{
    (void)block;
    return calloc(1, size);
}
