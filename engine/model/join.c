/* join.c - the projector: features of a pass's tiles become rows of the decoder's width, a block of rows at a time.
 *
 * Rows that are merged stand in turn already (tower.c), so k * k of them are one row by their shape alone. A join that makes a
 * row of features alone takes all tiles' as one; any other one goes tile by tile.
 * Thread: the engine's. Row-exact; scratch is given back. */
#include "engine/model/encode.h"

static int merged(const join_spec *j) {
    return j->merge > 1 ? j->merge * j->merge : 1;
}

int join_rows(const model_spec *s, grid g, int n_text) {
    if (s->dual.on) return 1;
    const join_spec *j = &s->join;
    if (j->kind == JOIN_READER) return n_text;
    if (j->kind == JOIN_ATTEND) return attend_rows(j);
    if (j->latents) return j->latents;
    if (j->kind == JOIN_POOL) return (g.w / j->pool) * (g.h / j->pool);
    int rows = tower_features_rows(&s->tower, g.w, g.h), k = merged(j);
    CHECK(k == 1 || (rows == g.w * g.h && g.w % j->merge == 0 && g.h % j->merge == 0));
    return rows / k;
}

/* n rows as n / k of k times the width. */
static tensor side_by_side(tensor x, int k) {
    CHECK(x.ld == x.d[1]);
    return tensor_2d(x.data, x.dt, x.d[0] / k, x.d[1] * k);
}

static tensor norm_rows(ctx *c, const join_spec *j, weight *const *w, tensor x) {
    tensor y = ctx_2d(c, DT_F32, x.d[0], x.d[1]);
    op_norm(c, y, x, w[S_JOIN_G - S_FIRST_JOIN], w[S_JOIN_B - S_FIRST_JOIN], j->norm, j->norm_eps,
            j->norm_offset);
    return y;
}

void join_pool_taps(const join_spec *j, grid g, int32_t *from, float *by) {
    int k = j->pool, across = g.w / k, down = g.h / k;
    for (int y = 0; y < down; y++)
        for (int x = 0; x < across; x++)
            for (int i = 0; i < k * k; i++) {
                *from++ = (y * k + i / k) * g.w + x * k + i % k;
                *by++ = 1.0f / (float)(k * k);
            }
}

/* Norms, merging and matrices of a join whose weights are w, from S_FIRST_JOIN on. */
static void project(ctx *c, const join_spec *j, weight *const *w, tensor x, tensor y) {
    const weight *fc1 = w[S_FC1_W - S_FIRST_JOIN], *bias1 = w[S_FC1_B - S_FIRST_JOIN];
    if (j->normed == JOIN_NORM_ROW) x = norm_rows(c, j, w, x);
    if (merged(j) > 1) x = side_by_side(x, merged(j));
    if (j->normed == JOIN_NORM_MERGED) x = norm_rows(c, j, w, x);
    if (j->kind == JOIN_NONE) {
        op_copy(c, y, x);
    } else if (j->kind != JOIN_MLP) {
        op_linear(c, y, x, fc1, bias1, ACT_NONE, 0);
    } else {
        tensor h = ctx_2d(c, DT_F32, y.d[0], j->hidden);
        op_linear(c, h, x, fc1, bias1, j->activation, 0);
        op_linear(c, y, h, w[S_FC2_W - S_FIRST_JOIN], w[S_FC2_B - S_FIRST_JOIN], ACT_NONE, 0);
    }
}

/* ---- all tiles as one ---- */

static bool by_rows(const model_spec *s) {
    join_kind k = s->join.kind;
    return !s->dual.on && (k == JOIN_NONE || k == JOIN_LINEAR || k == JOIN_MLP);
}

/* Where the joined rows of a pass from row `from` on belong, at most so many: those that lie together. set: of each picture;
 * -1: what it packs its rows from. */
static tensor rows_at(const encode_lot *l, const pass *p, int set, int64_t from, int64_t most) {
    int64_t each = join_rows(l->s, p->g, 0), n = each - from % each;
    int first = (int)(from / each);
    lot_tile of = lot_tile_at(l, p, first);
    for (int i = first + 1; n < most && i < p->n; i++, n += each) {
        lot_tile next = lot_tile_at(l, p, i);
        if (next.e != of.e || next.joined <= of.joined) break; /* the latter: of a lot that is measured */
    }
    tensor to = of.e->joined;
    if (set >= 0) to = tensor_rows(of.e->sets, (1 + set) * of.e->rows.d[0], of.e->rows.d[0]);
    return tensor_rows(to, of.joined + from % each, n < most ? n : most);
}

/* Block i of the pass's rows x through the join j with weights w. */
static void join_block(ctx *c, const encode_lot *l, const pass *p, const join_spec *j, weight *const *w,
                       int set, tensor x, int i) {
    int64_t k = merged(j), all = (int64_t)p->n * join_rows(l->s, p->g, 0);
    bool cross = l->s->fuse == FUSE_CROSS;
    row_span s = blocks_span(&l->s->tower, all, i);
    size_t mark = arena_mark(c->scratch);
    tensor to = rows_at(l, p, set, s.from, s.n), y = to;
    bool apart = cross || to.d[0] < s.n || c->dry; /* dry: as they might lie */
    if (apart) y = ctx_2d(c, DT_F32, s.n, j->out);
    project(c, j, w, tensor_rows(x, s.from * k, s.n * k), y);
    for (int64_t done = 0; apart && done < s.n; done += to.d[0]) {
        to = rows_at(l, p, set, s.from + done, s.n - done);
        tensor part = tensor_rows(y, done, to.d[0]);
        if (cross)
            cross_keep(c, l->m, part, to);
        else
            op_copy(c, to, part);
    }
    arena_reset(c->scratch, mark);
}

