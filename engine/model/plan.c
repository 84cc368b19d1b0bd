/* plan.c - binds a checkpoint's tensors to a spec's slots, strictly.
 *
 * Thread: the loader's. The plan owns the checkpoint until a model takes it over. */
#include <stdio.h>
#include <string.h>

#include "engine/families/registry.h"
#include "engine/model/impl.h"

int layer_slot_shape(const stack_spec *s, int layer, layer_slot which, int64_t d[2], unsigned *use) {
    int64_t q = (int64_t)s->heads * s->head_dim, k = (int64_t)s->kv_heads * s->head_dim;
    int64_t out = 0, in = 0; /* in 0: a vector */
    int64_t context = s->context_width ? s->context_width : s->width;
    bool heads_normed = s->qk_norm || s->qk_norm_full || (s->cross[layer] && s->cross_qk_norm);
    bool on = true, beside = s->beside_width > 0 && s->beside[layer];
    bool text = s->text_ffn && layer + 1 < s->n_layers;
    switch (which) {
    case L_NORM1_G: out = s->width, on = !s->norm_plain; break;
    case L_NORM1_B: out = s->width, on = s->norm == NORM_LAYER && !s->norm_plain; break;
    case L_NORM2_G: out = s->width, on = s->ffn && !s->norm_plain; break;
    case L_NORM2_B: out = s->width, on = s->ffn && s->norm == NORM_LAYER && !s->norm_plain; break;
    case L_POST1_G:
    case L_POST2_G: out = s->width, on = s->post_norms && !s->norm_plain; break;
    case L_POST1_B:
    case L_POST2_B: out = s->width, on = s->post_norms && s->norm == NORM_LAYER && !s->norm_plain; break;
    case L_Q_W: out = q, in = s->width; break;
    case L_Q_B: out = q, on = s->q_bias; break;
    case L_K_W: out = k, in = context; break;
    case L_K_B: out = k, on = s->k_bias; break;
    case L_V_W: out = k, in = context; break;
    case L_V_B: out = k, on = s->v_bias; break;
    case L_O_W: out = s->width, in = q; break;
    case L_O_B: out = s->width, on = s->o_bias; break;
    case L_QNORM_G: out = s->qk_norm_full ? q : s->head_dim, on = heads_normed; break;
    case L_KNORM_G: out = s->qk_norm_full ? k : s->head_dim, on = heads_normed; break;
    case L_GATE_W: out = s->ffn, in = s->width, on = s->glu; break;
    case L_GATE_B: out = s->ffn, on = s->glu && s->mlp_bias; break;
    case L_UP_W: out = s->ffn, in = s->width, on = s->ffn; break;
    case L_UP_B: out = s->ffn, on = s->ffn && s->mlp_bias; break;
    case L_DOWN_W: out = s->width, in = s->ffn, on = s->ffn; break;
    case L_DOWN_B: out = s->width, on = s->ffn && s->mlp_bias; break;
    case L_CONTEXT_G: out = context, on = s->context_norm[layer]; break;
    case L_CONTEXT_B: out = context, on = s->context_norm[layer] && s->norm == NORM_LAYER; break;
    case L_SCALE1:
    case L_SCALE2: out = s->gated[layer] ? 1 : s->width, on = s->layer_scale || s->gated[layer]; break;
    case L_BESIDE_NORM_G: out = s->width, on = beside; break;
    case L_BESIDE_NORM_B: out = s->width, on = beside && s->norm == NORM_LAYER; break;
    case L_BESIDE_Q_W: out = q, in = s->width, on = beside; break;
    case L_BESIDE_Q_B: out = q, on = beside && s->q_bias; break;
    case L_BESIDE_K_W:
    case L_BESIDE_V_W: out = k, in = s->beside_width, on = beside; break;
    case L_BESIDE_K_B: out = k, on = beside && s->k_bias; break;
    case L_BESIDE_V_B: out = k, on = beside && s->v_bias; break;
    case L_BESIDE_O_W: out = s->width, in = q, on = beside; break;
    case L_BESIDE_O_B: out = s->width, on = beside && s->o_bias; break;
    case L_TEXT_UP_W: out = s->ffn, in = s->width, on = text; break;
    case L_TEXT_UP_B: out = s->ffn, on = text && s->mlp_bias; break;
    case L_TEXT_DOWN_W: out = s->width, in = s->ffn, on = text; break;
    case L_TEXT_DOWN_B: out = s->width, on = text && s->mlp_bias; break;
    case L_TEXT_NORM_G: out = s->width, on = text; break;
    case L_TEXT_NORM_B: out = s->width, on = text && s->norm == NORM_LAYER; break;
    case L_COUNT: on = false; break;
    }
    if (!on) return 0;
    d[0] = out;
    d[1] = in;
    *use = in ? WEIGHT_LINEAR : WEIGHT_VECTOR;
    return in ? 2 : 1;
}

