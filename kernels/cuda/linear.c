/* linear.c - op_linear and op_linears on the GPU, host side: which of four ways.
 *   1 to 8 rows    cuk_linear_few, bound by reading the weights; up to 16 with f32 weights, or where bits are promised
 *   9 to 16        cuk_linear_mma, likewise
 *   more           cuBLASLt: the weights as stored, activations narrowed to the same 16-bit type, sums and results f32; f32
 *                  weights without TF32
 *   more, bits promised (backend_options: deterministic), or no cuBLASLt: cuk_linear_exact, in the order of few
 * Weights that read the same x and are of one type: one launch, or one narrowing of x and a product each.
 * Thread: the ctx owner's. Memory: the backend's work memory. */
#include "kernels/cuda/cuda.h"

enum { FEW = 16, FEW_EXACT = 8 /* that linear.cu reads the weights of at the memory's speed */ };

static size_t align256(size_t n) {
    return (n + 255) & ~(size_t)255;
}

/* What is added to y after an activation is made beside it. */
static bool beside(const cuk_linear *l) {
    return l->add && l->act != CUK_ACT_NONE;
}

/* False: cuBLASLt has nothing for it. x and y: where they stand, x in l's type, y when it is made beside. */
static bool product(ctx *c, const cuk_linear *l, const cuk_linear_to *to, const void *x, float *y) {
    cuda_lane *lane = lane_of(c);
    blas_gemm g = {.y = beside(l) ? y : to->y,
                   .x = x,
                   .w = to->w,
                   .t = l->t,
                   .bias = to->bias,
                   .y_ld = beside(l) ? to->out : to->y_ld,
                   .x_ld = x == l->x ? l->x_ld : l->k,
                   .w_ld = to->w_ld,
                   .rows = l->rows,
                   .k = l->k,
                   .out = to->out,
                   .add = l->add && !beside(l),
                   .lane = c->lane};
    bool ok = cuda_blas_gemm(cuda_of(c)->blas, lane->stream, &g);
    if (!ok && g.bias) {
        g.bias = NULL;
        ok = cuda_blas_gemm(cuda_of(c)->blas, lane->stream, &g);
    }
    if (!ok) return false;
    const float *bias = g.bias ? NULL : to->bias; /* what the product left out */
    if (bias || l->act != CUK_ACT_NONE)
        cuk_epilogue(lane->stream, to->y, to->y_ld, g.y, g.y_ld, bias, l->rows, to->out, l->act, beside(l));
    return true;
}

static void products(ctx *c, const cuk_linear *l) {
    cuda_lane *lane = lane_of(c);
    const bool narrow = l->t != CUK_F32;
    const size_t x_bytes = narrow ? align256((size_t)(l->rows * l->k) * sizeof(uint16_t)) : 0;
    size_t y_bytes = 0;
    for (int i = 0; i < l->n && beside(l); i++) {
        const size_t bytes = (size_t)(l->rows * l->to[i].out) * sizeof(float);
        if (bytes > y_bytes) y_bytes = bytes;
    }
    if (!cuda_work(c, x_bytes + y_bytes)) return; /* in dry mode, or c->st says why */
    if (narrow) cuk_narrow(lane->stream, lane->work, l->t, l->x, l->x_ld, l->rows, l->k);
    for (int i = 0; i < l->n; i++) {
        if (product(c, l, &l->to[i], narrow ? lane->work : (const void *)l->x,
                    (float *)(void *)((uint8_t *)lane->work + x_bytes)))
            continue;
        cuk_linear one = *l;
        one.n = 1;
        one.to[0] = l->to[i];
        cuk_linear_exact(lane->stream, &one);
    }
}

static void launch(ctx *c, const cuk_linear *l) {
    const cuda_backend *be = cuda_of(c);
    if (l->rows > FEW && be->blas)
        products(c, l);
    else if (c->dry)
        return;
    else if (l->rows > FEW)
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
        cuk_linear l = {.x = x.data,
                        .x_ld = x.ld,
                        .rows = x.d[0],
                        .k = to[i].w->cols,
                        .t = cuda_type(to[i].w->dt),
                        .act = (cuk_act)a,
                        .add = flags & LINEAR_ADD};
        for (; i < n && cuda_type(to[i].w->dt) == l.t; i++)
            l.to[l.n++] = (cuk_linear_to){.y = to[i].y.data,
                                          .w = to[i].w->data,
                                          .bias = to[i].b ? to[i].b->vec : NULL,
                                          .y_ld = to[i].y.ld,
                                          .w_ld = to[i].w->ld,
                                          .out = to[i].w->rows};
        launch(c, &l);
    }
    if (!c->dry) cuda_ok(&c->st, cudaGetLastError(), "linear");
}
