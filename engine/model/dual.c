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

/* ---- a picture's head ---- */

int dual_picture_slices(const model_spec *s, int rows) {
    return s->dual.head == DUAL_HEAD_PROBE ? blocks_even(&s->tower, rows) + 1 : 1;
}

/* Keys and values of rows [from, from + n). */
static void probe_keys(ctx *c, const model *m, const dual_picture *p, int64_t from, int64_t n) {
    const dual_part *d = m->dual;
    tensor x = tensor_rows(p->x, from, n);
    const linear_to kv[] = {{tensor_rows(p->k, from, n), d->w[DUAL_K_W], d->w[DUAL_K_B]},
                            {tensor_rows(p->v, from, n), d->w[DUAL_V_W], d->w[DUAL_V_B]}};
    op_linears(c, x, kv, 2);
}

static void probe_looks(ctx *c, const model *m, const dual_picture *p) {
    const stack_spec *k = &m->spec.tower.stack;
    const dual_part *d = m->dual;
    int64_t w = k->width;
    size_t mark = arena_mark(c->scratch);
    tensor probe = ctx_2d(c, DT_F32, 1, w), q = ctx_2d(c, DT_F32, 1, w), y = ctx_2d(c, DT_F32, 1, w);
    tensor up = ctx_2d(c, DT_F32, 1, k->ffn), zero = p->one;
    zero.d[0] = 1;
    op_embed(c, probe, d->w[DUAL_PROBE], zero, 1);
    op_linear(c, q, probe, d->w[DUAL_Q_W], d->w[DUAL_Q_B], ACT_NONE, 0);
    attn_args a = {.scale = k->attn_scale, .n_seqs = 1, .q_start = p->one, .kv_len = p->len};
    op_attn(c, tensor_heads(y, k->heads, k->head_dim), tensor_heads(q, k->heads, k->head_dim),
            tensor_heads(p->k, k->kv_heads, k->head_dim), tensor_heads(p->v, k->kv_heads, k->head_dim), &a);
    op_linear(c, p->out, y, d->w[DUAL_O_W], d->w[DUAL_O_B], ACT_NONE, 0);
    op_norm(c, y, p->out, d->w[DUAL_NORM_G], d->w[DUAL_NORM_B], k->norm, k->norm_eps, 0);
    op_linear(c, up, y, d->w[DUAL_UP_W], d->w[DUAL_UP_B], k->activation, 0);
    op_linear(c, p->out, up, d->w[DUAL_DOWN_W], d->w[DUAL_DOWN_B], ACT_NONE, LINEAR_ADD);
    arena_reset(c->scratch, mark);
}

void dual_picture_slice(ctx *c, const model *m, const dual_picture *p, int slice) {
    row_span b = blocks_span(&m->spec.tower, p->x.d[0], slice);
    if (m->spec.dual.head == DUAL_HEAD_FIRST)
        op_linear(c, p->out, tensor_rows(p->x, 0, 1), m->dual->w[DUAL_IMAGE_W], NULL, ACT_NONE, 0);
    else if (b.n > 0)
        probe_keys(c, m, p, b.from, b.n);
    else
        probe_looks(c, m, p);
}
