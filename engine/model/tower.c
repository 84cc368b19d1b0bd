/* tower.c - one tile through the ViT, in slices.
 *
 * A layer is two passes over fixed blocks of rows (blocks.c): the first computes a block's queries, keys and values, the
 * second its attention over all keys, or those of its windows, and its feed-forward. Only the second changes the hidden rows,
 * and it reads no others' but as the keys and values of the first; all ops are row-exact. So a block at a time is the same as
 * all at once, bit for bit. A slice is one block in one pass.
 *
 * Patches stand row by row, or, for a join that merges k x k of them, so that each such block is k * k rows in turn; where
 * layers have windows, window by window.
 *
 * The tile's index arrays (encode.h: ids), each after the other: which patch a row is (0 first); each row's place in the
 * table of positions, CLS's included; those of the blocks; {0, 1}; {rows}; for rotary positions each row's line and column; where
 * the table is resampled each patch's taps and f32 weights.
 *
 * Thread: the engine's. */
#include <string.h>

#include "engine/model/encode.h"

grid tower_grid(const tower_spec *t, const tile *i) {
    return (grid){i->w / t->patch, i->h / t->patch};
}

int tower_rows(const tower_spec *t, grid g) {
    return g.w * g.h + (t->cls ? 1 : 0);
}

bool tower_takes(const tower_spec *t, int w, int h) {
    if (!t->pos_side) return w == t->image_size && h == t->image_size;
    return w >= t->patch && h >= t->patch && w % t->patch == 0 && h % t->patch == 0 &&
           (int64_t)(w / t->patch) * (h / t->patch) <= t->max_patches;
}

bool tower_hidden_is_feature(const tower_spec *t) {
    return t->n_features == 1 && t->features[0] == t->run_layers && !t->cls && !t->drop_first &&
           !t->post_norm && !tower_together(t);
}

/* Places of a resampled table that one patch's position is made of; 0: its own alone. */
static int pos_taps(const tower_spec *t, grid g) {
    return t->pos_corners ? CORNER_TAPS : t->pos_side ? resample_taps(t->pos_side, g) : 0;
}

/* Where the index arrays begin. */
typedef struct ids_layout {
    int order, place, blocks, one, len, turns, taps, weights, end;
} ids_layout;
static ids_layout lay_out(const tower_spec *t, grid g) {
    int patches = g.w * g.h, all = tower_rows(t, g), taps = pos_taps(t, g) * patches;
    ids_layout l = {.place = patches};
    l.blocks = l.place + all;
    l.one = l.blocks + blocks_ids(t, g);
    l.len = l.one + 2;
    l.turns = l.len + 1;
    l.taps = l.turns + (t->stack.rope.kind == ROPE_NONE ? 0 : 2 * all);
    l.weights = l.taps + taps;
    l.end = l.weights + taps;
    return l;
}

int tower_ids_count(const tower_spec *t, grid g) {
    return lay_out(t, g).end;
}

int tower_slices_until(const tower_spec *t, grid g, int state) {
    return blocks_even(g.w * g.h) + state * 2 * blocks_count(t, g);
}

int tower_slices(const tower_spec *t, grid g) {
    return tower_slices_until(t, g, t->run_layers);
}

static tensor ids_at(const encode *e, int64_t from, int64_t n) {
    return tensor_1d(e->ids.data ? (int32_t *)e->ids.data + from : NULL, DT_I32, n);
}

tensor tower_one(const encode *e, grid g) {
    return ids_at(e, lay_out(&e->m->spec.tower, g).one, 2);
}

tensor tower_len(const encode *e, grid g) {
    return ids_at(e, lay_out(&e->m->spec.tower, g).len, 1);
}

