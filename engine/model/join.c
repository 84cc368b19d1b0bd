/* join.c - the projector: a tile's features become rows of the decoder's width, a block of rows at a time.
 *
 * Thread: the engine's. Row-exact; scratch is given back. */
#include "engine/model/encode.h"

int join_rows(const model_spec *s, grid g) {
    const join_spec *j = &s->join;
    return j->kind == JOIN_POOL ? (g.w / j->pool) * (g.h / j->pool)
                                : tower_features_rows(&s->tower, g.w, g.h);
}

int join_slices(const model_spec *s, grid g) {
    return (join_rows(s, g) + TOWER_BLOCK_ROWS - 1) / TOWER_BLOCK_ROWS;
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

void join_slice(ctx *c, const encode *e, grid g, tensor features, tensor out, int i) {
    const model *m = e->m;
    const join_spec *j = &m->spec.join;
    int64_t from = (int64_t)i * TOWER_BLOCK_ROWS, n = join_rows(&m->spec, g) - from;
    if (n > TOWER_BLOCK_ROWS) n = TOWER_BLOCK_ROWS;
    tensor rows = tensor_rows(out, from, n), y = rows;
    size_t mark = arena_mark(c->scratch);
    if (m->spec.fuse == FUSE_CROSS) y = ctx_2d(c, DT_F32, n, j->out);
    if (j->kind == JOIN_POOL) {
        tensor h = ctx_2d(c, DT_F32, n, j->in);
        op_mix(c, h, features, tensor_rows(e->pool_from, from, n), tensor_rows(e->pool_by, from, n));
        op_norm(c, h, h, m->w[S_JOIN_NORM_G], NULL, NORM_RMS, j->norm_eps, j->norm_offset);
        op_linear(c, y, h, m->w[S_FC1_W], m->w[S_FC1_B], ACT_NONE, 0);
    } else if (j->kind == JOIN_LINEAR) {
        op_linear(c, y, tensor_rows(features, from, n), m->w[S_FC1_W], m->w[S_FC1_B], ACT_NONE, 0);
    } else {
        tensor h = ctx_2d(c, DT_F32, n, j->hidden);
        op_linear(c, h, tensor_rows(features, from, n), m->w[S_FC1_W], m->w[S_FC1_B], j->activation, 0);
        op_linear(c, y, h, m->w[S_FC2_W], m->w[S_FC2_B], ACT_NONE, 0);
    }
    if (m->spec.fuse == FUSE_CROSS) cross_keep(c, m, y, rows);
    arena_reset(c->scratch, mark);
}
