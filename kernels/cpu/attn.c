/* attn.c - key-value pages and attention on the CPU: checks what lies in device memory (lengths, page
 * numbers), cuts the work into tiles of (sequence, rows, kv head) and gives them to the pool. Thread: the ctx
 * owner's. Memory: the backend's work memory. */
#include "kernels/cpu/cpu.h"

#include <string.h>

typedef struct kv_job {
    const cpu_backend *be;
    uint8_t *kc, *vc;
    dtype kept;
    const float *k, *v, *cs; /* cs NULL: k as it is */
    int64_t k_ld, v_ld, cs_ld, n, hd, half, page_ld;
    const int32_t *slots;
} kv_job;

/* Nearest, ties to even. */
static uint16_t bf16_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40); /* NaN stays one */
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static uint16_t f16_of(float f) {
    uint32_t u, a;
    memcpy(&u, &f, sizeof u);
    a = u & 0x7fffffffu;
    const uint32_t sign = u >> 16 & 0x8000;
    if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00);
    if (a >= 0x47800000u) return (uint16_t)(sign | 0x7c00);
    if (a < 0x38800000u) { /* a subnormal: an addition rounds it */
        float x;
        memcpy(&x, &a, sizeof x);
        x += 0.5f;
        memcpy(&a, &x, sizeof a);
        return (uint16_t)(sign | (a - 0x3f000000u));
    }
    return (uint16_t)(sign | ((a - 0x38000000u + 0xfff + (a >> 13 & 1)) >> 13));
}

/* A head's numbers into a page, at element off. */
static void keep(const kv_job *j, uint8_t *page, int64_t off, const float *x) {
    uint16_t *to = (uint16_t *)(void *)page + off;
    if (j->kept == DT_F32)
        memcpy((float *)(void *)page + off, x, (size_t)j->hd * sizeof(float));
    else if (j->kept == DT_BF16)
        for (int64_t e = 0; e < j->hd; e++) to[e] = bf16_of(x[e]);
    else
        for (int64_t e = 0; e < j->hd; e++) to[e] = f16_of(x[e]);
}

static void kv_range(void *arg, int64_t from, int64_t to, int thread) {
    const kv_job *j = arg;
    float *turned = j->cs ? cpu_work_thread(j->be, thread) : NULL;
    for (int64_t i = 0; i < j->n; i++) {
        if (j->slots[i] < 0) continue;
        int64_t page = j->slots[i] / KV_PAGE_TOK, at = j->slots[i] % KV_PAGE_TOK;
        for (int64_t h = from; h < to; h++) {
            const int64_t off = page * j->page_ld + (h * KV_PAGE_TOK + at) * j->hd;
            const float *k = j->k + i * j->k_ld + h * j->hd;
            if (j->cs) {
                memcpy(turned, k, (size_t)j->hd * sizeof(float));
                j->be->simd->rope(turned, j->cs + i * j->cs_ld, j->half);
                k = turned;
            }
            keep(j, j->kc, off, k);
            keep(j, j->vc, off, j->v + i * j->v_ld + h * j->hd);
        }
    }
}

static kv_job kv_job_of(ctx *c, const tensor *kc, const tensor *vc, const tensor *k, const tensor *v,
                        const tensor *slots) {
    return (kv_job){.be = cpu_of(c),
                    .kc = kc->data,
                    .vc = vc->data,
                    .kept = kc->dt,
                    .k = k->data,
                    .v = v->data,
                    .k_ld = k->ld,
                    .v_ld = v->ld,
                    .n = k->d[0],
                    .hd = k->d[2],
                    .page_ld = kc->ld,
                    .slots = slots->data};
}

static bool slots_fit(ctx *c, const char *op, const kv_job *j, int64_t n_pages) {
    for (int64_t i = 0; i < j->n; i++)
        if (j->slots[i] < -1 || j->slots[i] >= n_pages * KV_PAGE_TOK)
            return status_set(&c->st, ST_INTERNAL, "%s: expected slots from -1 to %lld, found %d", op,
                              (long long)(n_pages * KV_PAGE_TOK - 1), (int)j->slots[i]);
    return true;
}

