/* linear.c - op_linear and op_linears on the GPU, host side: which of four ways.
 *   1 to 8 rows    cuk_linear_few, bound by reading the weights; up to 16 with f32 weights, or where bits are promised
 *   9 to 16        cuk_linear_mma, likewise
 *   more           cuBLASLt: the weights as stored, activations narrowed to the same 16-bit type, sums and results f32; f32
 *                  weights without TF32
 *   more, bits promised (backend_options: deterministic), or no cuBLASLt: cuk_linear_exact, in the order of few
 * Weights that read the same x and are of one type: one launch, or one narrowing of x and a product each. x may come narrow, and
 * y leave so (ops.h: op_linear_takes).
 * Thread: the ctx owner's. Memory: the backend's work memory. */
#include "kernels/cuda/cuda.h"

enum {
    FEW_EXACT = 8, /* rows that linear.cu reads the weights of at the memory's speed */
    WIDE = 64      /* rows that are widened at a time where cuBLASLt has nothing */
};

static size_t align256(size_t n) {
    return (n + 255) & ~(size_t)255;
}

typedef struct job {
    cuk_linear l; /* x NULL where it is of 16 bits */
    const void *x;
    cuk_type x_type, y_type[CUK_LINEARS];
} job;

/* The product is made beside y: what is added to y after an activation, and what y is not wide enough for. */
static bool beside(const job *j, int i) {
    return (j->l.add && j->l.act != CUK_ACT_NONE) || j->y_type[i] != CUK_F32;
}

/* False: cuBLASLt has nothing for it. x: where it stands, in l's type; y: room for what is made beside. */
static bool product(ctx *c, const job *j, int i, const void *x, int64_t x_ld, float *y) {
    cuda_lane *lane = lane_of(c);
    const cuk_linear *l = &j->l;
    const cuk_linear_to *to = &l->to[i];
    const bool apart = beside(j, i);
    blas_gemm g = {.y = apart ? y : to->y,
                   .x = x,
                   .w = to->w,
                   .t = l->t,
                   .bias = to->bias,
                   .y_ld = apart ? to->out : to->y_ld,
                   .x_ld = x_ld,
                   .w_ld = to->w_ld,
                   .rows = l->rows,
                   .k = l->k,
                   .out = to->out,
                   .add = l->add && !apart,
                   .lane = c->lane};
    bool ok = cuda_blas_gemm(cuda_of(c)->blas, lane->stream, &g);
    if (!ok && g.bias) {
        g.bias = NULL;
        ok = cuda_blas_gemm(cuda_of(c)->blas, lane->stream, &g);
    }
    if (!ok) return false;
    const float *bias = g.bias ? NULL : to->bias; /* what the product left out */
    if (bias || l->act != CUK_ACT_NONE || apart)
        cuk_epilogue(lane->stream, to->y, j->y_type[i], to->y_ld, g.y, g.y_ld, bias, l->rows, to->out, l->act,
                     l->add && apart);
    return true;
}

/* The same by our own kernel, which reads and writes f32. wide: room for WIDE rows of x. */
static void exact(ctx *c, const job *j, int i, float *wide, float *y) {
    cuda_lane *lane = lane_of(c);
    const cuk_linear *l = &j->l;
    const bool narrow = j->y_type[i] != CUK_F32;
    cuk_linear one = *l;
    one.n = 1;
    one.to[0] = l->to[i];
    if (narrow) {
        one.to[0].y = y;
        one.to[0].y_ld = l->to[i].out;
    }
    for (int64_t from = 0; from < l->rows && j->x_type != CUK_F32; from += WIDE) {
        cuk_linear some = one;
        some.rows = l->rows - from < WIDE ? l->rows - from : WIDE;
        some.x = wide;
        some.x_ld = l->k;
        some.to[0].y += from * some.to[0].y_ld;
        cuk_widen(lane->stream, wide, (const uint16_t *)j->x + from * l->x_ld, j->x_type, l->x_ld, some.rows,
                  l->k);
        cuk_linear_exact(lane->stream, &some);
    }
    if (j->x_type == CUK_F32) cuk_linear_exact(lane->stream, &one);
    if (narrow)
        cuk_epilogue(lane->stream, l->to[i].y, j->y_type[i], l->to[i].y_ld, y, l->to[i].out, NULL, l->rows,
                     l->to[i].out, CUK_ACT_NONE, false);
}

static void products(ctx *c, const job *j) {
    cuda_lane *lane = lane_of(c);
    const cuk_linear *l = &j->l;
    const bool narrow = l->t != CUK_F32 && j->x_type == CUK_F32;
    const size_t x_bytes = narrow                 ? align256((size_t)(l->rows * l->k) * sizeof(uint16_t))
                           : j->x_type != CUK_F32 ? align256((size_t)(WIDE * l->k) * sizeof(float))
                                                  : 0;
    size_t y_bytes = 0;
    for (int i = 0; i < l->n; i++) {
        const size_t bytes = beside(j, i) ? (size_t)(l->rows * l->to[i].out) * sizeof(float) : 0;
        if (bytes > y_bytes) y_bytes = bytes;
    }
    if (!cuda_work(c, x_bytes + y_bytes)) return; /* in dry mode, or c->st says why */
    float *y = (float *)(void *)((uint8_t *)lane->work + x_bytes);
    if (narrow) cuk_narrow(lane->stream, lane->work, l->t, l->x, l->x_ld, l->rows, l->k);
    for (int i = 0; i < l->n; i++)
        if (!product(c, j, i, narrow ? lane->work : j->x, narrow ? l->k : l->x_ld, y))
            exact(c, j, i, lane->work, y);
}

static void launch(ctx *c, const job *j) {
    const cuda_backend *be = cuda_of(c);
    const cuk_linear *l = &j->l;
    if (l->rows > CUDA_FEW && be->blas)
        products(c, j);
    else if (c->dry)
        return;
    else if (l->rows > CUDA_FEW)
        cuk_linear_exact(lane_of(c)->stream, l);
    else if (l->rows > FEW_EXACT && l->t != CUK_F32 && !be->exact)
        cuk_linear_mma(lane_of(c)->stream, l);
    else
        cuk_linear_few(lane_of(c)->stream, l);
}

int cuda_plans(const backend *b) {
    const cuda_backend *be = (const cuda_backend *)b;
    return be->blas ? cuda_blas_plans(be->blas) : -1;
}

void cuda_linear(ctx *c, tensor x, const linear_to *to, int n, act a, unsigned flags) {
    for (int i = 0; i < n;) {
        job j = {.x = x.data, .x_type = cuda_type(x.dt)};
        cuk_linear *l = &j.l;
        *l = (cuk_linear){.x = x.dt == DT_F32 ? x.data : NULL,
                          .x_ld = x.ld,
                          .rows = x.d[0],
                          .k = to[i].w->cols,
                          .t = cuda_type(to[i].w->dt),
                          .act = (cuk_act)a,
                          .add = flags & LINEAR_ADD};
        for (; i < n && cuda_type(to[i].w->dt) == l->t; i++) {
            j.y_type[l->n] = cuda_type(to[i].y.dt);
            l->to[l->n++] = (cuk_linear_to){.y = to[i].y.data,
                                            .w = to[i].w->data,
                                            .bias = to[i].b ? to[i].b->vec : NULL,
                                            .y_ld = to[i].y.ld,
                                            .w_ld = to[i].w->ld,
                                            .out = to[i].w->rows};
        }
        launch(c, &j);
    }
    if (!c->dry) cuda_ok(&c->st, cudaGetLastError(), "linear");
}
