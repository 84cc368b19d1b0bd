/* native_config.c - see native_config.h.
 *
 * Source: transformers' Qwen2VLConfig and its like (5.23), modeling_qwen2_vl.py. Thread: the loader's. */
#include "engine/families/native_config.h"

#include <math.h>
#include <string.h>

static void check_type(config *c, const char *want, const char *other) {
    const char *type = config_str(c, "model_type", want);
    if (strcmp(type, want) != 0 && !(other && strcmp(type, other) == 0))
        config_fail(c, ST_UNSUPPORTED, "model_type", "expected %s, found %.60s", want, type);
}

/* Pairs of a head by axis: the reference splits by sections, or takes every third. */
static void read_sections(config *p, const native_text *d, rope_spec *r) {
    int32_t section[ROPE_MAX_AXES + 1];
    int n = config_ints(p, "mrope_section", section, ROPE_MAX_AXES + 1), sum = 0;
    if (config_has(p, "mrope_section") && n != ROPE_MAX_AXES) {
        config_fail(p, ST_UNSUPPORTED, "mrope_section", "expected 3 sections, found %d", n);
        return;
    }
    r->axes = ROPE_MAX_AXES;
    r->deal = d->deal;
    for (int a = 0; a < ROPE_MAX_AXES; a++) {
        r->section[a] = n ? section[a] : d->section[a];
        if (r->section[a] < 0 || r->section[a] > 1 << 16)
            config_fail(p, ST_INVALID, "mrope_section", "expected numbers of pairs, found %d", r->section[a]);
        sum += r->section[a];
    }
    bool interleaved = config_bool(p, "mrope_interleaved", d->deal == ROPE_INTERLEAVED);
    if (interleaved != (d->deal == ROPE_INTERLEAVED))
        config_fail(p, ST_UNSUPPORTED, "mrope_interleaved", "only %s is implemented for this family",
                    interleaved ? "false" : "true");
    if (d->deal == ROPE_SECTIONS && sum != r->dims / 2)
        config_fail(p, ST_INVALID, "mrope_section",
                    "expected sections that add up to half a head's %d, found %d", r->dims / 2, sum);
}

/* flat: c is the whole of config.json, of which the reference hands on rope's objects and rope_theta alone. */
static void read_rope(config *c, const native_text *d, bool flat, text_spec *t) {
    rope_spec *r = &t->stack.rope;
    double theta = config_num(c, "rope_theta", d->theta, 1e-3, 1e15);
    double partial = flat ? 1 : config_num(c, "partial_rotary_factor", 1, 0, 1);
    int64_t original = flat ? 0 : config_int(c, "original_max_position_embeddings", 0, 1, 1 << 27);
    config new_form = config_sub(c, "rope_parameters"), old_form = config_sub(c, "rope_scaling");
    config *p = old_form.j && json_object_size(old_form.j) > 0 ? &old_form : &new_form;
    r->dims = t->stack.head_dim;
    read_sections(p, d, r);
    text_config_rope(p, t, theta, partial, original, r);
    if (r->kind == ROPE_DYNAMIC)
        config_fail(p, ST_UNSUPPORTED, "rope_type", "dynamic is not implemented beside mrope_section");
    double len = (double)r->factor * r->max_pos;
    if ((r->kind == ROPE_LINEAR || r->kind == ROPE_YARN) && len > t->max_pos)
        t->max_pos = len < 1 << 27 ? (int)len : 1 << 27;
}

config *native_read_text(config *c, const native_text *d, config *sub, text_spec *out) {
    *sub = config_sub(c, "text_config");
    config *text = sub->j || !d->flat ? sub : c;
    if (sub->j) check_type(sub, d->type, NULL);
    if (!text_config_base(text, &d->base, out)) return NULL;
    read_rope(text, d, text == c, out);
    return c->st->code == ST_OK ? text : NULL;
}

bool native_qwen2_decoder(config *text, text_spec *t) {
    stack_spec *s = &t->stack;
    if (s->heads * s->head_dim != s->width)
        return config_fail(text, ST_INVALID, "head_dim",
                           "expected hidden_size / num_attention_heads %d, found %d", s->width / s->heads,
                           s->head_dim);
    s->q_bias = s->k_bias = s->v_bias = true;
    return text_config_windows(text, 80, t);
}

