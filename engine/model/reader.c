/* reader.c - the join of a text that is read with the picture: its rows attend to each other, both ways, and then to the tile's,
 * layer by layer; what the decoder's layers attend to are the keys and values of what they are behind the last one.
 *
 * Slices, each over a block of rows: the text's embeddings; then for each layer the text's projections, the tile's keys and
 * values, the text's two attentions and feed-forward. Row-exact.
 * Thread: the engine's. Source: transformers' modeling_blip_text.py (BlipTextModel), modeling_blip.py
 * (BlipForQuestionAnswering.generate). Tested by tests/e2e/test_parity.py. */
#include "engine/model/encode.h"

int reader_slices(const model_spec *s, int64_t rows, int n_text) {
    int text = blocks_even(&s->tower, n_text);
    return text + s->join.stack.n_layers * (2 * text + blocks_even(&s->tower, rows));
}

/* join_ids: the text's positions; {0, rows of a full block}; {0, those of the last}; {the text's rows}; {the tile's}. */
enum { AFTER_POSITIONS = 6 };

join_room reader_room(const join_spec *j, int64_t rows, int n_text) {
    CHECK(j->out == j->stack.width);
    return (join_room){
        .own = n_text, .queries = true, .keys = n_text, .beside = rows, .ids = n_text + AFTER_POSITIONS};
}

static void upload_ids(ctx *c, const encode *e, int64_t rows) {
    const tower_spec *t = &e->m->spec.tower;
    int n = e->plan.n_text;
    int32_t last = (int32_t)blocks_span(t, n, blocks_even(t, n) - 1).n;
    join_ids_upload(c, e, n, (const int32_t[AFTER_POSITIONS]){0, t->block_rows, 0, last, n, (int32_t)rows},
                    AFTER_POSITIONS);
}

static void embed(ctx *c, const encode *e, row_span b) {
    const model *m = e->m;
    const stack_spec *k = &m->spec.join.stack;
    tensor x = tensor_rows(e->join_x, b.from, b.n);
    join_read(c, e, b, x);
    op_norm(c, x, x, m->w[S_JOIN_G], m->w[S_JOIN_B], k->norm, k->norm_eps, 0);
}

static void attend(ctx *c, const encode *e, int layer, row_span b, tensor out) {
    const model *m = e->m;
    const stack_spec *k = &m->spec.join.stack;
    const layer_weights *w = &m->join[layer];
    int64_t n = e->plan.n_text;
    tensor x = tensor_rows(e->join_x, b.from, b.n);
    layer_run run = {0};
    run.attn.n_seqs = 1;
    run.attn.q_start = join_ids_at(e, b.n == m->spec.tower.block_rows ? n : n + 2, 2);
    run.attn.kv_len = join_ids_at(e, n + 4, 1);
    stack_attend(c, k, w, layer, x, tensor_rows(e->join_q, b.from, b.n), e->join_k, e->join_v, &run);
    run.attn.kv_len = join_ids_at(e, n + 5, 1);
    stack_beside_attend(c, k, w, x, e->beside_k, e->beside_v, &run);
    stack_feed_forward(c, k, w, x);
    if (layer + 1 == k->n_layers) cross_keep(c, m, x, tensor_rows(out, b.from, b.n));
}

void reader_slice(ctx *c, const encode *e, tensor features, tensor out, int i) {
    const model *m = e->m;
    const stack_spec *k = &m->spec.join.stack;
    const tower_spec *t = &m->spec.tower;
    int64_t n = e->plan.n_text, rows = features.d[0];
    int text = blocks_even(t, n), all = 2 * text + blocks_even(t, rows), layer = (i - text) / all,
        at = (i - text) % all;
    size_t mark = arena_mark(c->scratch);
    if (i == 0) upload_ids(c, e, rows);
    if (i < text) {
        embed(c, e, blocks_span(t, n, i));
    } else if (at < text) {
        row_span b = blocks_span(t, n, at);
        stack_project(c, k, &m->join[layer], tensor_rows(e->join_x, b.from, b.n),
                      tensor_rows(e->join_q, b.from, b.n), tensor_rows(e->join_k, b.from, b.n),
                      tensor_rows(e->join_v, b.from, b.n), &(layer_run){0});
    } else if (at < all - text) {
        row_span b = blocks_span(t, rows, at - text);
        stack_beside_keep(c, &m->join[layer], tensor_rows(features, b.from, b.n),
                          tensor_rows(e->beside_k, b.from, b.n), tensor_rows(e->beside_v, b.from, b.n));
    } else {
        attend(c, e, layer, blocks_span(t, n, at - (all - text)), out);
    }
    arena_reset(c->scratch, mark);
}