int join_deep_slices(const encode_lot *l, const pass *p) {
    return blocks_even(&l->s->tower, (int64_t)p->n * join_rows(l->s, p->g, 0));
}

void join_deep_slice(ctx *c, encode_lot *l, const pass *p, int set, int i) {
    tensor x = tensor_rows(l->x, 0, (int64_t)p->n * tower_rows(&l->s->tower, p->g));
    join_block(c, l, p, &l->s->deep.join, l->m->deep[set], set, x, i);
}

/* ---- tile by tile ---- */

static int tile_slices(const model_spec *s, grid g, int n_text) {
    if (s->dual.on) return dual_picture_slices(s, tower_rows(&s->tower, g));
    int rows = tower_features_rows(&s->tower, g.w, g.h);
    if (s->join.kind == JOIN_PERCEIVER) return perceiver_slices(s, rows);
    if (s->join.kind == JOIN_QFORMER) return qformer_slices(s, rows, n_text);
    if (s->join.kind == JOIN_READER) return reader_slices(s, rows, n_text);
    if (s->join.kind == JOIN_ATTEND) return attend_slices(s, rows);
    return blocks_even(&s->tower, join_rows(s, g, n_text));
}

static void pool_slice(ctx *c, const encode *e, tensor features, tensor out, int i) {
    const join_spec *j = &e->m->spec.join;
    row_span s = blocks_span(&e->m->spec.tower, out.d[0], i);
    size_t mark = arena_mark(c->scratch);
    tensor x = ctx_2d(c, DT_F32, s.n, j->in), rows = tensor_rows(out, s.from, s.n), y = rows;
    if (e->m->spec.fuse == FUSE_CROSS) y = ctx_2d(c, DT_F32, s.n, j->out);
    op_mix(c, x, features, tensor_rows(e->pool_from, s.from, s.n), tensor_rows(e->pool_by, s.from, s.n));
    project(c, j, e->m->w + S_FIRST_JOIN, x, y);
    if (e->m->spec.fuse == FUSE_CROSS) cross_keep(c, e->m, y, rows);
    arena_reset(c->scratch, mark);
}

static void dual_slice(ctx *c, encode_lot *l, const pass *p, const encode *e, int number, tensor features,
                       int i) {
    int64_t rows = tower_rows(&l->s->tower, p->g);
    dual_picture d = {.x = features,
                      .k = tensor_rows(l->k, number * rows, rows),
                      .v = tensor_rows(l->v, number * rows, rows),
                      .out = e->rows,
                      .one = tower_one(l, p),
                      .len = tower_len(l, p)};
    dual_picture_slice(c, l->m, &d, i);
}

static void tile_slice(ctx *c, encode_lot *l, const pass *p, int number, int i) {
    const model_spec *s = l->s;
    lot_tile of = lot_tile_at(l, p, number);
    const encode *e = of.e;
    int64_t rows = tower_features_rows(&s->tower, p->g.w, p->g.h);
    tensor features = tensor_rows(l->features, number * rows, rows);
    if (s->dual.on) {
        dual_slice(c, l, p, e, number, features, i);
        return;
    }
    tensor out = tensor_rows(e->joined, of.joined, join_rows(s, p->g, e->plan.n_text));
    if (s->join.kind == JOIN_PERCEIVER)
        perceiver_slice(c, e, features, out, i);
    else if (s->join.kind == JOIN_QFORMER)
        qformer_slice(c, e, features, out, i);
    else if (s->join.kind == JOIN_READER)
        reader_slice(c, e, features, out, i);
    else if (s->join.kind == JOIN_ATTEND)
        attend_slice(c, e, features, out, i);
    else
        pool_slice(c, e, features, out, i);
}

/* ---- either ---- */

int join_slices(const encode_lot *l, const pass *p) {
    if (by_rows(l->s)) return join_deep_slices(l, p);
    int n = 0;
    for (int i = 0; i < p->n; i++) n += tile_slices(l->s, p->g, lot_tile_at(l, p, i).e->plan.n_text);
    return n;
}

void join_slice(ctx *c, encode_lot *l, const pass *p, int i) {
    const model_spec *s = l->s;
    if (by_rows(s)) {
        tensor x =
            tensor_rows(l->features, 0, (int64_t)p->n * tower_features_rows(&s->tower, p->g.w, p->g.h));
        join_block(c, l, p, &s->join, l->m->w + S_FIRST_JOIN, -1, x, i);
        return;
    }
    for (int k = 0, n; k < p->n; k++, i -= n)
        if (i < (n = tile_slices(s, p->g, lot_tile_at(l, p, k).e->plan.n_text))) {
            tile_slice(c, l, p, k, i);
            return;
        }
}
