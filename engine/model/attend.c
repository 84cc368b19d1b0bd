/* attend.c - the join that pools a tile by attention: learned latents attend once to its features, both normed, and what they
 * find, led through one matrix and normed, are the rows; no residual, no feed-forward.
 *
 * The latents do not see each other, so a row depends on its own latent and the tile alone. Slices: keys and values of the
 * features, a block of rows each; then a block of latents each.
 * Thread: the engine's. Source: open_clip's transformer.py (AttentionalPooler, VisionTransformer._pool).
 * Tested by tests/e2e/test_parity.py. */
#include "engine/model/encode.h"

int attend_rows(const join_spec *j) {
    return j->latents - (j->drop_first ? 1 : 0);
}

/* join_ids: 0, 1, ... for the latents; {rows}; {0, a full block}; {0, the last one's latents}. */
enum { AFTER_LATENTS = 5 };

join_room attend_room(const join_spec *j, int64_t rows) {
    return (join_room){.keys = rows, .ids = j->latents + AFTER_LATENTS};
}

int attend_slices(const model_spec *s, int64_t rows) {
    return blocks_even(&s->tower, rows) + blocks_even(&s->tower, attend_rows(&s->join));
}

static void upload_ids(ctx *c, const encode *e, int64_t rows) {
    const join_spec *j = &e->m->spec.join;
    const tower_spec *t = &e->m->spec.tower;
    int out = attend_rows(j);
    int32_t last = (int32_t)blocks_span(t, out, blocks_even(t, out) - 1).n;
    join_ids_upload(c, e, j->latents,
                    (const int32_t[AFTER_LATENTS]){(int32_t)rows, 0, t->block_rows, 0, last}, AFTER_LATENTS);
}

static void attend(ctx *c, const encode *e, int block, int64_t rows, tensor out) {
    const model *m = e->m;
    const join_spec *j = &m->spec.join;
    const stack_spec *k = &j->stack;
    const layer_weights *w = &m->join[0];
    int64_t most = m->spec.tower.block_rows, n = out.d[0], first = block * most + (j->drop_first ? 1 : 0);
    tensor x = ctx_2d(c, DT_F32, n, k->width), q = ctx_2d(c, DT_F32, n, (int64_t)k->heads * k->head_dim),
           y = ctx_2d(c, DT_F32, n, q.d[1]);
    op_embed(c, x, m->w[S_LATENTS], join_ids_at(e, first, n), 1);
    stack_query(c, k, w, x, q);
    attn_args a = {.scale = k->attn_scale,
                   .n_seqs = 1,
                   .q_start = join_ids_at(e, j->latents + (n == most ? 1 : 3), 2),
                   .kv_len = join_ids_at(e, j->latents, 1)};
    op_attn(c, tensor_heads(y, k->heads, k->head_dim), tensor_heads(q, k->heads, k->head_dim),
            tensor_heads(tensor_rows(e->join_k, 0, rows), k->kv_heads, k->head_dim),
            tensor_heads(tensor_rows(e->join_v, 0, rows), k->kv_heads, k->head_dim), &a);
    op_linear(c, out, y, w->w[L_O_W], w->w[L_O_B], ACT_NONE, 0);
    op_norm(c, out, out, m->w[S_JOIN_G], m->w[S_JOIN_B], j->norm, j->norm_eps, j->norm_offset);
}

void attend_slice(ctx *c, const encode *e, tensor features, tensor out, int i) {
    const model *m = e->m;
    const join_spec *j = &m->spec.join;
    int64_t rows = features.d[0];
    const tower_spec *t = &m->spec.tower;
    int blocks = blocks_even(t, rows), block = i < blocks ? i : i - blocks;
    row_span b = blocks_span(t, i < blocks ? rows : out.d[0], block);
    size_t mark = arena_mark(c->scratch);
    if (i == 0) upload_ids(c, e, rows);
    if (i < blocks) {
        stack_context(c, &j->stack, &m->join[0], tensor_rows(features, b.from, b.n),
                      tensor_rows(e->join_k, b.from, b.n), tensor_rows(e->join_v, b.from, b.n));
    } else {
        tensor to = tensor_rows(out, b.from, b.n), y = to;
        if (m->spec.fuse == FUSE_CROSS) y = ctx_2d(c, DT_F32, to.d[0], j->out);
        attend(c, e, block, rows, y);
        if (m->spec.fuse == FUSE_CROSS) cross_keep(c, m, y, to);
    }
    arena_reset(c->scratch, mark);
}
