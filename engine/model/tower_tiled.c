/* tower_tiled.c - a tower in which all tiles of a picture attend to each other, in slices; see tower.c for how a layer is
 * cut into them.
 *
 * Rows: those of the tiles that there are, tile by tile, each CLS and its patches; those of the tiles that are missing up
 * to max_tiles; what pads each tile to a multiple of pad_rows. A row of the picture sees all of them, also what pads; what
 * pads sees the picture's rows alone. So keys are the first `seen` or all, and no row needs a mask of its own.
 *
 * The index arrays (encode.h: ids): 0, 1, ... up to the patches of a tile; `block` times -1; for every row its
 * place in the tables of positions, of tiles' positions, of tiles before and of tiles behind the layers (-1: none); four
 * numbers of f32, `block` times each: what these four are multiplied by; {0, n} for blocks and last blocks of
 * either kind of row; {all}; {seen}.
 *
 * Thread: the engine's. Source: transformers' modeling_mllama.py (MllamaVisionModel), and the original code for which
 * hidden states are features (families/mllama.c). Tested by tests/e2e/test_parity.py. */
#include <math.h>
#include <string.h>

#include "engine/model/encode.h"

enum { TABLES = 4 }; /* S_POS, S_TILE_POS, S_PRE_TILE, S_POST_TILE */

typedef struct shape {
    int tile, tiles, seen, all; /* rows of a tile; tiles that there are; rows */
    int block;                  /* of at most so many */
    int order, none, at, by, blocks;
} shape;

static int pad_of(const tower_spec *t, int rows) {
    return (t->pad_rows - rows % t->pad_rows) % t->pad_rows;
}

static shape shape_of(const tower_spec *t, grid g, int n_tiles) {
    shape s = {.tile = g.w * g.h + 1, .tiles = n_tiles};
    s.seen = n_tiles * s.tile;
    s.all = tiled_rows(t, g);
    s.block = t->block_rows < s.all ? t->block_rows : s.all;
    s.none = s.order + s.tile;
    s.at = s.none + s.block;
    s.by = s.at + TABLES * s.all;
    s.blocks = s.by + TABLES * s.block;
    return s;
}

int tiled_rows(const tower_spec *t, grid g) {
    int rows = g.w * g.h + 1;
    return t->max_tiles * (rows + pad_of(t, rows));
}

int tiled_ids_count(const tower_spec *t, grid g) {
    return shape_of(t, g, 1).blocks + 10;
}

static int n_blocks(const shape *s, int rows) {
    return (rows + s->block - 1) / s->block;
}
static int block_rows(const shape *s, int rows) {
    return rows < s->block ? rows : s->block;
}
static int layer_blocks(const shape *s) {
    return n_blocks(s, s->seen) + n_blocks(s, s->all - s->seen);
}
/* What pads, cleared in so many slices. */
static int padding_blocks(const tower_spec *t, const shape *s) {
    return n_blocks(s, s->all - t->max_tiles * s->tile);
}

int tiled_slices(const tower_spec *t, grid g, int n_tiles) {
    shape s = shape_of(t, g, n_tiles);
    int padding = padding_blocks(t, &s), tail = t->run_layers > t->tail_from;
    return t->max_tiles * n_blocks(&s, s.tile) + padding + layer_blocks(&s) * (2 * t->run_layers + tail);
}

static tensor ids_at(const encode_lot *l, int64_t from, int64_t n) {
    return tensor_1d(l->ids.data ? (int32_t *)l->ids.data + from : NULL, DT_I32, n);
}

/* Row i of the picture's arrangement `a` in each table. */
static void place(const tower_spec *t, const shape *s, int a, int i, int32_t *at, int stride) {
    int number = i / s->tile, row = i % s->tile, pads = (s->all - t->max_tiles * s->tile) / t->max_tiles;
    for (int k = 0; k < TABLES; k++) at[k * stride] = -1;
    if (i < t->max_tiles * s->tile) {
        at[0] = row;
        at[stride] = (a * t->max_tiles + number) * s->tile + row;
        if (row) at[2 * stride] = a * t->max_tiles + number;
    } else {
        number = (i - t->max_tiles * s->tile) / pads;
    }
    at[3 * stride] = a * t->max_tiles + number;
}

