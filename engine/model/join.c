/* join.c - the projector: features of a pass's tiles become rows of the decoder's width, a block of rows at a time, of all tiles
 * together.
 *
 * Rows that are merged stand in turn already (tower.c), so k * k of them are one row by their shape alone; those that are
 * pooled are mixed first.
 * Thread: the engine's. Row-exact; scratch is given back. */
#include "engine/model/encode.h"

static int merged(const join_spec *j) {
    return j->merge > 1 ? j->merge * j->merge : 1;
}

int join_rows(const model_spec *s, grid g, int n_text) {
    if (s->dual.on) return 1;
    const join_spec *j = &s->join;
    if (j->kind == JOIN_READER) return n_text;
    if (j->latents) return join_latents(j);
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
        const weight *fc2 = w[S_FC2_W - S_FIRST_JOIN];
        tensor h = ctx_factor(c, op_linear_takes(c, y.d[0], fc2), y.d[0], j->hidden);
        op_linear(c, h, x, fc1, bias1, j->activation, 0);
        op_linear(c, y, h, fc2, w[S_FC2_B - S_FIRST_JOIN], ACT_NONE, 0);
    }
}

/* ---- where rows go ---- */

static int64_t joined_rows(const encode_lot *l, const pass *p, int i) {
    return join_rows(l->s, p->g, l->s->join.read_vocab ? lot_tile_at(l, p, i).e->plan.n_text : 0);
}

/* Where the joined rows of a pass from row `from` on belong, at most so many: those that lie together. set: of each picture;
 * -1: what it packs its rows from. */
static tensor rows_at(const encode_lot *l, const pass *p, int set, int64_t from, int64_t most) {
    int i = 0;
    for (int64_t n; from >= (n = joined_rows(l, p, i)); i++) from -= n;
    lot_tile of = lot_tile_at(l, p, i);
    int64_t n = joined_rows(l, p, i) - from;
    while (n < most && ++i < p->n) {
        lot_tile next = lot_tile_at(l, p, i);
        if (next.e != of.e || next.joined <= of.joined) break; /* the latter: of a lot that is measured */
        n += joined_rows(l, p, i);
    }
    tensor to = of.e->joined;
    if (set >= 0) to = tensor_rows(of.e->sets, (1 + set) * of.e->rows.d[0], of.e->rows.d[0]);
    return tensor_rows(to, of.joined + from, n < most ? n : most);
}

tensor join_out(ctx *c, const encode_lot *l, const pass *p, int set, row_span s) {
    tensor to = rows_at(l, p, set, s.from, s.n);
    if (to.d[0] == s.n && l->s->fuse != FUSE_CROSS && !c->dry) return to; /* dry: as they might lie */
    return ctx_2d(c, DT_F32, s.n, set < 0 ? l->s->join.out : l->s->deep.join.out);
}

void join_put(ctx *c, const encode_lot *l, const pass *p, int set, row_span s, tensor y) {
    for (int64_t done = 0, n; done < s.n; done += n) {
        tensor to = rows_at(l, p, set, s.from + done, s.n - done);
        n = to.d[0];
        tensor part = tensor_rows(y, done, n);
        if (l->s->fuse == FUSE_CROSS)
            cross_keep(c, l->m, part, to);
        else if (to.data != part.data || c->dry)
            op_copy(c, to, part);
    }
}

/* ---- a row of features alone ---- */

/* Block i of the pass's rows through the join j with weights w, from x. */
static void join_block_of(ctx *c, const encode_lot *l, const pass *p, const join_spec *j, weight *const *w,
                          int set, tensor x, int i) {
    int64_t k = merged(j);
    row_span s = blocks_span(&l->s->tower, (int64_t)p->n * join_rows(l->s, p->g, 0), i);
    size_t mark = arena_mark(c->scratch);
    tensor y = join_out(c, l, p, set, s), part;
    if (j->kind == JOIN_POOL) {
        tensor from, by;
        join_taps(l, p, s, &from, &by);
        part = ctx_2d(c, DT_F32, s.n, j->in);
        op_mix(c, part, x, from, by);
    } else {
        part = tensor_rows(x, s.from * k, s.n * k);
    }
    project(c, j, w, part, y);
    join_put(c, l, p, set, s, y);
    arena_reset(c->scratch, mark);
}

int join_deep_slices(const encode_lot *l, const pass *p) {
    return blocks_even(&l->s->tower, (int64_t)p->n * join_rows(l->s, p->g, 0));
}

void join_deep_slice(ctx *c, encode_lot *l, const pass *p, int set, int i) {
    tensor x = tensor_rows(l->x, 0, (int64_t)p->n * tower_rows(&l->s->tower, p->g));
    join_block_of(c, l, p, &l->s->deep.join, l->m->deep[set], set, x, i);
}

/* ---- any ---- */

int join_slices(const encode_lot *l, const pass *p) {
    if (l->s->dual.on) return dual_picture_slices(l, p);
    switch (l->s->join.kind) {
    case JOIN_ATTEND: return attend_slices(l, p);
    case JOIN_PERCEIVER:
    case JOIN_QFORMER:
    case JOIN_READER: return join_layers_slices(l, p);
    case JOIN_NONE:
    case JOIN_LINEAR:
    case JOIN_MLP:
    case JOIN_POOL: break;
    }
    return join_deep_slices(l, p);
}

void join_slice(ctx *c, encode_lot *l, const pass *p, int i) {
    if (l->s->dual.on) {
        dual_picture_slice(c, l, p, i);
        return;
    }
    if (i == 0 && l->join_ids.nd) join_ids_upload(c, l, p);
    switch (l->s->join.kind) {
    case JOIN_ATTEND: attend_slice(c, l, p, i); return;
    case JOIN_PERCEIVER:
    case JOIN_QFORMER:
    case JOIN_READER: join_layers_slice(c, l, p, i); return;
    case JOIN_NONE:
    case JOIN_LINEAR:
    case JOIN_MLP:
    case JOIN_POOL: break;
    }
    tensor x = tensor_rows(l->features, 0, join_part_rows(l, p, PART_TILE));
    join_block_of(c, l, p, &l->s->join, l->m->w + S_FIRST_JOIN, -1, x, i);
}
