/* lanes.c - order of work on the GPU: pinned memory, marks and stamps (events), captured graphs, lanes that follow each other.
 * See ops.h.
 *
 * A mark brings the lane's fault word along, so that who waits for it learns what went wrong before it and nothing later.
 * Thread: the ctx owner's. Owner: marks and graphs are their makers'. */
#include "kernels/cuda/cuda.h"

#include <math.h>

/* ---- pinned memory ---- */

static bool keep(cuda_backend *be, const void *p, size_t bytes) {
    if (be->n_pinned == be->max_pinned) {
        const int max = be->max_pinned ? 2 * be->max_pinned : 8;
        cuda_pinned *all = mem_realloc(be->pinned, (size_t)max * sizeof *all);
        if (!all) return false;
        be->pinned = all;
        be->max_pinned = max;
    }
    be->pinned[be->n_pinned++] = (cuda_pinned){p, bytes};
    return true;
}

bool cuda_is_pinned(const cuda_backend *be, const void *p) {
    for (int i = 0; i < be->n_pinned; i++)
        if ((uintptr_t)p - (uintptr_t)be->pinned[i].p < be->pinned[i].bytes) return true;
    return false;
}

void *cuda_alloc_host(backend *b, size_t bytes, status *st) {
    cuda_backend *be = cuda_enter(b);
    void *p = NULL;
    bytes += !bytes;
    if (cudaMallocHost(&p, bytes) == cudaSuccess && keep(be, p, bytes)) return p;
    cudaFreeHost(p);
    cudaGetLastError();
    status_set(st, ST_NO_MEMORY, "no pinned memory for %.1f MiB", (double)bytes / (1 << 20));
    return NULL;
}

void cuda_release_host(backend *b, void *p) {
    cuda_backend *be = cuda_enter(b);
    int i = 0;
    while (i < be->n_pinned && be->pinned[i].p != p) i++;
    CHECK(i < be->n_pinned);
    be->pinned[i] = be->pinned[--be->n_pinned];
    cudaDeviceSynchronize(); /* copies from and to it */
    cudaFreeHost(p);
}

void cuda_fetch(ctx *c, void *dst, tensor src) {
    size_t n = (size_t)tensor_count(&src) * dtype_size(src.dt);
    cuda_ok(&c->st, cudaMemcpyAsync(dst, src.data, n, cudaMemcpyDeviceToHost, lane_of(c)->stream), "fetch");
}

/* ---- lanes ---- */

void cuda_follow_load(cuda_backend *be, cuda_lane *l) {
    l->after_load = false;
    if (cudaEventRecord(be->loaded, be->lanes[LANE_LOAD].stream) != cudaSuccess ||
        cudaStreamWaitEvent(l->stream, be->loaded, 0) != cudaSuccess)
        cudaStreamSynchronize(be->lanes[LANE_LOAD].stream);
}

/* ---- marks ---- */

bool cuda_mark_init(backend_mark *m, status *st) {
    cudaEvent_t e = NULL;
    cuda_enter(m->be);
    if (cuda_ok(st, cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "event") &&
        cuda_ok(st, cudaMallocHost((void **)&m->fault, sizeof *m->fault), "pinned memory")) {
        *m->fault = 0;
        m->event = e;
        return true;
    }
    if (e) cudaEventDestroy(e);
    return false;
}

void cuda_mark_fini(backend_mark *m) {
    cuda_enter(m->be);
    cudaEventSynchronize(m->event);
    cudaEventDestroy(m->event);
    cudaFreeHost(m->fault);
}

void cuda_mark(ctx *c, backend_mark *m) {
    cuda_lane *l = lane_of(c);
    if (cuda_ok(&c->st,
                cudaMemcpyAsync(m->fault, l->fault, sizeof *m->fault, cudaMemcpyDeviceToHost, l->stream),
                "mark"))
        cuda_ok(&c->st, cudaEventRecord(m->event, l->stream), "mark");
}

bool cuda_over(cudaEvent_t e) {
    if (cudaEventQuery(e) != cudaErrorNotReady) return true;
    cudaGetLastError(); /* else the next launch would find it */
    return false;
}

bool cuda_reached(const backend_mark *m) {
    cuda_enter(m->be);
    return cuda_over(m->event);
}

void cuda_wait(ctx *c, backend_mark *m) {
    cuda_enter(m->be);
    if (cuda_ok(&c->st, cudaEventSynchronize(m->event), "wait")) cuda_take_fault(c, *m->fault, "a step");
}

/* ---- stamps ---- */

bool cuda_stamp_init(backend_stamp *s, status *st) {
    cudaEvent_t e = NULL;
    cuda_enter(s->be);
    bool ok = cuda_ok(st, cudaEventCreateWithFlags(&e, cudaEventDefault), "event");
    s->event = e;
    return ok;
}

void cuda_stamp_fini(backend_stamp *s) {
    cuda_enter(s->be);
    cudaEventDestroy(s->event);
}

void cuda_stamp(ctx *c, backend_stamp *s) {
    cuda_ok(&c->st, cudaEventRecord(s->event, lane_of(c)->stream), "stamp");
}

double cuda_stamp_seconds(const backend_stamp *from, const backend_stamp *to) {
    float ms;
    cuda_enter(from->be);
    if (cudaEventElapsedTime(&ms, from->event, to->event) == cudaSuccess) return ms * 1e-3;
    cudaGetLastError(); /* else the next launch would find it */
    return NAN;
}

/* ---- graphs ---- */

void cuda_capture_begin(ctx *c) {
    cuda_ok(&c->st, cudaStreamBeginCapture(lane_of(c)->stream, cudaStreamCaptureModeThreadLocal), "capture");
}

static size_t free_bytes(void) {
    size_t have = 0, all = 0;
    cudaMemGetInfo(&have, &all);
    return have;
}

void cuda_capture_end(ctx *c, backend_graph *g) {
    cudaGraph_t made = NULL;
    cudaGraphExec_t exec = NULL;
    g->lane = c->lane;
    cudaError_t e = cudaStreamEndCapture(lane_of(c)->stream, &made);
    size_t before = free_bytes();
    if (cuda_ok(&c->st, e, "capture") &&
        cuda_ok(&c->st, cudaGraphInstantiate(&exec, made, 0), "instantiating a graph"))
        cuda_ok(&c->st, cudaGraphUpload(exec, lane_of(c)->stream), "upload of a graph");
    if (made) cudaGraphDestroy(made);
    g->exec = exec;
    size_t after = free_bytes();
    g->bytes = before > after ? before - after : 0;
}

void cuda_replay(ctx *c, const backend_graph *g) {
    cuda_ok(&c->st, cudaGraphLaunch(g->exec, lane_of(c)->stream), "graph");
}

void cuda_graph_fini(backend_graph *g) {
    cuda_enter(g->be);
    if (g->exec) cudaGraphExecDestroy(g->exec);
}
