/* cuda.c - the CUDA backend's host side: device, memory, weights, and each op as a launch on one stream. See cuk.h.
 *
 * Everything is asynchronous but download and sample, which wait. A launch that fails, or a fault that a kernel left
 * behind, becomes the ctx's error at the next wait at the latest. Thread: the ctx owner's. Owner of the device's memory and
 * of the stream: the backend, until cuda_free. */
#include "kernels/cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Errors that leave the device as it was; after any other every call fails until the process ends. */
static bool passes(cudaError_t e) {
    switch (e) {
    case cudaErrorInvalidValue:
    case cudaErrorMemoryAllocation:
    case cudaErrorInvalidConfiguration:
    case cudaErrorInvalidDevice:
    case cudaErrorInvalidResourceHandle:
    case cudaErrorNotReady:
    case cudaErrorLaunchOutOfResources:
    case cudaErrorNotSupported: return true;
    default: return e >= cudaErrorStreamCaptureUnsupported && e <= cudaErrorGraphExecUpdateFailure;
    }
}

bool cuda_ok(status *st, cudaError_t e, const char *what) {
    if (e == cudaSuccess) return true;
    const status_code code = e == cudaErrorMemoryAllocation ? ST_NO_MEMORY
                             : passes(e)                    ? ST_INTERNAL
                                                            : ST_LOST;
    return status_set(st, code, "%s: CUDA: %s", what, cudaGetErrorString(e));
}

_Thread_local int cuda_entered = -1;

/* ---- memory ---- */

void *cuda_take(cuda_backend *be, size_t bytes, status *st) {
    void *p = NULL;
    if (be->sealed) log_warn("%.1f MiB of the GPU's memory more than was planned", (double)bytes / (1 << 20));
    cudaError_t e = cudaMalloc(&p, bytes ? bytes : 1);
    if (e == cudaSuccess) return p;
    if (e != cudaErrorMemoryAllocation) {
        cuda_ok(st, e, "memory");
        return NULL;
    }
    size_t have = 0, all = 0;
    cudaMemGetInfo(&have, &all);
    cudaGetLastError();
    status_set(st, ST_NO_MEMORY, "the GPU has no memory for %.1f MiB: %.1f of %.1f MiB are free",
               (double)bytes / (1 << 20), (double)have / (1 << 20), (double)all / (1 << 20));
    return NULL;
}

static void *cuda_alloc(backend *b, size_t bytes, status *st) {
    cuda_backend *be = cuda_enter(b);
    void *p = cuda_pool_take(&be->pool, bytes);
    if (!p) p = cuda_take(be, bytes, st);
    if (!p || cuda_ok(st, cudaMemsetAsync(p, 0, bytes ? bytes : 1, load_lane(be)->stream), "memory"))
        return p;
    if (!cuda_pool_give(be, p)) cudaFree(p);
    return NULL;
}

/* A step or a picture that is under way may still use it: what is no piece of the plan waits for them. */
static void cuda_release(backend *b, void *p) {
    cuda_backend *be = cuda_enter(b);
    if (cuda_pool_give(be, p)) return;
    cudaDeviceSynchronize();
    cudaFree(p);
}

bool cuda_work(ctx *c, size_t bytes) {
    cuda_backend *be = cuda_of(c);
    cuda_lane *l = lane_of(c);
    if (c->dry && bytes > l->work_want) l->work_want = bytes;
    if (c->dry) return false;
    if (bytes <= l->work_bytes) return true;
    if (l->fixed)
        return status_set(&c->st, ST_INTERNAL, "expected at most %zu bytes of work memory, found %zu",
                          l->work_bytes, bytes);
    cudaFree(l->work); /* waits for what uses it */
    l->work_bytes = 0;
    l->work = cuda_take(be, bytes, &c->st);
    if (l->work) l->work_bytes = bytes;
    return l->work != NULL;
}

/* ---- transfers ---- */

static bool launched(ctx *c, const char *op) {
    return cuda_ok(&c->st, cudaGetLastError(), op);
}

