/* tower.c - one picture through the tower and the join, resumable at a layer.
 *
 * Thread: the engine's. An encode owns its activations on the device, so that any number of pictures can stand half
 * done while decode steps use the scratch; scratch is touched within one layer only. */
#include <string.h>

#include "engine/model/impl.h"

struct encode {
    const model *m;
    backend *be;
    int next;     /* step to run: 0 the patches, 1..run_layers the layers, then the join */
    void *work;   /* pixels, hidden rows, features; given back by encode_shrink */
    void *result; /* f32 [rows, text width] */
    tensor pixels, x, features, rows;
};

typedef struct layout { /* byte offsets into work */
    size_t pixels, x, features, total, result;
} layout;

static size_t round64(size_t n) {
    return (n + 63) & ~(size_t)63;
}

static layout layout_of(const model_spec *s) {
    const tower_spec *t = &s->tower;
    layout l = {0};
    size_t all = (size_t)tower_all_rows(t), width = (size_t)t->stack.width * sizeof(float);
    l.x = l.pixels + round64((size_t)t->image_size * (size_t)t->image_size * 3);
    l.features = l.x + round64(all * width);
    l.total = l.features + round64((size_t)t->rows * width * (size_t)t->n_features);
    l.result = round64((size_t)t->rows * (size_t)s->join.out * sizeof(float));
    return l;
}

size_t encode_bytes(const model *m) {
    if (m->spec.tower.stack.n_layers == 0) return 0;
    layout l = layout_of(&m->spec);
    return l.total + l.result;
}

int encode_layers(const encode *e) {
    return e->m->spec.tower.run_layers + 2;
}

encode *encode_new(const model *m, backend *be, const image *pixels, status *st) {
    const tower_spec *t = &m->spec.tower;
    if (t->stack.n_layers == 0) {
        status_set(st, ST_UNSUPPORTED, "this model takes no pictures");
        return NULL;
    }
    if (pixels && (pixels->w != t->image_size || pixels->h != t->image_size)) {
        status_set(st, ST_INVALID, "expected a picture of %d x %d pixels for the tower, found %d x %d",
                   t->image_size, t->image_size, pixels->w, pixels->h);
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
    if (pixels) {
        e->work = backend_alloc(be, l.total, st);
        e->result = e->work ? backend_alloc(be, l.result, st) : NULL;
        if (!e->result) {
            encode_free(e);
            return NULL;
        }
    }
    uint8_t *at = e->work;
    int64_t side = t->image_size;
    e->pixels = tensor_3d(at ? at + l.pixels : NULL, DT_U8, side, side, 3);
    e->x = tensor_2d(at ? at + l.x : NULL, DT_F32, tower_all_rows(t), t->stack.width);
    e->features =
        tensor_2d(at ? at + l.features : NULL, DT_F32, t->rows, (int64_t)t->stack.width * t->n_features);
    e->rows = tensor_2d(e->result, DT_F32, t->rows, m->spec.join.out);
    if (pixels) {
        ctx c = {.be = be};
        ctx_upload(&c, e->pixels, pixels->rgb);
        if (!ctx_ok(&c)) {
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

static void keep_features(ctx *c, encode *e, int state) {
    const tower_spec *t = &e->m->spec.tower;
    for (int i = 0; i < t->n_features; i++)
        if (t->features[i] == state)
            op_copy(c, tensor_cols(e->features, (int64_t)i * t->stack.width, t->stack.width),
                    tensor_rows(e->x, t->drop_first ? 1 : 0, t->rows));
}

static void embed_patches(ctx *c, encode *e) {
    const model *m = e->m;
    const tower_spec *t = &m->spec.tower;
    const prep_spec *p = &m->spec.prep;
    int64_t side = t->image_size / t->patch, n = side * side, first = t->cls ? 1 : 0;
    size_t mark = arena_mark(c->scratch);
    tensor patches = ctx_2d(c, DT_F32, n, (int64_t)3 * t->patch * t->patch);
    patchify_args a = {.patch = t->patch, .rescale = p->rescale};
    memcpy(a.mean, p->mean, sizeof a.mean);
    memcpy(a.std, p->std, sizeof a.std);
    op_patchify(c, patches, e->pixels, &a);
    op_linear(c, tensor_rows(e->x, first, n), patches, m->w[S_PATCH_W], m->w[S_PATCH_B], ACT_NONE,
              LINEAR_BULK);
    if (t->cls) op_embed(c, tensor_rows(e->x, 0, 1), m->w[S_CLASS], tower_ids(m, 0, 1), 1);
    op_embed_add(c, e->x, m->w[S_POS], tower_ids(m, 0, e->x.d[0]));
    if (t->pre_norm)
        op_norm(c, e->x, e->x, m->w[S_PRE_G], m->w[S_PRE_B], t->stack.norm, t->stack.norm_eps, 0);
    arena_reset(c->scratch, mark);
}

static void join(ctx *c, encode *e) {
    const model *m = e->m;
    const join_spec *j = &m->spec.join;
    size_t mark = arena_mark(c->scratch);
    if (j->kind == JOIN_LINEAR) {
        op_linear(c, e->rows, e->features, m->w[S_FC1_W], m->w[S_FC1_B], ACT_NONE, LINEAR_BULK);
    } else {
        tensor h = ctx_2d(c, DT_F32, e->features.d[0], j->hidden);
        op_linear(c, h, e->features, m->w[S_FC1_W], m->w[S_FC1_B], j->activation, LINEAR_BULK);
        op_linear(c, e->rows, h, m->w[S_FC2_W], m->w[S_FC2_B], ACT_NONE, LINEAR_BULK);
    }
    arena_reset(c->scratch, mark);
}

bool encode_run(ctx *c, encode *e, int max_layers) {
    const model *m = e->m;
    const tower_spec *t = &m->spec.tower;
    int64_t all = tower_all_rows(t);
    layer_run run = {.bulk = true};
    run.attn.n_seqs = 1;
    run.attn.q_start = tower_ids(m, all, 2);
    run.attn.kv_len = tower_ids(m, all + 2, 1);
    for (; max_layers > 0 && e->next < encode_layers(e) && ctx_ok(c); max_layers--) {
        if (e->next == 0) {
            embed_patches(c, e);
            keep_features(c, e, 0);
        } else if (e->next <= t->run_layers) {
            stack_layer(c, &t->stack, &m->tower[e->next - 1], e->next - 1, e->x, &run);
            keep_features(c, e, e->next);
        } else {
            join(c, e);
        }
        if (ctx_ok(c)) e->next++;
    }
    return ctx_ok(c) && e->next == encode_layers(e);
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
