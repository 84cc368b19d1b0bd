/* blas.h - matrix products of many rows by cuBLASLt, which is looked for at run time. Internal to kernels/cuda. Thread: the ctx
 * owner's. Tested by tests/cuda_emu/test_blas.c, over a library that demands what NVIDIA's documentation does. */
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

/* tf32: f32 factors may be rounded to TF32, 10 bits. NULL: there is no library, and the log says where it was looked for. Has its
 * device memory from now on. */
cuda_blas *cuda_blas_new(bool tf32);
void cuda_blas_free(cuda_blas *b); /* NULL is fine; nothing may be under way */
/* Launches and returns. False: no way was found for this shape, and nothing is done. */
bool cuda_blas_gemm(cuda_blas *b, cuk_stream s, const blas_gemm *g);
/* How many shapes have asked for a way so far: weights and strides by buckets of rows. Not counted are those of exact rows, where
 * a bucket's does not do, and of rows that begin off 16 bytes, as they may where a width is no multiple of 4. */
int cuda_blas_plans(const cuda_blas *b);

/* blas_find.c: calls try with one place after the other where libcublasLt may be (VLMD_CUBLASLT alone where that is set) until
 * it says yes. False: it never did. */
typedef bool blas_try(void *user, const char *path);
bool cuda_blas_find(blas_try *try, void *user);

#ifdef __cplusplus
}
#endif
#endif
