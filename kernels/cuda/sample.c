/* sample.c - op_sample on the GPU, host side: packs the rows' rules and lists into one block, uploads it, and brings back ids
 * and log-probs only; logits stay on the device. Thread: the ctx owner's. Owner: the backend (cuda_lists). */
#include "kernels/cpu/choose.h"
#include "kernels/cuda/cuda.h"

#include <string.h>

typedef struct packed { /* offsets in bytes into the block */
    size_t choices, chosen, ids, values, total;
} packed;

static size_t align16(size_t n) {
    return (n + 15) & ~(size_t)15;
}

static packed lay_out(const sample_row *rows, int64_t n) {
    size_t listed = 0;
    for (int64_t i = 0; i < n; i++)
        listed += (size_t)rows[i].n_bias + (size_t)rows[i].n_prompt_seen + (size_t)rows[i].n_out_seen;
    packed p = {0};
    p.ids = align16((size_t)n * sizeof(cuk_choice));
    p.values = p.ids + align16(listed * sizeof(int32_t));
    p.chosen = p.values + align16(listed * sizeof(float));
    p.total = p.chosen + align16((size_t)n * sizeof(cuk_chosen));
    return p;
}

static bool reserve(ctx *c, size_t bytes) {
    cuda_backend *be = cuda_of(c);
    if (bytes <= be->lists.bytes) return true;
    cuda_sample_fini(be);
    bytes += bytes / 2;
    if (!cuda_ok(&c->st, cudaMalloc(&be->lists.device, bytes), "sample") ||
        !cuda_ok(&c->st, cudaMallocHost(&be->lists.pinned, bytes), "sample"))
        return false;
    be->lists.bytes = bytes;
    return true;
}

/* Appends a list to the block; returns where it begins. values NULL: counts are not asked for. */
static int32_t put(int32_t *ids, float *values, int32_t *at, const int32_t *from, const float *with,
                   const int32_t *counts, int n) {
    int32_t begin = *at;
    for (int i = 0; i < n; i++) {
        ids[*at] = from[i];
        values[(*at)++] = with ? with[i] : counts ? (float)counts[i] : 0;
    }
    return begin;
}

static void pack(uint8_t *to, const packed *p, const sample_row *rows, int64_t n) {
    cuk_choice *choices = (cuk_choice *)(void *)to;
    int32_t *ids = (int32_t *)(void *)(to + p->ids), at = 0;
    float *values = (float *)(void *)(to + p->values);
    for (int64_t i = 0; i < n; i++) {
        const sample_row *r = &rows[i];
        cuk_choice *k = &choices[i];
        *k = (cuk_choice){.temperature = r->temperature,
                          .top_p = r->top_p,
                          .min_p = r->min_p,
                          .repetition = r->repetition_penalty,
                          .presence = r->presence_penalty,
                          .frequency = r->frequency_penalty,
                          .top_k = r->top_k,
                          .top_logprobs = r->top_logprobs > 20 ? 20 : r->top_logprobs,
                          .seed_lo = (uint32_t)r->seed,
                          .seed_hi = (uint32_t)(r->seed >> 32),
                          .choice = r->choice,
                          .position = r->position,
                          .n_bias = r->n_bias,
                          .n_prompt = r->n_prompt_seen,
                          .n_out = r->n_out_seen};
        k->bias_at = put(ids, values, &at, r->bias_ids, r->bias, NULL, r->n_bias);
        k->prompt_at = put(ids, values, &at, r->prompt_seen, NULL, NULL, r->n_prompt_seen);
        k->out_at = put(ids, values, &at, r->out_seen, NULL, r->out_count, r->n_out_seen);
    }
}

void cuda_sample(ctx *c, tensor logits, const sample_row *rows, sample_result *out) {
    cuda_backend *be = cuda_of(c);
    const int64_t n = logits.d[0], vocab = logits.d[1];
    if (c->dry) {
        cuda_work(c, (size_t)(n * vocab) * sizeof(float));
        return;
    }
    const packed p = lay_out(rows, n);
    bool adjusts = false;
    for (int64_t i = 0; i < n; i++) adjusts |= choose_adjusts(&rows[i]);
    if (!reserve(c, p.total) || (adjusts && !cuda_work(c, (size_t)(n * vocab) * sizeof(float)))) return;
    uint8_t *pinned = be->lists.pinned, *device = be->lists.device;
    pack(pinned, &p, rows, n);
    if (!cuda_ok(&c->st, cudaMemcpyAsync(device, pinned, p.chosen, cudaMemcpyHostToDevice, be->stream),
                 "sample"))
        return;
    cuk_chosen *chosen = (cuk_chosen *)(void *)(pinned + p.chosen);
    cuk_sample(be->stream, logits.data, logits.ld, n, vocab, (const cuk_choice *)(void *)device,
               (const int32_t *)(void *)(device + p.ids), (const float *)(void *)(device + p.values),
               be->work, (cuk_chosen *)(void *)(device + p.chosen));
    if (!cuda_ok(&c->st, cudaGetLastError(), "sample") ||
        !cuda_ok(&c->st,
                 cudaMemcpyAsync(chosen, device + p.chosen, (size_t)n * sizeof *chosen,
                                 cudaMemcpyDeviceToHost, be->stream),
                 "sample"))
        return;
    be->base.ops->sync(c);
    if (!ctx_ok(c)) return;
    for (int64_t i = 0; i < n; i++) {
        out[i] = (sample_result){.id = chosen[i].id, .logprob = chosen[i].logprob, .n_top = chosen[i].n_top};
        memcpy(out[i].top_id, chosen[i].top_id, sizeof out[i].top_id);
        memcpy(out[i].top_logprob, chosen[i].top_logprob, sizeof out[i].top_logprob);
    }
}

void cuda_sample_fini(cuda_backend *be) {
    cudaFree(be->lists.device);
    cudaFreeHost(be->lists.pinned);
    be->lists = (cuda_lists){0};
}
