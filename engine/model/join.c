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

static tensor norm_rows(ctx *c, const join_spec *j, weight *const *w, tensor x) {
    tensor y = ctx_2d(c, DT_F32, x.d[0], x.d[1]);
    op_norm(c, y, x, w[S_JOIN_G - S_FIRST_JOIN], w[S_JOIN_B - S_FIRST_JOIN], j->norm, j->norm_eps, 0);
    return y;
}

/* Block i of out's rows. w: from S_FIRST_JOIN on. */
static void join_block(ctx *c, const join_spec *j, weight *const *w, tensor features, tensor out, int i) {
    int64_t from = (int64_t)i * TOWER_BLOCK_ROWS, n = out.d[0] - from, k = merged(j);
    if (n > TOWER_BLOCK_ROWS) n = TOWER_BLOCK_ROWS;
    tensor x = tensor_rows(features, from * k, n * k), y = tensor_rows(out, from, n);
    const weight *fc1 = w[S_FC1_W - S_FIRST_JOIN], *bias1 = w[S_FC1_B - S_FIRST_JOIN];
    size_t mark = arena_mark(c->scratch);
    if (j->normed == JOIN_NORM_ROW) x = norm_rows(c, j, w, x);
    if (k > 1) x = side_by_side(x, (int)k);
    if (j->normed == JOIN_NORM_MERGED) x = norm_rows(c, j, w, x);
    if (j->kind == JOIN_LINEAR) {
        op_linear(c, y, x, fc1, bias1, ACT_NONE, 0);
    } else {
        tensor h = ctx_2d(c, DT_F32, n, j->hidden);
        op_linear(c, h, x, fc1, bias1, j->activation, 0);
        op_linear(c, y, h, w[S_FC2_W - S_FIRST_JOIN], w[S_FC2_B - S_FIRST_JOIN], ACT_NONE, 0);
    }
    arena_reset(c->scratch, mark);
}

void join_slice(ctx *c, const model *m, tensor features, tensor out, int i) {
    join_block(c, &m->spec.join, m->w + S_FIRST_JOIN, features, out, i);
}

void join_deep_slice(ctx *c, const model *m, int set, tensor x, tensor out, int i) {
    join_block(c, &m->spec.deep.join, m->deep[set], x, out, i);
}
