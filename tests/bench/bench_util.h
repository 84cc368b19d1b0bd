/* bench_util.h - what the benchmarks of kernels share: threads that each do one piece, best-of timing, the
 * machine's read bandwidth. Header only. */
#ifndef VLMD_TESTS_BENCH_UTIL_H
#define VLMD_TESTS_BENCH_UTIL_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/cpu/pool.h"
#include "tests/ref/ref.h"

#define BENCH static inline __attribute__((unused))

BENCH void *bench_alloc(size_t bytes) {
    void *p = mem_aligned(4096, bytes);
    CHECK(p);
    return p;
}

BENCH int bench_threads(void) {
    const char *s = getenv("VLMD_THREADS");
    long n = s ? atol(s) : sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 && n <= 256 ? (int)n : 1;
}

typedef struct bench_read {
    const uint8_t *p;
    size_t bytes, piece;
    uint64_t sums[4096];
} bench_read;

static void bench_read_tile(void *arg, int64_t tile, int thread) {
    bench_read *b = arg;
    (void)thread;
    typedef uint64_t lanes __attribute__((vector_size(64), may_alias));
    const lanes *v = (const lanes *)(const void *)(b->p + (size_t)tile * b->piece);
    lanes s[4] = {{0}};
    for (size_t i = 0; i + 4 <= b->piece / 64; i += 4)
        for (int k = 0; k < 4; k++) s[k] += v[i + (size_t)k];
    s[0] += s[1] + s[2] + s[3];
    b->sums[tile % 4096] = s[0][0] + s[0][7];
}

/* Bytes a second of reading `bytes` once, in pieces of 1 MiB, by the pool's threads. */
BENCH double bench_read_pass(pool *p, const void *data, size_t bytes) {
    static bench_read b;
    b.p = data;
    b.bytes = bytes;
    b.piece = 1 << 20;
    double t = time_now_s();
    pool_run(p, (int64_t)(bytes / b.piece), bench_read_tile, &b);
    return (double)bytes / (time_now_s() - t);
}

#endif
