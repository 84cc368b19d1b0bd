/* tower.c - one picture through the tower and the join, resumable within a layer.
 *
 * A layer is two passes over fixed blocks of rows: the first computes a block's queries, keys and values, the second its
 * attention over all keys and its feed-forward. Only the second changes the hidden rows, and it reads no others' but as
 * the keys and values of the first; all ops are row-exact. So a block at a time is the same as all at once, bit for bit.
 * A slice is one block in one pass.
 *
 * Thread: the engine's. An encode owns its activations on the device, so that any number of pictures can stand half
 * done while decode steps use the scratch; scratch is touched within one slice only. */
#include <string.h>

#include "engine/model/impl.h"

struct encode {
    const model *m;
    backend *be;
    int next;     /* slice to run: first the patches', then the layers', then the join's */
    int gw, gh;   /* patches across and down */
    int block;    /* rows of a slice, but for the last */
    void *work;   /* pixels, hidden rows, a layer's q, k and v, features; given back by encode_shrink */
    void *result; /* f32 [rows, text width] */
    tensor pixels, x, q, k, v, features, rows;
    tensor seq;  /* i32: {0, rows of a block}, {0, rows of the last block}, {rows}, {0, 1} */
    tensor taps; /* where positions are resampled: f32 [patches, places of the table] */
};
enum { SEQ_BLOCK = 0, SEQ_LAST = 2, SEQ_ROWS = 4, SEQ_ONE = 5, SEQ_COUNT = 7 };

typedef struct layout { /* byte offsets into work */
    size_t pixels, x, q, k, v, features, seq, taps, total, result;
} layout;

static size_t round64(size_t n) {
    return (n + 63) & ~(size_t)63;
}

static layout layout_of(const model_spec *s) {
    const tower_spec *t = &s->tower;
    layout l = {0};
    size_t all = (size_t)tower_all_rows(t), width = (size_t)t->stack.width * sizeof(float);
    size_t head = (size_t)t->stack.head_dim * sizeof(float), kv = (size_t)t->stack.kv_heads * head;
    size_t area = (size_t)t->patch * (size_t)t->patch, side = (size_t)t->image_size;
    size_t table = (size_t)t->table_side * (size_t)t->table_side;
    l.x = l.pixels + round64((t->max_patches ? (size_t)t->max_patches * area : side * side) * 3);
    l.q = l.x + round64(all * width);
    l.k = l.q + round64(all * (size_t)t->stack.heads * head);
    l.v = l.k + round64(all * kv);
    l.features = l.v + round64(all * kv);
    l.seq = l.features + round64((size_t)t->rows * width * (size_t)t->n_features);
    l.taps = l.seq + round64(SEQ_COUNT * sizeof(int32_t));
    l.total = l.taps + round64((size_t)t->max_patches * table * sizeof(float));
    size_t out = s->dual.on ? (size_t)s->dual.width : (size_t)t->rows * (size_t)s->join.out;
    l.result = round64(out * sizeof(float));
    return l;
}

size_t encode_bytes(const model *m) {
    if (m->spec.tower.stack.n_layers == 0) return 0;
    layout l = layout_of(&m->spec);
    return l.total + l.result;
}

/* Patches are taken by whole rows of the picture's grid. */
static int patch_block(const encode *e) {
    int lines = TOWER_BLOCK_ROWS / e->gw;
    return lines > 1 ? lines : 1;
}
static int patch_slices(const encode *e) {
    return (e->gh + patch_block(e) - 1) / patch_block(e);
}
static int all_rows(const encode *e) {
    return e->gw * e->gh + (e->m->spec.tower.cls ? 1 : 0);
}
static int blocks(const encode *e) {
    return (all_rows(e) + e->block - 1) / e->block;
}
static int join_slices(const encode *e) {
    const model_spec *s = &e->m->spec;
    if (s->dual.on) return dual_picture_slices(s, all_rows(e), e->block);
    return (s->tower.rows + TOWER_BLOCK_ROWS - 1) / TOWER_BLOCK_ROWS;
}

