/* rng.h - small numbers that a seed decides, the same everywhere. Header only. */
#ifndef TESTS_TOOLS_RNG_H
#define TESTS_TOOLS_RNG_H

#include <stdint.h>

typedef struct rng {
    uint32_t s;
} rng;

static inline uint32_t rnd(rng *r, uint32_t n) { /* 0..n-1 */
    r->s = r->s * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(r->s >> 4) * n >> 28);
}

#endif
