/* qformer.c - the join of a few learned queries: normed, then layer by layer they attend to each other and in some layers
 * beside that to a tile's features; a matrix leads them to the decoder's width, and they are the rows.
 *
 * With a text to read its embeddings stand behind the queries: they and the queries attend to each other, but they do not
 * attend to the tile and have a feed-forward of their own. Behind the last layer they are not needed.
 * A layer's slices, a block of rows each, of queries or of the text: projections; keys and values of the tile, where the layer
 * attends to it; then attention, to either, and the feed-forward. As in tower.c only the last change the rows, and they read
 * no others' but as keys and values. Row-exact: a tile's rows depend on that tile and the text alone.
 * Thread: the engine's. Source: transformers' modeling_blip_2.py (Blip2QFormerModel), modeling_instructblip.py
 * (InstructBlipQFormerModel). Tested by tests/e2e/test_parity.py, tests/engine/model/test_tower.c. */
#include "engine/model/encode.h"

static tensor rows_of(tensor t, row_span s) {
    return tensor_rows(t, s.from, s.n);
}

/* ---- slices ---- */

typedef struct blocks {
    int queries, text, tile; /* of each; tile: in layers that attend to it */
} blocks;

static blocks blocks_of(const model_spec *s, int rows, int n_text) {
    const tower_spec *t = &s->tower;
    return (blocks){blocks_even(t, s->join.latents), blocks_even(t, n_text), blocks_even(t, rows)};
}

/* Those that change rows stand at the end: without the text's in the last layer. */
static int changing(const join_spec *j, int layer, blocks b) {
    return b.queries + (layer + 1 < j->stack.n_layers ? b.text : 0);
}

static int layer_slices(const join_spec *j, int layer, blocks b) {
    return b.queries + b.text + (j->stack.beside[layer] ? b.tile : 0) + changing(j, layer, b);
}

int qformer_slices(const model_spec *s, int rows, int n_text) {
    blocks b = blocks_of(s, rows, n_text);
    int n = 0;
    for (int i = 0; i < s->join.stack.n_layers; i++) n += layer_slices(&s->join, i, b);
    return n;
}

/* ---- what is kept ---- */

/* join_ids: 0, 1, ... for the queries, and for the text's positions; {0, a full block}; {0, the queries' last}; {0, the
 * text's last}; {queries and text}; {features}. */
enum { FULL_BLOCK = 0, LAST_QUERIES = 2, LAST_TEXT = 4, OWN_KEYS = 6, TILE_KEYS = 7, AFTER_POSITIONS = 8 };

static int positions(const join_spec *j, int n_text) {
    return j->latents > n_text ? j->latents : n_text;
}

join_room qformer_room(const join_spec *j, int64_t rows, int n_text) {
    return (join_room){.own = j->latents + n_text,
                       .queries = true,
                       .keys = j->latents + n_text,
                       .beside = rows,
                       .ids = positions(j, n_text) + AFTER_POSITIONS};
}

static void upload_ids(ctx *c, const encode *e, int64_t rows) {
    const join_spec *j = &e->m->spec.join;
    const tower_spec *t = &e->m->spec.tower;
    int text = e->plan.n_text;
    int32_t behind[AFTER_POSITIONS] = {0};
    behind[FULL_BLOCK + 1] = t->block_rows;
    behind[LAST_QUERIES + 1] = (int32_t)blocks_span(t, j->latents, blocks_even(t, j->latents) - 1).n;
    if (text) behind[LAST_TEXT + 1] = (int32_t)blocks_span(t, text, blocks_even(t, text) - 1).n;
    behind[OWN_KEYS] = j->latents + text;
    behind[TILE_KEYS] = (int32_t)rows;
    join_ids_upload(c, e, positions(j, text), behind, AFTER_POSITIONS);
}

static tensor ids_behind(const encode *e, int what, int n) {
    return join_ids_at(e, positions(&e->m->spec.join, e->plan.n_text) + what, n);
}

/* A block of own rows: queries or, behind all of them, text. */
typedef struct own {
    bool text;
    row_span in;   /* within those of its kind */
    row_span rows; /* within all */
} own;

static own own_block(const encode *e, blocks b, int i) {
    const tower_spec *t = &e->m->spec.tower;
    int64_t queries = e->m->spec.join.latents;
    own o = {.text = i >= b.queries};
    o.in = o.text ? blocks_span(t, e->plan.n_text, i - b.queries) : blocks_span(t, queries, i);
    o.rows = (row_span){o.in.from + (o.text ? queries : 0), o.in.n};
    return o;
}

