/* join_layers.c - joins that are layers: rows of their own, a few learned latents or a text or both, attend to each other and
 * to their tile.
 *
 * Latents alone (PERCEIVER): the tile's features, led through a gated feed-forward, are a context that is seen with the latents
 * themselves, in one attention. Latents, normed (QFORMER): in some layers they attend to the features behind the attention to
 * each other. With a text to read its embeddings stand behind them: it and they attend to each other, but it does not attend to
 * the tile, has a feed-forward of its own, and behind the last layer it is not needed. A text alone (READER): as queries.
 *
 * All tiles of a pass go together, each with the keys that are its own (join_room.c). Slices, a block of rows each: of a
 * context, its features; then layer by layer projections of latents and texts; keys and values of the tiles, where the layer
 * sees them; attention and feed-forward of latents and texts. As in tower.c only the last change the rows, and they read no
 * others' but as keys and values. Row-exact: a tile's rows depend on that tile and its text alone.
 * Thread: the engine's. Source: transformers' modeling_idefics2.py (Idefics2Connector, Idefics2PerceiverResampler),
 * modeling_blip_2.py (Blip2QFormerModel), modeling_instructblip.py (InstructBlipQFormerModel), modeling_blip_text.py
 * (BlipTextModel), modeling_blip.py (BlipForQuestionAnswering.generate).
 * Tested by tests/e2e/test_parity.py, tests/engine/model/test_tower.c, test_lot.c. */
#include "engine/model/encode.h"

static bool has_context(const join_spec *j) {
    return j->kind == JOIN_PERCEIVER;
}

/* ---- slices ---- */

typedef struct blocks {
    int latents, text, tile; /* tile: in layers that see it */
} blocks;

static blocks blocks_of(const encode_lot *l, const pass *p) {
    return (blocks){join_part_blocks(l, p, PART_LATENTS), join_part_blocks(l, p, PART_TEXT),
                    join_part_blocks(l, p, PART_TILE)};
}

static int seeing(const join_spec *j, int layer, blocks b) {
    return has_context(j) || j->stack.beside[layer] ? b.tile : 0;
}

/* Those that change rows stand at the end. */
static int changing(const join_spec *j, int layer, blocks b) {
    bool text_ends = j->stack.text_ffn && layer + 1 == j->stack.n_layers;
    return b.latents + (text_ends ? 0 : b.text);
}

static int layer_slices(const join_spec *j, int layer, blocks b) {
    return b.latents + b.text + seeing(j, layer, b) + changing(j, layer, b);
}

int join_layers_slices(const encode_lot *l, const pass *p) {
    const join_spec *j = &l->s->join;
    blocks b = blocks_of(l, p);
    int n = has_context(j) ? b.tile : 0;
    for (int i = 0; i < j->stack.n_layers; i++) n += layer_slices(j, i, b);
    return n;
}

static join_block own_block(const encode_lot *l, const pass *p, blocks b, int i) {
    return i < b.latents ? join_block_at(l, p, PART_LATENTS, i)
                         : join_block_at(l, p, PART_TEXT, i - b.latents);
}

/* ---- one slice ---- */

static void make_context(ctx *c, const encode_lot *l, row_span s) {
    const model *m = l->m;
    const join_spec *j = &m->spec.join;
    tensor x = tensor_rows(l->features, s.from, s.n), gate = ctx_2d(c, DT_F32, s.n, j->hidden),
           up = ctx_2d(c, DT_F32, s.n, j->hidden);
    op_linears(c, x, (linear_to[]){{gate, m->w[S_FC_GATE_W], NULL}, {up, m->w[S_FC1_W], NULL}}, 2);
    op_glu(c, gate, gate, up, j->activation);
    op_linear(c, tensor_rows(l->context, s.from, s.n), gate, m->w[S_FC2_W], NULL, ACT_NONE, 0);
}

void join_tile_keys(ctx *c, const encode_lot *l, const pass *p, int layer, tensor x, row_span s) {
    const stack_spec *k = &l->s->join.stack;
    const layer_weights *w = &l->m->join[layer];
    int64_t width = (int64_t)k->kv_heads * k->head_dim;
    tensor keys = ctx_2d(c, DT_F32, s.n, width), values = ctx_2d(c, DT_F32, s.n, width);
    layer_run run = join_writes(l, p, PART_TILE, s);
    x = tensor_rows(x, s.from, s.n);
    if (k->beside[layer])
        stack_beside_keep(c, w, x, keys, values);
    else
        stack_context(c, k, w, x, keys, values);
    op_kv_write(c, run.kc, run.vc, tensor_heads(keys, k->kv_heads, k->head_dim),
                tensor_heads(values, k->kv_heads, k->head_dim), run.slots);
}

/* Words of the texts of a block, each from where its picture has it. */
static void read_words(ctx *c, const encode_lot *l, const pass *p, const join_block *b, tensor x) {
    int64_t skip = b->skip, done = 0;
    for (int i = 0; i < b->n; i++, skip = 0) {
        const encode *e = lot_tile_at(l, p, b->first + i).e;
        int64_t n = e->plan.n_text - skip;
        if (n > b->rows.n - done) n = b->rows.n - done;
        op_embed(c, tensor_rows(x, done, n), l->m->w[S_READ_EMBED],
                 tensor_1d(e->text.data ? (int32_t *)e->text.data + skip : NULL, DT_I32, n), 1);
        done += n;
    }
}

