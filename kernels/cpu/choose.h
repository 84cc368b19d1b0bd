/* choose.h - one row of logits to one token: the CPU's op_sample for a single row.
 *
 * Threads: pure functions, any thread. The result depends on the row alone, and on no instruction set.
 * Tested by tests/kernels/test_sample.c. */
#ifndef VLMD_KERNELS_CPU_CHOOSE_H
#define VLMD_KERNELS_CPU_CHOOSE_H

#include "kernels/ops.h"

/* Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011): counter and key to four random words. */
void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* Does the row change its logits before choosing: then choose_token needs work[n]. */
bool choose_adjusts(const sample_row *row);

/* x[n]: logits, only read, n >= 1. NaN counts as -inf, +inf as the largest float. The order is that of
 * sample_row: bias        x[id] += bias repetition  seen in prompt or answer: x > 0 ? x / penalty : x *
 * penalty frequency   x -= penalty * count, presence  x -= penalty (answer only) temperature below 1e-5: the
 * greatest x, lowest id; else x / temperature top-k       keeps what is not below the k-th greatest (ties of
 * it stay, as in the reference) top-p       keeps the shortest run from the greatest down whose share reaches
 * top_p (ties by id) min-p       keeps what has at least min_p of the greatest's probability draw inverse of
 * the cumulated probabilities in order of id When everything is banned the bans are ignored; when every logit
 * is -inf the answer is id 0. Ids outside 0..n-1 in a list are ignored. Log-probs are of the raw x and at
 * least -9999, so that they can always be written down. */
void choose_token(const float *x, int64_t n, const sample_row *row, float *work, sample_result *out);

#endif
