/* linear.c - op_linear on the CPU. Three ways:
 *   few rows   the weights are read where they are, once, widened in registers: bound by memory
 *   many rows  x packed once, weights packed a cache-sized panel at a time: bound by multiplications;
 * row-exact, the same bits as few rows bulk       OpenBLAS, one thread per tile, tiles fixed by shape,
 * weights widened a tile at a time Thread: the ctx owner's; tiles on the pool. Memory: the backend's work
 * memory. */
#include "kernels/cpu/cpu.h"

#include <cblas.h>
#include <string.h>

typedef struct linear_job {
    cpu_backend *be;
    const simd *s;
    float *y;
    const float *x;
    int64_t y_ld, x_ld;
    int64_t n, k, out;
    const uint8_t *w;
    int64_t w_ld_bytes;
    dtype dt;
    const float *bias;
    act act;
    bool add;
    /* many rows */
    float *packed; /* x of this block of rows: [K blocks][panels][steps][mr][16] */
    int64_t panels, k_blocks;
} linear_job;

static void finish(const linear_job *j, const float *t, int64_t t_ld, int64_t row, int64_t rows, int64_t from,
                   int64_t outs) {
    for (int64_t r = 0; r < rows; r++)
        j->s->epilogue(j->y + (row + r) * j->y_ld + from, t + r * t_ld, j->bias ? j->bias + from : NULL, outs,
                       j->act, j->add);
}

/* ---- few rows ---- */

/* Outputs computed before their epilogue. */
enum { FEW_TILE = 64 };
/* Over a piece of weights that lies in L2: three still cost less than packing all the weights. */
enum { FEW_PASSES = 3 };

static void few_range(void *arg, int64_t from, int64_t to, int thread) {
    const linear_job *j = arg;
    float *t = cpu_work_thread(j->be, thread);
    for (int64_t o = from; o < to; o += FEW_TILE) {
        int64_t outs = min_i64(FEW_TILE, to - o);
        for (int64_t r = 0; r < j->n; r += j->s->gemm.few) {
            int rows = (int)min_i64(j->s->gemm.few, j->n - r);
            j->s->dot_few(t, FEW_TILE, j->x + r * j->x_ld, j->x_ld, rows, j->w + o * j->w_ld_bytes,
                          j->w_ld_bytes, j->dt, j->k, outs);
            finish(j, t, FEW_TILE, r, rows, o, outs);
        }
    }
}

static void linear_few(ctx *c, linear_job *j) {
    if (!cpu_work(c, 0, (size_t)FEW_TILE * 8 * sizeof(float))) return;
    /* Pieces of about 128 KiB of weights, a multiple of the tile. */
    int64_t piece = max_i64(1, (128 << 10) / max_i64(1, j->w_ld_bytes) / FEW_TILE) * FEW_TILE;
    cpu_for(j->be, j->out, piece, (double)j->n * (double)j->k * (double)j->out, few_range, j);
}

/* ---- many rows ---- */

enum {
    STEPS = 64, /* k steps (of 16) per block: a weight panel of 6 outputs is then 24 KiB, most of an L1 */
    BLOCK_ROWS = 128, /* rows packed at a time: 512 KiB per block of K, half an L2 */
    GROUP = 4         /* weight panels per task and pass over x */
};

static int64_t block_steps(const linear_job *j, int64_t kb) {
    return min_i64(STEPS, ceil_div(j->k, 16) - kb * STEPS);
}

/* Where a panel of x lies within block kb. */
static float *packed_at(const linear_job *j, int64_t kb, int64_t panel) {
    int mr = j->s->gemm.mr;
    return j->packed + (kb * STEPS * j->panels + block_steps(j, kb) * panel) * mr * 16;
}

static void pack_range(void *arg, int64_t from, int64_t to, int thread) {
    (void)thread;
    const linear_job *j = arg;
    int mr = j->s->gemm.mr;
    for (int64_t p = from; p < to; p++)
        for (int64_t kb = 0; kb < j->k_blocks; kb++) {
            int64_t k0 = kb * STEPS * 16;
            j->s->pack(packed_at(j, kb, p), (const uint8_t *)(j->x + p * mr * j->x_ld + k0),
                       j->x_ld * (int64_t)sizeof(float), DT_F32, (int)min_i64(mr, j->n - p * mr), mr,
                       min_i64(STEPS * 16, j->k - k0));
        }
}

static size_t many_thread_floats(const simd *s) {
    size_t group = (size_t)s->gemm.nr * GROUP;
    return (size_t)s->gemm.nr * 16 * STEPS + BLOCK_ROWS * group * 16 + BLOCK_ROWS * group;
}

