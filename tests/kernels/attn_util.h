/* attn_util.h - what the tests of op_attn share: sequences with keys in shuffled pages, which rows see what. Header only. */
#ifndef VLMD_TESTS_ATTN_UTIL_H
#define VLMD_TESTS_ATTN_UTIL_H

#include "tests/kernels/ops_util.h"

/* A sequence's keys and values are kept as plain rows; pages hold copies, in shuffled order. */
typedef struct world {
    int n_seqs;
    int64_t heads, kv_heads, hd, max_len, n_pages, max_pages;
    int32_t len[20];  /* keys of each sequence */
    int32_t rows[20]; /* how many of the last positions are queried */
    float *q[20], *k[20], *v[20];
    float *kc, *vc;
    int32_t *pages;     /* [n_seqs, max_pages] */
    int32_t *limit[20]; /* of each position of a sequence, or NULL; as attn_args has it */
    bool limit_spares, uniform;
    float softcap;
    dtype narrow;
} world;

/* lens NULL: random up to max_len */
UTIL world world_sized(uint64_t *seed, int n_seqs, int64_t heads, int64_t kv_heads, int64_t hd,
                       int64_t max_len, const int32_t *lens) {
    world w = {.n_seqs = n_seqs, .heads = heads, .kv_heads = kv_heads, .hd = hd, .max_len = max_len};
    w.max_pages = (max_len + 15) / 16 + 1;
    w.n_pages = 1 + n_seqs * w.max_pages;
    w.pages = op_ints(n_seqs * w.max_pages);
    int32_t *order = malloc(sizeof(int32_t) * (size_t)w.n_pages);
    assert_non_null(order);
    for (int32_t i = 0; i < w.n_pages; i++) order[i] = i;
    for (int64_t i = w.n_pages - 1; i > 1; i--) { /* page 0 stays reserved */
        int64_t j = ref_int(seed, 1, i);
        int32_t t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
    for (int64_t i = 0; i < n_seqs * w.max_pages; i++) w.pages[i] = order[1 + i];
    free(order);
    int64_t cache = w.n_pages * kv_heads * KV_PAGE_TOK * hd;
    w.kc = floats(cache);
    w.vc = floats(cache);
    for (int64_t i = 0; i < cache; i++) w.kc[i] = w.vc[i] = NAN; /* what nobody wrote nobody may read */
    for (int s = 0; s < n_seqs; s++) {
        w.len[s] = lens ? lens[s] : (int32_t)ref_int(seed, 1, max_len);
        w.rows[s] = (int32_t)(ref_int(seed, 0, 2) ? ref_int(seed, 1, w.len[s]) : 1);
        w.q[s] = random_floats(seed, w.len[s] * heads * hd, 1.5f);
        w.k[s] = random_floats(seed, w.len[s] * kv_heads * hd, 1);
        w.v[s] = random_floats(seed, w.len[s] * kv_heads * hd, 1);
    }
    return w;
}
UTIL world world_new(uint64_t *seed, int n_seqs, int64_t heads, int64_t kv_heads, int64_t hd,
                     int64_t max_len) {
    return world_sized(seed, n_seqs, heads, kv_heads, hd, max_len, NULL);
}
UTIL void world_free(world *w) {
    for (int s = 0; s < w->n_seqs; s++) {
        op_free(w->q[s]);
        op_free(w->k[s]);
        op_free(w->v[s]);
        free(w->limit[s]);
    }
    op_free(w->pages);
    op_free(w->kc);
    op_free(w->vc);
}

/* Puts positions [from, to) of sequence s into its pages. */
UTIL void world_write(rig *r, world *w, int s, int64_t from, int64_t to) {
    int64_t n = to - from, width = w->kv_heads * w->hd;
    int32_t *slots = op_ints(n + 1);
    float *k = floats((n + 1) * width), *v = floats((n + 1) * width);
    for (int64_t i = 0; i < n; i++)
        slots[i] = (int32_t)(w->pages[s * w->max_pages + (from + i) / 16] * 16 + (from + i) % 16);
    slots[n] = -1; /* one row to skip */
    memcpy(k, w->k[s] + from * width, sizeof(float) * (size_t)(n * width));
    memcpy(v, w->v[s] + from * width, sizeof(float) * (size_t)(n * width));
    int64_t pd[] = {w->n_pages, w->kv_heads, KV_PAGE_TOK, w->hd};
    op_kv_write(&r->c, tensor_of(w->kc, DT_F32, 4, pd), tensor_of(w->vc, DT_F32, 4, pd),
                tensor_3d(k, DT_F32, n + 1, w->kv_heads, w->hd),
                tensor_3d(v, DT_F32, n + 1, w->kv_heads, w->hd), tensor_1d(slots, DT_I32, n + 1));
    rig_ok(r);
    op_free(slots);
    op_free(k);
    op_free(v);
}

/* Attends rows [from[s], to[s]) (positions) of each listed sequence in one call; y[s] gets them at their
 * position. */
UTIL void world_attn(rig *r, world *w, const int *seq, int n, const int64_t *from, const int64_t *to,
                     bool causal, int window, float *const *y) {
    int64_t width = w->heads * w->hd, total = 0, ld = width + 3;
    int32_t *start = op_ints(n + 1), *len = op_ints(n), *pages = op_ints(n * w->max_pages);
    start[0] = 0;
    for (int i = 0; i < n; i++) {
        total += to[i] - from[i];
        start[i + 1] = (int32_t)total;
        len[i] = (int32_t)to[i];
        memcpy(pages + i * w->max_pages, w->pages + seq[i] * w->max_pages,
               sizeof(int32_t) * (size_t)w->max_pages);
    }
    float *q = floats(total * ld), *o = floats(total * ld);
    int32_t *limit = op_ints(total);
    memset(limit, 0, sizeof *limit * (size_t)total);
    for (int i = 0; i < n; i++)
        for (int64_t p = from[i]; p < to[i]; p++) {
            memcpy(q + (start[i] + p - from[i]) * ld, w->q[seq[i]] + p * width,
                   sizeof(float) * (size_t)width);
            if (w->limit[seq[i]]) limit[start[i] + p - from[i]] = w->limit[seq[i]][p];
        }
    tensor qt = tensor_3d(q, DT_F32, total, w->heads, w->hd),
           ot = tensor_3d(o, DT_F32, total, w->heads, w->hd);
    qt.ld = ot.ld = ld;
    int64_t pd[] = {w->n_pages, w->kv_heads, KV_PAGE_TOK, w->hd};
    attn_args a = {.scale = 1 / sqrtf((float)w->hd),
                   .causal = causal,
                   .window = window,
                   .softcap = w->softcap,
                   .narrow = w->narrow,
                   .limit_spares = w->limit_spares,
                   .uniform = w->uniform,
                   .n_seqs = n,
                   .q_start = tensor_1d(start, DT_I32, n + 1),
                   .kv_len = tensor_1d(len, DT_I32, n),
                   .pages = tensor_2d(pages, DT_I32, n, w->max_pages)};
    if (w->limit[seq[0]]) a.limit = tensor_1d(limit, DT_I32, total);
    op_attn(&r->c, ot, qt, tensor_of(w->kc, DT_F32, 4, pd), tensor_of(w->vc, DT_F32, 4, pd), &a);
    rig_ok(r);
    for (int i = 0; i < n; i++)
        for (int64_t p = from[i]; p < to[i]; p++)
            memcpy(y[seq[i]] + p * width, o + (start[i] + p - from[i]) * ld, sizeof(float) * (size_t)width);
    op_free(q);
    op_free(o);
    op_free(limit);
    op_free(pages);
    op_free(start);
    op_free(len);
}

/* Keys [lo, hi) that the row at position p sees. */
UTIL void world_sees(const world *w, int s, int64_t p, int64_t len, bool causal, int window, int64_t *lo,
                     int64_t *hi) {
    *hi = causal ? p + 1 : len;
    *lo = window > 0 && p - window + 1 > 0 ? p - window + 1 : 0;
    if (w->limit[s] && w->limit[s][p] > 0) {
        *hi = w->limit[s][p];
        if (w->limit_spares) *lo = 0;
    }
}

/* Spans of 1 to 150 positions that see each other, causal ones between them. */
UTIL void random_limits(uint64_t *seed, world *w) {
    for (int s = 0; s < w->n_seqs; s++) {
        w->limit[s] = calloc((size_t)w->len[s], sizeof(int32_t));
        assert_non_null(w->limit[s]);
        for (int64_t p = ref_int(seed, 0, 20); p < w->len[s]; p += ref_int(seed, 0, 30)) {
            int64_t end = p + ref_int(seed, 1, 150);
            if (end > w->len[s]) end = w->len[s];
            for (; p < end; p++) w->limit[s][p] = (int32_t)end;
        }
    }
}

/* Sequence s of a world, whole, without pages: its keys are plain rows already. */
UTIL void world_dense(rig *r, const world *w, int s, int window, float *y) {
    const int64_t n = w->len[s];
    int32_t *start = op_copy_of((int32_t[]){0, w->len[s]}, 2 * sizeof *start),
            *len = op_copy_of(&w->len[s], sizeof *len);
    attn_args a = {.scale = 1 / sqrtf((float)w->hd),
                   .causal = true,
                   .window = window,
                   .narrow = w->narrow,
                   .n_seqs = 1,
                   .q_start = tensor_1d(start, DT_I32, 2),
                   .kv_len = tensor_1d(len, DT_I32, 1)};
    op_attn(&r->c, tensor_3d(y, DT_F32, n, w->heads, w->hd), tensor_3d(w->q[s], DT_F32, n, w->heads, w->hd),
            tensor_3d(w->k[s], DT_F32, n, w->kv_heads, w->hd),
            tensor_3d(w->v[s], DT_F32, n, w->kv_heads, w->hd), &a);
    rig_ok(r);
    op_free(start);
    op_free(len);
}

static const int64_t groupings[][2] = {{1, 1}, {2, 1}, {3, 3}, {4, 2}, {6, 2}, {7, 1}, {8, 8}, {32, 1}};

#endif
