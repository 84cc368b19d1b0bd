/* tower.c - tiles of one grid through the ViT, in slices.
 *
 * A layer is two passes over fixed blocks of rows (blocks.c): the first computes a block's queries, keys and values, the
 * second its attention over all keys of its tile, or those of its windows, and its feed-forward. Only the second changes the
 * hidden rows, and it reads no others' but as the keys and values of the first; all ops are row-exact. So a block at a time is
 * the same as all at once, and tiles together are the same as one by one, bit for bit. A slice is one block in one pass.
 *
 * Tiles stand one behind the other, each with CLS, where there is one, in front. Patches stand row by row, or, for a join that
 * merges k x k of them, so that each such block is k * k rows in turn; where layers have windows, window by window.
 *
 * The tiles' index arrays (encode.h: ids), each after the other: which patch a row is (0 first); each row's place in the
 * table of positions, CLS's included; those of the blocks; {0, 1}; {rows of a tile}; for rotary positions each row's line and
 * column, tile by tile; where the table is resampled each patch's taps and f32 weights.
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
static ids_layout lay_out(const tower_spec *t, grid g, int n_tiles) {
    int patches = g.w * g.h, all = tower_rows(t, g), taps = pos_taps(t, g) * patches;
    ids_layout l = {.place = patches};
    l.blocks = l.place + all;
    l.one = l.blocks + blocks_ids(t, g, n_tiles);
    l.len = l.one + 2;
    l.turns = l.len + 1;
    l.taps = l.turns + (t->stack.rope.kind == ROPE_NONE ? 0 : 2 * all * n_tiles);
    l.weights = l.taps + taps;
    l.end = l.weights + taps;
    return l;
}

int tower_ids_count(const tower_spec *t, grid g, int n_tiles) {
    return lay_out(t, g, n_tiles).end;
}

/* Of the patches of all tiles; a slice has those of one. */
static int embed_slices(const tower_spec *t, grid g, int n_tiles) {
    return n_tiles * blocks_even(t, (int64_t)g.w * g.h);
}

int tower_slices_until(const tower_spec *t, grid g, int n_tiles, int state) {
    return embed_slices(t, g, n_tiles) + state * 2 * blocks_count(t, g, n_tiles);
}

int tower_slices(const tower_spec *t, grid g, int n_tiles) {
    return tower_slices_until(t, g, n_tiles, t->run_layers);
}

static tensor ids_at(const encode_lot *l, int64_t from, int64_t n) {
    return tensor_1d(l->ids.data ? (int32_t *)l->ids.data + from : NULL, DT_I32, n);
}

tensor tower_one(const encode_lot *l, const pass *p) {
    return ids_at(l, lay_out(&l->s->tower, p->g, p->n).one, 2);
}

tensor tower_len(const encode_lot *l, const pass *p) {
    return ids_at(l, lay_out(&l->s->tower, p->g, p->n).len, 1);
}