/* One sequence: the block's rows, and all keys of own rows or of the tile. */
static layer_run run_of(const encode *e, own o, int keys) {
    layer_run run = {0};
    run.attn.n_seqs = 1;
    run.attn.q_start = ids_behind(e,
                                  o.in.n == e->m->spec.tower.block_rows ? FULL_BLOCK
                                  : o.text                              ? LAST_TEXT
                                                                        : LAST_QUERIES,
                                  2);
    run.attn.kv_len = ids_behind(e, keys, 1);
    return run;
}

/* ---- one slice ---- */

static void embed(ctx *c, const encode *e, own o, tensor x) {
    const model *m = e->m;
    const stack_spec *k = &m->spec.join.stack;
    if (o.text)
        join_read(c, e, o.in, x);
    else
        op_embed(c, x, m->w[S_LATENTS], join_ids_at(e, o.in.from, o.in.n), 1);
    op_norm(c, x, x, m->w[S_JOIN_G], m->w[S_JOIN_B], k->norm, k->norm_eps, 0);
}

static void project(ctx *c, const encode *e, int layer, own o) {
    const model *m = e->m;
    tensor x = rows_of(e->join_x, o.rows);
    if (layer == 0) embed(c, e, o, x);
    stack_project(c, &m->spec.join.stack, &m->join[layer], x, rows_of(e->join_q, o.rows),
                  rows_of(e->join_k, o.rows), rows_of(e->join_v, o.rows), &(layer_run){0});
}

static void text_forward(ctx *c, const stack_spec *k, const layer_weights *w, tensor x) {
    size_t mark = arena_mark(c->scratch);
    tensor up = ctx_2d(c, DT_F32, x.d[0], k->ffn);
    op_linear(c, up, x, w->w[L_TEXT_UP_W], w->w[L_TEXT_UP_B], k->activation, 0);
    op_linear(c, x, up, w->w[L_TEXT_DOWN_W], w->w[L_TEXT_DOWN_B], ACT_NONE, LINEAR_ADD);
    op_norm(c, x, x, w->w[L_TEXT_NORM_G], w->w[L_TEXT_NORM_B], k->norm, k->norm_eps, 0);
    arena_reset(c->scratch, mark);
}

static void attend(ctx *c, const encode *e, int layer, int64_t rows, tensor out, own o) {
    const model *m = e->m;
    const stack_spec *k = &m->spec.join.stack;
    const layer_weights *w = &m->join[layer];
    layer_run run = run_of(e, o, OWN_KEYS);
    tensor x = rows_of(e->join_x, o.rows);
    stack_attend(c, k, w, layer, x, rows_of(e->join_q, o.rows), e->join_k, e->join_v, &run);
    if (o.text) {
        text_forward(c, k, w, x);
        return;
    }
    if (k->beside[layer]) {
        run = run_of(e, o, TILE_KEYS);
        stack_beside_attend(c, k, w, x, tensor_rows(e->beside_k, 0, rows), tensor_rows(e->beside_v, 0, rows),
                            &run);
    }
    stack_feed_forward(c, k, w, x);
    if (layer + 1 == k->n_layers)
        op_linear(c, rows_of(out, o.rows), x, m->w[S_FC1_W], m->w[S_FC1_B], ACT_NONE, 0);
}

void qformer_slice(ctx *c, const encode *e, tensor features, tensor out, int i) {
    const join_spec *j = &e->m->spec.join;
    int rows = (int)features.d[0], layer = 0;
    blocks b = blocks_of(&e->m->spec, rows, e->plan.n_text);
    size_t mark = arena_mark(c->scratch);
    if (i == 0) upload_ids(c, e, rows);
    for (; i >= layer_slices(j, layer, b); layer++) i -= layer_slices(j, layer, b);
    int last = layer_slices(j, layer, b) - changing(j, layer, b); /* slices before those that change rows */
    if (i < b.queries + b.text) {
        project(c, e, layer, own_block(e, b, i));
    } else if (i < last) {
        row_span s = blocks_span(&e->m->spec.tower, rows, i - b.queries - b.text);
        stack_beside_keep(c, &e->m->join[layer], rows_of(features, s), rows_of(e->beside_k, s),
                          rows_of(e->beside_v, s));
    } else {
        attend(c, e, layer, rows, out, own_block(e, b, i - last));
    }
    arena_reset(c->scratch, mark);
}
