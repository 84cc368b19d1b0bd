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

typedef struct cuda_lane {
    cudaStream_t stream;
    int32_t *fault;      /* device: the first thing that a kernel of this lane found wrong */
    int32_t *fault_host; /* pinned */
    void *work;          /* device */
    size_t work_bytes;
    size_t work_want; /* by ops in dry mode */
    bool fixed;       /* work never grows again */
} cuda_lane;

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
    cuda_lane lanes[CTX_LANES];
    size_t taken_bytes; /* of the device, by cuda_backend_new */
    bool sealed;        /* the plan is made: more than that is worth a warning */
    cuda_pool pool;
    cuda_blas *blas; /* or NULL */
    bool exact;      /* backend_options: deterministic */
} cuda_backend;

static inline cuda_backend *cuda_of(const ctx *c) {
    return (cuda_backend *)c->be;
}

static inline cuda_lane *lane_of(const ctx *c) {
    return &cuda_of(c)->lanes[c->lane];
}

/* False with a status ("what: CUDA: why") when e is an error. */
bool cuda_ok(status *st, cudaError_t e, const char *what);
/* Makes the lane's work at least so large; what was there is lost. In dry mode false: the wish is noted, and nothing to
 * launch. */
bool cuda_work(ctx *c, size_t bytes);
/* Device memory as it comes. NULL with ST_NO_MEMORY that says how much there is. */
void *cuda_take(cuda_backend *be, size_t bytes, status *st);

static inline cuk_type cuda_type(dtype t) {
    return t == DT_F32 ? CUK_F32 : t == DT_F16 ? CUK_F16 : CUK_BF16;
}

/* The fault word of a lane, once it has arrived on the host: an error of c, and the device's is cleared. */
void cuda_take_fault(ctx *c, int32_t fault, const char *op);

/* lanes.c */
void *cuda_alloc_host(backend *be, size_t bytes, status *st);
void cuda_release_host(backend *be, void *p);
void cuda_fetch(ctx *c, void *dst, tensor src);
bool cuda_mark_init(backend_mark *m, status *st);
void cuda_mark_fini(backend_mark *m);
void cuda_mark(ctx *c, backend_mark *m);
bool cuda_reached(const backend_mark *m);
void cuda_wait(ctx *c, backend_mark *m);
bool cuda_stamp_init(backend_stamp *s, status *st);
void cuda_stamp_fini(backend_stamp *s);
void cuda_stamp(ctx *c, backend_stamp *s);
double cuda_stamp_seconds(const backend_stamp *from, const backend_stamp *to);
void cuda_capture_begin(ctx *c);
void cuda_capture_end(ctx *c, backend_graph *g);
void cuda_replay(ctx *c, const backend_graph *g);
void cuda_graph_fini(backend_graph *g);
/* pool.c */
void *cuda_pool_take(cuda_pool *p, size_t bytes);
bool cuda_pool_give(cuda_pool *p, const void *piece); /* false: it is none of its */
void cuda_pool_fini(cuda_pool *p);
backend_memory cuda_get_memory(backend *be);
bool cuda_reserve(backend *be, status *st);
bool cuda_seal(backend *be, size_t pool_bytes, status *st);
/* upload.c */
bool cuda_weight_init(weight *w, const tensor *host, status *st);
void cuda_weight_fini(weight *w);
size_t cuda_weights_bytes(backend *be, weight *const *w, int n);
bool cuda_weights_load(backend *be, weight *const *w, int n, status *st);
/* linear.c */
void cuda_linear(ctx *c, tensor x, const linear_to *to, int n, act a, unsigned flags);
/* sample.c */
void cuda_sample(ctx *c, tensor logits, tensor rules, tensor results);
void cuda_next_ids(ctx *c, tensor ids, tensor from, tensor results);

#endif
