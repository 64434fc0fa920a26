/*
 * A stress program whose seed says what goes wrong: in one of eight seeds a block is spoiled, in one the
 * program does not end, in one a block is spoiled when TARN_CHECK is 1; in the others all is well.
 */
#include "../../stress/stress.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../interface.h"

enum { SPOILS, HANGS, SPOILS_WHEN_CHECKED, KINDS = 8 };

static bool must_be_spoiled(size_t kind)
{
    const char *check = getenv("TARN_CHECK");

    return kind == SPOILS || (kind == SPOILS_WHEN_CHECKED && check != NULL && strcmp(check, "1") == 0);
}

int main(int argc, char **argv)
{
    struct random random;
    struct block *block;
    size_t kind;

    stress_begin("fails_on_seed", argc, argv);
    random = stress_random(0);
    kind = random_below(&random, KINDS);
    block = block_make(&random, 1000);
    if (kind == HANGS)
        pause();
    if (must_be_spoiled(kind))
        block->bytes[100] ^= 1;
    block_free(block, &random);
    stress_end(1);
    return 0;
}