bool native_read_tower(config *v, const native_tower *d, model_spec *out) {
    tower_spec *t = &out->tower;
    stack_spec *s = &t->stack;
    check_type(v, d->types[0], d->types[1]);
    s->n_layers = t->run_layers =
        (int)config_int_as(v, "num_hidden_layers", "depth", d->depth, 1, SPEC_MAX_LAYERS);
    s->width = (int)config_int(v, d->width_key, d->width, 1, 1 << 16);
    s->heads = s->kv_heads = (int)config_int_as(v, "num_attention_heads", "num_heads", d->heads, 1, 1 << 12);
    s->head_dim = s->width / s->heads;
    if (s->width % s->heads || s->head_dim % 4)
        return config_fail(
            v, ST_INVALID, d->width_key,
            "expected num_heads %d times a multiple of 4 (rotary positions in two directions), found %d",
            s->heads, s->width);
    s->attn_scale = (float)(1.0 / sqrt((double)s->head_dim));
    s->norm = d->norm;
    s->norm_eps = 1e-6f;
    s->activation = config_act(v, "hidden_act", d->activation);
    s->q_bias = s->k_bias = s->v_bias = s->o_bias = s->mlp_bias = true;
    config rope = config_sub(v, "rope_parameters");
    const char *type = config_str(&rope, "rope_type", config_str(&rope, "type", "axial"));
    if (strcmp(type, "axial") != 0 && strcmp(type, "default") != 0)
        config_fail(&rope, ST_UNSUPPORTED, "rope_type", "only axial is implemented, found %.40s", type);
    double theta = config_num(v, "rope_theta", 10000, 1e-3, 1e15);
    s->rope =
        (rope_spec){.kind = ROPE_DEFAULT, .dims = s->head_dim, .axes = 2, .deal = ROPE_SPATIAL, .factor = 1};
    s->rope.theta = (float)config_num(&rope, "rope_theta", theta, 1e-3, 1e15);
    config_warn_unknown(&rope);
    t->patch = config_square(v, "patch_size", d->patch);
    t->frames = (int)config_int(v, "temporal_patch_size", 2, 1, 64);
    t->no_pos = true;
    t->n_features = 1;
    t->features[0] = s->n_layers;
    config_only_int(v, "in_channels", 3);
    config_only_int(v, "in_chans", 3);
    join_spec *j = &out->join;
    j->kind = JOIN_MLP;
    j->merge = (int)config_int(v, "spatial_merge_size", 2, 1, 16);
    j->normed = JOIN_NORM_ROW;
    j->norm = d->norm;
    j->norm_eps = 1e-6f;
    j->activation = ACT_GELU;
    j->bias = true;
    j->in = j->hidden = s->width * j->merge * j->merge;
    return v->st->code == ST_OK;
}

bool native_done(config *c, config *text, config *v, model_spec *out) {
    if (out->join.out != out->text.stack.width)
        return config_fail(v, ST_INVALID, "hidden_size, out_hidden_size",
                           "expected the decoder's width %d, found %d", out->text.stack.width, out->join.out);
    if (config_bool(c, "tie_word_embeddings", false)) out->text.tied = true;
    out->fuse = FUSE_SPLICE;
    out->image_token = (int32_t)config_int(c, "image_token_id", 151655, 0, INT32_MAX);
    out->video_token = (int32_t)config_int(c, "video_token_id", 151656, 0, INT32_MAX);
    out->image_rows = spec_rows_of_tiles;
    out->prompt_adds_special = true;
    static const char *const unused[] = {"vision_start_token_id", "vision_end_token_id", "vision_token_id",
                                         NULL};
    static const char *const unused_vision[] = {"spatial_patch_size", "tokens_per_second", NULL};
    config_skip(c, unused);
    config_skip(v, unused_vision);
    config_warn_unknown(v);
    if (text != c) config_warn_unknown(text);
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

bool native_check(config *c, model_spec *out) {
    const prep_spec *p = &out->prep;
    const tower_spec *t = &out->tower;
    if (p->patch == t->patch && p->merge == out->join.merge && p->frames == t->frames) return true;
    return config_fail(
        c, ST_INVALID, "vision_config",
        "patches of %d pixels and %d frames, merged %d x %d; but the image processor's patch_size is %d, "
        "temporal_patch_size %d, merge_size %d (0: its class has none)",
        t->patch, t->frames, out->join.merge, out->join.merge, p->patch, p->frames, p->merge);
}

const char *const NATIVE_TOWER_AT[] = {"model.visual.", "visual.", NULL};
const char *const NATIVE_JOIN_AT[] = {"model.visual.merger.", "visual.merger.", NULL};
const char *const NATIVE_TEXT_AT[] = {"model.language_model.", "model.", "language_model.", NULL};
const char *const NATIVE_HEAD_AT[] = {"", NULL};
const char *const NATIVE_NAMES[S_FIRST_TEXT] = {
    [S_PATCH_W] = "patch_embed.proj.weight",
    [S_JOIN_G] = "ln_q.weight",
    [S_JOIN_B] = "ln_q.bias",
    [S_FC1_W] = "mlp.0.weight",
    [S_FC1_B] = "mlp.0.bias",
    [S_FC2_W] = "mlp.2.weight",
    [S_FC2_B] = "mlp.2.bias",
};
const ignore_rule NATIVE_IGNORED[] = {
    {"*rotary_emb.inv_freq", "computed from the config"},
    {"*rotary_pos_emb.inv_freq", "computed from the config"},
    {NULL, NULL},
};