void cuda_take_fault(ctx *c, int32_t f, const char *op) {
    static const char *const faults[] = {"",
                                         "an id beyond the table's rows",
                                         "a row index beyond the rows",
                                         "a slot beyond the KV pages",
                                         "a page number beyond the KV pages",
                                         "a length that does not fit its rows or pages"};
    if (f == CUK_OK) return;
    cudaMemsetAsync(lane_of(c)->fault, 0, sizeof f, lane_of(c)->stream);
    status_set(&c->st, ST_INTERNAL, "%s: the device found %s", op,
               f > 0 && f < (int32_t)ARRAY_LEN(faults) ? faults[f] : "an unknown fault");
}

/* Waits, and takes what a kernel found wrong. */
static void wait_for(ctx *c, const char *op) {
    cuda_lane *l = lane_of(c);
    if (cuda_ok(&c->st,
                cudaMemcpyAsync(l->fault_host, l->fault, sizeof *l->fault, cudaMemcpyDeviceToHost, l->stream),
                op) &&
        cuda_ok(&c->st, cudaStreamSynchronize(l->stream), op))
        cuda_take_fault(c, *l->fault_host, op);
}

static void cuda_sync(ctx *c) {
    wait_for(c, "wait");
}

static void cuda_download(ctx *c, void *dst, tensor src) {
    size_t n = (size_t)tensor_count(&src) * dtype_size(src.dt);
    if (cuda_ok(&c->st, cudaMemcpyAsync(dst, src.data, n, cudaMemcpyDeviceToHost, lane_of(c)->stream),
                "download"))
        wait_for(c, "download");
}

/* ---- ops ---- */

static cuk_stream stream_of(const ctx *c) {
    return lane_of(c)->stream;
}

static cuk_norm_by norm_of(const norm_by *n) {
    if (!n) return (cuk_norm_by){0};
    return (cuk_norm_by){.gain = n->gain ? n->gain->vec : NULL,
                         .bias = n->bias ? n->bias->vec : NULL,
                         .on = true,
                         .rms = n->kind == NORM_RMS,
                         .eps = n->eps,
                         .gain_offset = n->gain_offset};
}

static void cuda_norm(ctx *c, tensor y, tensor x, const weight *gain, const weight *bias, norm_kind kind,
                      float eps, float gain_offset) {
    const cuk_norm_by by = norm_of(&(norm_by){gain, bias, kind, eps, gain_offset});
    cuk_norm(stream_of(c), y.data, cuda_type(y.dt), y.ld, x.data, x.ld, y.d[0], y.d[1], y.d[2], &by);
    launched(c, "norm");
}

static void cuda_add(ctx *c, tensor y, tensor x, const weight *gain) {
    cuk_add(stream_of(c), y.data, y.ld, x.data, x.ld, gain ? gain->vec : NULL, y.d[0], y.d[1]);
    launched(c, "add");
}

static void cuda_add_norm(ctx *c, tensor x, tensor h, const norm_by *before, const weight *scale, tensor y,
                          const norm_by *after) {
    const cuk_add_norm a = {.x = x.data,
                            .h = h.data,
                            .y = y.data,
                            .t = after ? cuda_type(y.dt) : CUK_F32,
                            .scale = scale ? scale->vec : NULL,
                            .x_ld = x.ld,
                            .h_ld = h.ld,
                            .y_ld = y.ld,
                            .rows = x.d[0],
                            .d = (int)x.d[1],
                            .before = norm_of(before),
                            .after = norm_of(after)};
    cuk_residual(stream_of(c), &a);
    launched(c, "add_norm");
}

static void cuda_copy(ctx *c, tensor y, tensor x) {
    cuk_copy(stream_of(c), y.data, y.ld, x.data, x.ld, y.d[0], y.d[1]);
    launched(c, "copy");
}

static void cuda_act(ctx *c, tensor y, act a) {
    cuk_act_rows(stream_of(c), y.data, y.ld, y.d[0], y.d[1], (cuk_act)a);
    launched(c, "act");
}

static void cuda_softcap(ctx *c, tensor y, float cap) {
    cuk_softcap(stream_of(c), y.data, y.ld, y.d[0], y.d[1], cap);
    launched(c, "softcap");
}