static void many_range(void *arg, int64_t from, int64_t to, int thread) {
    const linear_job *j = arg;
    const gemm_shape g = j->s->gemm;
    const int64_t size = (int64_t)dtype_size(j->dt), acc_panel = (int64_t)g.mr * g.nr * 16;
    float *wp = cpu_work_thread(j->be, thread), *acc = wp + g.nr * 16 * STEPS,
          *t = acc + (int64_t)BLOCK_ROWS * g.nr * GROUP * 16;
    for (int64_t task = from; task < to; task++) {
        int64_t o0 = task * GROUP * g.nr, outs = min_i64(GROUP * g.nr, j->out - o0);
        for (int64_t kb = 0; kb < j->k_blocks; kb++) {
            int64_t k0 = kb * STEPS * 16, steps = block_steps(j, kb), len = min_i64(STEPS * 16, j->k - k0);
            for (int64_t o = 0; o < outs; o += g.nr) {
                float *a = acc + o / g.nr * j->panels * acc_panel;
                j->s->pack(wp, j->w + (o0 + o) * j->w_ld_bytes + k0 * size, j->w_ld_bytes, j->dt,
                           (int)min_i64(g.nr, outs - o), g.nr, len);
                for (int64_t p = 0; p < j->panels; p++)
                    j->s->gemm_panel(a + p * acc_panel, packed_at(j, kb, p), wp, steps, kb == 0);
            }
        }
        const int64_t t_ld = GROUP * g.nr;
        for (int64_t o = 0; o < outs; o += g.nr)
            for (int64_t p = 0; p < j->panels; p++)
                j->s->gemm_fold(t + p * g.mr * t_ld + o, t_ld, acc + (o / g.nr * j->panels + p) * acc_panel,
                                (int)min_i64(g.mr, j->n - p * g.mr), (int)min_i64(g.nr, outs - o));
        finish(j, t, t_ld, 0, j->n, o0, outs);
    }
}

static void linear_many(ctx *c, linear_job *j) {
    const gemm_shape g = j->s->gemm;
    int64_t steps = ceil_div(j->k, 16), total = j->n;
    size_t packed = (size_t)ceil_div(min_i64(BLOCK_ROWS, total), g.mr) * (size_t)(g.mr * 16) * (size_t)steps;
    if (!cpu_work(c, packed * sizeof(float), many_thread_floats(j->s) * sizeof(float))) return;
    j->packed = cpu_work_shared(j->be);
    j->k_blocks = ceil_div(steps, STEPS);
    const float *x = j->x;
    float *y = j->y;
    for (int64_t r = 0; r < total; r += BLOCK_ROWS) {
        j->x = x + r * j->x_ld;
        j->y = y + r * j->y_ld;
        j->n = min_i64(BLOCK_ROWS, total - r);
        j->panels = ceil_div(j->n, g.mr);
        cpu_for(j->be, j->panels, 4, (double)j->n * (double)j->k, pack_range, j);
        cpu_for(j->be, ceil_div(j->out, GROUP * g.nr), 1, (double)j->n * (double)j->k * (double)j->out,
                many_range, j);
    }
}

/* ---- bulk ---- */

enum { BULK_ROWS = 640, BULK_OUTS = 256 };

static void bulk_range(void *arg, int64_t from, int64_t to, int thread) {
    const linear_job *j = arg;
    int64_t row_tiles = ceil_div(j->n, BULK_ROWS);
    float *t = cpu_work_thread(j->be, thread), *wide = t + (int64_t)BULK_ROWS * BULK_OUTS;
    for (int64_t tile = from; tile < to; tile++) {
        int64_t o = tile / row_tiles * BULK_OUTS, r = tile % row_tiles * BULK_ROWS;
        int64_t outs = min_i64(BULK_OUTS, j->out - o), rows = min_i64(BULK_ROWS, j->n - r);
        const uint8_t *src = j->w + o * j->w_ld_bytes;
        const float *w = (const float *)(const void *)src;
        int64_t w_ld = j->w_ld_bytes / 4;
        if (j->dt != DT_F32 || (uintptr_t)src % 4 || j->w_ld_bytes % 4) {
            for (int64_t i = 0; i < outs; i++)
                j->s->widen(wide + i * j->k, src + i * j->w_ld_bytes, j->dt, j->k);
            w = wide;
            w_ld = j->k;
        }
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, (int)outs, (int)j->k, 1.0f,
                    j->x + r * j->x_ld, (int)j->x_ld, w, (int)w_ld, 0.0f, t, BULK_OUTS);
        finish(j, t, BULK_OUTS, r, rows, o, outs);
    }
}

static void linear_bulk(ctx *c, linear_job *j) {
    size_t each = (size_t)BULK_ROWS * BULK_OUTS + (size_t)BULK_OUTS * (size_t)j->k;
    if (!cpu_work(c, 0, each * sizeof(float))) return;
    int64_t tiles = ceil_div(j->n, BULK_ROWS) * ceil_div(j->out, BULK_OUTS);
    cpu_for(j->be, tiles, 1, (double)j->n * (double)j->k * (double)j->out, bulk_range, j);
}

static void linear(ctx *c, tensor x, const linear_to *to, act a, unsigned flags) {
    cpu_backend *be = cpu_of(c);
    linear_job j = {
        .be = be,
        .s = be->simd,
        .y = to->y.data,
        .x = x.data,
        .y_ld = to->y.ld,
        .x_ld = x.ld,
        .n = x.d[0],
        .k = to->w->cols,
        .out = to->w->rows,
        .w = to->w->data,
        .w_ld_bytes = to->w->ld * (int64_t)dtype_size(to->w->dt),
        .dt = to->w->dt,
        .bias = to->b ? to->b->vec : NULL,
        .act = a,
        .add = flags & LINEAR_ADD,
    };
    if ((flags & LINEAR_BULK) && j.n >= 16 && j.k >= 16 && j.k < 1 << 20)
        linear_bulk(c, &j);
    else if (j.n <= FEW_PASSES * j.s->gemm.few)
        linear_few(c, &j);
    else
        linear_many(c, &j);
}

void cpu_linear(ctx *c, tensor x, const linear_to *to, int n, act a, unsigned flags) {
    for (int i = 0; i < n && ctx_ok(c); i++) linear(c, x, &to[i], a, flags);
}