static void upload(ctx *c, encode_lot *l, const encode *e, const shape *s) {
    const model *m = l->m;
    const tower_spec *t = &m->spec.tower;
    int n = s->blocks + 10, a = m->spec.arrangement(&m->spec, &e->plan), rest = s->all - s->seen;
    int32_t *v = mem_calloc((size_t)n, sizeof *v);
    if (!v) {
        status_set(&c->st, ST_NO_MEMORY, "no memory for positions");
        return;
    }
    for (int i = 0; i < s->tile; i++) v[s->order + i] = i;
    for (int i = 0; i < s->block; i++) {
        v[s->none + i] = -1;
        for (int k = 0; k < TABLES; k++)
            memcpy(&v[s->by + k * s->block + i], &m->tiled_scale[k], sizeof m->tiled_scale[k]);
    }
    for (int i = 0; i < s->all; i++) place(t, s, a, i, &v[s->at + i], s->all);
    int32_t *b = &v[s->blocks];
    b[1] = block_rows(s, s->seen);
    b[3] = s->seen - (n_blocks(s, s->seen) - 1) * b[1];
    b[5] = block_rows(s, rest);
    b[7] = rest - (n_blocks(s, rest) - 1) * b[5];
    b[8] = s->all;
    b[9] = s->seen;
    ctx_upload(c, ids_at(l, 0, n), v);
    mem_free(v);
}

/* x[n] += rows of table k for rows [from, from + n). */
static void add_places(ctx *c, encode_lot *l, const shape *s, int k, tensor x, int from) {
    static const slot tables[TABLES] = {S_POS, S_TILE_POS, S_PRE_TILE, S_POST_TILE};
    int64_t n = x.d[0];
    tensor at = ids_at(l, s->at + (int64_t)k * s->all + from, n), by = ids_at(l, s->by + k * s->block, n);
    op_embed_mix(c, x, l->m->w[tables[k]], tensor_2d(at.data, DT_I32, n, 1),
                 tensor_2d(by.data, DT_F32, n, 1));
}

static void clear(ctx *c, encode_lot *l, const shape *s, tensor x) {
    tensor none = ids_at(l, s->none, x.d[0]);
    op_mix(c, x, l->x, tensor_2d(none.data, DT_I32, x.d[0], 1), (tensor){0});
}

/* A block of a tile's rows; of a tile that there is not the patches are 0. */
static void embed_block(ctx *c, encode_lot *l, const encode *e, const shape *s, int number, int block) {
    const model *m = l->m;
    const tower_spec *t = &m->spec.tower;
    int n = block_rows(s, s->tile), from = block * n, at = number * s->tile + from;
    if (n > s->tile - from) n = s->tile - from;
    tensor x = tensor_rows(l->x, at, n);
    int first = from ? from : 1, patches = from + n - first; /* row 0 is CLS */
    if (number >= s->tiles) clear(c, l, s, x);
    if (number < s->tiles && patches) {
        tile pixels = prep_plan_tile(&e->plan, number);
        size_t mark = arena_mark(c->scratch);
        tensor flat = ctx_2d(c, DT_F32, patches, (int64_t)3 * t->patch * t->patch);
        tower_patchify(c, e, &pixels, ids_at(l, s->order + first - 1, patches), flat);
        op_linear(c, tensor_rows(x, first - from, patches), flat, m->w[S_PATCH_W], m->w[S_PATCH_B], ACT_NONE,
                  0);
        arena_reset(c->scratch, mark);
    }
    if (from == 0) op_embed(c, tensor_rows(x, 0, 1), m->w[S_CLASS], ids_at(l, s->order, 1), 1);
    add_places(c, l, s, 2, x, at);
    add_places(c, l, s, 0, x, at);
    add_places(c, l, s, 1, x, at);
    op_norm(c, x, x, m->w[S_PRE_G], m->w[S_PRE_B], t->stack.norm, TILED_NORM_EPS, 0);
    tower_keep_features(c, l, 0, 0, at, n, t->max_tiles * s->tile);
}