static void cuda_glu(ctx *c, tensor y, tensor gate, tensor up, act a) {
    cuk_glu(stream_of(c), y.data, cuda_type(y.dt), y.ld, gate.data, gate.ld, up.data, up.ld, y.d[0], y.d[1],
            (cuk_act)a);
    launched(c, "glu");
}

static void cuda_embed(ctx *c, tensor y, const weight *table, tensor ids, float scale, bool add,
                       const row_run *runs, int n) {
    cuk_embed_rows e = {.y = y.data,
                        .table = table->data,
                        .t = cuda_type(table->dt),
                        .y_ld = y.ld,
                        .table_ld = table->ld,
                        .n_table = table->rows,
                        .ids = ids.data,
                        .rows = y.d[0],
                        .d = y.d[1],
                        .scale = scale,
                        .add = add,
                        .fault = lane_of(c)->fault};
    do { /* what more runs there are than one launch takes goes by further ones, which leave ids alone */
        for (e.n = 0; n > 0 && e.n < CUK_EMBED_RUNS; n--, runs++)
            e.run[e.n++] = (cuk_embed_run){runs->row, runs->rows.d[0], runs->rows.data, runs->rows.ld};
        cuk_embed(stream_of(c), &e);
        e.ids = NULL;
    } while (n > 0);
    launched(c, "embed");
}

static void cuda_gather(ctx *c, tensor y, tensor x, tensor idx) {
    cuk_gather(stream_of(c), y.data, y.ld, x.data, x.ld, x.d[0], idx.data, y.d[0], y.d[1], lane_of(c)->fault);
    launched(c, "gather");
}

static void cuda_mix(ctx *c, tensor y, tensor x, const weight *table, tensor from, tensor by) {
    cuk_mix(stream_of(c), y.data, y.ld, table ? table->data : x.data, table ? cuda_type(table->dt) : CUK_F32,
            table ? table->ld : x.ld, table ? table->rows : x.d[0], from.data, by.nd ? by.data : NULL,
            from.d[1], y.d[0], y.d[1], table != NULL, lane_of(c)->fault);
    launched(c, "mix");
}

static void cuda_rope_table(ctx *c, tensor cs, tensor pos, tensor len, const rope_args *a) {
    cuk_rope_table(stream_of(c), &(cuk_table){.cs = cs.data,
                                              .pos = pos.data,
                                              .len = len.nd ? len.data : NULL,
                                              .inv_freq = a->inv_freq->vec,
                                              .axis = a->axis ? a->axis->vec : NULL,
                                              .cs_ld = cs.ld,
                                              .pos_ld = pos.ld,
                                              .axes = a->axis ? pos.d[1] : 1,
                                              .rows = cs.d[0],
                                              .half = cs.d[1],
                                              .factor = a->factor,
                                              .theta = a->theta,
                                              .dyn = a->dyn_factor,
                                              .max_pos = a->max_pos,
                                              .fault = lane_of(c)->fault});
    launched(c, "rope_table");
}

static void cuda_rope(ctx *c, tensor x, tensor cs) {
    cuk_rope(stream_of(c), x.data, x.ld, x.d[0], x.d[1], x.d[2], cs.data, cs.ld, cs.d[1]);
    launched(c, "rope");
}

static cuk_rope_kv pages_to_write(const ctx *c, const tensor *k, const tensor *v, const tensor *kc,
                                  const tensor *vc, const tensor *slots) {
    return (cuk_rope_kv){.kc = kc->data,
                         .vc = vc->data,
                         .kept = cuda_type(kc->dt),
                         .k = k->data,
                         .v = v->data,
                         .slots = slots->data,
                         .k_ld = k->ld,
                         .v_ld = v->ld,
                         .rows = k->d[0],
                         .kv_heads = k->d[1],
                         .hd = k->d[2],
                         .n_pages = kc->d[0],
                         .page_tok = KV_PAGE_TOK,
                         .fault = lane_of(c)->fault};
}

static void cuda_kv_write(ctx *c, tensor kc, tensor vc, tensor k, tensor v, tensor slots) {
    const cuk_rope_kv a = pages_to_write(c, &k, &v, &kc, &vc, &slots);
    cuk_kv_write(stream_of(c), &a);
    launched(c, "kv_write");
}

