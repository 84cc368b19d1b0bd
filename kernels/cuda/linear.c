/* linear.c - op_linear on the GPU, host side: which of four ways.
 *   1 to 8 rows    cuk_linear_few, bound by reading the weights; up to 16 with f32 weights, or where bits are promised
 *   9 to 16        cuk_linear_mma, likewise
 *   more           cuBLASLt: the weights as stored, activations narrowed to the same 16-bit type, sums and results f32; f32
 *                  weights without TF32
 *   more, bits promised (backend_options: deterministic), or no cuBLASLt: cuk_linear_exact, in the order of few
 * Thread: the ctx owner's. Memory: the backend's work memory. */
#include "kernels/cuda/cuda.h"

enum { FEW = 16, FEW_EXACT = 8 /* that linear.cu reads the weights of at the memory's speed */ };

static size_t align256(size_t n) {
    return (n + 255) & ~(size_t)255;
}

/* The product into y itself, unless act(..) is to be added to y: then beside it. */
static bool by_gemm(ctx *c, const cuk_linear *l) {
    cuda_backend *be = cuda_of(c);
    cuda_lane *lane = lane_of(c);
    const bool narrow = l->t != CUK_F32, beside = l->add && l->act != CUK_ACT_NONE;
    const size_t x_bytes = narrow ? align256((size_t)(l->rows * l->k) * sizeof(uint16_t)) : 0;
    const size_t y_bytes = beside ? (size_t)(l->rows * l->out) * sizeof(float) : 0;
    if (!cuda_work(c, x_bytes + y_bytes)) return true; /* c->st says so */
    float *y = beside ? (float *)(void *)((uint8_t *)lane->work + x_bytes) : l->y;
    blas_gemm g = {.y = y,
                   .x = narrow ? lane->work : (const void *)l->x,
                   .w = l->w,
                   .t = l->t,
                   .bias = l->bias,
                   .y_ld = beside ? l->out : l->y_ld,
                   .x_ld = narrow ? l->k : l->x_ld,
                   .w_ld = l->w_ld,
                   .rows = l->rows,
                   .k = l->k,
                   .out = l->out,
                   .add = l->add && !beside,
                   .lane = c->lane};
    if (narrow) cuk_narrow(lane->stream, lane->work, l->t, l->x, l->x_ld, l->rows, l->k);
    bool ok = cuda_blas_gemm(be->blas, lane->stream, &g);
    if (!ok && g.bias) {
        g.bias = NULL;
        ok = cuda_blas_gemm(be->blas, lane->stream, &g);
    }
    if (!ok) return false;
    const float *bias = g.bias ? NULL : l->bias; /* what the product left out */
    if (bias || l->act != CUK_ACT_NONE)
        cuk_epilogue(lane->stream, l->y, l->y_ld, y, g.y_ld, bias, l->rows, l->out, l->act, beside);
    return true;
}

void cuda_linear(ctx *c, tensor y, tensor x, const weight *w, const weight *b, act a, unsigned flags) {
    cuda_lane *lane = lane_of(c);
    cuk_linear l = {.y = y.data,
                    .x = x.data,
                    .w = w->data,
                    .t = cuda_type(w->dt),
                    .bias = b ? b->vec : NULL,
                    .y_ld = y.ld,
                    .x_ld = x.ld,
                    .w_ld = w->ld,
                    .rows = y.d[0],
                    .k = w->cols,
                    .out = w->rows,
                    .act = (cuk_act)a,
                    .add = flags & LINEAR_ADD};
    if (c->dry) {
        if (cuda_of(c)->blas && l.rows > FEW) by_gemm(c, &l); /* asks for its work memory */
        return;
    }
    if (l.rows > FEW_EXACT && l.rows <= FEW && l.t != CUK_F32 && !cuda_of(c)->exact)
        cuk_linear_mma(lane->stream, &l);
    else if (l.rows <= FEW)
        cuk_linear_few(lane->stream, &l);
    else if (!cuda_of(c)->blas || !by_gemm(c, &l))
        cuk_linear_exact(lane->stream, &l);
    cuda_ok(&c->st, cudaGetLastError(), "linear");
}