/* Rows of block b of a layer: those of the picture first. */
static void block_at(const shape *s, int b, int *from, int *n, bool *pads, bool *last) {
    int seen = n_blocks(s, s->seen);
    *pads = b >= seen;
    if (*pads) b -= seen;
    int rows = *pads ? s->all - s->seen : s->seen, each = block_rows(s, rows);
    *last = b + 1 == n_blocks(s, rows);
    *n = *last ? rows - b * each : each;
    *from = (*pads ? s->seen : 0) + b * each;
}

static void run_layer(ctx *c, encode_lot *l, const shape *s, int i, int half, int b) {
    const model *m = l->m;
    const tower_spec *t = &m->spec.tower;
    int from, n;
    bool pads, last;
    block_at(s, b, &from, &n, &pads, &last);
    layer_run run = {0};
    run.attn.n_seqs = 1;
    run.attn.q_start = ids_at(l, s->blocks + (pads ? 4 : 0) + (last ? 2 : 0), 2);
    run.attn.kv_len = ids_at(l, s->blocks + (pads ? 9 : 8), 1);
    tensor x = tensor_rows(l->x, from, n), q = tensor_rows(l->q, from, n);
    if (half == 0) {
        stack_project(c, &t->stack, &m->tower[i], x, q, tensor_rows(l->k, from, n),
                      tensor_rows(l->v, from, n), &run);
    } else {
        stack_rest(c, &t->stack, &m->tower[i], i, x, q, tensor_rows(l->k, 0, s->all),
                   tensor_rows(l->v, 0, s->all), &run);
        tower_keep_features(c, l, 0, i + 1, from, n, t->max_tiles * s->tile);
    }
}

/* Between the layers and the tail. */
static void turn_block(ctx *c, encode_lot *l, const shape *s, int b) {
    const model *m = l->m;
    int from, n;
    bool pads, last;
    block_at(s, b, &from, &n, &pads, &last);
    tensor x = tensor_rows(l->x, from, n);
    op_norm(c, x, x, m->w[S_POST_G], m->w[S_POST_B], m->spec.tower.stack.norm, TILED_NORM_EPS, 0);
    add_places(c, l, s, 3, x, from);
}

void tiled_slice(ctx *c, encode_lot *l, const pass *p, int i) {
    const tower_spec *t = &l->m->spec.tower;
    const encode *e = lot_tile_at(l, p, 0).e;
    shape s = shape_of(t, p->g, e->plan.n_tiles);
    int embeds = t->max_tiles * n_blocks(&s, s.tile), padding = padding_blocks(t, &s),
        blocks = layer_blocks(&s);
    if (i == 0) upload(c, l, e, &s);
    if (i < embeds) {
        embed_block(c, l, e, &s, i / n_blocks(&s, s.tile), i % n_blocks(&s, s.tile));
        return;
    }
    i -= embeds;
    if (i < padding) {
        int from = t->max_tiles * s.tile + i * s.block, left = s.all - from;
        clear(c, l, &s, tensor_rows(l->x, from, block_rows(&s, left)));
        return;
    }
    i -= padding;
    int before = t->tail_from * 2 * blocks;
    if (i >= before && i < before + blocks && t->run_layers > t->tail_from) {
        turn_block(c, l, &s, i - before);
        return;
    }
    if (i >= before) i -= blocks;
    run_layer(c, l, &s, i / (2 * blocks), i % (2 * blocks) / blocks, i % blocks);
}
