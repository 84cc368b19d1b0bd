/* decoder.c - the decoder's forward pass over one step's ragged rows.
 *
 * Thread: the engine's. Everything here is row-exact: a row's bits depend on its sequence's own past and its own span
 * alone. Activations live in the ctx's scratch; the logits stay there until the caller resets it. */
#include "engine/model/impl.h"

/* Rows as layer 0 takes them: looked up or a picture's, led to the stack's width, with their learned positions. */
static void embed(ctx *c, const model *m, const step *s, tensor x) {
    const text_spec *t = &m->spec.text;
    size_t mark = arena_mark(c->scratch);
    tensor e = t->embed_width ? ctx_2d(c, DT_F32, x.d[0], t->embed_width) : x;
    op_embed_splice(c, e, m->w[S_EMBED], s->ids, t->embed_scale, s->splices, s->n_splices);
    if (t->embed_width) op_linear(c, x, e, m->w[S_EMBED_IN], NULL, ACT_NONE, 0);
    if (t->learned_pos) op_embed_add(c, x, m->w[S_EMBED_POS], s->pos);
    if (t->embed_norm)
        op_norm(c, x, x, m->w[S_EMBED_NORM_G], m->w[S_EMBED_NORM_B], t->stack.norm, t->stack.norm_eps, 0);
    arena_reset(c->scratch, mark);
}

/* What pictures' rows get behind layer i besides. */
static void add_deep(ctx *c, const model *m, const step *s, int i, tensor x) {
    if (i >= m->spec.deep.n) return;
    for (int k = 0; k < s->n_splices; k++) {
        const struct step_source *from = &s->sources[k];
        int64_t n = s->splices[k].rows.d[0];
        CHECK(from->picture);
        op_add(c, tensor_rows(x, s->splices[k].row, n),
               tensor_rows(encode_deep(from->picture, i), from->from, n));
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
    if (t->head_transform) {
        tensor out = ctx_2d(c, DT_F32, s->n_out, k->width);
        op_linear(c, out, last, m->w[S_HEAD_FC_W], m->w[S_HEAD_FC_B], k->activation, 0);
        op_norm(c, out, out, m->w[S_HEAD_NORM_G], m->w[S_HEAD_NORM_B], NORM_LAYER, k->norm_eps, 0);
        last = out;
    }
    op_linear(c, logits, last, t->tied ? m->w[S_EMBED] : m->w[S_HEAD], m->w[S_HEAD_B], ACT_NONE, 0);
    if (t->logit_softcap > 0) op_softcap(c, logits, t->logit_softcap);
}

static tensor part(tensor t, int64_t from, int64_t n) {
    return t.nd ? tensor_rows(t, from, n) : t;
}

/* One layer over more rows than one pass takes: their q, and the pages with all k and v, stand between two passes over
 * blocks, as in a tower (tower.c). */
static void layer_in_blocks(ctx *c, const model *m, const step *s, int i, tensor x, tensor q,
                            const layer_run *run) {
    const stack_spec *k = &m->spec.text.stack;
    const layer_weights *w = &m->text[i];
    int64_t kd = (int64_t)k->kv_heads * k->head_dim;
    for (int pass = 0; pass < 2; pass++)
        for (int b = 0; b < s->n_blocks; b++) {
            int64_t from = (int64_t)b * s->block_rows, n = s->n_rows - from;
            if (n > s->block_rows) n = s->block_rows;
            tensor xb = tensor_rows(x, from, n), qb = tensor_rows(q, from, n);
            layer_run one = *run;
            one.cs = part(run->cs, from, n);
            one.slots = part(run->slots, from, n);
            one.attn.limit = part(run->attn.limit, from, n);
            one.attn.q_start = s->blocks[b].q_start;
            one.attn.kv_len = s->blocks[b].kv_len;
            size_t mark = arena_mark(c->scratch);
            if (pass == 0) {
                tensor kb = ctx_2d(c, DT_F32, n, kd), vb = ctx_2d(c, DT_F32, n, kd);
                stack_project(c, k, w, xb, qb, kb, vb, &one);
            } else {
                stack_rest(c, k, w, i, xb, qb, (tensor){0}, (tensor){0}, &one);
            }
            arena_reset(c->scratch, mark);
        }
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
    run.attn.limit = s->limit;
    run.attn.limit_spares = m->spec.both_ways == BOTH_PROMPT;
    tensor q = {0};
    if (s->n_blocks) q = ctx_2d(c, DT_F32, s->n_rows, (int64_t)k->heads * k->head_dim);
    for (int i = 0; i < k->n_layers && ctx_ok(c); i++) {
        if (k->cross[i]) {
            cross_layer(c, m, i, x, s);
            continue;
        }
        run.kc = kv->k[i];
        run.vc = kv->v[i];
        run.cs = k->window[i] && local.nd ? local : cs;
        if (k->beside[i]) {
            CHECK(!s->n_blocks);
            stack_attention(c, k, &m->text[i], i, x, &run);
            cross_beside(c, m, i, x, s);
            stack_feed_forward(c, k, &m->text[i], x);
        } else if (s->n_blocks) {
            layer_in_blocks(c, m, s, i, x, q, &run);
        } else {
            stack_layer(c, k, &m->text[i], i, x, &run);
        }
        add_deep(c, m, s, i, x);
    }
    if (s->n_out > 0) head(c, m, s, x, logits);
    arena_reset(c->scratch, mark);
    return logits;
}
