/* join.c - the projector: a tile's features become rows of the decoder's width, a block of rows at a time.
 *
 * Rows that are merged stand in turn already (tower.c), so k * k of them are one row by their shape alone.
 * Thread: the engine's. Row-exact; scratch is given back. */
#include "engine/model/encode.h"

static int merged(const join_spec *j) {
    return j->merge > 1 ? j->merge * j->merge : 1;
}

int join_rows(const model_spec *s, grid g) {
    int rows = tower_features_rows(&s->tower, g.w, g.h), k = merged(&s->join);
    CHECK(k == 1 || (rows == g.w * g.h && g.w % s->join.merge == 0 && g.h % s->join.merge == 0));
    return rows / k;
}

int join_slices(const model_spec *s, grid g) {
    return (join_rows(s, g) + TOWER_BLOCK_ROWS - 1) / TOWER_BLOCK_ROWS;
}

/* n rows as n / k of k times the width. */
static tensor side_by_side(tensor x, int k) {
    CHECK(x.ld == x.d[1]);
    return tensor_2d(x.data, x.dt, x.d[0] / k, x.d[1] * k);
}

static tensor norm_rows(ctx *c, const model *m, tensor x) {
    const join_spec *j = &m->spec.join;
    tensor y = ctx_2d(c, DT_F32, x.d[0], x.d[1]);
    op_norm(c, y, x, m->w[S_JOIN_G], m->w[S_JOIN_B], j->norm, j->norm_eps, 0);
    return y;
}

void join_slice(ctx *c, const model *m, grid g, tensor features, tensor out, int i) {
    const join_spec *j = &m->spec.join;
    int64_t from = (int64_t)i * TOWER_BLOCK_ROWS, n = join_rows(&m->spec, g) - from, k = merged(j);
    if (n > TOWER_BLOCK_ROWS) n = TOWER_BLOCK_ROWS;
    tensor x = tensor_rows(features, from * k, n * k), y = tensor_rows(out, from, n);
    size_t mark = arena_mark(c->scratch);
    if (j->normed == JOIN_NORM_ROW) x = norm_rows(c, m, x);
    if (k > 1) x = side_by_side(x, (int)k);
    if (j->normed == JOIN_NORM_MERGED) x = norm_rows(c, m, x);
    if (j->kind == JOIN_LINEAR) {
        op_linear(c, y, x, m->w[S_FC1_W], m->w[S_FC1_B], ACT_NONE, 0);
    } else {
        tensor h = ctx_2d(c, DT_F32, n, j->hidden);
        op_linear(c, h, x, m->w[S_FC1_W], m->w[S_FC1_B], j->activation, 0);
        op_linear(c, y, h, m->w[S_FC2_W], m->w[S_FC2_B], ACT_NONE, 0);
    }
    arena_reset(c->scratch, mark);
}
