/* cuda.h - the CUDA backend's inside: what its host files share. The kernels are in cuk.h.
 *
 * Threads: the ctx owner's. Owner: the backend. */
#ifndef VLMD_KERNELS_CUDA_CUDA_H
#define VLMD_KERNELS_CUDA_CUDA_H

#include <cuda_runtime_api.h>

#include "kernels/backend.h"
#include "kernels/cpu/simd.h"
#include "kernels/cuda/blas.h"
#include "kernels/cuda/cuk.h"

/* What a choice of tokens needs on its way to the device and back; grows to the largest step. */
typedef struct cuda_lists {
    void *device, *pinned;
    size_t bytes;
} cuda_lists;

typedef struct cuda_backend {
    backend base;
    int device;
    cudaStream_t stream;
    int32_t *fault;      /* device: the first thing that a kernel found wrong */
    int32_t *fault_host; /* pinned */
    void *work;          /* device */
    size_t work_bytes;
    cuda_lists lists;
    cuda_blas *blas; /* or NULL */
} cuda_backend;

static inline cuda_backend *cuda_of(const ctx *c) {
    return (cuda_backend *)c->be;
}

/* False with a status ("what: CUDA: why") when e is an error. */
bool cuda_ok(status *st, cudaError_t e, const char *what);
/* Makes be->work at least so large; what was there is lost. */
bool cuda_work(ctx *c, size_t bytes);

static inline cuk_type cuda_type(dtype t) {
    return t == DT_F32 ? CUK_F32 : t == DT_F16 ? CUK_F16 : CUK_BF16;
}

/* linear.c */
void cuda_linear(ctx *c, tensor y, tensor x, const weight *w, const weight *b, act a, unsigned flags);
/* sample.c */
void cuda_sample(ctx *c, tensor logits, const sample_row *rows, sample_result *out);
void cuda_sample_fini(cuda_backend *be);

#endif
