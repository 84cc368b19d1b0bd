/* text_config.c - what the configs of the pre-norm RMS decoders share: sizes, rope in its old and new spelling, windows.
 *
 * Source: transformers' configuration classes and modeling_rope_utils (convert_rope_params_to_dict,
 * standardize_rope_params). Thread: the loader's. */
#include <math.h>
#include <string.h>

#include "engine/families/family.h"

enum {
    MAX_WIDTH = 1 << 17,
    MAX_FFN = 1 << 20,
    MAX_HEADS = 1 << 12,
    MAX_VOCAB = 1 << 24,
    MAX_POSITIONS = 1 << 27
};

static bool is_null(const config *c, const char *key) {
    const json_t *v = c->j ? json_object_get(c->j, key) : NULL;
    return v && json_is_null(v);
}

/* How many positions a stretched rope was made for: the config's own number is the one before stretching for "linear",
 * "dynamic" and, where it equals the original length, "yarn". */
static void stretch_length(text_spec *t) {
    const rope_spec *r = &t->stack.rope;
    if (r->kind != ROPE_LINEAR && r->kind != ROPE_DYNAMIC && r->kind != ROPE_YARN) return;
    double len = (double)r->factor * r->max_pos;
    if (len > t->max_pos) t->max_pos = len < MAX_POSITIONS ? (int)len : MAX_POSITIONS;
}

void text_config_rope(config *p, const text_spec *t, double theta, double partial, int64_t outer_original,
                      rope_spec *r) {
    const struct {
        const char *name;
        rope_kind kind;
    } kinds[] = {
        {"default", ROPE_DEFAULT},
        {"linear", ROPE_LINEAR},
        {"dynamic", ROPE_DYNAMIC},
        {"llama3", ROPE_LLAMA3},
        {"yarn", ROPE_YARN},
        {"mrope", r->axes > 1 ? ROPE_DEFAULT : ROPE_NONE}, /* an old name of what the sections say already */
    };
    const char *type = config_str(p, "rope_type", config_str(p, "type", "default"));
    r->kind = ROPE_NONE;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (strcmp(kinds[i].name, type) == 0) r->kind = kinds[i].kind;
    if (r->kind == ROPE_NONE) {
        config_fail(p, ST_UNSUPPORTED, "rope_type",
                    "\"%.40s\" is not implemented; known are default, linear, dynamic, llama3, yarn", type);
        return;
    }
    r->dims = t->stack.head_dim;
    r->theta = (float)config_num(p, "rope_theta", theta, 1e-3, 1e15);
    partial = config_num(p, "partial_rotary_factor", partial, 0, 1);
    /* These decoders turn whole heads: their plain rope has no look at the key, which the stretched ones would not fit with. */
    if (r->kind != ROPE_DEFAULT && (int)(partial * r->dims) != r->dims)
        config_fail(p, ST_UNSUPPORTED, "partial_rotary_factor", "only 1 is implemented, found %g", partial);
    r->max_pos = t->max_pos;
    r->factor = 1;
    r->truncate = true;
    if (r->kind == ROPE_DEFAULT) return config_warn_unknown(p);
    if (!(r->kind == ROPE_YARN && is_null(p, "factor")) && !config_has(p, "factor"))
        config_fail(p, ST_INVALID, "factor", "missing; rope type \"%s\" needs it", type);
    r->factor = (float)config_num(p, "factor", 0, 1e-3, 1e9);
    if (r->kind == ROPE_LINEAR || r->kind == ROPE_DYNAMIC) return config_warn_unknown(p);
    /* A key beside the rope object wins over the one inside it, as in the reference. */
    int64_t original = config_int(p, "original_max_position_embeddings", t->max_pos, 1, MAX_POSITIONS);
    r->max_pos = (int)(outer_original ? outer_original : original);
    if (r->kind == ROPE_LLAMA3) {
        r->low_freq_factor = (float)config_num(p, "low_freq_factor", 0, 1e-6, 1e9);
        r->high_freq_factor = (float)config_num(p, "high_freq_factor", 0, 1e-6, 1e9);
        if (!config_has(p, "low_freq_factor") || !config_has(p, "high_freq_factor") ||
            r->high_freq_factor == r->low_freq_factor)
            config_fail(p, ST_INVALID, "low_freq_factor",
                        "expected low_freq_factor and a different high_freq_factor");
    } else {
        if (r->factor == 0) r->factor = (float)t->max_pos / (float)r->max_pos;
        r->beta_fast = (float)config_num(p, "beta_fast", 0, 0, 1e9);
        r->beta_slow = (float)config_num(p, "beta_slow", 0, 0, 1e9);
        if (r->beta_fast == 0) r->beta_fast = 32;
        if (r->beta_slow == 0) r->beta_slow = 1;
        r->attention_factor = (float)config_num(p, "attention_factor", 0, 0, 1e9);
        r->mscale = (float)config_num(p, "mscale", 0, 0, 1e9);
        r->mscale_all_dim = (float)config_num(p, "mscale_all_dim", 0, 0, 1e9);
        r->truncate = config_bool(p, "truncate", true);
    }
    config_warn_unknown(p);
}