/* Both are shared out by heads: dummy rows may have one slot in common, whose writes then stay on one thread. */
void cpu_kv_write(ctx *c, tensor kc, tensor vc, tensor k, tensor v, tensor slots) {
    kv_job j = kv_job_of(c, &kc, &vc, &k, &v, &slots);
    if (slots_fit(c, "kv_write", &j, kc.d[0]))
        cpu_for(cpu_of(c), k.d[1], 1, (double)tensor_count(&k) / 4, kv_range, &j);
}

void cpu_rope_kv_write(ctx *c, tensor q, tensor k, tensor v, tensor cs, tensor kc, tensor vc, tensor slots) {
    kv_job j = kv_job_of(c, &kc, &vc, &k, &v, &slots);
    j.cs = cs.data;
    j.cs_ld = cs.ld;
    j.half = cs.d[1];
    if (!slots_fit(c, "rope_kv_write", &j, kc.d[0])) return;
    cpu_rope(c, q, cs);
    if (!cpu_work(c, 0, (size_t)j.hd * sizeof(float))) return;
    cpu_for(cpu_of(c), k.d[1], 1, (double)tensor_count(&k), kv_range, &j);
}

/* ---- attention ---- */

enum { TILE_ROWS = 32 }; /* query rows times heads of a group in one tile, about */

typedef struct attn_job {
    cpu_backend *be;
    const attn_args *a;
    float *y;
    const float *q;
    const uint8_t *k, *v;
    dtype kept; /* f32 without pages */
    int64_t y_ld, q_ld, k_ld, v_ld;
    int64_t heads, kv_heads, hd, rows; /* rows: of a sequence, in one tile */
    const int32_t *q_start, *kv_len, *pages, *limit;
    int64_t pages_ld;
    const int64_t *tile_start; /* [n_seqs + 1] tiles before sequence s */
} attn_job;

static void attn_one(void *arg, int64_t index, int thread) {
    const attn_job *j = arg;
    const int64_t kvh = index % j->kv_heads, tile = index / j->kv_heads;
    int64_t lo = 0, hi = j->a->n_seqs; /* the last s with tile_start[s] <= tile */
    while (hi - lo > 1) {
        int64_t mid = (lo + hi) / 2;
        if (j->tile_start[mid] <= tile)
            lo = mid;
        else
            hi = mid;
    }
    const int64_t s = lo, n = j->q_start[s + 1] - j->q_start[s], row0 = (tile - j->tile_start[s]) * j->rows;
    const int64_t group = j->heads / j->kv_heads, first = j->q_start[s] + row0;
    attn_tile t = {
        .q = j->q + first * j->q_ld + kvh * group * j->hd,
        .y = j->y + first * j->y_ld + kvh * group * j->hd,
        .q_ld = j->q_ld,
        .y_ld = j->y_ld,
        .hd = (int)j->hd,
        .group = (int)group,
        .row0 = row0,
        .row1 = min_i64(row0 + j->rows, n),
        .pos0 = j->kv_len[s] - n + row0,
        .kv_len = j->kv_len[s],
        .scale = j->a->scale,
        .causal = j->a->causal,
        .window = j->a->window,
        .softcap = j->a->softcap,
        .limit = j->limit ? j->limit + first : NULL,
        .limit_spares = j->a->limit_spares,
        .kept = j->kept,
        .scratch = cpu_work_thread(j->be, thread),
    };
    const int64_t size = (int64_t)dtype_size(j->kept);
    if (j->pages) {
        t.page = j->pages + s * j->pages_ld;
        t.page_ld = j->kv_heads * KV_PAGE_TOK * j->hd;
        t.k = j->k + kvh * KV_PAGE_TOK * j->hd * size;
        t.v = j->v + kvh * KV_PAGE_TOK * j->hd * size;
        t.k_tok_ld = t.v_tok_ld = j->hd;
    } else {
        const int64_t at = j->a->n_seqs == 1 ? 0 : j->q_start[s];
        t.k = j->k + (at * j->k_ld + kvh * j->hd) * size;
        t.v = j->v + (at * j->v_ld + kvh * j->hd) * size;
        t.k_tok_ld = j->k_ld;
        t.v_tok_ld = j->v_ld;
    }
    j->be->simd->attn(&t);
}

