/* load.c - makes a model's weights from a bound checkpoint.
 *
 * Thread: the loader's, then the model is read-only. The model owns its checkpoint: the weights point into it. */
#include <math.h>
#include <string.h>

#include "engine/model/dual.h"
#include "engine/model/impl.h"

bool model_declare(model *m, const tensor *t, unsigned use, weight **out, status *st) {
    if ((m->n_all & (m->n_all - 1)) == 0) { /* room doubles */
        weight **all = mem_realloc(m->all, (m->n_all ? 2 * (size_t)m->n_all : 1) * sizeof(weight *));
        if (!all) return status_set(st, ST_NO_MEMORY, "no memory for %d weights", m->n_all + 1);
        m->all = all;
    }
    *out = weight_declare(m->be, t, use, st);
    if (*out) m->all[m->n_all++] = *out;
    return *out != NULL;
}

static bool make_weight(model *m, tensor t, unsigned use, weight **out, status *st) {
    /* A convolution whose windows do not overlap is a matrix over patches; a lone row is a table of one. */
    if (t.nd > 3) t = tensor_2d(t.data, t.dt, t.d[0], tensor_count(&t) / t.d[0]);
    if (t.nd != 2 && use == WEIGHT_TABLE)
        t = tensor_2d(t.data, t.dt, tensor_count(&t) / t.d[t.nd - 1], t.d[t.nd - 1]);
    return model_declare(m, &t, use, out, st);
}

/* Memory of the host that weights view, until the model is freed; NULL without memory. */
static void *keep(model *m, size_t bytes) {
    struct model_kept *k = mem_alloc(sizeof *k + bytes);
    if (!k) return NULL;
    k->next = m->kept;
    m->kept = k;
    return k + 1;
}

/* A lone number g as a vector of tanh(g). */
static bool make_gate(model *m, tensor t, int width, weight **out, status *st) {
    float *v = keep(m, (size_t)width * sizeof *v);
    if (!v) return status_set(st, ST_NO_MEMORY, "no memory for a gate");
    float g = tanhf(tensor_host_number(&t, 0));
    for (int i = 0; i < width; i++) v[i] = g;
    tensor all = tensor_1d(v, DT_F32, width);
    return model_declare(m, &all, WEIGHT_VECTOR, out, st);
}

/* A matrix over features that lie in turn, f1[0] f2[0] .. f1[1] f2[1] .., behind the first one: as one over features that lie
 * one after the other. */
static bool deinterleave(model *m, tensor *t, int width, int n, status *st) {
    size_t size = dtype_size(t->dt), row = (size_t)t->d[1] * size;
    CHECK(t->d[1] == (int64_t)width * (n + 1));
    uint8_t *out = keep(m, row * (size_t)t->d[0]);
    if (!out) return status_set(st, ST_NO_MEMORY, "no memory for the projector");
    for (int64_t r = 0; r < t->d[0]; r++) {
        const uint8_t *from = (const uint8_t *)t->data + (size_t)r * row, *in = from + (size_t)width * size;
        uint8_t *to = out + (size_t)r * row;
        memcpy(to, from, (size_t)width * size);
        for (int f = 0; f < n; f++)
            for (int k = 0; k < width; k++)
                memcpy(to + (size_t)((f + 1) * width + k) * size, in + (size_t)(k * n + f) * size, size);
    }
    t->data = out;
    return true;
}

/* Tables of a tower of tiles together, row by row, and what their rows are multiplied by. */
static void shape_tables(model *m, const plan *p, int which, tensor *t) {
    const tower_spec *k = &m->spec.tower;
    if (!tower_together(k)) return;
    if (which == S_TILE_POS || which == S_PRE_TILE || which == S_POST_TILE)
        *t = tensor_2d(t->data, t->dt, tensor_count(t) / k->stack.width, k->stack.width);
    if (which != S_TILE_POS) return;
    float pos = tanhf(tensor_host_number(plan_find(p, WANTED_ALONE, 0, S_POS_GATE), 0));
    m->tiled_scale[0] = 1 - pos;
    m->tiled_scale[1] = pos;
    m->tiled_scale[2] = tanhf(tensor_host_number(plan_find(p, WANTED_ALONE, 0, S_PRE_TILE_GATE), 0));
    m->tiled_scale[3] = tanhf(tensor_host_number(plan_find(p, WANTED_ALONE, 0, S_POST_TILE_GATE), 0));
}