/* The spellings of frequency scaling: rope_parameters (new), rope_scaling (old, wins when both are there), each with
 * rope_type or type; rope_theta inside or beside. */
static void read_rope(config *c, double def_theta, text_spec *t) {
    double theta = config_num(c, "rope_theta", def_theta, 1e-3, 1e15);
    double partial = config_num(c, "partial_rotary_factor", 1, 0, 1);
    int64_t outer_original = config_int(c, "original_max_position_embeddings", 0, 1, MAX_POSITIONS);
    config new_form = config_sub(c, "rope_parameters"), old_form = config_sub(c, "rope_scaling");
    config *p = old_form.j && json_object_size(old_form.j) > 0 ? &old_form : &new_form;
    text_config_rope(p, t, theta, partial, outer_original, &t->stack.rope);
    stretch_length(t);
}

bool text_config_base(config *c, const text_defaults *d, text_spec *t) {
    stack_spec *s = &t->stack;
    t->vocab = (int)config_int(c, "vocab_size", d->vocab, 1, MAX_VOCAB);
    t->max_pos = (int)config_int(c, "max_position_embeddings", d->max_pos, 1, MAX_POSITIONS);
    t->embed_scale = 1;
    t->names = &NAMES_TEXT;
    t->bos = is_null(c, "bos_token_id") ? -1 : d->bos;
    t->eos = is_null(c, "eos_token_id") ? -1 : d->eos;
    t->tied = config_bool(c, "tie_word_embeddings", d->tied);
    s->n_layers = (int)config_int(c, "num_hidden_layers", d->layers, 1, SPEC_MAX_LAYERS);
    s->width = (int)config_int(c, "hidden_size", d->width, 1, MAX_WIDTH);
    s->ffn = (int)config_int(c, "intermediate_size", d->ffn, 1, MAX_FFN);
    s->heads = (int)config_int(c, "num_attention_heads", d->heads, 1, MAX_HEADS);
    int kv = is_null(c, "num_key_value_heads") || !d->kv_heads ? s->heads : d->kv_heads;
    s->kv_heads = (int)config_int(c, "num_key_value_heads", kv, 1, MAX_HEADS);
    if (s->heads % s->kv_heads)
        config_fail(c, ST_INVALID, "num_key_value_heads",
                    "expected a divisor of num_attention_heads %d, found %d", s->heads, s->kv_heads);
    bool own_head_dim = config_has(c, "head_dim") || (d->head_dim && !is_null(c, "head_dim"));
    if (!own_head_dim && s->width % s->heads)
        config_fail(c, ST_INVALID, "hidden_size", "expected a multiple of num_attention_heads %d, found %d",
                    s->heads, s->width);
    s->head_dim = (int)config_int(c, "head_dim", own_head_dim ? d->head_dim : s->width / s->heads, 1, 1024);
    if (s->head_dim % 2)
        config_fail(c, ST_INVALID, "head_dim", "expected an even number (rotary positions), found %d",
                    s->head_dim);
    s->norm = NORM_RMS;
    s->norm_eps = (float)config_num(c, "rms_norm_eps", d->eps, 0, 1);
    s->activation = config_act(c, "hidden_act", "silu");
    s->glu = true;
    s->causal = true;
    s->attn_scale = (float)(1.0 / sqrt((double)s->head_dim));
    config_only_bool(c, "is_encoder_decoder", false);
    config_only_bool(c, "add_cross_attention", false);
    config_get(c, "is_decoder");
    if (!d->own_rope) read_rope(c, d->theta > 0 ? d->theta : 10000, t);
    return c->st->code == ST_OK;
}

/* otherwise: what a layer is where the config has no list. */
static bool read_layer_types(config *c, int window, const bool *otherwise, text_spec *t) {
    stack_spec *s = &t->stack;
    const json_t *types = config_get(c, "layer_types");
    if (types && (!json_is_array(types) || json_array_size(types) != (size_t)s->n_layers))
        return config_fail(c, ST_INVALID, "layer_types", "expected a list of num_hidden_layers %d strings",
                           s->n_layers);
    for (int i = 0; i < s->n_layers; i++) {
        bool sliding = otherwise[i];
        if (types) {
            const char *type = json_string_value(json_array_get(types, (size_t)i));
            sliding = type && strcmp(type, "sliding_attention") == 0;
            if (!type || (!sliding && strcmp(type, "full_attention") != 0))
                return config_fail(
                    c, ST_UNSUPPORTED, "layer_types",
                    "layer %d: only full_attention and sliding_attention are implemented, found %.40s", i,
                    type ? type : "no string");
        }
        if (sliding && !window)
            return config_fail(c, ST_INVALID, "layer_types",
                               "layer %d is sliding_attention, but the config gives no window", i);
        s->window[i] = sliding ? window : 0;
    }
    return c->st->code == ST_OK;
}