static void cuda_rope_kv_write(ctx *c, tensor q, tensor k, tensor v, tensor cs, tensor kc, tensor vc,
                               tensor slots) {
    cuk_rope_kv a = pages_to_write(c, &k, &v, &kc, &vc, &slots);
    a.q = q.data;
    a.q_ld = q.ld;
    a.heads = q.d[1];
    a.cs = cs.data;
    a.cs_ld = cs.ld;
    a.half = cs.d[1];
    cuk_rope_kv_write(stream_of(c), &a);
    launched(c, "rope_kv_write");
}

static void cuda_attn(ctx *c, tensor y, tensor q, tensor k, tensor v, const attn_args *a) {
    const bool paged = a->pages.nd != 0;
    cuk_attn t = {.y = y.data,
                  .left = cuda_type(y.dt),
                  .q = q.data,
                  .k = k.data,
                  .v = v.data,
                  .kept = cuda_type(k.dt),
                  .y_ld = y.ld,
                  .q_ld = q.ld,
                  .k_ld = k.ld,
                  .v_ld = v.ld,
                  .n_rows = (int)q.d[0],
                  .heads = (int)q.d[1],
                  .kv_heads = (int)k.d[1],
                  .hd = (int)q.d[2],
                  .n_seqs = a->n_seqs,
                  .n_pages = paged ? (int)k.d[0] : 0,
                  .pages_ld = paged ? (int)a->pages.ld : 0,
                  .n_keys = paged ? 0 : k.d[0],
                  .q_start = a->q_start.data,
                  .kv_len = a->kv_len.data,
                  .pages = paged ? a->pages.data : NULL,
                  .scale = a->scale,
                  .causal = a->causal,
                  .limit_spares = a->limit_spares,
                  .uniform = a->uniform,
                  .window = a->window,
                  .softcap = a->softcap,
                  .precision = cuda_of(c)->exact      ? CUK_ATTN_EXACT
                               : a->narrow == DT_BF16 ? CUK_ATTN_BF16
                               : a->narrow == DT_F16  ? CUK_ATTN_F16
                                                      : CUK_ATTN_THREE,
                  .limit = a->limit.nd ? a->limit.data : NULL,
                  .fault = lane_of(c)->fault};
    if (t.hd > 256) {
        status_set(&c->st, ST_UNSUPPORTED, "attn: expected heads of at most 256 numbers, found %d", t.hd);
        return;
    }
    const size_t scratch = cuk_attn_scratch(&t);
    if (!cuda_work(c, scratch)) return; /* in dry mode, too */
    t.scratch = lane_of(c)->work;
    t.scratch_bytes = lane_of(c)->work_bytes;
    cuk_attention(stream_of(c), &t);
    launched(c, "attn");
}

static void cuda_patchify(ctx *c, tensor x, tensor pixels, const patchify_args *a) {
    const int64_t across = pixels.d[1] / a->patch;
    cuk_patches p = {.x = x.data,
                     .pixels = pixels.data,
                     .order = a->order.nd ? a->order.data : NULL,
                     .x_ld = x.ld,
                     .pixels_ld = pixels.ld,
                     .rows = x.d[0],
                     .across = across,
                     .patches = pixels.d[0] / a->patch * across,
                     .patch = a->patch,
                     .frames = a->frames > 1 ? a->frames : 1,
                     .channels_last = a->channels_last,
                     .rescale = a->rescale,
                     .fault = lane_of(c)->fault};
    memcpy(p.mean, a->mean, sizeof p.mean);
    memcpy(p.std, a->std, sizeof p.std);
    cuk_patchify(stream_of(c), &p);
    launched(c, "patchify");
}

static void cuda_pair_loss(ctx *c, tensor loss, tensor terms, tensor logits, bool sigmoid) {
    cuk_pair_loss(stream_of(c), loss.data, terms.data, logits.data, logits.ld, logits.d[0], sigmoid);
    launched(c, "pair_loss");
}

/* ---- life ---- */