static bool make_rope(model *m, const rope_spec *r, model_rope *out, status *st) {
    if (r->kind == ROPE_NONE) return true;
    int pairs = r->dims / 2;
    out->host = mem_calloc((size_t)pairs * 2, sizeof(float));
    if (!out->host) return status_set(st, ST_NO_MEMORY, "no memory for rope frequencies");
    rope_frequencies(r, out->host, &out->args.factor);
    tensor t = tensor_1d(out->host, DT_F32, pairs), a = tensor_1d(out->host + pairs, DT_F32, pairs);
    bool ok = model_declare(m, &t, WEIGHT_VECTOR, &out->inv_freq, st) &&
              (!rope_axes(r, out->host + pairs) || model_declare(m, &a, WEIGHT_VECTOR, &out->axis, st));
    out->args.axis = out->axis;
    out->args.inv_freq = out->inv_freq;
    out->args.theta = r->theta;
    out->args.max_pos = r->max_pos;
    out->args.dyn_factor = r->kind == ROPE_DYNAMIC ? r->factor : 0;
    return ok;
}

/* [in, out] to a copy [out, in]. */
static bool turn(model *m, tensor *t, status *st) {
    size_t size = dtype_size(t->dt), in = (size_t)t->d[0], out = (size_t)t->d[1];
    const uint8_t *from = t->data;
    uint8_t *to = keep(m, in * out * size);
    if (!to) return status_set(st, ST_NO_MEMORY, "no memory for a matrix of %zu numbers", in * out);
    for (size_t k = 0; k < in; k++)
        for (size_t o = 0; o < out; o++) memcpy(to + (o * in + k) * size, from + (k * out + o) * size, size);
    *t = tensor_2d(to, t->dt, t->d[1], t->d[0]);
    return true;
}

/* Room for the weights of each part of wanted_each, and where one of them goes. */
static bool make_room(model *m, const plan *p, status *st) {
    const model_spec *s = &m->spec;
    m->tower = mem_calloc((size_t)s->tower.run_layers + 1, sizeof *m->tower);
    m->join = mem_calloc((size_t)s->join.stack.n_layers + 1, sizeof *m->join);
    m->text = mem_calloc((size_t)s->text.stack.n_layers + 1, sizeof *m->text);
    m->deep = mem_calloc((size_t)s->deep.n + 1, sizeof *m->deep);
    if (!m->tower || !m->join || !m->text || !m->deep)
        return status_set(st, ST_NO_MEMORY, "no memory for layers");
    return !s->dual.on || dual_make(m, p, st);
}

static weight **room_of(model *m, const wanted *w) {
    weight **out = NULL;
    switch (w->part) {
    case WANTED_ALONE: out = &m->w[w->slot]; break;
    case WANTED_TOWER: out = &m->tower[w->at].w[w->slot]; break;
    case WANTED_JOIN: out = &m->join[w->at].w[w->slot]; break;
    case WANTED_TEXT: out = &m->text[w->at].w[w->slot]; break;
    case WANTED_DEEP: out = &m->deep[w->at][w->slot - S_FIRST_JOIN]; break;
    case WANTED_DUAL: out = &m->dual->w[w->slot]; break;
    }
    CHECK(out && !*out);
    return out;
}

static bool make_alone(model *m, const plan *p, const wanted *w, tensor *t, status *st) {
    if (w->slot == S_EMBED_POS) /* so that positions are its rows */
        *t = tensor_rows(*t, m->spec.text.learned_pos_from, t->d[0] - m->spec.text.learned_pos_from);
    shape_tables(m, p, w->slot, t);
    return w->slot != S_FC1_W || !m->spec.join.interleaved ||
           deinterleave(m, t, m->spec.tower.stack.width, m->spec.join.interleaved, st);
}

