/* attend.c - the join that pools a tile by attention: learned latents attend once to its features, both normed, and what they
 * find, led through one matrix and normed, are the rows; no residual, no feed-forward.
 *
 * The latents do not see each other, so a row depends on its own latent and the tile alone. All tiles of a pass go together
 * (join_room.c). Slices: keys and values of the features, a block of rows each; then a block of latents each.
 * Thread: the engine's. Source: open_clip's transformer.py (AttentionalPooler, VisionTransformer._pool).
 * Tested by tests/e2e/test_parity.py, tests/engine/model/test_lot.c. */
#include "engine/model/encode.h"

int attend_slices(const encode_lot *l, const pass *p) {
    return join_part_blocks(l, p, PART_TILE) + join_part_blocks(l, p, PART_LATENTS);
}

static void attend(ctx *c, const encode_lot *l, const pass *p, const join_block *b) {
    const model *m = l->m;
    const join_spec *j = &m->spec.join;
    const stack_spec *k = &j->stack;
    const layer_weights *w = &m->join[0];
    int64_t n = b->rows.n;
    tensor x = ctx_2d(c, DT_F32, n, k->width), q = ctx_2d(c, DT_F32, n, (int64_t)k->heads * k->head_dim),
           y = ctx_2d(c, DT_F32, n, q.d[1]), out = join_out(c, l, p, -1, b->rows);
    layer_run run = join_sees(l, p, b, KEYS_OWN);
    run.attn.scale = k->attn_scale;
    op_embed(c, x, m->w[S_LATENTS], join_which(l, p, b), 1);
    stack_query(c, k, w, x, q);
    op_attn(c, tensor_heads(y, k->heads, k->head_dim), tensor_heads(q, k->heads, k->head_dim), run.kc, run.vc,
            &run.attn);
    op_linear(c, out, y, w->w[L_O_W], w->w[L_O_B], ACT_NONE, 0);
    op_norm(c, out, out, m->w[S_JOIN_G], m->w[S_JOIN_B], j->norm, j->norm_eps, j->norm_offset);
    join_put(c, l, p, -1, b->rows, out);
}

void attend_slice(ctx *c, const encode_lot *l, const pass *p, int i) {
    int of_tiles = join_part_blocks(l, p, PART_TILE);
    size_t mark = arena_mark(c->scratch);
    if (i < of_tiles) {
        join_tile_keys(c, l, p, 0, l->features,
                       blocks_span(&l->s->tower, join_part_rows(l, p, PART_TILE), i));
    } else {
        join_block b = join_block_at(l, p, PART_LATENTS, i - of_tiles);
        attend(c, l, p, &b);
    }
    arena_reset(c->scratch, mark);
}