/* Lengths and page numbers are data: wrong ones must not become wild reads. */
/* n_keys: rows of k and v, of pages with pages. */
static bool attn_check(ctx *c, const attn_job *j, int64_t n_rows, int64_t n_keys) {
    const attn_args *a = j->a;
    for (int s = 0; s < a->n_seqs; s++) {
        int64_t from = j->q_start[s], to = j->q_start[s + 1], len = j->kv_len[s];
        if (from < 0 || to < from || to > n_rows)
            return status_set(&c->st, ST_INTERNAL,
                              "attn: sequence %d: expected rows within 0 to %lld, found %lld to %lld", s,
                              (long long)n_rows, (long long)from, (long long)to);
        if (len < 0 || ((a->causal || a->window > 0) && len < to - from))
            return status_set(&c->st, ST_INTERNAL,
                              "attn: sequence %d: expected at least %lld keys, found %lld", s,
                              (long long)(to - from), (long long)len);
        bool limited = false;
        for (int64_t i = from; i < to && j->limit; i++) {
            if (j->limit[i] < 0)
                return status_set(&c->st, ST_INTERNAL, "attn: row %lld: expected a limit from 0 on, found %d",
                                  (long long)i, (int)j->limit[i]);
            limited = limited || j->limit[i] > 0;
            len = max_i64(len, j->limit[i]);
        }
        if (!j->pages) {
            int64_t own = a->n_seqs == 1 ? n_keys : to - from;
            if (len > own)
                return status_set(&c->st, ST_INTERNAL,
                                  "attn: sequence %d: expected at most its %lld keys, found %lld", s,
                                  (long long)own, (long long)len);
            continue;
        }
        int64_t used = ceil_div(len, KV_PAGE_TOK), first = 0;
        if (used > j->pages_ld)
            return status_set(&c->st, ST_INTERNAL,
                              "attn: sequence %d: expected at most %lld pages, found %lld keys", s,
                              (long long)j->pages_ld, (long long)len);
        if (a->window > 0 && !(limited && a->limit_spares)) /* the rest may be gone */
            first = max_i64(0, j->kv_len[s] - (to - from) - a->window) / KV_PAGE_TOK;
        for (int64_t i = first; i < used && to > from; i++) {
            int32_t p = j->pages[s * j->pages_ld + i];
            if (p < 0 || p >= n_keys)
                return status_set(&c->st, ST_INTERNAL,
                                  "attn: sequence %d: expected pages from 0 to %lld, found %d", s,
                                  (long long)n_keys - 1, (int)p);
        }
    }
    return true;
}

void cpu_attn(ctx *c, tensor y, tensor q, tensor k, tensor v, const attn_args *a) {
    cpu_backend *be = cpu_of(c);
    const bool paged = a->pages.nd != 0;
    attn_job j = {
        .be = be,
        .a = a,
        .y = y.data,
        .q = q.data,
        .k = k.data,
        .v = v.data,
        .kept = k.dt,
        .y_ld = y.ld,
        .q_ld = q.ld,
        .k_ld = k.ld,
        .v_ld = v.ld,
        .heads = q.d[1],
        .kv_heads = k.d[1],
        .hd = q.d[2],
        .q_start = a->q_start.data,
        .kv_len = a->kv_len.data,
        .pages = paged ? a->pages.data : NULL,
        .limit = a->limit.nd ? a->limit.data : NULL,
        .pages_ld = paged ? a->pages.ld : 0,
    };
    if (!attn_check(c, &j, q.d[0], k.d[0])) return;
    const int64_t group = j.heads / j.kv_heads;
    j.rows = max_i64(1, TILE_ROWS / group);
    if (!cpu_work(c, ((size_t)a->n_seqs + 1) * sizeof(int64_t),
                  attn_scratch(j.rows, (int)group, (int)j.hd, j.kept) * sizeof(float)))
        return;
    int64_t *start = cpu_work_shared(be);
    double cost = 0;
    start[0] = 0;
    for (int s = 0; s < a->n_seqs; s++) {
        int64_t n = j.q_start[s + 1] - j.q_start[s];
        start[s + 1] = start[s] + ceil_div(n, j.rows);
        cost += (double)n * j.kv_len[s] * (double)(j.heads * j.hd) * 2;
    }
    j.tile_start = start;
    int64_t tiles = start[a->n_seqs] * j.kv_heads;
    if (cost < 32768) {
        for (int64_t t = 0; t < tiles; t++) attn_one(&j, t, 0);
    } else {
        pool_run(be->pool, tiles, attn_one, &j);
    }
}