int encode_slices(const encode *e) {
    return patch_slices(e) + e->m->spec.tower.run_layers * 2 * blocks(e) + join_slices(e);
}

bool tower_takes(const tower_spec *t, int w, int h) {
    if (!t->max_patches) return w == t->image_size && h == t->image_size;
    return w >= t->patch && h >= t->patch && w % t->patch == 0 && h % t->patch == 0 &&
           (int64_t)(w / t->patch) * (h / t->patch) <= t->max_patches;
}

/* Without pixels: the grid whose slices take the most scratch, one line of all patches in blocks that are full. */
static bool plan_grid(encode *e, const image *pixels, status *st) {
    const tower_spec *t = &e->m->spec.tower;
    e->gw = e->gh = t->image_size / t->patch;
    if (pixels && !tower_takes(t, pixels->w, pixels->h) && t->max_patches)
        return status_set(
            st, ST_INVALID,
            "expected a picture of whole patches of %d pixels, at most %d, found %d x %d pixels", t->patch,
            t->max_patches, pixels->w, pixels->h);
    if (pixels && !tower_takes(t, pixels->w, pixels->h))
        return status_set(st, ST_INVALID, "expected a picture of %d x %d pixels for the tower, found %d x %d",
                          t->image_size, t->image_size, pixels->w, pixels->h);
    if (t->max_patches) {
        e->gw = pixels ? pixels->w / t->patch : t->max_patches;
        e->gh = pixels ? pixels->h / t->patch : 1;
    }
    e->block = tower_block_rows(all_rows(e));
    if (!pixels && t->max_patches) e->block = all_rows(e) < TOWER_BLOCK_ROWS ? all_rows(e) : TOWER_BLOCK_ROWS;
    return true;
}

/* What only this picture's grid decides. */
static bool upload_grid(encode *e, ctx *c) {
    int all = all_rows(e);
    const int32_t seq[SEQ_COUNT] = {0, e->block, 0, all - (blocks(e) - 1) * e->block, all, 0, 1};
    ctx_upload(c, e->seq, seq);
    if (!e->taps.nd) return ctx_ok(c);
    float *taps = mem_alloc((size_t)tensor_count(&e->taps) * sizeof *taps);
    if (!taps || !resample_taps(e->m->spec.tower.table_side, e->gw, e->gh, taps))
        status_set(&c->st, ST_NO_MEMORY, "no memory for a picture");
    ctx_upload(c, e->taps, taps);
    mem_free(taps);
    return ctx_ok(c);
}

