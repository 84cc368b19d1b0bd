/* load.c - makes a model's weights from a bound checkpoint.
 *
 * Thread: the loader's, then the model is read-only. The model owns its checkpoint: the weights point into it. */
#include <string.h>

#include "engine/model/impl.h"

static bool make_weight(model *m, tensor t, unsigned use, weight **out, status *st) {
    /* A convolution whose windows do not overlap is a matrix over patches; a lone row is a table of one. */
    if (t.nd == 4) t = tensor_2d(t.data, t.dt, t.d[0], t.d[1] * t.d[2] * t.d[3]);
    if (t.nd == 1 && use == WEIGHT_TABLE) t = tensor_2d(t.data, t.dt, 1, t.d[0]);
    *out = weight_new(m->be, &t, use, st);
    return *out != NULL;
}

static bool make_layers(model *m, const stack_spec *s, int n, tensor (*from)[L_COUNT], layer_weights **out,
                        status *st) {
    *out = mem_calloc((size_t)n + 1, sizeof **out);
    if (!*out) return status_set(st, ST_NO_MEMORY, "no memory for %d layers", n);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < L_COUNT; k++) {
            int64_t d[2];
            unsigned use;
            if (from[i][k].nd == 0) continue;
            layer_slot_shape(s, (layer_slot)k, d, &use);
            if (!make_weight(m, from[i][k], use, &(*out)[i].w[k], st)) return false;
        }
    return true;
}

static bool make_rope(model *m, status *st) {
    const rope_spec *r = &m->spec.text.stack.rope;
    if (r->kind == ROPE_NONE) return true;
    m->inv_freq_host = mem_calloc((size_t)r->dims / 2, sizeof(float));
    if (!m->inv_freq_host) return status_set(st, ST_NO_MEMORY, "no memory for rope frequencies");
    rope_frequencies(r, m->inv_freq_host, &m->rope.factor);
    tensor t = tensor_1d(m->inv_freq_host, DT_F32, r->dims / 2);
    m->inv_freq = weight_new(m->be, &t, WEIGHT_VECTOR, st);
    m->rope.inv_freq = m->inv_freq;
    m->rope.theta = r->theta;
    m->rope.max_pos = r->max_pos;
    m->rope.dyn_factor = r->kind == ROPE_DYNAMIC ? r->factor : 0;
    return m->inv_freq != NULL;
}

static bool make_tower_ids(model *m, status *st) {
    if (m->spec.tower.stack.n_layers == 0) return true;
    int n = tower_all_rows(&m->spec.tower);
    int32_t *host = mem_calloc((size_t)n, sizeof *host);
    m->tower_ids = backend_alloc(m->be, (size_t)n * sizeof *host, st);
    if (!host || !m->tower_ids) {
        mem_free(host);
        return status_set(st, ST_NO_MEMORY, "no memory for positions");
    }
    for (int i = 0; i < n; i++) host[i] = i;
    ctx c = {.be = m->be};
    ctx_upload(&c, tensor_1d(m->tower_ids, DT_I32, n), host);
    mem_free(host);
    return ctx_ok(&c) || status_set(st, c.st.code, "%s", c.st.msg);
}

/* The patch matrix with channels before pixels, as op_patchify gives them. */
static int64_t patch_from(const model_spec *s, int64_t i, int64_t j) {
    int64_t area = (int64_t)s->tower.patch * s->tower.patch;
    return i * 3 * area + j % area * 3 + j / area;
}
/* The table of positions as a matrix: a resampled position is a row of weights times it. */
static int64_t pos_from(const model_spec *s, int64_t i, int64_t j) {
    return j * s->tower.stack.width + i;
}

static bool make_grid(model *m, const plan *p, status *st) {
    const tower_spec *t = &m->spec.tower;
    int64_t width = t->stack.width, table = (int64_t)t->table_side * t->table_side;
    m->w[S_PATCH_W] = dual_relaid(m, &p->slots[S_PATCH_W], width, 3 * (int64_t)t->patch * t->patch,
                                  patch_from, WEIGHT_LINEAR, &m->patch_host, st);
    m->w[S_POS] = m->w[S_PATCH_W] ? dual_relaid(m, &p->slots[S_POS], width, table, pos_from, WEIGHT_LINEAR,
                                                &m->pos_host, st)
                                  : NULL;
    return m->w[S_POS] != NULL;
}

static bool make_all(model *m, const plan *p, status *st) {
    if (m->spec.tower.max_patches && !make_grid(m, p, st)) return false;
    for (int i = 0; i < S_COUNT; i++) {
        int64_t d[4];
        unsigned use;
        if (p->slots[i].nd == 0 || m->w[i]) continue;
        slot_shape(&m->spec, (slot)i, d, &use);
        if (!make_weight(m, p->slots[i], use, &m->w[i], st)) return false;
    }
    return (!p->tower ||
            make_layers(m, &m->spec.tower.stack, m->spec.tower.run_layers, p->tower, &m->tower, st)) &&
           make_layers(m, &m->spec.text.stack, m->spec.text.stack.n_layers, p->text, &m->text, st) &&
           make_rope(m, st) && make_tower_ids(m, st) && (!m->spec.dual.on || dual_make(m, p, st));
}

model *model_load(const char *dir, backend *be, status *st) {
    status local = {0};
    if (!st) st = &local;
    plan p;
    if (!plan_open(&p, dir, st)) return NULL;
    model *m = mem_calloc(1, sizeof *m);
    bool ok = m || status_set(st, ST_NO_MEMORY, "no memory for a model");
    if (ok) {
        m->spec = p.spec;
        m->be = be;
        m->ckpt = p.ckpt;
        p.ckpt = NULL;
        m->weight_bytes = p.weight_bytes;
        m->weight_dtype = p.text[0][L_Q_W].dt;
        ok = make_all(m, &p, st);
        if (!ok) {
            status_prefix(st, "%s", dir);
            model_free(m);
        }
    }
    plan_close(&p);
    return ok ? m : NULL;
}

static void free_layers(layer_weights *l, int n) {
    for (int i = 0; l && i < n; i++)
        for (int k = 0; k < L_COUNT; k++) weight_free(l[i].w[k]);
    mem_free(l);
}

void model_free(model *m) {
    if (!m) return;
    for (int i = 0; i < S_COUNT; i++) weight_free(m->w[i]);
    free_layers(m->tower, m->spec.tower.run_layers);
    free_layers(m->text, m->spec.text.stack.n_layers);
    dual_free(m);
    weight_free(m->inv_freq);
    mem_free(m->inv_freq_host);
    mem_free(m->patch_host);
    mem_free(m->pos_host);
    if (m->tower_ids) backend_release(m->be, m->tower_ids);
    ckpt_close(m->ckpt);
    mem_free(m);
}

const model_spec *model_get_spec(const model *m) {
    return &m->spec;
}
size_t model_weight_bytes(const model *m) {
    return m->weight_bytes;
}
dtype model_weight_dtype(const model *m) {
    return m->weight_dtype;
}
