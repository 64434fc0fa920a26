/*
 * Random numbers from fixed seeds: splitmix64. One word of state, a few instructions, good enough to choose
 * sizes and slots, and the same on every machine.
 */
#ifndef TARN_BENCH_RNG_H
#define TARN_BENCH_RNG_H

#include <stdint.h>

struct rng {
    uint64_t state;
};

static inline uint64_t mix64(uint64_t word)
{
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
    word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
    return word ^ (word >> 31);
}

static inline struct rng rng_seed(uint64_t seed)
{
    struct rng rng;

    rng.state = mix64(seed + 0x7461726eu);
    return rng;
}

static inline uint64_t rng_next(struct rng *rng)
{
    rng->state += 0x9e3779b97f4a7c15u;
    return mix64(rng->state);
}

/* A number from 0 to bound − 1. */
static inline uint32_t rng_below(struct rng *rng, uint32_t bound)
{
    return (uint32_t)(((rng_next(rng) >> 32) * bound) >> 32);
}

/* A number from 0 to bound − 1 that favours small ones: half of the draws fall in the lowest quarter. */
static inline uint32_t rng_below_skewed(struct rng *rng, uint32_t bound)
{
    uint64_t word = rng_next(rng);
    uint64_t square = ((word >> 32) * (word >> 32)) >> 32;

    return (uint32_t)((square * bound) >> 32);
}

#endif