encode *encode_new(const model *m, backend *be, const image *pixels, status *st) {
    const tower_spec *t = &m->spec.tower;
    if (t->stack.n_layers == 0) {
        status_set(st, ST_UNSUPPORTED, "this model takes no pictures");
        return NULL;
    }
    encode *e = mem_calloc(1, sizeof *e);
    if (!e) {
        status_set(st, ST_NO_MEMORY, "no memory for a picture");
        return NULL;
    }
    layout l = layout_of(&m->spec);
    e->m = m;
    e->be = be;
    if (!plan_grid(e, pixels, st)) {
        encode_free(e);
        return NULL;
    }
    if (pixels) {
        e->work = backend_alloc(be, l.total, st);
        e->result = e->work ? backend_alloc(be, l.result, st) : NULL;
        if (!e->result) {
            encode_free(e);
            return NULL;
        }
    }
    uint8_t *at = e->work;
    e->pixels = tensor_3d(at ? at + l.pixels : NULL, DT_U8, pixels ? pixels->h : (int64_t)e->gh * t->patch,
                          pixels ? pixels->w : (int64_t)e->gw * t->patch, 3);
    int64_t all = all_rows(e), hd = t->stack.head_dim;
    e->seq = tensor_1d(at ? at + l.seq : NULL, DT_I32, SEQ_COUNT);
    if (t->max_patches)
        e->taps = tensor_2d(at ? at + l.taps : NULL, DT_F32, all, (int64_t)t->table_side * t->table_side);
    e->x = tensor_2d(at ? at + l.x : NULL, DT_F32, all, t->stack.width);
    e->q = tensor_2d(at ? at + l.q : NULL, DT_F32, all, t->stack.heads * hd);
    e->k = tensor_2d(at ? at + l.k : NULL, DT_F32, all, t->stack.kv_heads * hd);
    e->v = tensor_2d(at ? at + l.v : NULL, DT_F32, all, t->stack.kv_heads * hd);
    e->features =
        tensor_2d(at ? at + l.features : NULL, DT_F32, t->rows, (int64_t)t->stack.width * t->n_features);
    e->rows = m->spec.dual.on ? tensor_2d(e->result, DT_F32, 1, m->spec.dual.width)
                              : tensor_2d(e->result, DT_F32, t->rows, m->spec.join.out);
    if (pixels) {
        ctx c = {.be = be};
        ctx_upload(&c, e->pixels, pixels->rgb);
        if (!upload_grid(e, &c)) {
            status_set(st, c.st.code, "%s", c.st.msg);
            encode_free(e);
            return NULL;
        }
    }
    return e;
}

static tensor tower_ids(const model *m, int64_t from, int64_t n) {
    return tensor_1d(m->tower_ids ? m->tower_ids + from : NULL, DT_I32, n);
}

/* Rows [from, from + n) after layer `state` (0: before the first), where a feature is made of them. */
static void keep_features(ctx *c, encode *e, int state, int64_t from, int64_t n) {
    const tower_spec *t = &e->m->spec.tower;
    int64_t drop = t->drop_first ? 1 : 0, to = from + n - drop;
    from = from > drop ? from - drop : 0;
    for (int i = 0; i < t->n_features && from < to; i++)
        if (t->features[i] == state)
            op_copy(c,
                    tensor_cols(tensor_rows(e->features, from, to - from), (int64_t)i * t->stack.width,
                                t->stack.width),
                    tensor_rows(e->x, from + drop, to - from));
}

/* Lines [from, from + n) of the grid of patches; CLS goes with the first. */
static void embed_patches(ctx *c, encode *e, int slice) {
    const model *m = e->m;
    const tower_spec *t = &m->spec.tower;
    const prep_spec *p = &m->spec.prep;
    int64_t line = (int64_t)slice * patch_block(e), lines = patch_block(e);
    if (lines > e->gh - line) lines = e->gh - line;
    int64_t cls = t->cls ? 1 : 0, n = lines * e->gw, at = cls + line * e->gw;
    size_t mark = arena_mark(c->scratch);
    tensor patches = ctx_2d(c, DT_F32, n, (int64_t)3 * t->patch * t->patch);
    patchify_args a = {.patch = t->patch, .rescale = p->rescale};
    memcpy(a.mean, p->mean, sizeof a.mean);
    memcpy(a.std, p->std, sizeof a.std);
    op_patchify(c, patches, tensor_rows(e->pixels, line * t->patch, lines * t->patch), &a);
    op_linear(c, tensor_rows(e->x, at, n), patches, m->w[S_PATCH_W], m->w[S_PATCH_B], ACT_NONE, 0);
    if (cls && slice == 0) {
        op_embed(c, tensor_rows(e->x, 0, 1), m->w[S_CLASS], tower_ids(m, 0, 1), 1);
        at = 0, n++;
    }
    tensor x = tensor_rows(e->x, at, n);
    if (t->max_patches)
        op_linear(c, x, tensor_rows(e->taps, at, n), m->w[S_POS], NULL, ACT_NONE, LINEAR_ADD);
    else
        op_embed_add(c, x, m->w[S_POS], tower_ids(m, at, n));
    if (t->pre_norm) op_norm(c, x, x, m->w[S_PRE_G], m->w[S_PRE_B], t->stack.norm, t->stack.norm_eps, 0);
    keep_features(c, e, 0, at, n);
    arena_reset(c->scratch, mark);
}

