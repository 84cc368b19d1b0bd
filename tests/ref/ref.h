/* ref.h - slow, obvious references in double precision for the tests of kernels, and what those tests share:
 * a generator of numbers, conversion to f16 and bf16. Not part of vlmd. Any thread; callers own all memory.
 */
#ifndef VLMD_TESTS_REF_H
#define VLMD_TESTS_REF_H

#include "kernels/ops.h"

/* splitmix64: the next of a sequence */
uint64_t ref_next(uint64_t *state);
int64_t ref_int(uint64_t *state, int64_t lo, int64_t hi); /* lo <= x <= hi */
float ref_normal(uint64_t *state);                        /* mean 0, deviation 1 */
void ref_fill(uint64_t *state, float *p, int64_t n, float scale);

uint16_t ref_to_f16(float x);                        /* nearest, ties to even */
uint16_t ref_to_bf16(float x);                       /* nearest, ties to even */
double ref_from(dtype dt, const void *p, int64_t i); /* element i of bytes of any alignment */
/* Writes n numbers of type dt to dst (any alignment). */
void ref_store(dtype dt, void *dst, const float *src, int64_t n);

double ref_act(double x, act a);
/* y[N,out] = act(x w^T + b), packed; w of type dt with w_ld elements a row. */
void ref_linear(double *y, const float *x, int64_t x_ld, int64_t n, int64_t k, int64_t out, dtype dt,
                const void *w, int64_t w_ld, const float *bias, act a);
/* Sum over k of |x_k w_k|: what a dot product's rounding error scales with. */
double ref_dot_size(const float *x, dtype dt, const void *w, int64_t k);
void ref_norm(double *y, const float *x, int64_t d, const float *gain, const float *bias, norm_kind kind,
              double eps, double gain_offset);
void ref_rope(double *x, int64_t hd, const double *cos_sin, int64_t half);
/* One row and head: y[hd] over keys lo <= j < hi at k + j * ld. softcap 0: none. */
void ref_attn(double *y, const float *q, const float *k, const float *v, int64_t ld, int64_t lo, int64_t hi,
              int64_t hd, double scale, double softcap);

/* terms[n] of op_info_nce or op_sigmoid_loss. */
void ref_pair_loss(double *terms, const float *logits, int64_t ld, int64_t n, bool sigmoid);

#endif
