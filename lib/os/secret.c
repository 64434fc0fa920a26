#include "os/secret.h"

#include <errno.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/random.h>

_Atomic uint64_t secret_words[SECRET_COUNT];

static void draw(uint64_t words[SECRET_COUNT])
{
    int saved_errno = errno;
    ssize_t length = getrandom(words, SECRET_COUNT * sizeof words[0], GRND_NONBLOCK);
    const unsigned char *given = (const unsigned char *)getauxval(AT_RANDOM); /* 16 bytes */
    if (length != (ssize_t)(SECRET_COUNT * sizeof words[0]) && given != NULL) {
        memcpy(words, given, 2 * sizeof words[0]);
        words[SECRET_ORDER] = (words[0] ^ words[1]) * UINT64_C(0xD6E8FEB86659FD93);
    }
    errno = saved_errno;
}

/* Of several first threads, one sets each word; all go on with what stands there. */
void secret_initialise(void)
{
    if (atomic_load_explicit(&secret_words[SECRET_COUNT - 1], memory_order_acquire) != 0)
        return;
    uint64_t words[SECRET_COUNT] = {0};
    draw(words);
    for (unsigned i = 0; i < SECRET_COUNT; i++) {
        uint64_t none = 0;
        /* release: pairs with the acquire above; the words before it are set. Changes once: no ABA. */
        atomic_compare_exchange_strong_explicit(&secret_words[i], &none, words[i] | 1, memory_order_acq_rel,
                                                memory_order_acquire);
    }
}
