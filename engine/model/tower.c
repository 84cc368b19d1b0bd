/* tower.c - one tile through the ViT, in slices.
 *
 * A layer is two passes over fixed blocks of rows: the first computes a block's queries, keys and values, the second its
 * attention over all keys and its feed-forward. Only the second changes the hidden rows, and it reads no others' but as
 * the keys and values of the first; all ops are row-exact. So a block at a time is the same as all at once, bit for bit.
 * A slice is one block in one pass.
 *
 * Patches stand row by row, or, for a join that merges k x k of them, so that each such block is k * k rows in turn.
 *
 * The tile's index arrays (encode.h: ids), each after the other: which patch a row is (0 first); each row's place in the
 * table of positions, CLS's included; {0, rows of a block}; {0, rows of the last block}; {rows}.
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

int tower_ids_count(const tower_spec *t, grid g) {
    return g.w * g.h + tower_rows(t, g) + 5;
}

/* All blocks but the last are about alike. */
static int n_blocks(int rows) {
    return (rows + TOWER_BLOCK_ROWS - 1) / TOWER_BLOCK_ROWS;
}
static int block_rows(int rows) {
    return (rows + n_blocks(rows) - 1) / n_blocks(rows);
}

int tower_slices(const tower_spec *t, grid g) {
    return n_blocks(g.w * g.h) + t->run_layers * 2 * n_blocks(tower_rows(t, g));
}

static tensor ids_at(const encode *e, int64_t from, int64_t n) {
    return tensor_1d(e->ids.data ? (int32_t *)e->ids.data + from : NULL, DT_I32, n);
}

/* Patches in the order of their rows, and their places. */
static void fill_order(const model_spec *s, grid g, int32_t *order, int32_t *place) {
    const tower_spec *t = &s->tower;
    int k = s->join.merge > 1 ? s->join.merge : 1, side = t->image_size / t->patch, cls = t->cls ? 1 : 0;
    for (int i = 0; i < g.w * g.h; i++) {
        int block = i / (k * k), in = i % (k * k);
        int x = block % (g.w / k) * k + in % k, y = block / (g.w / k) * k + in / k;
        order[i] = y * g.w + x;
        place[cls + i] =
            cls + (t->pos_buckets ? bucket_of(y, g.h, side) * side + bucket_of(x, g.w, side) : order[i]);
    }
}

static void upload_ids(ctx *c, encode *e, grid g) {
    const tower_spec *t = &e->m->spec.tower;
    if (e->ids_of.w == g.w && e->ids_of.h == g.h) return;
    int patches = g.w * g.h, all = tower_rows(t, g), n = tower_ids_count(t, g), block = block_rows(all);
    int32_t *host = mem_calloc((size_t)n, sizeof *host);
    if (!host) {
        status_set(&c->st, ST_NO_MEMORY, "no memory for positions");
        return;
    }
    fill_order(&e->m->spec, g, host, host + patches);
    int32_t *ends = host + patches + all;
    ends[1] = block;
    ends[3] = all - (n_blocks(all) - 1) * block;
    ends[4] = all;
    ctx_upload(c, ids_at(e, 0, n), host);
    mem_free(host);
    e->ids_of = g;
}

/* Rows [from, from + n) after layer `state` (0: before the first), where a feature is made of them. */
static void keep_features(ctx *c, encode *e, int state, int64_t from, int64_t n) {
    const tower_spec *t = &e->m->spec.tower;
    int64_t drop = t->drop_first ? 1 : 0, to = from + n - drop, width = t->stack.width;
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

/* A block of patches; CLS goes with the first. */
static void embed_patches(ctx *c, encode *e, const tile *at, int block) {
    const model *m = e->m;
    const tower_spec *t = &m->spec.tower;
    const prep_spec *p = &m->spec.prep;
    grid g = tower_grid(t, at);
    int64_t all = (int64_t)g.w * g.h, n = block_rows((int)all), from = block * n, cls = t->cls ? 1 : 0;
    if (n > all - from) n = all - from;
    int64_t row = cls + from;
    size_t mark = arena_mark(c->scratch);
    tensor patches = ctx_2d(c, DT_F32, n, (int64_t)3 * t->patch * t->patch);
    patchify_args a = {.patch = t->patch, .rescale = p->rescale, .order = ids_at(e, from, n)};
    memcpy(a.mean, p->mean, sizeof a.mean);
    memcpy(a.std, p->std, sizeof a.std);
    uint8_t *pixels = e->pixels.data ? (uint8_t *)e->pixels.data + at->at : NULL;
    op_patchify(c, patches, tensor_3d(pixels, DT_U8, at->h, at->w, 3), &a);
    op_linear(c, tensor_rows(e->x, row, n), patches, m->w[S_PATCH_W], m->w[S_PATCH_B], ACT_NONE, 0);
    if (cls && block == 0) {
        op_embed(c, tensor_rows(e->x, 0, 1), m->w[S_CLASS], ids_at(e, 0, 1), 1);
        row = 0, n++;
    }
    tensor x = tensor_rows(e->x, row, n);
    op_embed_add(c, x, m->w[S_POS], ids_at(e, all + row, n));
    if (t->pre_norm) op_norm(c, x, x, m->w[S_PRE_G], m->w[S_PRE_B], t->stack.norm, t->stack.norm_eps, 0);
    keep_features(c, e, 0, row, n);
    arena_reset(c->scratch, mark);
}

static void run_layer(ctx *c, encode *e, grid g, int i, int pass, int block) {
    const model *m = e->m;
    const tower_spec *t = &m->spec.tower;
    int all = tower_rows(t, g);
    int64_t n = block_rows(all), from = block * n;
    bool last = block + 1 == n_blocks(all);
    if (last) n = all - from;
    layer_run run = {0};
    run.attn.n_seqs = 1;
    int64_t ends = (int64_t)g.w * g.h + all;
    run.attn.q_start = ids_at(e, ends + (last ? 2 : 0), 2);
    run.attn.kv_len = ids_at(e, ends + 4, 1);
    tensor x = tensor_rows(e->x, from, n), q = tensor_rows(e->q, from, n);
    tensor k = tensor_rows(e->k, 0, all), v = tensor_rows(e->v, 0, all);
    if (pass == 0) {
        stack_project(c, &t->stack, &m->tower[i], x, q, tensor_rows(k, from, n), tensor_rows(v, from, n),
                      &run);
    } else {
        stack_attend(c, &t->stack, &m->tower[i], i, x, q, k, v, &run);
        stack_feed_forward(c, &t->stack, &m->tower[i], x);
        keep_features(c, e, i + 1, from, n);
    }
}

void tower_slice(ctx *c, encode *e, const tile *at, int i) {
    const tower_spec *t = &e->m->spec.tower;
    grid g = tower_grid(t, at);
    int patches = n_blocks(g.w * g.h), blocks = n_blocks(tower_rows(t, g));
    upload_ids(c, e, g);
    if (i < patches) {
        embed_patches(c, e, at, i);
    } else {
        i -= patches;
        run_layer(c, e, g, i / (2 * blocks), i % (2 * blocks) / blocks, i % blocks);
    }
}
