/* perceiver.c - the join that resamples a tile: its features, led through a gated feed-forward, are the context that a few
 * learned latents attend to, layer by layer; the latents are the rows.
 *
 * Each layer attends over the context and the latents themselves. Its slices: keys and values of the context, a block of
 * rows each; then the latents, at once. Row-exact: a tile's rows depend on that tile alone.
 * Thread: the engine's. Source: transformers' modeling_idefics2.py (Idefics2Connector, Idefics2PerceiverResampler).
 * Tested by tests/e2e/test_parity.py. */
#include "engine/model/encode.h"

int perceiver_slices(const model_spec *s, int64_t rows) {
    int blocks = blocks_even(&s->tower, rows);
    return blocks + s->join.stack.n_layers * (blocks + 1);
}

/* join_ids: 0, 1, ... for the latents; {0, latents}; {context and latents}. */
enum { AFTER_LATENTS = 3 };

join_room perceiver_room(const join_spec *j, int64_t rows) {
    return (join_room){
        .own = j->latents, .keys = rows + j->latents, .context = rows, .ids = j->latents + AFTER_LATENTS};
}

static void upload_ids(ctx *c, const encode *e, int64_t rows) {
    int n = e->m->spec.join.latents;
    join_ids_upload(c, e, n, (const int32_t[AFTER_LATENTS]){0, n, (int32_t)rows + n}, AFTER_LATENTS);
}

static void project(ctx *c, const encode *e, tensor features, int64_t from, int64_t n) {
    const model *m = e->m;
    const join_spec *j = &m->spec.join;
    tensor x = tensor_rows(features, from, n), gate = ctx_2d(c, DT_F32, n, j->hidden),
           up = ctx_2d(c, DT_F32, n, j->hidden);
    op_linears(c, x, (linear_to[]){{gate, m->w[S_FC_GATE_W], NULL}, {up, m->w[S_FC1_W], NULL}}, 2);
    op_glu(c, gate, gate, up, j->activation);
    op_linear(c, tensor_rows(e->context, from, n), gate, m->w[S_FC2_W], NULL, ACT_NONE, 0);
}

/* Keys and values of x, normed by gain, from row `at` on; and queries, where there is a q. */
static void keep(ctx *c, const encode *e, const layer_weights *w, layer_slot gain, tensor x, int64_t at,
                 const tensor *q) {
    const stack_spec *k = &e->m->spec.join.stack;
    tensor h = ctx_2d(c, DT_F32, x.d[0], x.d[1]);
    op_norm(c, h, x, w->w[gain], NULL, k->norm, k->norm_eps, 0);
    linear_to to[] = {{tensor_rows(e->join_k, at, x.d[0]), w->w[L_K_W], NULL},
                      {tensor_rows(e->join_v, at, x.d[0]), w->w[L_V_W], NULL},
                      {{0}, w->w[L_Q_W], NULL}};
    if (q) to[2].y = *q;
    op_linears(c, h, to, q ? 3 : 2);
}

static void attend(ctx *c, const encode *e, int layer, int64_t rows) {
    const stack_spec *k = &e->m->spec.join.stack;
    const layer_weights *w = &e->m->join[layer];
    int64_t n = e->m->spec.join.latents, all = rows + n;
    tensor x = e->join_x, q = ctx_2d(c, DT_F32, n, (int64_t)k->heads * k->head_dim);
    keep(c, e, w, L_NORM1_G, x, rows, &q);
    layer_run run = {0};
    run.attn.n_seqs = 1;
    run.attn.q_start = join_ids_at(e, n, 2);
    run.attn.kv_len = join_ids_at(e, n + 2, 1);
    stack_attend(c, k, w, layer, x, q, tensor_rows(e->join_k, 0, all), tensor_rows(e->join_v, 0, all), &run);
    stack_feed_forward(c, k, w, x);
}

void perceiver_slice(ctx *c, const encode *e, tensor features, tensor out, int i) {
    const model *m = e->m;
    const stack_spec *k = &m->spec.join.stack;
    int64_t rows = features.d[0];
    int blocks = blocks_even(&m->spec.tower, rows), layer = (i - blocks) / (blocks + 1),
        at = (i - blocks) % (blocks + 1);
    row_span s = blocks_span(&m->spec.tower, rows, i < blocks ? i : at); /* the latents have none */
    size_t mark = arena_mark(c->scratch);
    if (i == 0) {
        upload_ids(c, e, rows);
        op_embed(c, e->join_x, m->w[S_LATENTS], join_ids_at(e, 0, m->spec.join.latents), 1);
    }
    if (i < blocks) {
        project(c, e, features, s.from, s.n);
    } else if (at < blocks) {
        keep(c, e, &m->join[layer], L_CONTEXT_G, tensor_rows(e->context, s.from, s.n), s.from, NULL);
    } else {
        attend(c, e, layer, rows);
        if (layer + 1 == k->n_layers)
            op_norm(c, out, e->join_x, m->w[S_JOIN_G], NULL, k->norm, k->norm_eps, 0);
    }
    arena_reset(c->scratch, mark);
}
