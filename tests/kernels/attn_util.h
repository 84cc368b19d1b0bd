/* attn_util.h - what the tests of op_attn share: sequences with keys in shuffled pages, which rows see what and should become
 * what; pictures' rows without pages; rows over a few pages, for calls that are wrong. Header only. */
#ifndef VLMD_TESTS_ATTN_UTIL_H
#define VLMD_TESTS_ATTN_UTIL_H

#include "tests/kernels/ops_util.h"

/* Sequences of rows starts[s] .. starts[s + 1] and lens[s] keys; every row sees all keys until the caller says more. */
UTIL attn_args attn_rows(int n_seqs, const int32_t *starts, const int32_t *lens) {
    return (attn_args){
        .scale = 1,
        .n_seqs = n_seqs,
        .q_start = tensor_1d(op_copy_of(starts, sizeof *starts * (size_t)(n_seqs + 1)), DT_I32, n_seqs + 1),
        .kv_len = tensor_1d(op_copy_of(lens, sizeof *lens * (size_t)n_seqs), DT_I32, n_seqs)};
}
UTIL void attn_rows_free(attn_args *a) {
    op_free_all(a->q_start.data, a->kv_len.data);
}

/* n rows, all of them keys too; waits. */
UTIL void attn_dense(rig *r, float *y, float *q, float *k, float *v, int64_t n, int64_t heads,
                     int64_t kv_heads, int64_t hd, const attn_args *a) {
    op_attn(&r->c, tensor_3d(y, DT_F32, n, heads, hd), tensor_3d(q, DT_F32, n, heads, hd),
            tensor_3d(k, DT_F32, n, kv_heads, hd), tensor_3d(v, DT_F32, n, kv_heads, hd), a);
    rig_ok(r);
}

/* What is no number in a key or value reaches the rows that see it and no other: within a window, and where the first row of a
 * call sees all of a block of keys but its last. */
UTIL void attn_spoilt(rig *r, dtype narrow) {
    enum { N = 150, HD = 64 };
    static const struct {
        int window, first, bad; /* first: row of the call */
    } cases[] = {{40, 0, 77}, {0, 62, 63}};
    for (size_t t = 0; t < ARRAY_LEN(cases) * 4; t++) {
        const int window = cases[t / 4].window, first = cases[t / 4].first, bad = cases[t / 4].bad,
                  n = N - first;
        const bool in_value = t / 2 % 2;
        const float spoilt = t % 2 ? INFINITY : NAN;
        uint64_t seed = 24;
        float *q = random_floats(&seed, N * HD, 1), *k = random_floats(&seed, N * HD, 1),
              *v = random_floats(&seed, N * HD, 1), *y = floats(2 * N * HD);
        attn_args a = attn_rows(1, (int32_t[]){0, n}, (int32_t[]){N});
        a.scale = 0.125f;
        a.causal = true;
        a.window = window;
        a.narrow = narrow;
        for (int i = 0; i < 2; i++) {
            op_attn(&r->c, tensor_3d(y + (i * N + first) * HD, DT_F32, n, 1, HD),
                    tensor_3d(q + first * HD, DT_F32, n, 1, HD), tensor_3d(k, DT_F32, N, 1, HD),
                    tensor_3d(v, DT_F32, N, 1, HD), &a);
            rig_ok(r);
            if (i == 0) (in_value ? v : k)[bad * HD + 5] = spoilt;
        }
        for (int i = first; i < N; i++)
            if (i < bad || (window && i >= bad + window))
                same_bits("spared", y + i * HD, y + (N + i) * HD, HD);
            else if (in_value || isnan(spoilt))
                assert_false(isfinite(y[(N + i) * HD + 5]));
        op_free_all(q, k, v, y);
        attn_rows_free(&a);
    }
}

/* ---- sequences in pages ---- */

/* A sequence's keys and values are kept as plain rows; pages hold copies, in shuffled order. */
typedef struct world {
    int n_seqs;
    int64_t heads, kv_heads, hd, max_len, n_pages, max_pages;
    int32_t len[20];  /* keys of each sequence */
    int32_t rows[20]; /* how many of the last positions are queried */
    float *q[20], *k[20], *v[20];
    dtype kept; /* the type of the pages */
    void *kc, *vc;
    int32_t *pages;     /* [n_seqs, max_pages] */
    int32_t *limit[20]; /* of each position of a sequence, or NULL; as attn_args has it */
    bool limit_spares, uniform;
    float softcap;
    dtype narrow;
} world;

