/* lanes.c - order of work on the GPU: pinned memory, marks and stamps (events), captured graphs. See ops.h.
 *
 * A mark brings the lane's fault word along, so that who waits for it learns what went wrong before it and nothing later.
 * Thread: the ctx owner's. Owner: marks and graphs are their makers'. */
#include "kernels/cuda/cuda.h"

#include <math.h>

/* ---- pinned memory ---- */

void *cuda_alloc_host(backend *be, size_t bytes, status *st) {
    (void)be;
    void *p = NULL;
    if (cudaMallocHost(&p, bytes ? bytes : 1) == cudaSuccess) return p;
    cudaGetLastError();
    status_set(st, ST_NO_MEMORY, "no pinned memory for %.1f MiB", (double)bytes / (1 << 20));
    return NULL;
}

void cuda_release_host(backend *be, void *p) {
    (void)be;
    cudaFreeHost(p);
}

void cuda_fetch(ctx *c, void *dst, tensor src) {
    size_t n = (size_t)tensor_count(&src) * dtype_size(src.dt);
    cuda_ok(&c->st, cudaMemcpyAsync(dst, src.data, n, cudaMemcpyDeviceToHost, lane_of(c)->stream), "fetch");
}

/* ---- marks ---- */

bool cuda_mark_init(backend_mark *m, status *st) {
    cudaEvent_t e = NULL;
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

bool cuda_reached(const backend_mark *m) {
    return cudaEventQuery(m->event) != cudaErrorNotReady; /* an error: who waits for it is told */
}

void cuda_wait(ctx *c, backend_mark *m) {
    if (cuda_ok(&c->st, cudaEventSynchronize(m->event), "wait")) cuda_take_fault(c, *m->fault, "a step");
}

/* ---- stamps ---- */

bool cuda_stamp_init(backend_stamp *s, status *st) {
    cudaEvent_t e = NULL;
    bool ok = cuda_ok(st, cudaEventCreateWithFlags(&e, cudaEventDefault), "event");
    s->event = e;
    return ok;
}

void cuda_stamp_fini(backend_stamp *s) {
    cudaEventDestroy(s->event);
}

void cuda_stamp(ctx *c, backend_stamp *s) {
    cuda_ok(&c->st, cudaEventRecord(s->event, lane_of(c)->stream), "stamp");
}

double cuda_stamp_seconds(const backend_stamp *from, const backend_stamp *to) {
    float ms;
    return cudaEventElapsedTime(&ms, from->event, to->event) == cudaSuccess ? ms * 1e-3 : NAN;
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
    if (g->exec) cudaGraphExecDestroy(g->exec);
}
