/* decoder.c - the decoder's forward pass over one step's ragged rows.
 *
 * Thread: the engine's. Everything here is row-exact: a row's bits depend on its sequence's own past alone. Activations
 * live in the ctx's scratch; the logits stay there until the caller resets it. */
#include "engine/model/impl.h"

/* Rows as layer 0 takes them: looked up or a picture's, led to the stack's width, with their learned positions. */
static void embed(ctx *c, const model *m, const step *s, tensor x) {
    const text_spec *t = &m->spec.text;
    size_t mark = arena_mark(c->scratch);
    tensor e = t->embed_width ? ctx_2d(c, DT_F32, x.d[0], t->embed_width) : x;
    op_embed(c, e, m->w[S_EMBED], s->ids, t->embed_scale);
    for (int i = 0; i < s->n_splices; i++) {
        const struct step_splice *p = &s->splices[i];
        op_copy(c, tensor_rows(e, p->row, p->rows.d[0]), p->rows);
    }
    if (t->embed_width) op_linear(c, x, e, m->w[S_EMBED_IN], NULL, ACT_NONE, 0);
    if (t->learned_pos) op_embed_add(c, x, m->w[S_EMBED_POS], s->pos);
    arena_reset(c->scratch, mark);
}

/* What pictures' rows get behind layer i besides. */
static void add_deep(ctx *c, const model *m, const step *s, int i, tensor x) {
    if (i >= m->spec.deep.n) return;
    for (int k = 0; k < s->n_splices; k++) {
        const struct step_splice *p = &s->splices[k];
        int64_t n = p->rows.d[0];
        CHECK(p->picture);
        op_add(c, tensor_rows(x, p->row, n), tensor_rows(encode_deep(p->picture, i), p->from, n));
    }
}

static tensor rope_table(ctx *c, const step *s, const model_rope *r, const rope_spec *spec) {
    if (spec->kind == ROPE_NONE) return (tensor){0};
    tensor cs = ctx_tensor(c, DT_F32, 3, (int64_t[]){s->n_rows, spec->dims / 2, 2});
    op_rope_table(c, cs, s->pos, s->rope_len, &r->args);
    return cs;
}

static void head(ctx *c, const model *m, const step *s, tensor x, tensor logits) {
    const text_spec *t = &m->spec.text;
    const stack_spec *k = &t->stack;
    tensor last = ctx_2d(c, DT_F32, s->n_out, k->width);
    op_gather(c, last, x, s->out_rows);
    if (!t->no_final_norm)
        op_norm(c, last, last, m->w[S_NORM_G], m->w[S_NORM_B], k->norm, k->norm_eps,
                k->norm_plain ? 1 : k->norm_offset);
    if (t->embed_width) {
        tensor out = ctx_2d(c, DT_F32, s->n_out, t->embed_width);
        op_linear(c, out, last, m->w[S_EMBED_OUT], NULL, ACT_NONE, 0);
        last = out;
    }
    op_linear(c, logits, last, t->tied ? m->w[S_EMBED] : m->w[S_HEAD], NULL, ACT_NONE, 0);
    if (t->logit_softcap > 0) op_softcap(c, logits, t->logit_softcap);
}

tensor decoder_forward(ctx *c, const model *m, const kv_pool *kv, const step *s) {
    const text_spec *t = &m->spec.text;
    const stack_spec *k = &t->stack;
    CHECK(kv->n_layers == k->n_layers);
    tensor logits = ctx_2d(c, DT_F32, s->n_out, t->vocab);
    size_t mark = arena_mark(c->scratch);
    tensor x = ctx_2d(c, DT_F32, s->n_rows, k->width);
    embed(c, m, s, x);
    tensor cs = rope_table(c, s, &m->rope, &k->rope),
           local = rope_table(c, s, &m->rope_local, &t->rope_local);
    layer_run run = {.slots = s->slots};
    run.attn.n_seqs = s->n_seqs;
    run.attn.q_start = s->q_start;
    run.attn.kv_len = s->kv_len;
    run.attn.pages = s->pages;
    for (int i = 0; i < k->n_layers && ctx_ok(c); i++) {
        run.kc = kv->k[i];
        run.vc = kv->v[i];
        run.cs = k->window[i] && local.nd ? local : cs;
        stack_layer(c, k, &m->text[i], i, x, &run);
        add_deep(c, m, s, i, x);
    }
    if (s->n_out > 0) head(c, m, s, x, logits);
    arena_reset(c->scratch, mark);
    return logits;
}
