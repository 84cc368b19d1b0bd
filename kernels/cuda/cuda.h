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

/* pool.c */
typedef struct cuda_piece {
    size_t begin, bytes;
} cuda_piece;
typedef struct cuda_pool {
    uint8_t *base; /* device; NULL: none */
    size_t bytes;
    cuda_piece *pieces; /* in use, in order */
    int n_pieces, max_pieces;
} cuda_pool;

typedef struct cuda_backend {
    backend base;
    int device;
    cudaStream_t stream;
    size_t taken_bytes; /* of the device, by cuda_backend_new */
    size_t work_want;   /* by ops in dry mode */
    bool sealed;        /* the plan is made: more than that is worth a warning */
    cuda_pool pool;
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
/* Makes be->work at least so large; what was there is lost. In dry mode false: the wish is noted, and nothing to launch. */
bool cuda_work(ctx *c, size_t bytes);
/* Device memory as it comes. NULL with ST_NO_MEMORY that says how much there is. */
void *cuda_take(cuda_backend *be, size_t bytes, status *st);

static inline cuk_type cuda_type(dtype t) {
    return t == DT_F32 ? CUK_F32 : t == DT_F16 ? CUK_F16 : CUK_BF16;
}

/* pool.c */
void *cuda_pool_take(cuda_pool *p, size_t bytes);
bool cuda_pool_give(cuda_pool *p, const void *piece); /* false: it is none of its */
void cuda_pool_fini(cuda_pool *p);
backend_memory cuda_get_memory(backend *be);
bool cuda_seal(backend *be, size_t pool_bytes, status *st);
/* upload.c */
bool cuda_weight_init(weight *w, const tensor *host, status *st);
void cuda_weight_fini(weight *w);
size_t cuda_weights_bytes(backend *be, weight *const *w, int n);
bool cuda_weights_load(backend *be, weight *const *w, int n, status *st);
/* linear.c */
void cuda_linear(ctx *c, tensor y, tensor x, const weight *w, const weight *b, act a, unsigned flags);
/* sample.c */
void cuda_sample(ctx *c, tensor logits, const sample_row *rows, sample_result *out);
void cuda_sample_fini(cuda_backend *be);

#endif
