/* simd.h - the table of inner loops that exists once per instruction set: simd_portable.c, simd_avx2.c and
 * simd_avx512.c compile the same rows.inc, gemm.inc and attn.inc. All three give the same bits.
 *
 * Functions here work on one thread, on memory of their caller, and allocate nothing. */
#ifndef VLMD_KERNELS_CPU_SIMD_H
#define VLMD_KERNELS_CPU_SIMD_H

#include "kernels/ops.h"

/* Row-exact matrix product, many rows: x is packed in panels of `mr` rows, weights in panels of `nr` outputs,
 * both [k/16][rows of the panel][16] with zeros past K and past the last row. A block of K keeps its sixteen
 * partial sums per output in memory, so that blocking does not change the order of summation. */
typedef struct gemm_shape {
    int mr, nr;
    int few; /* up to this many rows `dot_few` reads the weights where they are */
} gemm_shape;

enum { ATTN_BLOCK = 64 }; /* keys per step of the online softmax, a multiple of KV_PAGE_TOK */

/* One sequence, one kv head, rows [row0, row1) of the sequence: what one task of attention needs. */
typedef struct attn_tile {
    const float *q; /* row row0, first head of the group */
    float *y;
    int64_t q_ld, y_ld;
    /* Keys and values at position j: page ? k + page[j / 16] * page_ld + (j % 16) * tok_ld : k + j * tok_ld,
     * k already at this head. f32, or pages of type kept. */
    const void *k, *v;
    dtype kept;
    int64_t k_tok_ld, v_tok_ld, page_ld;
    const int32_t *page;
    int hd, group;
    int64_t row0, row1;
    int64_t pos0; /* position of row row0 */
    int64_t kv_len;
    float scale;
    bool causal;
    int window;
    float softcap;
    const int32_t *limit; /* [row1 - row0], or NULL; as attn_args.limit */
    bool limit_spares;
    float *scratch; /* attn_scratch floats */
} attn_tile;
/* Floats of scratch that a tile of `rows` rows needs. */
static inline size_t attn_scratch(int64_t rows, int group, int hd, dtype kept) {
    size_t n = (size_t)(rows * group), hdp = ((size_t)hd + 15) / 16 * 16;
    size_t wide =
        kept == DT_F32 ? 0 : (ATTN_BLOCK + KV_PAGE_TOK) * (size_t)hd; /* values of a block, keys of a page */
    return n * (2 * hdp + ATTN_BLOCK + 5) + hdp * 16 + 3 * 16 + 64 + wide;
}

typedef struct simd {
    const char *name;
    gemm_shape gemm;
    /* out[r * out_ld + o] = x_r . w_o; rows <= gemm.few; w_ld in bytes */
    void (*dot_few)(float *out, int64_t out_ld, const float *x, int64_t x_ld, int rows, const uint8_t *w,
                    int64_t w_ld_bytes, dtype dt, int64_t k, int64_t n_out);
    /* Packs n <= width rows of len columns into a panel of `width` rows and ceil(len/16) steps. */
    void (*pack)(float *panel, const uint8_t *src, int64_t ld_bytes, dtype dt, int n, int width, int64_t len);
    /* acc[r][o][16] += x . w over `steps` packed steps; first: = */
    void (*gemm_panel)(float *acc, const float *x, const float *w, int64_t steps, bool first);
    /* out[r * out_ld + o] = the sixteen sums of acc[r][o] folded, r < rows, o < cols */
    void (*gemm_fold)(float *out, int64_t out_ld, const float *acc, int rows, int cols);
    /* y = act(t + bias), or += with add; bias may be NULL; y may be t */
    void (*epilogue)(float *y, const float *t, const float *bias, int64_t n, act a, bool add);
    void (*glu)(float *y, const float *gate, const float *up, int64_t n, act a);
    void (*softcap)(float *y, int64_t n, float cap); /* y = cap * tanh(y / cap) */
    void (*add)(float *y, const float *x, int64_t n);
    void (*exp)(float *y, const float *x, int64_t n); /* for tests */
    void (*norm)(float *y, const float *x, const float *gain, const float *bias, int64_t n, norm_kind kind,
                 float eps, float gain_offset);
    void (*widen)(float *y, const uint8_t *src, dtype dt, int64_t n);
    /* y = (add ? y : 0) + scale * widened src */
    void (*embed)(float *y, const uint8_t *src, dtype dt, int64_t n, float scale, bool add);
    /* One head: rotates pairs (i, i + half) by cs[half][2]. */
    void (*rope)(float *x, const float *cs, int64_t half);
    void (*attn)(const attn_tile *t);
} simd;

extern const simd simd_portable;
#if defined(__x86_64__)
extern const simd simd_avx2, simd_avx512;
#endif

#endif
