/* ops_util.h - what the tests of ops share: a backend and context per instruction set and thread count, float
 * buffers, comparison. Header only; each test program has its own copy.
 *
 * VLMD_DEVICE=cuda runs the same tests on a GPU (or its emulator): what an op reads or writes comes from op_alloc
 * (floats, random_floats, op_ints), memory that host and device both reach, and is looked at after rig_ok.
 * VLMD_SHORT, beside that, keeps to sizes and repetitions that show the same faults: for where a device's thread is slow. */
#ifndef VLMD_TESTS_OPS_UTIL_H
#define VLMD_TESTS_OPS_UTIL_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/ref/ref.h"
#ifdef VLMD_CUDA
#include <cuda_runtime_api.h>
#endif

#define UTIL static inline __attribute__((unused))

typedef struct rig {
    backend *be;
    arena scratch;
    ctx c;
    const char *isa;
    int threads;
} rig;

static const char *const rig_isa[] = {"portable", "avx2", "avx512"};

/* Are ops on a GPU? */
UTIL bool on_gpu(void) {
    const char *device = getenv("VLMD_DEVICE");
    return device && strncmp(device, "cuda", 4) == 0;
}

UTIL bool brief(void) {
    return on_gpu() && getenv("VLMD_SHORT");
}
/* Counts of threads 1 .. n are tried where they can matter. */
UTIL int most_threads(int n) {
    return brief() ? 1 : n;
}

/* Memory that ops may be given; op_free waits for what the device still does with it. */
UTIL void *op_alloc(size_t n) {
    void *p = NULL;
#ifdef VLMD_CUDA
    if (on_gpu()) {
        assert_int_equal(cudaMallocManaged(&p, n ? n : 1, cudaMemAttachGlobal), cudaSuccess);
        return p;
    }
#endif
    p = malloc(n ? n : 1);
    assert_non_null(p);
    return p;
}
UTIL void op_free(void *p) {
#ifdef VLMD_CUDA
    if (on_gpu()) {
        cudaFree(p);
        return;
    }
#endif
    free(p);
}
#define op_free_all(...)                                                                                     \
    do {                                                                                                     \
        void *all_[] = {__VA_ARGS__};                                                                        \
        for (size_t i_ = 0; i_ < ARRAY_LEN(all_); i_++) op_free(all_[i_]);                                   \
    } while (0)
UTIL void *op_copy_of(const void *p, size_t n) {
    void *q = op_alloc(n);
    memcpy(q, p, n);
    return q;
}

/* false when this machine does not have the instruction set; a GPU has one, "portable" or NULL */
UTIL bool rig_init_as(rig *r, const char *isa, int threads, bool deterministic) {
    memset(r, 0, sizeof *r);
    status st = {0};
    const char *device = getenv("VLMD_DEVICE");
    if (on_gpu() && isa && strcmp(isa, rig_isa[0]) != 0) return false;
    backend_options o = {
        .device = device ? device : "cpu", .threads = threads, .isa = isa, .deterministic = deterministic};
    r->be = backend_new(&o, &st);
    if (!r->be) {
        assert_int_equal(st.code, ST_UNSUPPORTED);
        return false;
    }
    if (on_gpu()) {
        r->scratch = (arena){.base = backend_alloc(r->be, 1 << 20, &st), .cap_bytes = 1 << 20};
        assert_non_null(r->scratch.base);
    } else {
        assert_true(arena_init(&r->scratch, 1 << 20, &st));
    }
    r->c = (ctx){.be = r->be, .scratch = &r->scratch};
    r->isa = on_gpu() ? device : isa ? isa : "best";
    r->threads = threads;
    return true;
}
UTIL bool rig_init(rig *r, const char *isa, int threads) {
    return rig_init_as(r, isa, threads, false);
}
UTIL void rig_fini(rig *r) {
    if (on_gpu())
        backend_release(r->be, r->scratch.base);
    else
        arena_fini(&r->scratch);
    backend_free(r->be);
}
#define RIG_EACH_AS(r, n_threads, deterministic)                                                             \
    for (size_t isa_ = 0; isa_ < ARRAY_LEN(rig_isa); isa_++)                                                 \
        if (rig_init_as(&(r), rig_isa[isa_], n_threads, deterministic))
#define RIG_EACH(r, n_threads)  RIG_EACH_AS(r, n_threads, false)
#define RIG_EXACT(r, n_threads) RIG_EACH_AS(r, n_threads, true)

/* Waits for the device; nothing may have gone wrong. */
UTIL void rig_ok(rig *r) {
    ctx_sync(&r->c);
    if (!ctx_ok(&r->c)) fail_msg("%s: %s", r->isa, r->c.st.msg);
}

/* Contents that are wrong, found at the op or at the wait: ST_INTERNAL, and the ctx can be used again. */
UTIL void rig_fails(rig *r, const char *why, const char *why_on_gpu) {
    ctx_sync(&r->c);
    assert_int_equal(r->c.st.code, ST_INTERNAL);
    if (!strstr(r->c.st.msg, on_gpu() ? why_on_gpu : why)) fail_msg("%s: %s", r->isa, r->c.st.msg);
    memset(&r->c.st, 0, sizeof r->c.st);
    rig_ok(r);
}

UTIL float *floats(int64_t n) {
    return op_alloc(sizeof(float) * (size_t)(n > 0 ? n : 1));
}
UTIL int32_t *op_ints(int64_t n) {
    return op_alloc(sizeof(int32_t) * (size_t)(n > 0 ? n : 1));
}
UTIL float *random_floats(uint64_t *seed, int64_t n, float scale) {
    float *p = floats(n);
    ref_fill(seed, p, n, scale);
    return p;
}
UTIL double *doubles(int64_t n) {
    double *p = malloc(sizeof(double) * (size_t)(n > 0 ? n : 1));
    assert_non_null(p);
    return p;
}

UTIL weight *new_weight(rig *r, tensor t, unsigned use) {
    status st = {0};
    weight *w = weight_new(r->be, &t, use, &st);
    if (!w) fail_msg("weight: %s", st.msg);
    return w;
}

UTIL void near(const char *what, double got, double want, double tol) {
    if (isnan(want) && isnan(got)) return;
    if (isinf(want) && got == want) return;
    if (!(fabs(got - want) <= tol))
        fail_msg("%s: expected %.9g, found %.9g (tolerance %.3g)", what, want, got, tol);
}

/* Equal bits; a NaN equals any NaN. */
UTIL void same_bits(const char *what, const float *a, const float *b, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t u, v;
        memcpy(&u, a + i, 4);
        memcpy(&v, b + i, 4);
        if (u != v && !(isnan(a[i]) && isnan(b[i])))
            fail_msg("%s: element %lld differs: %.9g (%08x) and %.9g (%08x)", what, (long long)i,
                     (double)a[i], u, (double)b[i], v);
    }
}

#endif