int join_slot_shape(const join_spec *j, slot which, int64_t d[TENSOR_MAX_DIMS], unsigned *use) {
    bool reads = j->kind == JOIN_READER, attend = j->kind == JOIN_ATTEND;
    bool is = j->kind != JOIN_NONE && !reads && !attend;
    bool gated = j->kind == JOIN_PERCEIVER, mlp = j->kind == JOIN_MLP || gated;
    bool queries = j->kind == JOIN_QFORMER, normed = j->normed != JOIN_NORM_NONE || queries;
    bool behind = reads || attend; /* its norm stands behind, of rows as wide as its own */
    int64_t one = j->normed == JOIN_NORM_ROW && j->merge > 1 ? j->in / (j->merge * j->merge) : j->in;
    int64_t hidden = mlp ? j->hidden : j->out, out = 0, in = 0; /* in 0: a vector */
    bool on = false;
    switch (which) {
    case S_JOIN_G: out = gated || behind ? j->out : one, on = gated || behind || normed; break;
    case S_JOIN_B:
        out = behind ? j->out : one;
        on = reads || ((attend || normed) && j->norm == NORM_LAYER);
        break;
    case S_READ_EMBED: out = j->read_vocab, in = j->stack.width, on = j->read_vocab > 0; break;
    case S_READ_POS: out = j->read_pos, in = j->stack.width, on = j->read_vocab > 0; break;
    case S_LATENTS:
        out = j->latents, in = gated || attend ? j->out : j->in, on = gated || attend || queries;
        break;
    case S_FC_GATE_W: out = hidden, in = j->in, on = gated; break;
    case S_FC1_W: out = hidden, in = j->in, on = is; break;
    case S_FC1_B: out = hidden, on = is && j->bias; break;
    case S_FC2_W: out = j->out, in = j->hidden, on = mlp; break;
    case S_FC2_B: out = j->out, on = mlp && j->bias; break;
    default: CHECK((int)which < S_FIRST_JOIN || (int)which >= S_FIRST_JOIN + JOIN_SLOTS);
    }
    if (!on) return 0;
    d[0] = out;
    d[1] = in;
    bool table = which == S_LATENTS || which == S_READ_EMBED || which == S_READ_POS;
    *use = table ? WEIGHT_TABLE : in ? WEIGHT_LINEAR : WEIGHT_VECTOR;
    return in ? 2 : 1;
}