static void cuda_free(backend *b) {
    cuda_backend *be = cuda_enter(b);
    for (int i = 0; i < CTX_LANES; i++)
        if (be->lanes[i].stream) cudaStreamSynchronize(be->lanes[i].stream);
    cuda_pool_fini(&be->pool);
    cuda_blas_free(be->blas);
    for (int i = 0; i < CTX_LANES; i++) {
        cuda_lane *l = &be->lanes[i];
        cudaFree(l->fault);
        cudaFreeHost(l->fault_host);
        cudaFree(l->work);
        cuda_ring_fini(&l->ring);
        if (l->stream) cudaStreamDestroy(l->stream);
    }
    if (be->loaded) cudaEventDestroy(be->loaded);
    mem_free(be->pinned);
    mem_free(be);
}

static const backend_ops cuda_ops = {
    .free = cuda_free,
    .alloc = cuda_alloc,
    .release = cuda_release,
    .weight_init = cuda_weight_init,
    .weight_fini = cuda_weight_fini,
    .weights_bytes = cuda_weights_bytes,
    .weights_load = cuda_weights_load,
    .get_memory = cuda_get_memory,
    .seal = cuda_seal,
    .upload = cuda_upload,
    .download = cuda_download,
    .sync = cuda_sync,
    .linear = cuda_linear,
    .norm = cuda_norm,
    .add = cuda_add,
    .add_norm = cuda_add_norm,
    .copy = cuda_copy,
    .act = cuda_act,
    .softcap = cuda_softcap,
    .glu = cuda_glu,
    .embed = cuda_embed,
    .gather = cuda_gather,
    .mix = cuda_mix,
    .rope_table = cuda_rope_table,
    .rope = cuda_rope,
    .kv_write = cuda_kv_write,
    .rope_kv_write = cuda_rope_kv_write,
    .attn = cuda_attn,
    .patchify = cuda_patchify,
    .pair_loss = cuda_pair_loss,
    .sample = cuda_sample,
    .next_ids = cuda_next_ids,
    .reserve = cuda_reserve,
    .plans = cuda_plans,
    .alloc_host = cuda_alloc_host,
    .release_host = cuda_release_host,
    .fetch = cuda_fetch,
    .mark_init = cuda_mark_init,
    .mark_fini = cuda_mark_fini,
    .mark = cuda_mark,
    .reached = cuda_reached,
    .stamp_init = cuda_stamp_init,
    .stamp_fini = cuda_stamp_fini,
    .stamp = cuda_stamp,
    .stamp_seconds = cuda_stamp_seconds,
    .wait = cuda_wait,
    .capture_begin = cuda_capture_begin,
    .capture_end = cuda_capture_end,
    .replay = cuda_replay,
    .graph_fini = cuda_graph_fini,
};

/* "cuda" or "cuda:1" */
static bool device_index(const char *name, int *index, status *st) {
    char *end;
    *index = 0;
    if (strcmp(name, "cuda") == 0) return true;
    long n =
        strncmp(name, "cuda:", 5) == 0 && name[5] >= '0' && name[5] <= '9' ? strtol(name + 5, &end, 10) : -1;
    if (n < 0 || *end || n > 1023)
        return status_set(st, ST_INVALID, "--device: expected cpu, cuda or cuda:N, found \"%.40s\"", name);
    *index = (int)n;
    return true;
}

/* A power of two that makes about two waves of tiles of 128 x 128 of a product that is 1024 wide; 4096 on large GPUs, 0.1 GiB of
 * activations of a ViT-L. */
static int encode_rows_of(int multiprocessors) {
    int rows = 512;
    while (rows < 4096 && rows < 32 * multiprocessors) rows *= 2;
    return rows;
}

/* "8.0, 9.0 and later" */
static void built_for(char *to, size_t size) {
    const int *archs, n = cuk_archs(&archs);
    for (int i = 0, at = 0; i < n && (size_t)at < size; i++)
        at += snprintf(to + at, size - (size_t)at, "%s%d.%d%s", i ? ", " : "", archs[i] / 100,
                       archs[i] / 10 % 10, i + 1 < n ? "" : " and later");
}

