/* decoder.c - the decoder's forward pass over one step's ragged rows.
 *
 * Thread: the engine's. Everything here is row-exact: a row's bits depend on its sequence's own past alone. Activations
 * live in the ctx's scratch; the logits stay there until the caller resets it. */
#include "engine/model/impl.h"

tensor decoder_forward(ctx *c, const model *m, const kv_pool *kv, const step *s) {
    const text_spec *t = &m->spec.text;
    const stack_spec *k = &t->stack;
    int64_t n = s->n_rows, rot = k->rope.dims / 2;
    CHECK(kv->n_layers == k->n_layers);
    tensor logits = ctx_2d(c, DT_F32, s->n_out, t->vocab);
    size_t mark = arena_mark(c->scratch);
    tensor x = ctx_2d(c, DT_F32, n, k->width);
    op_embed(c, x, m->w[S_EMBED], s->ids, t->embed_scale);
    for (int i = 0; i < s->n_splices; i++) {
        const struct step_splice *p = &s->splices[i];
        op_copy(c, tensor_rows(x, p->row, p->rows.d[0]), p->rows);
    }
    tensor cs = {0};
    if (k->rope.kind != ROPE_NONE) {
        cs = ctx_tensor(c, DT_F32, 3, (int64_t[]){n, rot, 2});
        op_rope_table(c, cs, s->pos, s->rope_len, &m->rope);
    }
    layer_run run = {.cs = cs, .slots = s->slots};
    run.attn.n_seqs = s->n_seqs;
    run.attn.q_start = s->q_start;
    run.attn.kv_len = s->kv_len;
    run.attn.pages = s->pages;
    for (int i = 0; i < k->n_layers && ctx_ok(c); i++) {
        run.kc = kv->k[i];
        run.vc = kv->v[i];
        stack_layer(c, k, &m->text[i], i, x, &run);
    }
    if (s->n_out > 0) {
        tensor last = ctx_2d(c, DT_F32, s->n_out, k->width);
        op_gather(c, last, x, s->out_rows);
        op_norm(c, last, last, m->w[S_NORM_G], m->w[S_NORM_B], k->norm, k->norm_eps, 0);
        op_linear(c, logits, last, t->tied ? m->w[S_EMBED] : m->w[S_HEAD], NULL, ACT_NONE, 0);
    }
    arena_reset(c->scratch, mark);
    return logits;
}
