/* cuda.h - the CUDA backend's inside: what its host files share. The kernels are in cuk.h.
 *
 * Threads: one at a time, as ops.h says; who that is may change (a loader, the engine, whoever ends it). The runtime has a
 * current device for each thread, so every function gets at its backend by cuda_enter, which sets it: there alone is a backend
 * cast to a cuda_backend, and there alone a device set. Owner: the backend. */
#ifndef VLMD_KERNELS_CUDA_CUDA_H
#define VLMD_KERNELS_CUDA_CUDA_H

#include <cuda_runtime_api.h>

#include "kernels/backend.h"
#include "kernels/cpu/simd.h"
#include "kernels/cuda/blas.h"
#include "kernels/cuda/cuk.h"

enum { CUDA_FEW = 16 }; /* rows that linears of our own read weights once for */

/* ring.c: pinned pieces that a lane's uploads go through, one after the other */
enum { RING_PIECES = 4, RING_PIECE_BYTES = 1 << 20 };
typedef struct cuda_ring {
    uint8_t *base; /* pinned, [RING_PIECES][RING_PIECE_BYTES] */
    cudaEvent_t copied[RING_PIECES];
    int at; /* the piece that is being filled */
    size_t used;
} cuda_ring;

typedef struct cuda_lane {
    cudaStream_t stream;
    bool
        after_load; /* its next work comes behind what LANE_LOAD has, which the stream has not been told yet */
    cuda_ring ring;
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
    uint64_t given; /* the moment at which it was given back; 0: it is in use */
} cuda_piece;
enum { POOL_MOMENTS = 16 }; /* that are not over yet */
typedef struct cuda_pool {
    uint8_t *base; /* device; NULL: none */
    size_t bytes;
    cuda_piece *pieces; /* not free, in order */
    int n_pieces, max_pieces;
    /* Moment m: behind what each lane had been given then, at m % POOL_MOMENTS. They are over in their order. */
    cudaEvent_t moments[POOL_MOMENTS][CTX_LANES];
    uint64_t n_moments, n_over;
} cuda_pool;

/* lanes.c: what cuda_alloc_host gave */
typedef struct cuda_pinned {
    const uint8_t *p;
    size_t bytes;
} cuda_pinned;

typedef struct cuda_backend {
    backend base;
    int device;
    cudaEvent_t loaded; /* on LANE_LOAD */
    cuda_pinned *pinned;
    int n_pinned, max_pinned;
    cuda_lane lanes[CTX_LANES];
    size_t taken_bytes; /* of the device, by cuda_backend_new */
    bool sealed;        /* the plan is made: more than that is worth a warning */
    cuda_pool pool;
    cuda_blas *blas; /* or NULL */
    bool exact;      /* backend_options: deterministic */
} cuda_backend;

extern _Thread_local int cuda_entered; /* the calling thread's device; -1: not chosen yet */

/* From here on the calling thread's calls go to the backend's device. */
static inline cuda_backend *cuda_enter(const backend *b) {
    cuda_backend *be = (cuda_backend *)b;
    if (cuda_entered != be->device) cuda_entered = cudaSetDevice(be->device) == cudaSuccess ? be->device : -1;
    return be;
}

static inline cuda_backend *cuda_of(const ctx *c) {
    return cuda_enter(c->be);
}

/* lanes.c: tells the stream of a lane that is after_load. */
void cuda_follow_load(cuda_backend *be, cuda_lane *l);

/* A lane that is about to get work: every stream is had by this or by load_lane. What LANE_LOAD gets comes before whatever
 * another lane gets later. */
static inline cuda_lane *load_lane(cuda_backend *be) {
    for (int i = 0; i < CTX_LANES; i++) be->lanes[i].after_load = i != LANE_LOAD;
    return &be->lanes[LANE_LOAD];
}

static inline cuda_lane *lane_of(const ctx *c) {
    cuda_backend *be = cuda_of(c);
    if (c->lane == LANE_LOAD) return load_lane(be);
    if (be->lanes[c->lane].after_load) cuda_follow_load(be, &be->lanes[c->lane]);
    return &be->lanes[c->lane];
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

/* Without waiting. An error counts as over: whoever waits for what is behind the event is told. */
bool cuda_over(cudaEvent_t e);
/* The fault word of a lane, once it has arrived on the host: an error of c, and the device's is cleared. */
void cuda_take_fault(ctx *c, int32_t fault, const char *op);

/* lanes.c */
bool cuda_is_pinned(const cuda_backend *be, const void *p);
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
/* ring.c */
bool cuda_ring_init(cuda_ring *r, status *st);
void cuda_ring_fini(cuda_ring *r);
void cuda_upload(ctx *c, tensor dst, const void *src);
/* pool.c */
void *cuda_pool_take(cuda_pool *p, size_t bytes);         /* NULL: it has no room */
bool cuda_pool_give(cuda_backend *be, const void *piece); /* false: it is none of its */
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
int cuda_plans(const backend *be);
void cuda_linear(ctx *c, tensor x, const linear_to *to, int n, act a, unsigned flags);
/* sample.c */
void cuda_sample(ctx *c, tensor logits, tensor rules, tensor results);
void cuda_next_ids(ctx *c, tensor ids, tensor from, tensor results);

#endif
