/* dual.c - see dual.h: texts through their tower, and the head that makes one row of a picture's.
 *
 * Thread: the engine's. Every op is row-exact, and a picture's head runs in slices over fixed blocks of rows as the
 * tower before it does; so neither company nor where an encode stops changes a bit. */
#include "engine/model/dual.h"

#include "engine/model/encode.h"

const dual_rule *dual_rule_of(const model *m) {
    return &m->dual->rule;
}

tensor dual_text(ctx *c, const model *m, const step *s) {
    const text_spec *t = &m->spec.text;
    const stack_spec *k = &t->stack;
    tensor out = ctx_2d(c, DT_F32, s->n_out, m->spec.dual.width);
    size_t mark = arena_mark(c->scratch);
    tensor x = ctx_2d(c, DT_F32, s->n_rows, k->width);
    op_embed(c, x, m->w[S_EMBED], s->ids, 1);
    op_embed_add(c, x, m->w[S_EMBED_POS], s->pos);
    layer_run run = {0};
    run.attn.n_seqs = s->n_seqs;
    run.attn.q_start = s->q_start;
    run.attn.kv_len = s->kv_len;
    for (int i = 0; i < k->n_layers && ctx_ok(c); i++) stack_layer(c, k, &m->text[i], i, x, &run);
    tensor last = ctx_2d(c, DT_F32, s->n_out, k->width);
    op_gather(c, last, x, s->out_rows);
    op_norm(c, last, last, m->w[S_NORM_G], m->w[S_NORM_B], k->norm, k->norm_eps, 0);
    op_linear(c, out, last, m->dual->w[DUAL_TEXT_W], m->dual->w[DUAL_TEXT_B], ACT_NONE, 0);
    arena_reset(c->scratch, mark);
    return out;
}

/* ---- a picture's head: of all pictures of a pass, a tile each ---- */

static int64_t features_rows(const encode_lot *l, const pass *p) {
    return (int64_t)p->n * tower_rows(&l->s->tower, p->g);
}

int dual_picture_slices(const encode_lot *l, const pass *p) {
    return l->s->dual.head == DUAL_HEAD_PROBE ? blocks_even(&l->s->tower, features_rows(l, p)) + 1 : 1;
}

static void project_firsts(ctx *c, const encode_lot *l, const pass *p) {
    row_span all = {0, p->n};
    tensor out = join_out(c, l, p, -1, all), x = ctx_2d(c, DT_F32, p->n, l->s->tower.stack.width);
    op_gather(c, x, l->features, tower_firsts(l, p));
    op_linear(c, out, x, l->m->dual->w[DUAL_IMAGE_W], NULL, ACT_NONE, 0);
    join_put(c, l, p, -1, all, out);
}

static void probe_keys(ctx *c, const encode_lot *l, row_span s) {
    weight *const *w = l->m->dual->w;
    tensor x = tensor_rows(l->features, s.from, s.n);
    const linear_to kv[] = {{tensor_rows(l->k, s.from, s.n), w[DUAL_K_W], w[DUAL_K_B]},
                            {tensor_rows(l->v, s.from, s.n), w[DUAL_V_W], w[DUAL_V_B]}};
    op_linears(c, x, kv, 2);
}

static void probe_looks(ctx *c, const encode_lot *l, const pass *p) {
    const stack_spec *k = &l->s->tower.stack;
    weight *const *d = l->m->dual->w;
    row_span all = {0, p->n};
    int64_t w = k->width, rows = tower_rows(&l->s->tower, p->g);
    tensor out = join_out(c, l, p, -1, all), probe = ctx_2d(c, DT_F32, 1, w), q = ctx_2d(c, DT_F32, 1, w),
           y = ctx_2d(c, DT_F32, p->n, w), up = ctx_2d(c, DT_F32, p->n, k->ffn), zero = tower_one(l, p);
    zero.d[0] = 1;
    op_embed(c, probe, d[DUAL_PROBE], zero, 1);
    op_linear(c, q, probe, d[DUAL_Q_W], d[DUAL_Q_B], ACT_NONE, 0);
    attn_args a = {
        .scale = k->attn_scale, .n_seqs = 1, .q_start = tower_one(l, p), .kv_len = tower_len(l, p)};
    for (int i = 0; i < p->n; i++)
        op_attn(c, tensor_heads(tensor_rows(y, i, 1), k->heads, k->head_dim),
                tensor_heads(q, k->heads, k->head_dim),
                tensor_heads(tensor_rows(l->k, i * rows, rows), k->kv_heads, k->head_dim),
                tensor_heads(tensor_rows(l->v, i * rows, rows), k->kv_heads, k->head_dim), &a);
    op_linear(c, out, y, d[DUAL_O_W], d[DUAL_O_B], ACT_NONE, 0);
    op_norm(c, y, out, d[DUAL_NORM_G], d[DUAL_NORM_B], k->norm, k->norm_eps, 0);
    op_linear(c, up, y, d[DUAL_UP_W], d[DUAL_UP_B], k->activation, 0);
    op_linear(c, out, up, d[DUAL_DOWN_W], d[DUAL_DOWN_B], ACT_NONE, LINEAR_ADD);
    join_put(c, l, p, -1, all, out);
}

void dual_picture_slice(ctx *c, const encode_lot *l, const pass *p, int i) {
    size_t mark = arena_mark(c->scratch);
    row_span s = blocks_span(&l->s->tower, features_rows(l, p), i);
    if (l->s->dual.head == DUAL_HEAD_FIRST)
        project_firsts(c, l, p);
    else if (s.n > 0)
        probe_keys(c, l, s);
    else
        probe_looks(c, l, p);
    arena_reset(c->scratch, mark);
}
