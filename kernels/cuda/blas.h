/* blas.h - matrix products of many rows by cuBLASLt, which is looked for at run time (blas.c); under the emulator by plain
 * loops (tests/cuda_emu/blas_emu.cpp). Internal to kernels/cuda. Thread: the ctx owner's. */
#ifndef VLMD_KERNELS_CUDA_BLAS_H
#define VLMD_KERNELS_CUDA_BLAS_H

#include "kernels/cuda/cuk.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct cuda_blas cuda_blas;
/* y f32 [rows, out] = x [rows, k] w [out, k]^T + bias f32 [out] or NULL; + y with add. x and w of type t; sums in f32. */
typedef struct blas_gemm {
    float *y;
    const void *x, *w;
    cuk_type t;
    const float *bias;
    int64_t y_ld, x_ld, w_ld, rows, k, out;
    bool add;
    int lane; /* whose workspace is used: those of a lane run one after the other */
} blas_gemm;

/* NULL: there is none, and the log says where it was looked for. Has its device memory from now on. */
cuda_blas *cuda_blas_new(void);
void cuda_blas_free(cuda_blas *b); /* NULL is fine; nothing may be under way */
/* Launches and returns. False: no way was found for this shape, and nothing is done. */
bool cuda_blas_gemm(cuda_blas *b, cuk_stream s, const blas_gemm *g);

#ifdef __cplusplus
}
#endif
#endif