bool text_config_window_pattern(config *c, int def_window, int pattern, text_spec *t) {
    bool sliding[SPEC_MAX_LAYERS];
    int window =
        is_null(c, "sliding_window") ? 0 : (int)config_int(c, "sliding_window", def_window, 1, MAX_POSITIONS);
    for (int i = 0; i < t->stack.n_layers; i++) sliding[i] = (i + 1) % pattern != 0;
    return read_layer_types(c, window, sliding, t);
}

float text_config_softcap(config *c, const char *key, double def) {
    return is_null(c, key) ? 0 : (float)config_num(c, key, def, 1e-6, 1e9);
}

bool text_config_windows(config *c, int def_from, text_spec *t) {
    bool sliding[SPEC_MAX_LAYERS], use = config_bool(c, "use_sliding_window", false);
    int window =
        is_null(c, "sliding_window") ? 0 : (int)config_int(c, "sliding_window", 4096, 1, MAX_POSITIONS);
    int from = (int)config_int(c, "max_window_layers", def_from, 0, 1 << 20);
    if (!use) window = 0;
    for (int i = 0; i < t->stack.n_layers; i++) sliding[i] = window && i >= from;
    return read_layer_types(c, window, sliding, t);
}

#define ATTENTION_AND_MLP                                                                                    \
    [L_Q_W] = "layers.%d.self_attn.q_proj.weight", [L_Q_B] = "layers.%d.self_attn.q_proj.bias",              \
    [L_K_W] = "layers.%d.self_attn.k_proj.weight", [L_K_B] = "layers.%d.self_attn.k_proj.bias",              \
    [L_V_W] = "layers.%d.self_attn.v_proj.weight", [L_V_B] = "layers.%d.self_attn.v_proj.bias",              \
    [L_O_W] = "layers.%d.self_attn.o_proj.weight", [L_O_B] = "layers.%d.self_attn.o_proj.bias",              \
    [L_QNORM_G] = "layers.%d.self_attn.q_norm.weight", [L_KNORM_G] = "layers.%d.self_attn.k_norm.weight",    \
    [L_GATE_W] = "layers.%d.mlp.gate_proj.weight", [L_GATE_B] = "layers.%d.mlp.gate_proj.bias",              \
    [L_UP_W] = "layers.%d.mlp.up_proj.weight", [L_UP_B] = "layers.%d.mlp.up_proj.bias",                      \
    [L_DOWN_W] = "layers.%d.mlp.down_proj.weight", [L_DOWN_B] = "layers.%d.mlp.down_proj.bias"

const char *const NAMES_TEXT_LAYER[L_COUNT] = {
    [L_NORM1_G] = "layers.%d.input_layernorm.weight",
    ATTENTION_AND_MLP,
    [L_NORM2_G] = "layers.%d.post_attention_layernorm.weight",
};

static const char *const SANDWICH_LAYER[L_COUNT] = {
    [L_NORM1_G] = "layers.%d.input_layernorm.weight",
    ATTENTION_AND_MLP,
    [L_POST1_G] = "layers.%d.post_attention_layernorm.weight",
    [L_NORM2_G] = "layers.%d.pre_feedforward_layernorm.weight",
    [L_POST2_G] = "layers.%d.post_feedforward_layernorm.weight",
};
const char *const NAMES_TEXT_REST[S_COUNT] = {
    [S_EMBED] = "embed_tokens.weight",
    [S_NORM_G] = "norm.weight",
    [S_HEAD] = "lm_head.weight",
};
const text_names NAMES_TEXT = {.layer = NAMES_TEXT_LAYER, .names = NAMES_TEXT_REST};
const text_names NAMES_TEXT_SANDWICH = {.layer = SANDWICH_LAYER, .names = NAMES_TEXT_REST};

const char *const NAMES[S_FIRST_TEXT] = {
    NAMES_VIT,
    [S_FC1_W] = "linear_1.weight",
    [S_FC1_B] = "linear_1.bias",
    [S_FC2_W] = "linear_2.weight",
    [S_FC2_B] = "linear_2.bias",
};

static const char *const TEXT_AT[] = {"model.", "", NULL};
static const char *const HEAD_AT[] = {"", "model.", NULL};
static const ignore_rule TEXT_IGNORED[] = {
    {"*.rotary_emb.inv_freq", "computed from the config"},
    {NULL, NULL},
};
const name_sheet SHEET_TEXT_ONLY = {
    .text_at = TEXT_AT,
    .head_at = HEAD_AT,
    .names = NAMES,
    .ignored = TEXT_IGNORED,
};

bool family_read_text_only(config *c, model_spec *out) {
    if (!family_read_text(c, NULL, &out->text)) return false;
    out->fuse = FUSE_NONE;
    out->image_token = -1;
    out->prompt_adds_special = false;
    return true;
}