int slot_shape(const model_spec *s, slot which, int64_t d[TENSOR_MAX_DIMS], unsigned *use) {
    const tower_spec *t = &s->tower;
    bool tower = t->stack.n_layers > 0;
    int64_t side = tower ? t->image_size / t->patch : 0;
    int64_t width = t->stack.width;
    const text_spec *text = &s->text;
    bool norm = !text->no_final_norm && !text->stack.norm_plain;
    int nd = 1;
    bool on = true;
    *use = WEIGHT_VECTOR;
    switch (which) {
    case S_PATCH_W:
        d[0] = width, d[1] = 3, d[2] = d[3] = t->patch;
        nd = 4, on = tower, *use = WEIGHT_LINEAR;
        if (t->frames) nd = 5, d[2] = t->frames, d[4] = t->patch;
        if (t->pos_side) nd = 2, d[1] *= d[2] * d[3];
        break;
    case S_PATCH_B: d[0] = width, on = tower && t->patch_bias; break;
    case S_CLASS: d[0] = width, on = tower && t->cls, *use = WEIGHT_TABLE; break;
    case S_POS:
        if (t->pos_side) side = t->pos_side;
        d[0] = t->pos_corners ? t->pos_rows : side * side + (t->cls ? 1 : 0), d[1] = width;
        nd = 2, on = tower && !t->no_pos, *use = WEIGHT_TABLE;
        break;
    case S_PRE_G:
    case S_PRE_B: d[0] = width, on = tower && t->pre_norm; break;
    case S_POST_G:
    case S_POST_B: d[0] = width, on = tower && (t->post_norm || tower_together(t)); break;
    case S_POS_GATE:
    case S_PRE_TILE_GATE:
    case S_POST_TILE_GATE: d[0] = 1, on = tower_together(t); break;
    case S_TILE_POS:
        d[0] = t->arrangements + 1, d[1] = t->max_tiles * (side * side + 1) * width;
        nd = 2, on = tower_together(t), *use = WEIGHT_TABLE;
        break;
    case S_PRE_TILE:
    case S_POST_TILE:
        d[0] = t->arrangements + 1, d[1] = t->max_tiles * width;
        nd = 2, on = tower_together(t), *use = WEIGHT_TABLE;
        break;
    case S_JOIN_G:
    case S_JOIN_B:
    case S_LATENTS:
    case S_READ_EMBED:
    case S_READ_POS:
    case S_FC_GATE_W:
    case S_FC1_W:
    case S_FC1_B:
    case S_FC2_W:
    case S_FC2_B: return join_slot_shape(&s->join, which, d, use);
    case S_NEWLINE: d[0] = s->join.out, on = s->newline, *use = WEIGHT_TABLE; break;
    case S_EMBED:
        d[0] = text_embed_rows(text), d[1] = text_embed_width(text);
        nd = 2, *use = WEIGHT_TABLE | (text->tied ? WEIGHT_LINEAR : 0);
        break;
    case S_EMBED_IN:
        d[0] = text->stack.width, d[1] = text->embed_width;
        nd = 2, on = text->embed_width > 0, *use = WEIGHT_LINEAR;
        break;
    case S_EMBED_POS:
        d[0] = text->learned_pos, d[1] = text->stack.width;
        nd = 2, on = text->learned_pos > 0, *use = WEIGHT_TABLE;
        break;
    case S_EMBED_NORM_G: d[0] = text->stack.width, on = text->embed_norm; break;
    case S_EMBED_NORM_B:
        d[0] = text->stack.width, on = text->embed_norm && text->stack.norm == NORM_LAYER;
        break;
    case S_NORM_G: d[0] = text->stack.width, on = norm; break;
    case S_NORM_B: d[0] = text->stack.width, on = norm && text->stack.norm == NORM_LAYER; break;
    case S_EMBED_OUT:
        d[0] = text->embed_width, d[1] = text->stack.width;
        nd = 2, on = text->embed_width > 0, *use = WEIGHT_LINEAR;
        break;
    case S_HEAD:
        d[0] = text->vocab, d[1] = text_embed_width(text), nd = 2, on = !text->tied && !s->dual.on,
        *use = WEIGHT_LINEAR;
        break;
    case S_HEAD_FC_W:
        d[0] = d[1] = text->stack.width;
        nd = 2, on = text->head_transform, *use = WEIGHT_LINEAR;
        break;
    case S_HEAD_FC_B:
    case S_HEAD_NORM_G:
    case S_HEAD_NORM_B: d[0] = text->stack.width, on = text->head_transform; break;
    case S_HEAD_B: d[0] = text->vocab, on = text->head_bias; break;
    case S_COUNT: on = false; break;
    }
    return on ? nd : 0;
}

static bool same(const st_tensor *a, const st_tensor *b) {
    return a->dt == b->dt && a->bytes == b->bytes && memcmp(a->data, b->data, a->bytes) == 0;
}

/* The reference has two parameters for a head's bias, tied like the head. Where the file has both, the one by its own name
 * counts. */
static bool settle_bias(plan *p, status *st) {
    const text_spec *t = &p->spec.text;
    if (!t->head_bias || !t->names->tied_bias) return true;
    size_t own = bind_find(p->bind, p->sheet->head_at, t->names->names[S_HEAD_B], st),
           other = bind_find(p->bind, p->sheet->head_at, t->names->tied_bias, st);
    if (own == SIZE_MAX || other == SIZE_MAX) return st->code == ST_OK;
    bind_ignore(p->bind, other,
                same(ckpt_at(p->ckpt, own), ckpt_at(p->ckpt, other)) ? "equal to the bias that is read"
                                                                     : "the other bias counts");
    return true;
}