/* Patches in the order of their rows, and their places. */
static bool fill_order(const model_spec *s, grid g, const ids_layout *l, int32_t *ids) {
    const tower_spec *t = &s->tower;
    int k = s->join.merge > 1 ? s->join.merge : 1, side = t->image_size / t->patch, cls = t->cls ? 1 : 0;
    int32_t *place = ids + l->place + cls, *turns = ids + l->turns + 2 * cls;
    int32_t *cells = mem_alloc((size_t)(g.w / k * (g.h / k)) * sizeof *cells);
    void *weights = ids + l->weights;
    float *by = weights;
    if (!cells) return false;
    blocks_order(t, k, g, cells);
    for (int i = 0; i < g.w * g.h; i++) {
        int cell = cells[i / (k * k)], in = i % (k * k);
        int x = cell % (g.w / k) * k + in % k, y = cell / (g.w / k) * k + in / k, at = y * g.w + x;
        ids[l->order + i] = at;
        if (t->pos_buckets) at = bucket_of(y, g.h, side) * side + bucket_of(x, g.w, side);
        place[i] = cls + at;
        if (l->taps > l->turns) turns[2 * i] = y, turns[2 * i + 1] = x;
        if (t->pos_corners)
            corners_taps(t->pos_corners, g, x, y, ids + l->taps + CORNER_TAPS * i, by + CORNER_TAPS * i);
    }
    if (t->pos_side) resample_table(t->pos_side, g, ids + l->taps, by);
    mem_free(cells);
    return true;
}

static void upload_ids(ctx *c, encode *e, grid g) {
    const tower_spec *t = &e->m->spec.tower;
    if (e->ids_of.w == g.w && e->ids_of.h == g.h) return;
    ids_layout l = lay_out(t, g);
    int32_t *host = mem_calloc((size_t)l.end, sizeof *host);
    if (host && fill_order(&e->m->spec, g, &l, host)) {
        blocks_fill(t, g, host + l.blocks);
        host[l.one + 1] = 1;
        host[l.len] = tower_rows(t, g);
        ctx_upload(c, ids_at(e, 0, l.end), host);
        e->ids_of = g;
    } else {
        status_set(&c->st, ST_NO_MEMORY, "no memory for positions");
    }
    mem_free(host);
}

void tower_keep_features(ctx *c, encode *e, int state, int64_t from, int64_t n, int64_t rows) {
    const tower_spec *t = &e->m->spec.tower;
    int64_t drop = t->drop_first ? 1 : 0, width = t->stack.width;
    if (tower_hidden_is_feature(t)) return;
    if (n > rows - from) n = rows - from;
    int64_t to = from + n - drop;
    from = from > drop ? from - drop : 0;
    for (int i = 0; i < t->n_features && from < to; i++) {
        if (t->features[i] != state) continue;
        tensor x = tensor_rows(e->x, from + drop, to - from);
        tensor y = tensor_cols(tensor_rows(e->features, from, to - from), i * width, width);
        if (t->post_norm && state == t->stack.n_layers)
            op_norm(c, y, x, e->m->w[S_POST_G], e->m->w[S_POST_B], NORM_LAYER, t->stack.norm_eps, 0);
        else
            op_copy(c, y, x);
    }
}

void tower_patchify(ctx *c, const encode *e, const tile *at, tensor order, tensor out) {
    const prep_spec *p = &e->m->spec.prep;
    patchify_args a = {.patch = e->m->spec.tower.patch,
                       .frames = e->m->spec.tower.frames,
                       .rescale = p->rescale,
                       .channels_last = e->m->spec.tower.pos_side > 0,
                       .order = order};
    memcpy(a.mean, p->mean, sizeof a.mean);
    memcpy(a.std, p->std, sizeof a.std);
    uint8_t *pixels = e->pixels.data ? (uint8_t *)e->pixels.data + at->at : NULL;
    op_patchify(c, out, tensor_3d(pixels, DT_U8, at->h, at->w, 3), &a);
}

/* Positions of rows [row, row + n) of x. */
static void add_positions(ctx *c, encode *e, grid g, tensor x, int64_t row, int64_t n) {
    const tower_spec *t = &e->m->spec.tower;
    const weight *table = e->m->w[S_POS];
    ids_layout l = lay_out(t, g);
    int64_t k = pos_taps(t, g);
    if (t->no_pos) return;
    if (!k) {
        op_embed_add(c, x, table, ids_at(e, l.place + row, n));
        return;
    }
    CHECK(!t->cls);
    op_embed_mix(c, x, table, tensor_2d(ids_at(e, l.taps + row * k, n * k).data, DT_I32, n, k),
                 tensor_2d(ids_at(e, l.weights + row * k, n * k).data, DT_F32, n, k));
}

