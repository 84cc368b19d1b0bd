/* test_blas.c - kernels/cuda/blas.c over a library that demands what cuBLASLt's documentation does (fake_cublaslt.cpp): products
 * against double precision, one question to the heuristic for a shape and bucket of rows, what becomes of answers that do not
 * help, and what is said of a library that is not there. That the library notices broken demands is shown first. */
#include <dlfcn.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include "kernels/cuda/blas.h"
#include "kernels/ops.h"
#include "tests/cuda_emu/fake_cublaslt.h"
#include "tests/ref/ref.h"

static fake_cublaslt *g_lib;
static cudaStream_t g_stream;

/* ---- device memory ---- */

static void *device(size_t n) {
    void *p = NULL;
    assert_int_equal(cudaMalloc(&p, n), cudaSuccess);
    return p;
}
static void *uploaded(const void *from, size_t n) {
    void *p = device(n);
    assert_int_equal(cudaMemcpy(p, from, n, cudaMemcpyHostToDevice), cudaSuccess);
    return p;
}

/* ---- one product ---- */

typedef struct shape {
    dtype dt;
    int64_t rows, k, out, pad; /* pad: leading dimensions are so much larger */
    bool bias, add;
} shape;

typedef struct product {
    shape s;
    blas_gemm g;
    uint8_t *x, *w;       /* host, as stored */
    float *bias, *y0, *y; /* [out], [rows, y_ld] */
    size_t y_bytes;
} product;

static uint8_t *stored(dtype dt, uint64_t *seed, int64_t n) {
    uint8_t *p = malloc((size_t)n * dtype_size(dt));
    float *x = malloc((size_t)n * sizeof *x);
    assert_true(p && x);
    for (int64_t i = 0; i < n; i++) x[i] = (float)ref_int(seed, -1000, 1000) / 700;
    ref_store(dt, p, x, n);
    free(x);
    return p;
}

static product product_new(const shape *s, uint64_t seed) {
    const cuk_type t = s->dt == DT_F32 ? CUK_F32 : s->dt == DT_F16 ? CUK_F16 : CUK_BF16;
    product p = {.s = *s};
    blas_gemm *g = &p.g;
    *g = (blas_gemm){.t = t, .rows = s->rows, .k = s->k, .out = s->out, .add = s->add, .lane = LANE_STEP};
    g->x_ld = s->k + s->pad, g->w_ld = s->k + 2 * s->pad, g->y_ld = s->out + 3 * s->pad;
    p.x = stored(s->dt, &seed, s->rows * g->x_ld);
    p.w = stored(s->dt, &seed, s->out * g->w_ld);
    p.bias = (float *)(void *)stored(DT_F32, &seed, s->out);
    p.y0 = (float *)(void *)stored(DT_F32, &seed, s->rows * g->y_ld);
    p.y_bytes = (size_t)(s->rows * g->y_ld) * sizeof(float);
    p.y = malloc(p.y_bytes);
    assert_non_null(p.y);
    g->x = uploaded(p.x, (size_t)(s->rows * g->x_ld) * dtype_size(s->dt));
    g->w = uploaded(p.w, (size_t)(s->out * g->w_ld) * dtype_size(s->dt));
    g->y = uploaded(p.y0, p.y_bytes);
    if (s->bias) g->bias = uploaded(p.bias, (size_t)s->out * sizeof(float));
    return p;
}

static void product_fini(product *p) {
    cudaFree((void *)(uintptr_t)p->g.x);
    cudaFree((void *)(uintptr_t)p->g.w);
    cudaFree((void *)(uintptr_t)p->g.bias);
    cudaFree(p->g.y);
    free(p->x);
    free(p->w);
    free(p->bias);
    free(p->y0);
    free(p->y);
}

static void fetch(product *p) {
    assert_int_equal(cudaStreamSynchronize(g_stream), cudaSuccess);
    assert_int_equal(cudaMemcpy(p->y, p->g.y, p->y_bytes, cudaMemcpyDeviceToHost), cudaSuccess);
}

