/* join.c - the projector: a tile's features become rows of the decoder's width, a block of rows at a time.
 *
 * Rows that are merged stand in turn already (tower.c), so k * k of them are one row by their shape alone.
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

int join_slices(const model_spec *s, grid g, int n_text) {
    if (s->dual.on) return dual_picture_slices(s, tower_rows(&s->tower, g));
    int rows = tower_features_rows(&s->tower, g.w, g.h);
    if (s->join.kind == JOIN_PERCEIVER) return perceiver_slices(s, rows);
    if (s->join.kind == JOIN_QFORMER) return qformer_slices(s, rows, n_text);
    if (s->join.kind == JOIN_READER) return reader_slices(s, rows, n_text);
    if (s->join.kind == JOIN_ATTEND) return attend_slices(s, rows);
    return (join_rows(s, g, n_text) + TOWER_BLOCK_ROWS - 1) / TOWER_BLOCK_ROWS;
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

void join_slice(ctx *c, const encode *e, grid g, tensor features, tensor out, int i) {
    const model *m = e->m;
    const join_spec *j = &m->spec.join;
    if (j->kind == JOIN_PERCEIVER) {
        perceiver_slice(c, e, features, out, i);
        return;
    }
    if (j->kind == JOIN_QFORMER) {
        qformer_slice(c, e, features, out, i);
        return;
    }
    if (j->kind == JOIN_READER) {
        reader_slice(c, e, features, out, i);
        return;
    }
    if (j->kind == JOIN_ATTEND) {
        attend_slice(c, e, features, out, i);
        return;
    }
    int64_t from = (int64_t)i * TOWER_BLOCK_ROWS, n = join_rows(&m->spec, g, e->plan.n_text) - from,
            k = merged(j);
    if (n > TOWER_BLOCK_ROWS) n = TOWER_BLOCK_ROWS;
    tensor x = features, rows = tensor_rows(out, from, n), y = rows;
    size_t mark = arena_mark(c->scratch);
    if (m->spec.fuse == FUSE_CROSS) y = ctx_2d(c, DT_F32, n, j->out);
    if (j->kind == JOIN_POOL) {
        x = ctx_2d(c, DT_F32, n, j->in);
        op_mix(c, x, features, tensor_rows(e->pool_from, from, n), tensor_rows(e->pool_by, from, n));
    } else {
        x = tensor_rows(features, from * k, n * k);
    }
    project(c, j, m->w + S_FIRST_JOIN, x, y);
    if (m->spec.fuse == FUSE_CROSS) cross_keep(c, m, y, rows);
    arena_reset(c->scratch, mark);
}

void join_deep_slice(ctx *c, const model *m, int set, tensor x, tensor out, int i) {
    const join_spec *j = &m->spec.deep.join;
    int64_t from = (int64_t)i * TOWER_BLOCK_ROWS, n = out.d[0] - from, k = merged(j);
    if (n > TOWER_BLOCK_ROWS) n = TOWER_BLOCK_ROWS;
    size_t mark = arena_mark(c->scratch);
    project(c, j, m->deep[set], tensor_rows(x, from * k, n * k), tensor_rows(out, from, n));
    arena_reset(c->scratch, mark);
}