static const dtype kept_types[] = {DT_F32, DT_BF16, DT_F16};

UTIL tensor world_pages(const world *w, void *at) {
    return tensor_of(at, w->kept, 4, (int64_t[]){w->n_pages, w->kv_heads, KV_PAGE_TOK, w->hd});
}
/* All NaN, whatever the type: what nobody wrote nobody may read. */
UTIL void world_blank(world *w) {
    const tensor t = world_pages(w, w->kc);
    memset(w->kc, 0xff, (size_t)tensor_count(&t) * sizeof(float));
    memset(w->vc, 0xff, (size_t)tensor_count(&t) * sizeof(float));
}
/* Before anything is written: pages of this type, which all keys and values fit into as they are. */
UTIL void world_keep(world *w, dtype t) {
    w->kept = t;
    for (int s = 0; s < w->n_seqs; s++)
        for (int i = 0; i < 2; i++)
            for (int64_t n = w->len[s] * w->kv_heads * w->hd, e = 0; e < n; e++) {
                float *x = (i ? w->v : w->k)[s] + e;
                uint8_t bits[4];
                ref_store(t, bits, x, 1);
                *x = (float)ref_from(t, bits, 0);
            }
}

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
    world_blank(&w);
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
        op_free_all(w->q[s], w->k[s], w->v[s]);
        free(w->limit[s]);
    }
    op_free_all(w->pages, w->kc, w->vc);
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
    op_kv_write(&r->c, world_pages(w, w->kc), world_pages(w, w->vc),
                tensor_3d(k, DT_F32, n + 1, w->kv_heads, w->hd),
                tensor_3d(v, DT_F32, n + 1, w->kv_heads, w->hd), tensor_1d(slots, DT_I32, n + 1));
    rig_ok(r);
    op_free_all(slots, k, v);
}

/* Attends rows [from[s], to[s]) (positions) of each listed sequence in one call; y[s] gets them at their
 * position. */
UTIL void world_attn(rig *r, world *w, const int *seq, int n, const int64_t *from, const int64_t *to,
                     bool causal, int window, float *const *y) {
    int64_t width = w->heads * w->hd, total = 0, ld = width + 3;
    int32_t start[21] = {0}, len[20], *pages = op_ints(n * w->max_pages);
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
    attn_args a = attn_rows(n, start, len);
    a.scale = 1 / sqrtf((float)w->hd);
    a.causal = causal;
    a.window = window;
    a.softcap = w->softcap;
    a.narrow = w->narrow;
    a.limit_spares = w->limit_spares;
    a.uniform = w->uniform;
    a.pages = tensor_2d(pages, DT_I32, n, w->max_pages);
    if (w->limit[seq[0]]) a.limit = tensor_1d(limit, DT_I32, total);
    op_attn(&r->c, ot, qt, world_pages(w, w->kc), world_pages(w, w->vc), &a);
    rig_ok(r);
    for (int i = 0; i < n; i++)
        for (int64_t p = from[i]; p < to[i]; p++)
            memcpy(y[seq[i]] + p * width, o + (start[i] + p - from[i]) * ld, sizeof(float) * (size_t)width);
    op_free_all(q, o, limit, pages);
    attn_rows_free(&a);
}

/* Keys [lo, hi) that the row at position p sees. */
UTIL void world_sees(const world *w, int s, int64_t p, bool causal, int window, int64_t *lo, int64_t *hi) {
    *hi = causal ? p + 1 : w->len[s];
    *lo = window > 0 && p - window + 1 > 0 ? p - window + 1 : 0;
    if (w->limit[s] && w->limit[s][p] > 0) {
        *hi = w->limit[s][p];
        if (w->limit_spares) *lo = 0;
    }
}

/* How far a number of one head may be from the reference: its query, and keys and values [lo, hi) of its group. */
typedef double attn_bound(const world *w, const float *q, const float *k, const float *v, int64_t lo,
                          int64_t hi);

/* y[heads, hd], of the row at position p, against double precision. Returns the largest error as a part of the bound. */
UTIL double world_check_row(const world *w, int s, int64_t p, bool causal, int window, const float *y,
                            attn_bound *bound) {
    double want[256], worst = 0;
    const int64_t g = w->heads / w->kv_heads, ld = w->kv_heads * w->hd;
    int64_t lo, hi;
    world_sees(w, s, p, causal, window, &lo, &hi);
    for (int64_t h = 0; h < w->heads; h++) {
        const float *q = w->q[s] + (p * w->heads + h) * w->hd, *k = w->k[s] + h / g * w->hd,
                    *v = w->v[s] + h / g * w->hd;
        const double most = bound(w, q, k, v, lo, hi);
        ref_attn(want, q, k, v, ld, lo, hi, w->hd, 1 / sqrt((double)w->hd), (double)w->softcap);
        for (int64_t d = 0; d < w->hd; d++) {
            near("attn", y[h * w->hd + d], want[d], most);
            worst = fmax(worst, fabs(y[h * w->hd + d] - want[d]) / most);
        }
    }
    return worst;
}

