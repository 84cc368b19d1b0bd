/* qformer.c - the join of a few learned queries: normed, then layer by layer they attend to each other and in some layers
 * beside that to a tile's features; a matrix leads them to the decoder's width, and they are the rows.
 *
 * A layer's slices, a block of rows each: projections of the queries; keys and values of the tile, where the layer attends to
 * it; then attention, to either, and the feed-forward. As in tower.c only the last change the queries, and they read no
 * others' but as keys and values. Keys and values of the queries stand first in join_k and join_v, those of the tile behind.
 * Row-exact: a tile's rows depend on that tile alone.
 * Thread: the engine's. Source: transformers' modeling_blip_2.py (Blip2QFormerModel). Tested by tests/e2e/test_parity.py. */
#include "engine/model/encode.h"

static tensor rows_of(tensor t, row_span s) {
    return tensor_rows(t, s.from, s.n);
}

/* Slices of a layer: twice the queries' blocks, and in between the tile's. */
static int layer_slices(const model_spec *s, int layer, int64_t rows) {
    const join_spec *j = &s->join;
    return 2 * blocks_even(&s->tower, j->latents) +
           (j->stack.beside[layer] ? blocks_even(&s->tower, rows) : 0);
}

int qformer_slices(const model_spec *s, int rows) {
    int n = 0;
    for (int i = 0; i < s->join.stack.n_layers; i++) n += layer_slices(s, i, rows);
    return n;
}

/* join_ids: 0, 1, ... for the queries; {0, a full block}; {0, the last one's rows}; {queries}; {features}. */
enum { AFTER_LATENTS = 6 };

join_room qformer_room(const join_spec *j, int64_t rows) {
    return (join_room){
        .own = j->latents, .queries = true, .keys = j->latents + rows, .ids = j->latents + AFTER_LATENTS};
}

static void upload_ids(ctx *c, const encode *e, int64_t rows) {
    const tower_spec *t = &e->m->spec.tower;
    int n = e->m->spec.join.latents;
    int32_t *v = mem_calloc((size_t)n + AFTER_LATENTS, sizeof *v);
    if (!v) {
        status_set(&c->st, ST_NO_MEMORY, "no memory for positions");
        return;
    }
    for (int i = 0; i < n; i++) v[i] = i;
    v[n + 1] = t->block_rows;
    v[n + 3] = (int32_t)blocks_span(t, n, blocks_even(t, n) - 1).n;
    v[n + 4] = n;
    v[n + 5] = (int32_t)rows;
    ctx_upload(c, e->join_ids, v);
    mem_free(v);
}

/* One sequence: the queries of a block, and all keys of the queries or of the tile. */
static layer_run run_of(const encode *e, row_span s, bool others) {
    int64_t n = e->m->spec.join.latents;
    layer_run run = {0};
    run.attn.n_seqs = 1;
    run.attn.q_start = join_ids_at(e, s.n == e->m->spec.tower.block_rows ? n : n + 2, 2);
    run.attn.kv_len = join_ids_at(e, others ? n + 5 : n + 4, 1);
    return run;
}

static void project(ctx *c, const encode *e, int layer, row_span s) {
    const model *m = e->m;
    const stack_spec *k = &m->spec.join.stack;
    layer_run run = {0};
    tensor x = rows_of(e->join_x, s);
    if (layer == 0) {
        op_embed(c, x, m->w[S_LATENTS], join_ids_at(e, s.from, s.n), 1);
        op_norm(c, x, x, m->w[S_JOIN_G], m->w[S_JOIN_B], k->norm, k->norm_eps, 0);
    }
    stack_project(c, k, &m->join[layer], x, rows_of(e->join_q, s), rows_of(e->join_k, s),
                  rows_of(e->join_v, s), &run);
}

static void keep(ctx *c, const encode *e, int layer, tensor features, row_span s) {
    row_span at = {e->m->spec.join.latents + s.from, s.n};
    stack_beside_keep(c, &e->m->join[layer], rows_of(features, s), rows_of(e->join_k, at),
                      rows_of(e->join_v, at));
}

static void attend(ctx *c, const encode *e, int layer, int64_t rows, tensor out, row_span s) {
    const model *m = e->m;
    const join_spec *j = &m->spec.join;
    const layer_weights *w = &m->join[layer];
    row_span own = {0, j->latents}, others = {j->latents, rows};
    layer_run run = run_of(e, s, false);
    tensor x = rows_of(e->join_x, s);
    stack_attend(c, &j->stack, w, layer, x, rows_of(e->join_q, s), rows_of(e->join_k, own),
                 rows_of(e->join_v, own), &run);
    if (j->stack.beside[layer]) {
        run = run_of(e, s, true);
        stack_beside_attend(c, &j->stack, w, x, rows_of(e->join_k, others), rows_of(e->join_v, others), &run);
    }
    stack_feed_forward(c, &j->stack, w, x);
    if (layer + 1 == j->stack.n_layers)
        op_linear(c, rows_of(out, s), x, m->w[S_FC1_W], m->w[S_FC1_B], ACT_NONE, 0);
}

void qformer_slice(ctx *c, const encode *e, tensor features, tensor out, int i) {
    const model_spec *s = &e->m->spec;
    int64_t rows = features.d[0], n = s->join.latents;
    int blocks = blocks_even(&s->tower, n), layer = 0;
    size_t mark = arena_mark(c->scratch);
    if (i == 0) upload_ids(c, e, rows);
    for (; i >= layer_slices(s, layer, rows); layer++) i -= layer_slices(s, layer, rows);
    int last = layer_slices(s, layer, rows) - blocks; /* slices before those that change the queries */
    if (i < blocks)
        project(c, e, layer, blocks_span(&s->tower, n, i));
    else if (i < last)
        keep(c, e, layer, features, blocks_span(&s->tower, rows, i - blocks));
    else
        attend(c, e, layer, rows, out, blocks_span(&s->tower, n, i - last));
    arena_reset(c->scratch, mark);
}