static bool open_device(cuda_backend *be, const char *name, status *st) {
    int n = 0, driver = 0;
    if (!device_index(name, &be->device, st)) return false;
    cudaDriverGetVersion(&driver);
    if (driver == 0) {
        cudaGetLastError();
        return status_set(st, ST_UNSUPPORTED, "--device %s: this machine has no NVIDIA driver (libcuda.so.1)",
                          name);
    }
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e == cudaErrorInsufficientDriver)
        return status_set(
            st, ST_UNSUPPORTED, "--device %s: the NVIDIA driver knows CUDA %d.%d; this program needs %d.%d",
            name, driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    if (e != cudaSuccess || n == 0)
        return status_set(st, ST_UNSUPPORTED, "--device %s: no NVIDIA GPU was found (%s)", name,
                          cudaGetErrorString(e));
    if (be->device >= n)
        return status_set(st, ST_INVALID, "--device %s: this machine has GPUs 0 to %d", name, n - 1);
    struct cudaDeviceProp p;
    if (!cuda_ok(st, cudaGetDeviceProperties(&p, be->device), "GPU")) return false;
    if (p.major < 8)
        return status_set(st, ST_UNSUPPORTED,
                          "--device %s: %.60s has compute capability %d.%d; 8.0 or more is needed", name,
                          p.name, p.major, p.minor);
    if (be->base.encode_rows <= 0) be->base.encode_rows = encode_rows_of(p.multiProcessorCount);
    cuda_enter(&be->base);
    if (!cuda_ok(st, cudaGetLastError(), "GPU")) return false;
    e = (cudaError_t)cuk_load(p.sharedMemPerBlockOptin);
    if (e != cudaSuccess) {
        char archs[80] = "";
        built_for(archs, sizeof archs);
        cudaGetLastError();
        cudaDeviceReset(); /* gives back what choosing it took */
        cuda_entered = -1;
        return status_set(
            st, ST_UNSUPPORTED,
            "--device %s: %.60s has compute capability %d.%d, and this program's kernels, built for %s, do "
            "not run there: %s",
            name, p.name, p.major, p.minor, archs, cudaGetErrorString(e));
    }
    snprintf(be->base.about, sizeof be->base.about, "cuda:%d %.40s", be->device, p.name);
    return true;
}

/* Pictures give way to steps. */
static bool open_lanes(cuda_backend *be, status *st) {
    int least = 0, greatest = 0;
    cudaDeviceGetStreamPriorityRange(&least, &greatest);
    for (int i = 0; i < CTX_LANES; i++)
        if (!cuda_ok(st,
                     cudaStreamCreateWithPriority(&be->lanes[i].stream, cudaStreamNonBlocking,
                                                  i == LANE_PICTURES ? least : greatest),
                     "stream"))
            return false;
    if (!cuda_ok(st, cudaEventCreateWithFlags(&be->loaded, cudaEventDisableTiming), "event")) return false;
    for (int i = 0; i < CTX_LANES; i++) {
        cuda_lane *l = &be->lanes[i];
        if (!cuda_ring_init(&l->ring, st) ||
            !cuda_ok(st, cudaMallocHost((void **)&l->fault_host, sizeof *l->fault_host), "pinned memory") ||
            !(l->fault = cuda_alloc(&be->base, sizeof *l->fault, st)))
            return false;
    }
    return true;
}

backend *cuda_backend_new(const backend_options *o, status *st) {
    cuda_backend *be = mem_calloc(1, sizeof *be);
    if (!be) {
        status_set(st, ST_NO_MEMORY, "no memory for the backend");
        return NULL;
    }
    be->base.ops = &cuda_ops;
    be->base.narrows = !o->deterministic;
    be->base.encode_rows = o->encode_rows;
    be->exact = o->deterministic;
    if (!open_device(be, o->device, st)) {
        mem_free(be);
        return NULL;
    }
    if (open_lanes(be, st)) {
        size_t before = 0, after = 0, all;
        cudaMemGetInfo(&before, &all);
        if (!o->deterministic) be->blas = cuda_blas_new(o->allow_tf32);
        if (be->blas) be->base.rounds_from = CUDA_FEW + 1;
        cudaMemGetInfo(&after, &all);
        be->taken_bytes = before > after ? before - after : 0;
        return &be->base;
    }
    cuda_free(&be->base);
    return NULL;
}