tensor tower_firsts(const encode_lot *l, const pass *p) {
    const tower_spec *t = &l->s->tower;
    tower_block b = blocks_at(t, p->g, p->n, 0); /* several tiles are all in one */
    return ids_at(l, lay_out(t, p->g, p->n).blocks + blocks_seqs(&b, false).start, p->n);
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

static void upload_ids(ctx *c, encode_lot *l, const pass *p) {
    const tower_spec *t = &l->s->tower;
    grid g = p->g;
    if (l->ids_of.w == g.w && l->ids_of.h == g.h && l->ids_tiles == p->n) return;
    ids_layout at = lay_out(t, g, p->n);
    size_t turns = (size_t)(at.taps - at.turns) / (size_t)p->n;
    int32_t *host = mem_calloc((size_t)at.end, sizeof *host);
    if (host && fill_order(l->s, g, &at, host)) {
        for (int i = 1; i < p->n; i++)
            memcpy(host + at.turns + (size_t)i * turns, host + at.turns, turns * sizeof *host);
        blocks_fill(t, g, p->n, host + at.blocks);
        host[at.one + 1] = 1;
        host[at.len] = tower_rows(t, g);
        ctx_upload(c, ids_at(l, 0, at.end), host);
        l->ids_of = g;
        l->ids_tiles = p->n;
    } else {
        status_set(&c->st, ST_NO_MEMORY, "no memory for positions");
    }
    mem_free(host);
}

void tower_keep_features(ctx *c, encode_lot *l, int number, int state, int64_t from, int64_t n,
                         int64_t rows) {
    const tower_spec *t = &l->s->tower;
    int64_t drop = t->drop_first ? 1 : 0, width = t->stack.width;
    if (tower_hidden_is_feature(t)) return;
    if (n > rows - from) n = rows - from;
    int64_t to = from + n - drop;
    from = from > drop ? from - drop : 0;
    for (int i = 0; i < t->n_features && from < to; i++) {
        if (t->features[i] != state) continue;
        tensor x = tensor_rows(l->x, number * rows + from + drop, to - from);
        tensor y =
            tensor_cols(tensor_rows(l->features, number * (rows - drop) + from, to - from), i * width, width);
        if (t->post_norm && state == t->stack.n_layers)
            op_norm(c, y, x, l->m->w[S_POST_G], l->m->w[S_POST_B], NORM_LAYER, t->stack.norm_eps, 0);
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

/* Positions of x, rows [row, row + n) of a tile. */
static void add_positions(ctx *c, const encode_lot *l, const ids_layout *at, grid g, tensor x, int64_t row) {
    const tower_spec *t = &l->s->tower;
    const weight *table = l->m->w[S_POS];
    int64_t k = pos_taps(t, g), n = x.d[0];
    if (t->no_pos) return;
    if (!k) {
        op_embed_add(c, x, table, ids_at(l, at->place + row, n));
        return;
    }
    CHECK(!t->cls);
    op_embed_mix(c, x, table, tensor_2d(ids_at(l, at->taps + row * k, n * k).data, DT_I32, n, k),
                 tensor_2d(ids_at(l, at->weights + row * k, n * k).data, DT_F32, n, k));
}

/* A block of a tile's patches; CLS goes with the first. */
static void embed_patches(ctx *c, encode_lot *l, const pass *p, int number, int block) {
    const model *m = l->m;
    const tower_spec *t = &m->spec.tower;
    ids_layout at = lay_out(t, p->g, p->n);
    lot_tile of = lot_tile_at(l, p, number);
    row_span s = blocks_span(t, (int64_t)p->g.w * p->g.h, block);
    int64_t all = tower_rows(t, p->g), cls = t->cls ? 1 : 0, frames = t->frames ? t->frames : 1;
    int64_t row = cls + s.from, n = s.n;
    size_t mark = arena_mark(c->scratch);
    tensor patches = ctx_2d(c, DT_F32, n, 3 * frames * t->patch * t->patch),
           mine = tensor_rows(l->x, number * all, all);
    tower_patchify(c, of.e, &of.at, ids_at(l, s.from, n), patches);
    op_linear(c, tensor_rows(mine, row, n), patches, m->w[S_PATCH_W], m->w[S_PATCH_B], ACT_NONE, 0);
    if (cls && block == 0) {
        op_embed(c, tensor_rows(mine, 0, 1), m->w[S_CLASS], ids_at(l, 0, 1), 1);
        row = 0, n++;
    }
    tensor x = tensor_rows(mine, row, n);
    add_positions(c, l, &at, p->g, x, row);
    if (t->pre_norm) op_norm(c, x, x, m->w[S_PRE_G], m->w[S_PRE_B], t->stack.norm, t->stack.norm_eps, 0);
    tower_keep_features(c, l, number, 0, row, n, all);
    arena_reset(c->scratch, mark);
}

static void project(ctx *c, encode_lot *l, const ids_layout *at, int i, const tower_block *b) {
    const model *m = l->m;
    const stack_spec *s = &m->spec.tower.stack;
    size_t mark = arena_mark(c->scratch);
    layer_run run = {0};
    if (s->rope.kind != ROPE_NONE) {
        tensor turns = ids_at(l, at->turns + 2 * (int64_t)b->from, 2 * (int64_t)b->n);
        run.cs = ctx_tensor(c, DT_F32, 3, (int64_t[]){b->n, s->rope.dims / 2, 2});
        op_rope_table(c, run.cs, tensor_2d(turns.data, DT_I32, b->n, 2), (tensor){0}, &m->rope_tower.args);
    }
    stack_project(c, s, &m->tower[i], tensor_rows(l->x, b->from, b->n), tensor_rows(l->q, b->from, b->n),
                  tensor_rows(l->k, b->from, b->n), tensor_rows(l->v, b->from, b->n), &run);
    arena_reset(c->scratch, mark);
}

static void run_layer(ctx *c, encode_lot *l, const pass *p, int i, int half, int block) {
    const model *m = l->m;
    const tower_spec *t = &m->spec.tower;
    ids_layout at = lay_out(t, p->g, p->n);
    tower_block b = blocks_at(t, p->g, p->n, block);
    if (half == 0) {
        project(c, l, &at, i, &b);
        return;
    }
    bool windows = t->window && !t->sees_all[i];
    int rows = tower_rows(t, p->g), see_from = windows ? b.see_from : 0, see = windows ? b.see : p->n * rows;
    tower_seqs s = blocks_seqs(&b, windows);
    layer_run run = {0};
    run.attn.n_seqs = s.n;
    run.attn.q_start = ids_at(l, at.blocks + s.start, s.n + 1);
    run.attn.kv_len = ids_at(l, at.blocks + s.len, s.n);
    tensor x = tensor_rows(l->x, b.from, b.n);
    stack_rest(c, &t->stack, &m->tower[i], i, x, tensor_rows(l->q, b.from, b.n),
               tensor_rows(l->k, see_from, see), tensor_rows(l->v, see_from, see), &run);
    for (int k = 0; k < p->n; k++)
        tower_keep_features(c, l, k, i + 1, p->n > 1 ? 0 : b.from, p->n > 1 ? rows : b.n, rows);
}

void tower_slice(ctx *c, encode_lot *l, const pass *p, int i) {
    const tower_spec *t = &l->s->tower;
    int embeds = embed_slices(t, p->g, p->n), each = embeds / p->n, blocks = blocks_count(t, p->g, p->n);
    upload_ids(c, l, p);
    if (i < embeds) {
        embed_patches(c, l, p, i / each, i % each);
    } else {
        i -= embeds;
        run_layer(c, l, p, i / (2 * blocks), i % (2 * blocks) / blocks, i % blocks);
    }
}
