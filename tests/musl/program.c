/* A static program on musl: every way to get a block, by threads that free each other's. Prints "ok" when all
 * contents were whole. */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <tarn/tarn.h>

#define THREADS 4
#define BLOCKS  2000U

/* Debian's liburcu is compiled for glibc with _FORTIFY_SOURCE: the one name in it that musl does not have. */
int __fprintf_chk(FILE *file, int flag, const char *format, ...);

int __fprintf_chk(FILE *file, int flag, const char *format, ...)
{
    (void)flag;
    va_list arguments;
    va_start(arguments, format);
    int written = vfprintf(file, format, arguments);
    va_end(arguments);
    return written;
}

static unsigned char *blocks[THREADS][BLOCKS];
static pthread_barrier_t barrier;

/* From 1 byte to blocks with a mapping of their own. */
static size_t bytes_of(unsigned i)
{
    return i % 100 == 99 ? (size_t)i << 10 : i * 7 % 4000 + 1;
}

static unsigned char *one_block(unsigned i)
{
    size_t bytes = bytes_of(i);
    switch (i % 4) {
    case 0:
        return tarn_malloc(bytes);
    case 1:
        return tarn_calloc(1, bytes);
    case 2:
        return tarn_aligned_alloc(256, bytes);
    default:
        return tarn_realloc(tarn_malloc(bytes / 2), bytes);
    }
}

static void *work(void *argument)
{
    unsigned self = *(unsigned *)argument;
    uintptr_t bad = 0;
    for (unsigned i = 0; i < BLOCKS; i++) {
        unsigned char *block = blocks[self][i] = one_block(i);
        if (block == NULL || (i % 4 == 1 && (block[0] | block[bytes_of(i) - 1]) != 0))
            return (void *)1;
        memset(block, (int)(self + i), bytes_of(i));
    }
    pthread_barrier_wait(&barrier);
    for (unsigned i = 0; i < BLOCKS; i++) {
        unsigned other = (self + 1) % THREADS;
        const unsigned char *block = blocks[other][i];
        bad += block[0] != (unsigned char)(other + i) || block[bytes_of(i) - 1] != (unsigned char)(other + i);
        tarn_free(blocks[other][i]);
    }
    return (void *)bad;
}

int main(void)
{
    pthread_t threads[THREADS];
    unsigned numbers[THREADS];
    uintptr_t bad = 0;
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (unsigned i = 0; i < THREADS; i++) {
        numbers[i] = i;
        if (pthread_create(&threads[i], NULL, work, &numbers[i]) != 0)
            return 1;
    }
    for (unsigned i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        bad += (uintptr_t)result;
    }
    errno = 0;
    if (bad != 0 || tarn_malloc(PTRDIFF_MAX) != NULL || errno != ENOMEM)
        return 1;
    return puts("ok") < 0;
}