static void embed(ctx *c, const encode_lot *l, const pass *p, const join_block *b, tensor x) {
    const model *m = l->m;
    const stack_spec *k = &m->spec.join.stack;
    if (b->part == PART_TEXT) {
        read_words(c, l, p, b, x);
        op_embed_add(c, x, m->w[S_READ_POS], join_which(l, p, b));
    } else {
        op_embed(c, x, m->w[S_LATENTS], join_which(l, p, b), 1);
    }
    if (!has_context(&m->spec.join))
        op_norm(c, x, x, m->w[S_JOIN_G], m->w[S_JOIN_B], k->norm, k->norm_eps, 0);
}

static void project(ctx *c, const encode_lot *l, const pass *p, int layer, const join_block *b) {
    const stack_spec *k = &l->s->join.stack;
    int64_t width = (int64_t)k->kv_heads * k->head_dim;
    tensor x = join_own(l, p, b, l->join_x), keys = ctx_2d(c, DT_F32, b->rows.n, width),
           values = ctx_2d(c, DT_F32, b->rows.n, width);
    layer_run run = join_writes(l, p, b->part, b->rows);
    if (layer == 0) embed(c, l, p, b, x);
    stack_project(c, k, &l->m->join[layer], x, join_own(l, p, b, l->join_q), keys, values, &run);
}

/* Rows behind the last layer. */
static void leave(ctx *c, const encode_lot *l, const pass *p, row_span s, tensor x) {
    const model *m = l->m;
    const stack_spec *k = &m->spec.join.stack;
    tensor y = x;
    if (l->s->join.kind != JOIN_READER) y = join_out(c, l, p, -1, s);
    if (has_context(&l->s->join))
        op_norm(c, y, x, m->w[S_JOIN_G], NULL, k->norm, k->norm_eps, 0);
    else if (l->s->join.kind == JOIN_QFORMER)
        op_linear(c, y, x, m->w[S_FC1_W], m->w[S_FC1_B], ACT_NONE, 0);
    join_put(c, l, p, -1, s, y);
}

/* The layer, as rows of a text have it that has a feed-forward of its own. */
static layer_weights of_text(const layer_weights *w) {
    return (layer_weights){{[L_UP_W] = w->w[L_TEXT_UP_W],
                            [L_UP_B] = w->w[L_TEXT_UP_B],
                            [L_DOWN_W] = w->w[L_TEXT_DOWN_W],
                            [L_DOWN_B] = w->w[L_TEXT_DOWN_B],
                            [L_NORM2_G] = w->w[L_TEXT_NORM_G],
                            [L_NORM2_B] = w->w[L_TEXT_NORM_B]}};
}

static void attend(ctx *c, const encode_lot *l, const pass *p, int layer, const join_block *b) {
    const stack_spec *k = &l->s->join.stack;
    const layer_weights *w = &l->m->join[layer];
    tensor none = {0}, x = join_own(l, p, b, l->join_x);
    layer_run run = join_sees(l, p, b, KEYS_OWN);
    stack_attend(c, k, w, layer, x, join_own(l, p, b, l->join_q), none, none, &run);
    if (b->part == PART_TEXT && k->text_ffn) {
        layer_weights text = of_text(w);
        stack_feed_forward(c, k, &text, x);
        return;
    }
    if (k->beside[layer]) {
        run = join_sees(l, p, b, KEYS_BESIDE);
        stack_beside_attend(c, k, w, x, none, none, &run);
    }
    stack_feed_forward(c, k, w, x);
    if (layer + 1 == k->n_layers) leave(c, l, p, b->rows, x);
}

static void layer_slice(ctx *c, const encode_lot *l, const pass *p, int layer, blocks b, int i) {
    const join_spec *j = &l->s->join;
    int own = b.latents + b.text, before = own + seeing(j, layer, b); /* those that change rows */
    join_block o = own_block(l, p, b, i < own ? i : i < before ? 0 : i - before);
    if (i < own)
        project(c, l, p, layer, &o);
    else if (i < before)
        join_tile_keys(c, l, p, layer, has_context(j) ? l->context : l->features,
                       blocks_span(&l->s->tower, join_part_rows(l, p, PART_TILE), i - own));
    else
        attend(c, l, p, layer, &o);
}

void join_layers_slice(ctx *c, const encode_lot *l, const pass *p, int i) {
    const join_spec *j = &l->s->join;
    blocks b = blocks_of(l, p);
    int context = has_context(j) ? b.tile : 0, layer = 0;
    size_t mark = arena_mark(c->scratch);
    if (i < context) {
        make_context(c, l, blocks_span(&l->s->tower, join_part_rows(l, p, PART_TILE), i));
    } else {
        for (i -= context; i >= layer_slices(j, layer, b); layer++) i -= layer_slices(j, layer, b);
        layer_slice(c, l, p, layer, b, i);
    }
    arena_reset(c->scratch, mark);
}