/* times: how often the product was added; error: relative, of each factor */
static void check(product *p, int times, double error) {
    const shape *s = &p->s;
    double *want = malloc((size_t)(s->rows * s->out) * sizeof *want);
    float *x = malloc((size_t)(s->rows * p->g.x_ld) * sizeof *x);
    assert_true(want && x);
    for (int64_t i = 0; i < s->rows * p->g.x_ld; i++) x[i] = (float)ref_from(s->dt, p->x, i);
    ref_linear(want, x, p->g.x_ld, s->rows, s->k, s->out, s->dt, p->w, p->g.w_ld, s->bias ? p->bias : NULL,
               ACT_NONE);
    fetch(p);
    for (int64_t r = 0; r < s->rows; r++)
        for (int64_t o = 0; o < p->g.y_ld; o++) {
            const double old = p->y0[r * p->g.y_ld + o], got = p->y[r * p->g.y_ld + o];
            if (o >= s->out) {
                assert_true(got == old); /* the gap between rows is not its own */
                continue;
            }
            const double size = ref_dot_size(x + r * p->g.x_ld, s->dt,
                                             p->w + (size_t)(o * p->g.w_ld) * dtype_size(s->dt), s->k);
            const double all = s->add ? old + times * want[r * s->out + o] : want[r * s->out + o];
            if (!(fabs(got - all) <= 1e-6 + times * (3e-7 * (size + 4) + 2 * error * size)))
                fail_msg("row %d, output %d: %g instead of %g", (int)r, (int)o, got, all);
        }
    free(want);
    free(x);
}

static bool run(cuda_blas *b, product *p) {
    return cuda_blas_gemm(b, g_stream, &p->g);
}

/* ---- the library itself ---- */

/* What is 16 x 8 times 8 x 4, but for what a case changes. */
typedef struct call {
    cublasLtHandle_t h;
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t a, b, c, d;
    cublasLtMatmulPreference_t pref;
    void *workspace;
    float *pa, *pb, *pd;
    cublasLtMatmulHeuristicResult_t best;
    int n;
} call;

static call call_new(cublasComputeType_t compute, cudaDataType_t a, cudaDataType_t b, int64_t a_ld) {
    call c = {0};
    const size_t room = 1 << 20;
    assert_int_equal(cublasLtCreate(&c.h), 0);
    assert_int_equal(cublasLtMatmulDescCreate(&c.op, compute, CUDA_R_32F), 0);
    assert_int_equal(cublasLtMatrixLayoutCreate(&c.a, a, 16, 8, a_ld), 0);
    assert_int_equal(cublasLtMatrixLayoutCreate(&c.b, b, 8, 4, 8), 0);
    assert_int_equal(cublasLtMatrixLayoutCreate(&c.c, CUDA_R_32F, 16, 4, 16), 0);
    assert_int_equal(cublasLtMatrixLayoutCreate(&c.d, CUDA_R_32F, 16, 4, 16), 0);
    assert_int_equal(cublasLtMatmulPreferenceCreate(&c.pref), 0);
    assert_int_equal(cublasLtMatmulPreferenceSetAttribute(c.pref, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                          &room, sizeof room),
                     0);
    c.workspace = device(room + 256);
    c.pa = device(4096), c.pb = device(4096), c.pd = device(4096);
    return c;
}
static void call_fini(call *c) {
    cudaStreamSynchronize(g_stream);
    cublasLtMatmulPreferenceDestroy(c->pref);
    cublasLtMatrixLayoutDestroy(c->a);
    cublasLtMatrixLayoutDestroy(c->b);
    cublasLtMatrixLayoutDestroy(c->c);
    cublasLtMatrixLayoutDestroy(c->d);
    cublasLtMatmulDescDestroy(c->op);
    cublasLtDestroy(c->h);
    cudaFree(c->workspace);
    cudaFree(c->pa);
    cudaFree(c->pb);
    cudaFree(c->pd);
}
static cublasStatus_t ask(call *c) {
    return cublasLtMatmulAlgoGetHeuristic(c->h, c->op, c->a, c->b, c->c, c->d, c->pref, 1, &c->best, &c->n);
}
static cublasStatus_t multiply(call *c, float *a, void *workspace, size_t room,
                               const cublasLtMatmulAlgo_t *algo) {
    const float one = 1;
    return cublasLtMatmul(c->h, c->op, &one, a, c->a, c->pb, c->b, &one, c->pd, c->c, c->pd, c->d, algo,
                          workspace, room, g_stream);
}