static void run_layer(ctx *c, encode *e, int i, int pass, int block) {
    const model *m = e->m;
    const tower_spec *t = &m->spec.tower;
    int64_t n = e->block, from = block * n;
    bool last = block + 1 == blocks(e);
    if (last) n = e->x.d[0] - from;
    layer_run run = {0};
    run.attn.n_seqs = 1;
    run.attn.q_start = tensor_rows(e->seq, last ? SEQ_LAST : SEQ_BLOCK, 2);
    run.attn.kv_len = tensor_rows(e->seq, SEQ_ROWS, 1);
    tensor x = tensor_rows(e->x, from, n), q = tensor_rows(e->q, from, n);
    if (pass == 0) {
        stack_project(c, &t->stack, &m->tower[i], x, q, tensor_rows(e->k, from, n),
                      tensor_rows(e->v, from, n), &run);
    } else {
        stack_attend(c, &t->stack, &m->tower[i], i, x, q, e->k, e->v, &run);
        stack_feed_forward(c, &t->stack, &m->tower[i], x);
        keep_features(c, e, i + 1, from, n);
    }
}

static void join(ctx *c, encode *e, int slice) {
    const model *m = e->m;
    if (m->spec.dual.on) {
        dual_picture p = {
            e->x,    e->k, e->v, e->rows, tensor_rows(e->seq, SEQ_ONE, 2), tensor_rows(e->seq, SEQ_ROWS, 1),
            e->block};
        dual_picture_slice(c, m, &p, slice);
        return;
    }
    const join_spec *j = &m->spec.join;
    int64_t from = (int64_t)slice * TOWER_BLOCK_ROWS, n = e->rows.d[0] - from;
    if (n > TOWER_BLOCK_ROWS) n = TOWER_BLOCK_ROWS;
    tensor x = tensor_rows(e->features, from, n), y = tensor_rows(e->rows, from, n);
    size_t mark = arena_mark(c->scratch);
    if (j->kind == JOIN_LINEAR) {
        op_linear(c, y, x, m->w[S_FC1_W], m->w[S_FC1_B], ACT_NONE, 0);
    } else {
        tensor h = ctx_2d(c, DT_F32, n, j->hidden);
        op_linear(c, h, x, m->w[S_FC1_W], m->w[S_FC1_B], j->activation, 0);
        op_linear(c, y, h, m->w[S_FC2_W], m->w[S_FC2_B], ACT_NONE, 0);
    }
    arena_reset(c->scratch, mark);
}

static void run_slice(ctx *c, encode *e, int i) {
    const tower_spec *t = &e->m->spec.tower;
    int patches = patch_slices(e), n = blocks(e), each = 2 * n;
    if (i < patches) {
        embed_patches(c, e, i);
        return;
    }
    i -= patches;
    if (i < t->run_layers * each)
        run_layer(c, e, i / each, i % each / n, i % n);
    else
        join(c, e, i - t->run_layers * each);
}

bool encode_run(ctx *c, encode *e, int max_slices) {
    int all = encode_slices(e);
    for (; max_slices > 0 && e->next < all && ctx_ok(c); max_slices--) {
        run_slice(c, e, e->next);
        if (ctx_ok(c)) e->next++;
    }
    return ctx_ok(c) && e->next == all;
}

tensor encode_rows(const encode *e) {
    return e->rows;
}

void encode_shrink(encode *e) {
    if (e->work) backend_release(e->be, e->work);
    e->work = NULL;
}

void encode_free(encode *e) {
    if (!e) return;
    encode_shrink(e);
    if (e->result) backend_release(e->be, e->result);
    mem_free(e);
}