/* Keys in two parts, then the last rows[s] rows of every sequence in one call: about `some` of each, or all, are checked. */
UTIL double world_check(rig *r, world *w, bool causal, int window, int64_t some, attn_bound *bound) {
    const int64_t width = w->heads * w->hd;
    int seq[20];
    int64_t from[20], to[20];
    float *y[20];
    double worst = 0;
    for (int s = 0; s < w->n_seqs; s++) {
        seq[s] = s;
        to[s] = w->len[s];
        from[s] = w->len[s] - w->rows[s];
        y[s] = floats(w->len[s] * width);
        world_write(r, w, s, 0, w->len[s] / 2);
        world_write(r, w, s, w->len[s] / 2, w->len[s]);
    }
    world_attn(r, w, seq, w->n_seqs, from, to, causal, window, y);
    for (int s = 0; s < w->n_seqs; s++) {
        for (int64_t p = from[s]; p < to[s]; p += 1 + w->rows[s] / some)
            worst = fmax(worst, world_check_row(w, s, p, causal, window, y[s] + p * width, bound));
        op_free(y[s]);
    }
    return worst;
}

/* As attn_spoilt, in pages. */
UTIL void world_spoilt(rig *r, dtype kept, dtype narrow) {
    enum { N = 150, HD = 64, BAD = 77, WINDOW = 40 };
    for (int t = 0; t < 4; t++) {
        uint64_t seed = 26;
        world w = world_sized(&seed, 1, 2, 1, HD, N, (int32_t[]){N});
        const int64_t width = w.heads * HD, none = 0, all = N;
        const int s = 0;
        const bool in_value = t / 2;
        w.narrow = narrow;
        world_keep(&w, kept);
        float *y[2] = {floats(N * width), floats(N * width)};
        for (int i = 0; i < 2; i++) {
            world_write(r, &w, s, 0, N);
            world_attn(r, &w, &s, 1, &none, &all, true, WINDOW, &y[i]);
            (in_value ? w.v : w.k)[s][BAD * HD + 5] = t % 2 ? INFINITY : NAN;
        }
        for (int i = 0; i < N; i++)
            if (i < BAD || i >= BAD + WINDOW)
                same_bits("spared", y[0] + i * width, y[1] + i * width, width);
            else if (in_value || t % 2 == 0)
                for (int64_t h = 0; h < w.heads; h++) assert_false(isfinite(y[1][i * width + h * HD + 5]));
        op_free_all(y[0], y[1]);
        world_free(&w);
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
    attn_args a = attn_rows(1, (int32_t[]){0, w->len[s]}, &w->len[s]);
    a.scale = 1 / sqrtf((float)w->hd);
    a.causal = true;
    a.window = window;
    a.narrow = w->narrow;
    attn_dense(r, y, w->q[s], w->k[s], w->v[s], w->len[s], w->heads, w->kv_heads, w->hd, &a);
    attn_rows_free(&a);
}

/* ---- pictures: rows that see each other, without pages ---- */

/* Of several pictures, as column views of one fused projection x. */
typedef struct fused {
    int64_t heads, kv_heads, hd, n, width; /* n rows a picture */
    float *x;                              /* [pictures * n, width] */
    tensor q, k, v;
    attn_args a;
} fused;

UTIL fused fused_new(uint64_t *seed, int64_t heads, int64_t kv_heads, int64_t hd, int64_t n, int pictures,
                     float scale) {
    fused f = {.heads = heads, .kv_heads = kv_heads, .hd = hd, .n = n};
    const int64_t q = heads * hd, kv = kv_heads * hd;
    f.width = q + 2 * kv;
    f.x = random_floats(seed, pictures * n * f.width, 1);
    tensor all = tensor_2d(f.x, DT_F32, pictures * n, f.width);
    f.q = tensor_heads(tensor_cols(all, 0, q), heads, hd);
    f.k = tensor_heads(tensor_cols(all, q, kv), kv_heads, hd);
    f.v = tensor_heads(tensor_cols(all, q + kv, kv), kv_heads, hd);
    int32_t start[4], len[3];
    assert_in_range(pictures, 1, ARRAY_LEN(len));
    for (int i = 0; i <= pictures; i++) start[i] = (int32_t)(i * n);
    for (int i = 0; i < pictures; i++) len[i] = (int32_t)n;
    f.a = attn_rows(pictures, start, len);
    f.a.scale = scale;
    return f;
}
UTIL void fused_free(fused *f) {
    op_free(f->x);
    attn_rows_free(&f->a);
}

/* All rows of all pictures. */
UTIL void fused_attn(rig *r, const fused *f, float *y) {
    op_attn(&r->c, tensor_3d(y, DT_F32, f->q.d[0], f->heads, f->hd), f->q, f->k, f->v, &f->a);
    rig_ok(r);
}
UTIL void fused_check(const fused *f, const float *y, int64_t every, double tol) {
    double want[256];
    for (int64_t i = 0; i < f->q.d[0]; i += every)
        for (int64_t h = 0; h < f->heads; h++) {
            const int64_t g = h / (f->heads / f->kv_heads);
            const float *base = f->x + i / f->n * f->n * f->width;
            ref_attn(want, f->x + i * f->width + h * f->hd, base + (f->heads + g) * f->hd,
                     base + (f->heads + f->kv_heads + g) * f->hd, f->width, 0,
                     f->a.causal ? i % f->n + 1 : f->n, f->hd, (double)f->a.scale, 0);
            for (int64_t d = 0; d < f->hd; d++)
                near("dense", y[(i * f->heads + h) * f->hd + d], want[d], tol);
        }
}
/* The first picture's rows `step` at a time, over all its keys. */
UTIL void fused_blocks(rig *r, const fused *f, int64_t step, float *y) {
    for (int64_t at = 0; at < f->n; at += step) {
        const int64_t n = f->n - at < step ? f->n - at : step;
        attn_args a = attn_rows(1, (int32_t[]){0, (int32_t)n}, f->a.kv_len.data);
        a.scale = f->a.scale;
        a.narrow = f->a.narrow;
        op_attn(&r->c, tensor_3d(y + at * f->heads * f->hd, DT_F32, n, f->heads, f->hd),
                tensor_rows(f->q, at, n), tensor_rows(f->k, 0, f->n), tensor_rows(f->v, 0, f->n), &a);
        rig_ok(r);
        attn_rows_free(&a);
    }
}

/* ---- rows of one head over a few pages ---- */

typedef struct paged {
    float *kc, *vc, *q, *y;               /* of random numbers */
    int32_t *start, *len, *pages, *limit; /* the caller's to write; limit is no part of a until he says so */
    tensor kt, vt, qt, yt;
    attn_args a;
} paged;

UTIL paged paged_new(uint64_t *seed, int n_seqs, int64_t rows, int64_t hd, int64_t n_pages,
                     int64_t max_pages) {
    const int64_t pd[] = {n_pages, 1, KV_PAGE_TOK, hd}, pool = n_pages * KV_PAGE_TOK * hd;
    paged p = {.kc = random_floats(seed, pool, 1),
               .vc = random_floats(seed, pool, 1),
               .q = random_floats(seed, rows * hd, 1),
               .y = floats(rows * hd),
               .start = op_ints(n_seqs + 1),
               .len = op_ints(n_seqs),
               .pages = op_ints(n_seqs * max_pages),
               .limit = op_ints(rows)};
    p.kt = tensor_of(p.kc, DT_F32, 4, pd);
    p.vt = tensor_of(p.vc, DT_F32, 4, pd);
    p.qt = tensor_3d(p.q, DT_F32, rows, 1, hd);
    p.yt = tensor_3d(p.y, DT_F32, rows, 1, hd);
    p.a = (attn_args){.scale = 1,
                      .n_seqs = n_seqs,
                      .q_start = tensor_1d(p.start, DT_I32, n_seqs + 1),
                      .kv_len = tensor_1d(p.len, DT_I32, n_seqs),
                      .pages = tensor_2d(p.pages, DT_I32, n_seqs, max_pages)};
    return p;
}
UTIL void paged_free(paged *p) {
    op_free_all(p->kc, p->vc, p->q, p->y, p->start, p->len, p->pages, p->limit);
}

static const int64_t groupings[][2] = {{1, 1}, {2, 1}, {3, 3}, {4, 2}, {6, 2}, {7, 1}, {8, 8}, {32, 1}};

#endif