static void test_library_demands(void **state) {
    (void)state;
    const size_t room = 1 << 20;
    call c = call_new(CUBLAS_COMPUTE_32F, CUDA_R_16BF, CUDA_R_32F, 16);
    assert_int_equal(ask(&c), CUBLAS_STATUS_NOT_SUPPORTED); /* factors of two types */
    call_fini(&c);
    c = call_new(CUBLAS_COMPUTE_32F_FAST_TF32, CUDA_R_16BF, CUDA_R_16BF, 16);
    assert_int_equal(ask(&c), CUBLAS_STATUS_NOT_SUPPORTED); /* TF32 is for f32 */
    call_fini(&c);
    c = call_new(CUBLAS_COMPUTE_16F, CUDA_R_16F, CUDA_R_16F, 16);
    assert_int_equal(ask(&c), CUBLAS_STATUS_NOT_SUPPORTED); /* sums of 16 bits into f32 */
    call_fini(&c);
    c = call_new(CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_32F, 15);
    assert_int_equal(ask(&c), CUBLAS_STATUS_INVALID_VALUE); /* columns that overlap */
    call_fini(&c);

    c = call_new(CUBLAS_COMPUTE_32F, CUDA_R_32F, CUDA_R_32F, 16);
    const uint64_t four = 4, five = 5;
    const int64_t ld = 17;
    const uint32_t bias = CUBLASLT_EPILOGUE_BIAS, gelu = CUBLASLT_EPILOGUE_GELU,
                   plain = CUBLASLT_EPILOGUE_DEFAULT;
    assert_int_equal(cublasLtMatrixLayoutSetAttribute(c.b, CUBLASLT_MATRIX_LAYOUT_COLS, &five, 4),
                     CUBLAS_STATUS_INVALID_VALUE); /* a size that is not the attribute's */
    cublasLtMatrixLayoutSetAttribute(c.b, CUBLASLT_MATRIX_LAYOUT_COLS, &five, sizeof five);
    assert_int_equal(ask(&c), CUBLAS_STATUS_INVALID_VALUE); /* D has 4 columns */
    cublasLtMatrixLayoutSetAttribute(c.b, CUBLASLT_MATRIX_LAYOUT_COLS, &four, sizeof four);
    cublasLtMatmulDescSetAttribute(c.op, CUBLASLT_MATMUL_DESC_EPILOGUE, &gelu, sizeof gelu);
    assert_int_equal(ask(&c), CUBLAS_STATUS_NOT_SUPPORTED);
    cublasLtMatmulDescSetAttribute(c.op, CUBLASLT_MATMUL_DESC_EPILOGUE, &bias, sizeof bias);
    assert_int_equal(ask(&c), CUBLAS_STATUS_SUCCESS);
    assert_int_equal(multiply(&c, c.pa, c.workspace, room, &c.best.algo),
                     CUBLAS_STATUS_INVALID_VALUE); /* where? */
    cublasLtMatmulDescSetAttribute(c.op, CUBLASLT_MATMUL_DESC_EPILOGUE, &plain, sizeof plain);
    assert_int_equal(multiply(&c, c.pa, c.workspace, room, &c.best.algo),
                     CUBLAS_STATUS_INVALID_VALUE); /* an algorithm of a product with a bias */
    assert_int_equal(ask(&c), CUBLAS_STATUS_SUCCESS);
    assert_int_equal(multiply(&c, c.pa + 1, c.workspace, room, &c.best.algo), CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(multiply(&c, c.pa, (char *)c.workspace + 64, room, &c.best.algo),
                     CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(multiply(&c, c.pa, c.workspace, 100, &c.best.algo), CUBLAS_STATUS_INVALID_VALUE);
    assert_int_equal(multiply(&c, c.pa, c.workspace, room, &c.best.algo), CUBLAS_STATUS_SUCCESS);
    cublasLtMatrixLayoutSetAttribute(c.c, CUBLASLT_MATRIX_LAYOUT_LD, &ld, sizeof ld);
    assert_int_equal(ask(&c), CUBLAS_STATUS_SUCCESS);
    assert_int_equal(multiply(&c, c.pa, c.workspace, room, &c.best.algo),
                     CUBLAS_STATUS_INVALID_VALUE); /* C in the place of D, with other strides */
    call_fini(&c);
}

/* ---- products ---- */

static const dtype types[] = {DT_F32, DT_F16, DT_BF16};

static void test_products(void **state) {
    (void)state;
    static const int64_t shapes[][4] = {{17, 1, 2, 0},  {33, 7, 6, 1},    {1, 64, 64, 0},
                                        {64, 33, 5, 3}, {130, 100, 7, 0}, {40, 257, 70, 16}};
    cuda_blas *b = cuda_blas_new(false);
    assert_non_null(b);
    for (size_t i = 0; i < ARRAY_LEN(shapes) * ARRAY_LEN(types) * 4; i++) {
        const int64_t *n = shapes[i % ARRAY_LEN(shapes)];
        const shape s = {
            types[i / ARRAY_LEN(shapes) % ARRAY_LEN(types)], n[0], n[1], n[2], n[3], i % 5 < 2, i % 7 < 3};
        product p = product_new(&s, i + 1);
        bool done = run(b, &p);
        assert_int_equal(done, !s.bias || s.out % 2 == 0); /* this library offers no others */
        if (done) check(&p, 1, 0);
        product_fini(&p);
    }
    assert_int_equal(g_lib->compute, CUBLAS_COMPUTE_32F);
    assert_int_equal(g_lib->n_invalid, 0);
    cuda_blas_free(b);
    assert_int_equal(g_lib->n_alive, 0);
}

/* Recorded once, run three times, behind a product of other rows that uses the same plan. */
static void test_captured(void **state) {
    (void)state;
    cuda_blas *b = cuda_blas_new(false);
    const shape s = {DT_BF16, 50, 40, 24, 0, true, true}, other = {DT_BF16, 35, 40, 24, 0, true, false};
    product p = product_new(&s, 3), q = product_new(&other, 4);
    cudaGraph_t g;
    cudaGraphExec_t e;
    assert_true(run(b, &q));
    assert_int_equal(cudaStreamBeginCapture(g_stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    assert_true(run(b, &p));
    assert_int_equal(cudaStreamEndCapture(g_stream, &g), cudaSuccess);
    assert_int_equal(cudaGraphInstantiate(&e, g, 0), cudaSuccess);
    assert_true(run(b, &q));
    for (int i = 0; i < 3; i++) assert_int_equal(cudaGraphLaunch(e, g_stream), cudaSuccess);
    assert_int_equal(g_lib->n_heuristics, 1);
    check(&p, 3, 0);
    check(&q, 1, 0);
    cudaGraphExecDestroy(e);
    cudaGraphDestroy(g);
    product_fini(&p);
    product_fini(&q);
    cuda_blas_free(b);
}

/* ---- plans ---- */

/* Multiplies, and returns how often the heuristic was asked for that. */
static int questions(cuda_blas *b, const shape *s, bool works) {
    const int before = g_lib->n_heuristics;
    product p = product_new(s, 11);
    assert_int_equal(run(b, &p), works);
    if (works) {
        check(&p, 1, 0);
    } else {
        fetch(&p);
        assert_memory_equal(p.y, p.y0, p.y_bytes);
    }
    product_fini(&p);
    return g_lib->n_heuristics - before;
}

static void test_one_plan_for_a_bucket(void **state) {
    (void)state;
    static const int64_t edges[] = {0, 32, 64, 128, 256, 512};
    cuda_blas *b = cuda_blas_new(false);
    for (size_t i = 1; i < ARRAY_LEN(edges); i++) {
        const int64_t rows[] = {edges[i - 1] + 1, edges[i], (edges[i - 1] + edges[i]) / 2, edges[i - 1] + 7};
        for (size_t k = 0; k < ARRAY_LEN(rows); k++) {
            const shape s = {DT_F16, rows[k], 16, 8, 0, false, k % 2};
            assert_int_equal(questions(b, &s, true), k == 0);
            assert_int_equal(g_lib->heuristic_cols, edges[i]);
        }
    }
    assert_int_equal(cuda_blas_plans(b), ARRAY_LEN(edges) - 1);
    const shape others[] = {{DT_BF16, 40, 16, 8, 0, false, false},
                            {DT_F16, 40, 16, 8, 0, true, false},
                            {DT_F16, 40, 16, 8, 64, false, false},
                            {DT_F16, 40, 17, 8, 0, false, false},
                            {DT_F16, 40, 16, 10, 0, false, false}};
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        assert_int_equal(questions(b, &others[i], true), 1);
        assert_int_equal(questions(b, &others[i], true), 0);
    }
    assert_int_equal(g_lib->n_invalid, 0);
    cuda_blas_free(b);
}

/* None makes way for another. */
static void test_many_plans(void **state) {
    (void)state;
    enum { SHAPES = 500 };
    cuda_blas *b = cuda_blas_new(false);
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < SHAPES; i++) {
            const shape s = {DT_F32, 1, 1 + i % 50, 1 + i / 50, 0, false, false};
            assert_int_equal(questions(b, &s, true), round == 0);
        }
    assert_int_equal(cuda_blas_plans(b), SHAPES);
    assert_int_equal(g_lib->n_matmuls, 2 * SHAPES);
    cuda_blas_free(b);
    assert_int_equal(g_lib->n_alive, 0);
}

static void test_exact_rows(void **state) {
    (void)state;
    cuda_blas *b = cuda_blas_new(false);
    g_lib->exact_only = true;
    const shape a = {DT_BF16, 40, 24, 8, 0, true, false}, c = {DT_BF16, 41, 24, 8, 0, true, false},
                whole = {DT_BF16, 64, 24, 8, 0, true, false};
    assert_int_equal(questions(b, &a, true), 2); /* the bucket's, then its own */
    assert_int_equal(g_lib->heuristic_cols, 40);
    assert_int_equal(questions(b, &a, true), 0);
    assert_int_equal(questions(b, &c, true), 1);
    assert_int_equal(questions(b, &whole, true), 0);
    assert_int_equal(questions(b, &a, true) + questions(b, &c, true), 0);
    assert_int_equal(cuda_blas_plans(b), 1);
    assert_int_equal(g_lib->n_invalid, 0);
    cuda_blas_free(b);
    assert_int_equal(g_lib->n_alive, 0);
}

static void test_no_algorithm(void **state) {
    (void)state;
    cuda_blas *b = cuda_blas_new(false);
    g_lib->no_algorithm = true;
    const shape a = {DT_F32, 40, 24, 8, 0, true, false}, c = {DT_F32, 41, 24, 8, 0, true, false};
    assert_int_equal(questions(b, &a, false), 1);
    assert_int_equal(questions(b, &a, false) + questions(b, &c, false), 0);
    assert_int_equal(g_lib->n_matmuls, 0);
    cuda_blas_free(b);
}

/* ---- op_linear over it ---- */

/* 40 rows through op_linear, with a bias and into y, against double precision. */
static void linear(const backend_options *o, dtype dt, double error) {
    enum { ROWS = 40, K = 48, OUT = 24 };
    status st = {0};
    uint64_t seed = 5;
    backend *be = backend_new(o, &st);
    if (!be) fail_msg("%s", st.msg);
    ctx c = {.be = be};
    uint8_t *w = stored(dt, &seed, OUT * K), *x = stored(DT_F32, &seed, ROWS * K),
            *bias = stored(DT_F32, &seed, OUT);
    float y[ROWS * OUT], *xs = (float *)(void *)x;
    double want[ROWS * OUT];
    for (int i = 0; i < ROWS * K; i++) { /* numbers that 16 bits hold */
        uint16_t h = ref_to_bf16(xs[i]);
        xs[i] = (float)ref_from(DT_BF16, &h, 0);
    }
    tensor wt = tensor_2d(w, dt, OUT, K), bt = tensor_1d(bias, DT_F32, OUT);
    weight *ww = weight_new(be, &wt, WEIGHT_LINEAR, &st), *bw = weight_new(be, &bt, WEIGHT_VECTOR, &st);
    assert_true(ww && bw);
    tensor dx = tensor_2d(backend_alloc(be, ROWS * K * sizeof(float), &st), DT_F32, ROWS, K),
           dy = tensor_2d(backend_alloc(be, sizeof y, &st), DT_F32, ROWS, OUT);
    ctx_upload(&c, dx, x);
    op_linear(&c, dy, dx, ww, bw, ACT_NONE, 0);
    ctx_download(&c, y, dy);
    if (!ctx_ok(&c)) fail_msg("%s", c.st.msg);
    ref_linear(want, xs, K, ROWS, K, OUT, dt, w, K, (float *)(void *)bias, ACT_NONE);
    for (int i = 0; i < ROWS * OUT; i++) {
        const double size = ref_dot_size(xs + i / OUT * K, dt, w + (size_t)(i % OUT * K) * dtype_size(dt), K);
        if (!(fabs(y[i] - want[i]) <= 1e-6 + 3e-7 * (size + 4) + 2 * error * size))
            fail_msg("%d: %g instead of %g", i, (double)y[i], want[i]);
    }
    backend_release(be, dx.data);
    backend_release(be, dy.data);
    weight_free(ww);
    weight_free(bw);
    backend_free(be);
    free(w);
    free(x);
    free(bias);
}

static void test_compute_type(void **state) {
    (void)state;
    const backend_options plain = {.device = "cuda"}, tf32 = {.device = "cuda", .allow_tf32 = true},
                          both = {.device = "cuda", .allow_tf32 = true, .deterministic = true};
    linear(&plain, DT_F32, 0);
    assert_int_equal(g_lib->compute, CUBLAS_COMPUTE_32F);
    linear(&tf32, DT_BF16, 0);
    assert_int_equal(g_lib->compute, CUBLAS_COMPUTE_32F);
    linear(&tf32, DT_F32, 0x1p-11);
    assert_int_equal(g_lib->compute, CUBLAS_COMPUTE_32F_FAST_TF32);
    assert_int_equal(g_lib->n_matmuls, 3);
    linear(&both, DT_F32, 0); /* promised bits: no library at all */
    assert_int_equal(g_lib->n_matmuls, 3);
}

/* Rows that come and go in 16 bits: the same numbers as in f32, which are ones that 16 bits hold. */
static void linear_narrow(dtype dt) {
    enum { ROWS = 150, K = 48, OUT = 24 };
    const backend_options o = {.device = "cuda"};
    status st = {0};
    uint64_t seed = 6;
    backend *be = backend_new(&o, &st);
    if (!be) fail_msg("%s", st.msg);
    ctx c = {.be = be};
    uint8_t *w = stored(dt, &seed, OUT * K), *x16 = stored(dt, &seed, ROWS * K),
            *bias = stored(DT_F32, &seed, OUT);
    static float x[ROWS * K], y[2][ROWS * OUT];
    static uint16_t y16[ROWS * OUT], want[ROWS * OUT];
    for (int i = 0; i < ROWS * K; i++) x[i] = (float)ref_from(dt, x16, i);
    tensor wt = tensor_2d(w, dt, OUT, K), bt = tensor_1d(bias, DT_F32, OUT);
    weight *ww = weight_new(be, &wt, WEIGHT_LINEAR, &st), *bw = weight_new(be, &bt, WEIGHT_VECTOR, &st);
    assert_true(ww && bw);
    tensor dx = tensor_2d(backend_alloc(be, sizeof x, &st), DT_F32, ROWS, K),
           dx16 = tensor_2d(backend_alloc(be, sizeof x / 2, &st), dt, ROWS, K),
           dy = tensor_2d(backend_alloc(be, sizeof y[0], &st), DT_F32, ROWS, OUT), dy16 = dy;
    dy16.dt = dt;
    ctx_upload(&c, dx, x);
    ctx_upload(&c, dx16, x16);
    for (int i = 0; i < 2; i++) {
        op_linear(&c, dy, i ? dx16 : dx, ww, bw, ACT_SILU, 0);
        ctx_download(&c, y[i], dy);
    }
    op_linear(&c, dy16, dx16, ww, bw, ACT_SILU, 0);
    ctx_download(&c, y16, dy16);
    if (!ctx_ok(&c)) fail_msg("%s", c.st.msg);
    assert_memory_equal(y[0], y[1], sizeof y[0]);
    ref_store(dt, want, y[0], ROWS * OUT);
    assert_memory_equal(y16, want, sizeof want);
    backend_release(be, dx.data);
    backend_release(be, dx16.data);
    backend_release(be, dy.data);
    weight_free(ww);
    weight_free(bw);
    backend_free(be);
    free(w);
    free(x16);
    free(bias);
}

static void test_fallback(void **state) {
    (void)state;
    const backend_options o = {.device = "cuda"};
    g_lib->no_bias = true; /* the bias goes behind the product */
    for (size_t i = 0; i < ARRAY_LEN(types); i++) linear(&o, types[i], 0);
    assert_int_equal(g_lib->n_matmuls, 3);
    linear_narrow(DT_BF16);
    linear_narrow(DT_F16);
    assert_int_equal(g_lib->n_matmuls, 9);
    g_lib->no_algorithm = true; /* kernels of ours */
    for (size_t i = 0; i < ARRAY_LEN(types); i++) linear(&o, types[i], 0);
    linear_narrow(DT_BF16);
    linear_narrow(DT_F16);
    assert_int_equal(g_lib->n_matmuls, 9);
}

/* ---- where it lies ---- */

/* What is said while no library comes of VLMD_CUBLASLT = path. */
static void says(const char *path, char *out, size_t size) {
    FILE *f = tmpfile();
    int kept = dup(2);
    assert_true(f && kept >= 0);
    fflush(stderr);
    dup2(fileno(f), 2);
    setenv("VLMD_CUBLASLT", path, 1);
    log_set_level(LOG_WARN);
    cuda_blas *b = cuda_blas_new(false);
    log_set_level(LOG_ERROR);
    unsetenv("VLMD_CUBLASLT");
    fflush(stderr);
    dup2(kept, 2);
    close(kept);
    rewind(f);
    out[fread(out, 1, size - 1, f)] = 0;
    fclose(f);
    assert_null(b);
}

/* Beside this program. */
static void beside(const char *name, char *out, size_t size) {
    ssize_t n = readlink("/proc/self/exe", out, size - 1);
    assert_true(n > 0);
    out[n] = 0;
    char *end = strrchr(out, '/') + 1;
    snprintf(end, size - (size_t)(end - out), "%s", name);
}

static void test_messages(void **state) {
    (void)state;
    char said[1000], path[500];
    says("/nowhere/libcublasLt.so", said, sizeof said);
    assert_non_null(strstr(said, "VLMD_CUBLASLT=/nowhere/libcublasLt.so cannot be loaded"));
    beside("short_cublaslt.so", path, sizeof path);
    says(path, said, sizeof said);
    assert_non_null(strstr(said, "short_cublaslt.so has no cublasLtDestroy"));
    assert_non_null(strstr(said, "VLMD_CUBLASLT=PATH names another"));
    beside("libcublasLt.so.13", path, sizeof path);
    setenv("VLMD_CUBLASLT", path, 1);
    cuda_blas *b = cuda_blas_new(false);
    unsetenv("VLMD_CUBLASLT");
    assert_non_null(b);
    cuda_blas_free(b);
}

typedef struct search {
    char dir[200], seen[12][200];
    int n;
} search;

/* Notes what lies in the test's folder, and the loader's names. */
static bool note(void *user, const char *path) {
    search *s = user;
    const size_t n = strlen(s->dir);
    if (strncmp(path, s->dir, n) == 0) path += n + 1;
    if (path[0] != '/' && s->n < (int)ARRAY_LEN(s->seen))
        snprintf(s->seen[s->n++], sizeof s->seen[0], "%s", path);
    return false;
}

static bool take_first(void *user, const char *path) {
    search *s = user;
    snprintf(s->seen[s->n++], sizeof s->seen[0], "%s", path);
    return true;
}

static void put_file(const char *dir, const char *name) {
    char path[500];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    for (char *p = path + strlen(dir) + 1; (p = strchr(p, '/')); *p++ = '/') {
        *p = 0;
        mkdir(path, 0700);
    }
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fclose(f);
}

static void test_search(void **state) {
    (void)state;
    static const char *const found[] = {
        "cuda/lib64/libcublasLt.so.13",
        "cuda/lib64/libcublasLt.so.12",
        "venv/lib/python3.12/site-packages/nvidia/cu13/lib/libcublasLt.so.13",
        "venv/lib/python3.11/site-packages/nvidia/cublas/lib/libcublasLt.so.12",
        "conda/lib/libcublasLt.so.12",
        "conda/lib/python3.10/site-packages/nvidia/cublas/lib/libcublasLt.so.12",
        "home/.local/lib/python3.9/site-packages/nvidia/cublas/lib/libcublasLt.so.12"};
    static const char *const homes[][2] = {
        {"CUDA_HOME", "cuda"}, {"VIRTUAL_ENV", "venv"}, {"CONDA_PREFIX", "conda"}, {"HOME", "home"}};
    search s = {0};
    const char *tmp = getenv("TMPDIR");
    snprintf(s.dir, sizeof s.dir, "%s/blas.XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(s.dir));
    char path[500], command[300];
    for (size_t i = 0; i < ARRAY_LEN(found); i++) put_file(s.dir, found[i]);
    put_file(s.dir, "venv/lib/python3.12/site-packages/nvidia/cudnn/lib/libcudnn.so.9");
    for (size_t i = 0; i < ARRAY_LEN(homes); i++) {
        snprintf(path, sizeof path, "%s/%s", s.dir, homes[i][1]);
        setenv(homes[i][0], path, 1);
    }
    assert_false(cuda_blas_find(note, &s));
    assert_int_equal(s.n, 2 + ARRAY_LEN(found));
    assert_string_equal(s.seen[0], "libcublasLt.so.13");
    assert_string_equal(s.seen[1], "libcublasLt.so.12");
    for (size_t i = 0; i < ARRAY_LEN(found); i++) assert_string_equal(s.seen[2 + i], found[i]);
    s.n = 0;
    setenv("VLMD_CUBLASLT", "/mine", 1);
    assert_true(cuda_blas_find(take_first, &s));
    assert_int_equal(s.n, 1);
    assert_string_equal(s.seen[0], "/mine");
    s.n = 0;
    assert_false(cuda_blas_find(note, &s)); /* and nothing else */
    assert_int_equal(s.n, 0);
    unsetenv("VLMD_CUBLASLT");
    for (size_t i = 0; i < ARRAY_LEN(homes); i++) unsetenv(homes[i][0]);
    snprintf(command, sizeof command, "rm -r '%s'", s.dir);
    assert_int_equal(system(command), 0);
}

static int fresh(void **state) {
    (void)state;
    memset(g_lib, 0, sizeof *g_lib);
    return 0;
}

int main(void) {
    log_set_level(LOG_ERROR);
    unsetenv("VLMD_CUBLASLT");
    void *library = dlopen("libcublasLt.so.13", RTLD_NOW);
    g_lib = library ? dlsym(library, "fake_cublaslt_state") : NULL;
    if (!g_lib) {
        fprintf(stderr, "the emulator's libcublasLt.so.13 is not there: %s\n", dlerror());
        return 1;
    }
    cudaStreamCreateWithFlags(&g_stream, cudaStreamNonBlocking);
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup(test_library_demands, fresh),
                                       cmocka_unit_test_setup(test_products, fresh),
                                       cmocka_unit_test_setup(test_captured, fresh),
                                       cmocka_unit_test_setup(test_one_plan_for_a_bucket, fresh),
                                       cmocka_unit_test_setup(test_many_plans, fresh),
                                       cmocka_unit_test_setup(test_exact_rows, fresh),
                                       cmocka_unit_test_setup(test_no_algorithm, fresh),
                                       cmocka_unit_test_setup(test_compute_type, fresh),
                                       cmocka_unit_test_setup(test_fallback, fresh),
                                       cmocka_unit_test_setup(test_messages, fresh),
                                       cmocka_unit_test_setup(test_search, fresh)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cudaStreamDestroy(g_stream);
    return failed;
}