/* The reference ties the head only where the checkpoint has one of the two, or both alike. */
static bool settle_tie(plan *p, status *st) {
    const name_sheet *s = p->sheet;
    if (p->spec.dual.on) return true;
    const char *const *names = p->spec.text.names->names;
    size_t head = bind_find(p->bind, s->head_at, names[S_HEAD], st);
    size_t embed = bind_find(p->bind, s->text_at, names[S_EMBED], st);
    if (st->code != ST_OK) return false;
    if (p->spec.text.tied && head == SIZE_MAX && text_embed_rows(&p->spec.text) != p->spec.text.vocab)
        return status_set(
            st, ST_UNSUPPORTED,
            "config.json: tie_word_embeddings: a head of %d ids tied to an embedding of %d is not "
            "implemented; expected false, with %s stored",
            p->spec.text.vocab, text_embed_rows(&p->spec.text), names[S_HEAD]);
    if (!p->spec.text.tied || head == SIZE_MAX || embed == SIZE_MAX) return true;
    const st_tensor *a = ckpt_at(p->ckpt, head), *b = ckpt_at(p->ckpt, embed);
    if (same(a, b)) {
        bind_ignore(p->bind, head, "equal to the embedding it is tied to");
    } else {
        log_warn("config.json: tie_word_embeddings is true, but %s differs from %s; they are not tied",
                 a->name, b->name);
        p->spec.text.tied = false;
    }
    return true;
}

/* Layers behind the last one whose output is a feature never run. */
static void ignore_unused_layers(plan *p) {
    const tower_spec *t = &p->spec.tower;
    for (int i = t->run_layers; i < t->stack.n_layers; i++)
        for (int k = 0; k < L_COUNT; k++) {
            char name[128];
            status none = {0};
            if (!p->sheet->tower_layer[k]) continue;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(name, sizeof name, p->sheet->tower_layer[k], i);
#pragma GCC diagnostic pop
            size_t at = bind_find(p->bind, p->sheet->tower_at, name, &none);
            if (at != SIZE_MAX) bind_ignore(p->bind, at, "a layer behind the features");
        }
}

static bool bind_one(void *to, const wanted *w, status *st) {
    plan *p = to;
    if ((p->n & (p->n - 1)) == 0) { /* room doubles */
        plan_tensor *all = mem_realloc(p->all, (p->n ? 2 * (size_t)p->n : 1) * sizeof *all);
        if (!all) return status_set(st, ST_NO_MEMORY, "no memory for %d tensors", p->n + 1);
        p->all = all;
    }
    plan_tensor *out = &p->all[p->n];
    out->as = *w;
    bool other = w->else_in && bind_find(p->bind, w->in, w->name, st) == SIZE_MAX &&
                 bind_find(p->bind, w->else_in, w->else_name, st) != SIZE_MAX;
    if (!bind_take(p->bind, other ? w->else_in : w->in, other ? w->else_name : w->name, w->nd, w->d, &out->t,
                   st))
        return false;
    p->weight_bytes += (size_t)tensor_count(&out->t) * dtype_size(out->t.dt);
    p->n++;
    return true;
}

const tensor *plan_find(const plan *p, wanted_part part, int at, int which) {
    static const tensor none;
    for (int i = 0; i < p->n; i++) {
        const wanted *w = &p->all[i].as;
        if (w->part == part && w->at == at && w->slot == which) return &p->all[i].t;
    }
    return &none;
}

static bool bind_all(plan *p, status *st) {
    if (!settle_bias(p, st) || !settle_tie(p, st) || !wanted_each(&p->spec, p->sheet, bind_one, p, st))
        return false;
    if (p->spec.tower.stack.n_layers) ignore_unused_layers(p);
    for (const ignore_rule *r = p->sheet->ignored; r->glob; r++) bind_ignore_like(p->bind, r->glob, r->why);
    return bind_finish(p->bind, st);
}

bool plan_open(plan *p, const char *dir, status *st) {
    memset(p, 0, sizeof *p);
    bool ok = family_read(dir, &p->spec, &p->sheet, st) && (p->ckpt = ckpt_open(dir, st)) &&
              (p->bind = bind_new(p->ckpt, st)) && (bind_all(p, st) || status_prefix(st, "%s", dir));
    if (!ok) plan_close(p);
    return ok;
}

void plan_close(plan *p) {
    bind_free(p->bind);
    mem_free(p->all);
    ckpt_close(p->ckpt);
    memset(p, 0, sizeof *p);
}