static bool make_all(model *m, const plan *p, status *st) {
    if (!make_room(m, p, st)) return false;
    for (int i = 0; i < p->n; i++) {
        const wanted *w = &p->all[i].as;
        weight **out = room_of(m, w);
        tensor t = p->all[i].t;
        if (w->part == WANTED_DUAL && (w->slot == DUAL_SCALE || w->slot == DUAL_BIAS)) continue;
        if (w->transposed && !turn(m, &t, st)) return false;
        if (w->part == WANTED_ALONE && !make_alone(m, p, w, &t, st)) return false;
        bool gate = w->stack && w->stack->gated[w->at] && (w->slot == L_SCALE1 || w->slot == L_SCALE2);
        if (gate ? !make_gate(m, t, w->stack->width, out, st) : !make_weight(m, t, w->use, out, st))
            return false;
    }
    return make_rope(m, &m->spec.text.stack.rope, &m->rope, st) &&
           make_rope(m, &m->spec.text.rope_local, &m->rope_local, st) &&
           make_rope(m, &m->spec.tower.stack.rope, &m->rope_tower, st);
}

model *model_open(const char *dir, backend *be, status *st) {
    status local = {0};
    if (!st) st = &local;
    plan p;
    if (!plan_open(&p, dir, st)) return NULL;
    model *m = mem_calloc(1, sizeof *m);
    bool ok = m || status_set(st, ST_NO_MEMORY, "no memory for a model");
    if (ok) {
        m->spec = p.spec;
        m->spec.tower.block_rows = backend_encode_rows(be);
        m->be = be;
        m->ckpt = p.ckpt;
        p.ckpt = NULL;
        m->weight_bytes = p.weight_bytes;
        m->weight_dtype = plan_find(&p, WANTED_TEXT, 0, L_Q_W)->dt;
        ok = make_all(m, &p, st);
        if (ok) m->device_bytes = weights_bytes(be, m->all, m->n_all);
        if (!ok) {
            status_prefix(st, "%s", dir);
            model_free(m);
        }
    }
    plan_close(&p);
    return ok ? m : NULL;
}

bool model_upload(model *m, status *st) {
    if (!weights_load(m->be, m->all, m->n_all, st)) return status_prefix(st, "weights");
    if (m->device_bytes) ckpt_forget(m->ckpt);
    return true;
}

model *model_load(const char *dir, backend *be, status *st) {
    model *m = model_open(dir, be, st);
    if (!m || model_upload(m, st)) return m;
    model_free(m);
    return NULL;
}

static void free_layers(layer_weights *l, int n) {
    for (int i = 0; l && i < n; i++)
        for (int k = 0; k < L_COUNT; k++) weight_free(l[i].w[k]);
    mem_free(l);
}

static void free_rope(model_rope *r) {
    weight_free(r->inv_freq);
    weight_free(r->axis);
    mem_free(r->host);
}

void model_free(model *m) {
    if (!m) return;
    for (int i = 0; i < S_COUNT; i++) weight_free(m->w[i]);
    free_layers(m->tower, m->spec.tower.run_layers);
    free_layers(m->join, m->spec.join.stack.n_layers);
    free_layers(m->text, m->spec.text.stack.n_layers);
    for (int i = 0; m->deep && i < m->spec.deep.n; i++)
        for (int k = 0; k < JOIN_SLOTS; k++) weight_free(m->deep[i][k]);
    mem_free(m->deep);
    free_rope(&m->rope);
    free_rope(&m->rope_local);
    free_rope(&m->rope_tower);
    dual_free(m);
    mem_free(m->all);
    while (m->kept) {
        struct model_kept *k = m->kept;
        m->kept = k->next;
        mem_free(k);
    }
    ckpt_close(m->ckpt);
    mem_free(m);
}

const model_spec *model_get_spec(const model *m) {
    return &m->spec;
}
size_t model_weight_bytes(const model *m) {
    return m->weight_bytes;
}
size_t model_device_bytes(const model *m) {
    return m->device_bytes;
}
dtype model_weight_dtype(const model *m) {
    return m->weight_dtype;
}