/* A block of patches; CLS goes with the first. */
static void embed_patches(ctx *c, encode *e, const tile *at, int block) {
    const model *m = e->m;
    const tower_spec *t = &m->spec.tower;
    grid g = tower_grid(t, at);
    int64_t all = (int64_t)g.w * g.h, n = TOWER_BLOCK_ROWS, from = block * n, cls = t->cls ? 1 : 0;
    if (n > all - from) n = all - from;
    int64_t row = cls + from, frames = t->frames ? t->frames : 1;
    size_t mark = arena_mark(c->scratch);
    tensor patches = ctx_2d(c, DT_F32, n, 3 * frames * t->patch * t->patch);
    tower_patchify(c, e, at, ids_at(e, from, n), patches);
    op_linear(c, tensor_rows(e->x, row, n), patches, m->w[S_PATCH_W], m->w[S_PATCH_B], ACT_NONE, 0);
    if (cls && block == 0) {
        op_embed(c, tensor_rows(e->x, 0, 1), m->w[S_CLASS], ids_at(e, 0, 1), 1);
        row = 0, n++;
    }
    tensor x = tensor_rows(e->x, row, n);
    add_positions(c, e, g, x, row, n);
    if (t->pre_norm) op_norm(c, x, x, m->w[S_PRE_G], m->w[S_PRE_B], t->stack.norm, t->stack.norm_eps, 0);
    tower_keep_features(c, e, 0, row, n, all + cls);
    arena_reset(c->scratch, mark);
}

static void project(ctx *c, encode *e, const ids_layout *l, int i, const tower_block *b) {
    const model *m = e->m;
    const stack_spec *s = &m->spec.tower.stack;
    size_t mark = arena_mark(c->scratch);
    layer_run run = {0};
    if (s->rope.kind != ROPE_NONE) {
        tensor turns = ids_at(e, l->turns + 2 * (int64_t)b->from, 2 * (int64_t)b->n);
        run.cs = ctx_tensor(c, DT_F32, 3, (int64_t[]){b->n, s->rope.dims / 2, 2});
        op_rope_table(c, run.cs, tensor_2d(turns.data, DT_I32, b->n, 2), (tensor){0}, &m->rope_tower.args);
    }
    stack_project(c, s, &m->tower[i], tensor_rows(e->x, b->from, b->n), tensor_rows(e->q, b->from, b->n),
                  tensor_rows(e->k, b->from, b->n), tensor_rows(e->v, b->from, b->n), &run);
    arena_reset(c->scratch, mark);
}

static void run_layer(ctx *c, encode *e, grid g, int i, int pass, int block) {
    const model *m = e->m;
    const tower_spec *t = &m->spec.tower;
    ids_layout l = lay_out(t, g);
    tower_block b = blocks_at(t, g, block);
    if (pass == 0) {
        project(c, e, &l, i, &b);
        return;
    }
    layer_run run = {0};
    int64_t ids = l.blocks + b.ids, see_from = 0, see = tower_rows(t, g);
    run.attn.n_seqs = 1;
    run.attn.q_start = ids_at(e, ids, 2);
    run.attn.kv_len = ids_at(e, l.len, 1);
    if (t->window && !t->sees_all[i]) {
        see_from = b.see_from;
        see = b.see;
        run.attn.n_seqs = b.n_windows;
        run.attn.q_start = ids_at(e, ids + 2, b.n_windows + 1);
        run.attn.kv_len = ids_at(e, ids + 3 + b.n_windows, b.n_windows);
    }
    tensor x = tensor_rows(e->x, b.from, b.n);
    stack_attend(c, &t->stack, &m->tower[i], i, x, tensor_rows(e->q, b.from, b.n),
                 tensor_rows(e->k, see_from, see), tensor_rows(e->v, see_from, see), &run);
    stack_feed_forward(c, &t->stack, &m->tower[i], x);
    tower_keep_features(c, e, i + 1, b.from, b.n, tower_rows(t, g));
}

void tower_slice(ctx *c, encode *e, const tile *at, int i) {
    const tower_spec *t = &e->m->spec.tower;
    grid g = tower_grid(t, at);
    int patches = blocks_even(g.w * g.h), blocks = blocks_count(t, g);
    upload_ids(c, e, g);
    if (i < patches) {
        embed_patches(c, e, at, i);
    } else {
        i -= patches;
        run_layer(c, e, g, i / (2 * blocks), i % (2 * blocks) / blocks, i % blocks);
    }
}
