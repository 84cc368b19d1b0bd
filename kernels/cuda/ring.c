/* ring.c - uploads. The driver stops the host for a copy out of memory that it has not pinned until the stream has come so far,
 * so what comes from such memory is put into pinned pieces first, and copied from there while the host goes on. Each lane has
 * some, which take turns; only when all of them are under way does the host wait, for the oldest.
 *
 * Thread: the ctx owner's. Owner: the lane. Tested by tests/kernels/test_device_memory.c. */
#include "kernels/cuda/cuda.h"

#include <string.h>

enum { ALIGN = 64 };

bool cuda_ring_init(cuda_ring *r, status *st) {
    bool ok = cuda_ok(st, cudaMallocHost((void **)&r->base, (size_t)RING_PIECES * RING_PIECE_BYTES),
                      "pinned memory for uploads");
    for (int i = 0; i < RING_PIECES && ok; i++)
        ok = cuda_ok(st, cudaEventCreateWithFlags(&r->copied[i], cudaEventDisableTiming), "event");
    return ok;
}

void cuda_ring_fini(cuda_ring *r) {
    for (int i = 0; i < RING_PIECES; i++)
        if (r->copied[i]) cudaEventDestroy(r->copied[i]);
    cudaFreeHost(r->base);
    *r = (cuda_ring){0};
}

/* To the next piece; the one that is left can be filled again when its copies, which the stream has by now, are done. */
static bool turn(cuda_lane *l, status *st) {
    cuda_ring *r = &l->ring;
    if (!cuda_ok(st, cudaEventRecord(r->copied[r->at], l->stream), "upload")) return false;
    r->at = (r->at + 1) % RING_PIECES;
    r->used = 0;
    return cuda_ok(st, cudaEventSynchronize(r->copied[r->at]), "upload"); /* at once in the first round */
}

static bool copy(cuda_lane *l, void *dst, const void *src, size_t n, status *st) {
    return cuda_ok(st, cudaMemcpyAsync(dst, src, n, cudaMemcpyHostToDevice, l->stream), "upload");
}

void cuda_upload(ctx *c, tensor dst, const void *src) {
    cuda_lane *l = lane_of(c);
    cuda_ring *r = &l->ring;
    const uint8_t *from = src;
    uint8_t *to = dst.data;
    size_t left = (size_t)tensor_count(&dst) * dtype_size(dst.dt);
    if (cuda_is_pinned(cuda_of(c), src)) {
        copy(l, to, from, left, &c->st);
        return;
    }
    while (left > 0) {
        if (r->used >= RING_PIECE_BYTES && !turn(l, &c->st)) return;
        const size_t room = RING_PIECE_BYTES - r->used, n = left < room ? left : room;
        uint8_t *pinned = r->base + (size_t)r->at * RING_PIECE_BYTES + r->used;
        memcpy(pinned, from, n);
        if (!copy(l, to, pinned, n, &c->st)) return;
        r->used += (n + ALIGN - 1) / ALIGN * ALIGN;
        from += n, to += n, left -= n;
    }
}
