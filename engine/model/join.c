/* join.c - the projector: a tile's features become rows of the decoder's width, a block of rows at a time.
 *
 * Thread: the engine's. Row-exact; scratch is given back. */
#include "engine/model/encode.h"

int join_rows(const model_spec *s, grid g) {
    if (s->dual.on) return 1;
    return tower_features_rows(&s->tower, g.w, g.h);
}

int join_slices(const model_spec *s, grid g) {
    if (s->dual.on) return dual_picture_slices(s, tower_rows(&s->tower, g));
    return (join_rows(s, g) + TOWER_BLOCK_ROWS - 1) / TOWER_BLOCK_ROWS;
}

void join_slice(ctx *c, const model *m, grid g, tensor features, tensor out, int i) {
    const join_spec *j = &m->spec.join;
    int64_t from = (int64_t)i * TOWER_BLOCK_ROWS, n = join_rows(&m->spec, g) - from;
    if (n > TOWER_BLOCK_ROWS) n = TOWER_BLOCK_ROWS;
    tensor x = tensor_rows(features, from, n), y = tensor_rows(out, from, n);
    size_t mark = arena_mark(c->scratch);
    if (j->kind == JOIN_LINEAR) {
        op_linear(c, y, x, m->w[S_FC1_W], m->w[S_FC1_B], ACT_NONE, 0);
    } else {
        tensor h = ctx_2d(c, DT_F32, n, j->hidden);
        op_linear(c, h, x, m->w[S_FC1_W], m->w[S_FC1_B], j->activation, 0);
        op_linear(c, y, h, m->w[S_FC2_W], m->w[S_FC2_B], ACT_NONE, 0);
    }
    arena_reset(c->scratch, mark);
}
