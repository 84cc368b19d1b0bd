/* pool.c - the planned memory: from cuda_seal on, what comes and goes on the device (pictures) are pieces of one allocation.
 *
 * The smallest gap that fits is taken; with the few sizes that a model's pictures have, gaps are used again. What finds none
 * comes from the device after all, and the log says so.
 * Who gives a piece back does not wait: it is free once the device is past all that the lanes had been given by then, a moment
 * of which events tell. When too many moments are ahead the last one is put off instead of a new one made. Only who finds no
 * other room waits, for one moment after the other.
 * Thread: the ctx owner's. Owner: the backend, until cuda_pool_fini. Tested by tests/kernels/test_device_memory.c. */
#include "kernels/cuda/cuda.h"

#include <string.h>

enum { ALIGN = 256 };

static size_t whole(size_t bytes) {
    return (bytes + !bytes + ALIGN - 1) / ALIGN * ALIGN;
}

/* ---- moments ---- */

static bool make_moments(cuda_pool *p, status *st) {
    for (int i = 0; i < POOL_MOMENTS; i++)
        for (int k = 0; k < CTX_LANES; k++)
            if (!cuda_ok(st, cudaEventCreateWithFlags(&p->moments[i][k], cudaEventDisableTiming), "event"))
                return false;
    return true;
}

static uint64_t record_moment(cuda_backend *be) {
    cuda_pool *p = &be->pool;
    if (p->n_moments - p->n_over < POOL_MOMENTS) p->n_moments++;
    for (int k = 0; k < CTX_LANES; k++)
        cudaEventRecord(p->moments[p->n_moments % POOL_MOMENTS][k], be->lanes[k].stream);
    return p->n_moments;
}

static bool is_over(cuda_pool *p, uint64_t moment) {
    for (int k = 0; k < CTX_LANES; k++)
        if (!cuda_over(p->moments[moment % POOL_MOMENTS][k])) return false;
    return true;
}

/* What was given back is free as far as the device has come. */
static void collect(cuda_pool *p) {
    int n = 0;
    while (p->n_over < p->n_moments && is_over(p, p->n_over + 1)) p->n_over++;
    for (int i = 0; i < p->n_pieces; i++)
        if (!p->pieces[i].given || p->pieces[i].given > p->n_over) p->pieces[n++] = p->pieces[i];
    p->n_pieces = n;
}

/* False: nothing is on its way back. */
static bool wait_for_moment(cuda_pool *p) {
    if (p->n_over == p->n_moments) return false;
    for (int k = 0; k < CTX_LANES; k++) cudaEventSynchronize(p->moments[(p->n_over + 1) % POOL_MOMENTS][k]);
    p->n_over++;
    return true;
}

/* ---- pieces ---- */

static bool grow(cuda_pool *p) {
    if (p->n_pieces < p->max_pieces) return true;
    const int max = p->max_pieces ? 2 * p->max_pieces : 64;
    cuda_piece *pieces = mem_realloc(p->pieces, (size_t)max * sizeof *pieces);
    if (!pieces) return false;
    p->pieces = pieces;
    p->max_pieces = max;
    return true;
}

static void *take(cuda_pool *p, size_t bytes) {
    size_t best = SIZE_MAX, begin = 0;
    int at = 0;
    for (int i = 0; i <= p->n_pieces; i++) {
        const size_t end = i < p->n_pieces ? p->pieces[i].begin : p->bytes;
        const size_t from = i ? p->pieces[i - 1].begin + p->pieces[i - 1].bytes : 0;
        if (end - from < bytes || end - from >= best) continue;
        best = end - from;
        begin = from;
        at = i;
    }
    if (best == SIZE_MAX) return NULL;
    memmove(p->pieces + at + 1, p->pieces + at, (size_t)(p->n_pieces - at) * sizeof *p->pieces);
    p->pieces[at] = (cuda_piece){begin, bytes, 0};
    p->n_pieces++;
    return p->base + begin;
}

void *cuda_pool_take(cuda_pool *p, size_t bytes) {
    if (!p->base || bytes > p->bytes || !grow(p)) return NULL;
    bytes = whole(bytes);
    for (;;) {
        collect(p);
        void *piece = take(p, bytes);
        if (piece || !wait_for_moment(p)) return piece;
    }
}

bool cuda_pool_give(cuda_backend *be, const void *piece) {
    cuda_pool *p = &be->pool;
    const uintptr_t base = (uintptr_t)p->base, at = (uintptr_t)piece;
    if (!p->base || at < base || at - base >= p->bytes) return false;
    int i = 0;
    while (i < p->n_pieces && p->pieces[i].begin != at - base) i++;
    CHECK(i < p->n_pieces && !p->pieces[i].given);
    p->pieces[i].given = record_moment(be);
    return true;
}

void cuda_pool_fini(cuda_pool *p) {
    for (int i = 0; i < POOL_MOMENTS; i++)
        for (int k = 0; k < CTX_LANES; k++)
            if (p->moments[i][k]) cudaEventDestroy(p->moments[i][k]);
    cudaFree(p->base);
    mem_free(p->pieces);
    *p = (cuda_pool){0};
}

/* ---- the plan ---- */

backend_memory cuda_get_memory(backend *b) {
    cuda_backend *be = cuda_enter(b);
    backend_memory m = {.taken_bytes = be->taken_bytes};
    cudaMemGetInfo(&m.free_bytes, &m.total_bytes);
    m.work_bytes = be->taken_bytes;
    for (int i = 0; i < CTX_LANES; i++) m.work_bytes += be->lanes[i].work_want;
    return m;
}

bool cuda_reserve(backend *b, status *st) {
    for (int i = 0; i < CTX_LANES; i++) {
        cuda_lane *l = &cuda_enter(b)->lanes[i];
        ctx c = {.be = b, .lane = i};
        l->fixed = false;
        if (!cuda_work(&c, l->work_want))
            return status_set(st, c.st.code, "work memory of %.1f MiB: %s", (double)l->work_want / (1 << 20),
                              c.st.msg);
        l->fixed = true;
    }
    return true;
}

bool cuda_seal(backend *b, size_t pool_bytes, status *st) {
    cuda_backend *be = cuda_enter(b);
    if (!cuda_reserve(b, st)) return false;
    if (pool_bytes) {
        pool_bytes = whole(pool_bytes);
        if (!cuda_ok(st, cudaMalloc((void **)&be->pool.base, pool_bytes), "the pictures' memory"))
            return false;
        be->pool.bytes = pool_bytes;
        if (!make_moments(&be->pool, st)) return false;
    }
    be->sealed = true;
    return true;
}
