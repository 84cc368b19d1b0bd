/* mllama.c - Llama 3.2 Vision: a tower in which a picture's tiles see each other, and a Llama decoder some layers of which
 * attend to the picture instead of to the text.
 *
 * Source: transformers' MllamaConfig, MllamaProcessor, MllamaImageProcessorPil and modeling_mllama.py. Which hidden states
 * are features follows the original code (llama-models, multimodal/model.py), for which the published weights were made:
 * intermediate_layers_indices name the layers whose *input* is taken; transformers 5.23 takes their output.
 * Tested by tests/e2e/test_parity.py. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/families/family.h"

/* ---- pictures ---- */

/* The arrangement of tiles whose canvas a picture of w x h fills best: the least enlargement, else the least reduction; the
 * smaller canvas where two are alike. */
static void best_canvas(int w, int h, int max_tiles, int side_px, int *across, int *down) {
    double best = 0;
    *across = *down = 0;
    for (int a = 1; a <= max_tiles; a++)
        for (int b = 1; a * b <= max_tiles; b++) { /* a tiles high, b wide, as the reference counts them */
            double sh = (double)a * side_px / h, sw = (double)b * side_px / w, scale = sw > sh ? sh : sw;
            bool better = *across == 0                  ? true
                          : scale == best               ? a * b < *across * *down
                          : scale >= 1 && best >= 1     ? scale < best
                          : (scale >= 1) != (best >= 1) ? scale >= 1
                                                        : scale > best;
            if (better) best = scale, *down = a, *across = b;
        }
}

static int clip(int v, int lo, int hi) {
    return v < lo ? lo : v > hi ? hi : v;
}

static bool plan_image(const model_spec *s, const image_ask *ask, const image_limits *lim, prep_plan *out,
                       status *st) {
    int side_px = s->tower.image_size, across, down, rw, rh;
    memset(out, 0, sizeof *out);
    best_canvas(ask->w, ask->h, s->tower.max_tiles, side_px, &across, &down);
    int target_w = clip(ask->w, side_px, across * side_px), target_h = clip(ask->h, side_px, down * side_px);
    double sh = (double)target_h / ask->h, sw = (double)target_w / ask->w;
    if (sw < sh) {
        int other = (int)floor(ask->h * sw);
        rw = target_w;
        rh = other < 1 ? 1 : other;
        if (rh > target_h) rh = target_h;
    } else {
        int other = (int)floor(ask->w * sh);
        rh = target_h;
        rw = other < 1 ? 1 : other;
        if (rw > target_w) rw = target_w;
    }
    prep_step *p = prep_plan_add(out, -1, 0, 0, ask->w, ask->h, rw, rh, s->prep.filter);
    p->cw = across * side_px;
    p->ch = down * side_px;
    p->tw = p->th = side_px;
    return prep_plan_finish(out, ask->w, ask->h, lim, st);
}

static int image_rows(const model_spec *s, const prep_plan *p) {
    const prep_step *k = &p->steps[0];
    int side_px = s->tower.image_size, side = side_px / s->tower.patch;
    if (p->n_steps != 1 || k->tw != side_px || k->th != side_px || p->n_tiles > s->tower.max_tiles) return 0;
    return tower_features_rows(&s->tower, side, side);
}

/* 1 and up in the order of (tiles high, tiles wide); 0 stands for no picture. */
static int arrangement(const model_spec *s, const prep_plan *p) {
    const prep_step *k = &p->steps[0];
    int down = k->ch / k->th, across = k->cw / k->tw, n = 0, max = s->tower.max_tiles;
    for (int a = 1; a < down; a++) n += max / a;
    return n + across;
}

/* ---- config ---- */

static bool read_features(config *c, tower_spec *t) {
    int32_t v[SPEC_MAX_FEATURES] = {3, 7, 15, 23, 30};
    int n = config_ints(c, "intermediate_layers_indices", v, SPEC_MAX_FEATURES - 1);
    if (n == 0) n = 5;
    t->features[0] = t->stack.n_layers;
    for (int i = 0; i < n; i++) {
        if (v[i] < 0 || v[i] >= t->tail_from)
            return config_fail(c, ST_INVALID, "intermediate_layers_indices", "expected 0 to %d, found %d",
                               t->tail_from - 1, (int)v[i]);
        t->features[i + 1] = v[i];
    }
    t->n_features = n + 1;
    int64_t width = (int64_t)t->stack.width * t->n_features;
    int64_t said = config_int(c, "vision_output_dim", 7680, 1, 1 << 24);
    return said == width ||
           config_fail(c, ST_INVALID, "vision_output_dim",
                       "expected %lld, the final state and %d more of hidden_size %d, found %lld",
                       (long long)width, n, t->stack.width, (long long)said);
}

static bool holds_pair(const json_t *list, int a, int b) {
    size_t i;
    const json_t *e;
    json_array_foreach((json_t *)(uintptr_t)list, i, e) {
        if (json_integer_value(json_array_get(e, 0)) == a && json_integer_value(json_array_get(e, 1)) == b)
            return true;
    }
    return false;
}

/* The processor numbers arrangements by a list of its own, whatever the order of this one; one of others would mean other
 * tables. */
static bool check_arrangements(config *c, tower_spec *t) {
    const json_t *list = config_get(c, "supported_aspect_ratios");
    size_t n = 0;
    bool same = true;
    for (int a = 1; a <= t->max_tiles; a++)
        for (int b = 1; a * b <= t->max_tiles; b++, n++) same = same && (!list || holds_pair(list, a, b));
    t->arrangements = (int)n;
    if (!list && t->max_tiles != 4)
        return config_fail(c, ST_INVALID, "supported_aspect_ratios",
                           "missing; only max_num_tiles 4 has a default");
    if (list && (!same || json_array_size(list) != n))
        return config_fail(c, ST_UNSUPPORTED, "supported_aspect_ratios",
                           "only all %zu arrangements of up to %d tiles are implemented", n, t->max_tiles);
    return true;
}

static bool read_tower(config *c, tower_spec *t) {
    stack_spec *s = &t->stack;
    t->tail_from = (int)config_int(c, "num_hidden_layers", 32, 1, SPEC_MAX_LAYERS / 2);
    s->n_layers = t->tail_from + (int)config_int(c, "num_global_layers", 8, 1, SPEC_MAX_LAYERS / 2);
    t->run_layers = s->n_layers;
    for (int i = t->tail_from; i < s->n_layers; i++) s->gated[i] = true;
    s->width = (int)config_int(c, "hidden_size", 1280, 1, 1 << 16);
    s->ffn = (int)config_int(c, "intermediate_size", 5120, 1, 1 << 20);
    s->heads = s->kv_heads = (int)config_int_as(c, "num_attention_heads", "attention_heads", 16, 1, 1 << 12);
    if (s->width % s->heads)
        return config_fail(c, ST_INVALID, "hidden_size",
                           "expected a multiple of attention_heads %d, found %d", s->heads, s->width);
    s->head_dim = s->width / s->heads;
    s->attn_scale = (float)(1.0 / sqrt((double)s->head_dim));
    s->norm = NORM_LAYER;
    s->norm_eps = (float)config_num(c, "norm_eps", 1e-5, 0, 1);
    s->activation = config_act(c, "hidden_act", "gelu");
    s->mlp_bias = true;
    s->rope.kind = ROPE_NONE;
    t->image_size = config_square(c, "image_size", 448);
    t->patch = config_square(c, "patch_size", 14);
    if (t->patch > t->image_size)
        return config_fail(c, ST_INVALID, "patch_size", "%d is larger than image_size %d", t->patch,
                           t->image_size);
    t->max_tiles = (int)config_int(c, "max_num_tiles", 4, 1, 64);
    t->pad_rows = 8;
    t->cls = t->pre_norm = true;
    config_only_int(c, "num_channels", 3);
    if (!check_arrangements(c, t) || !read_features(c, t)) return false;
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

static const text_names MLLAMA_TENSORS;

static bool read_text(config *c, text_spec *t) {
    static const text_defaults d = {.vocab = 128256,
                                    .width = 4096,
                                    .ffn = 14336,
                                    .layers = 40,
                                    .heads = 32,
                                    .kv_heads = 8,
                                    .max_pos = 131072,
                                    .eps = 1e-5,
                                    .theta = 500000,
                                    .bos = 128000,
                                    .eos = 128001};
    if (!text_config_base(c, &d, t)) return false;
    stack_spec *s = &t->stack;
    int32_t v[SPEC_MAX_LAYERS] = {3, 8, 13, 18, 23, 28, 33, 38};
    int n = config_ints(c, "cross_attention_layers", v, SPEC_MAX_LAYERS);
    if (n == 0 && !config_has(c, "cross_attention_layers")) n = 8;
    for (int i = 0; i < n; i++) {
        if (v[i] < 0 || v[i] >= s->n_layers)
            return config_fail(c, ST_INVALID, "cross_attention_layers", "expected 0 to %d, found %d",
                               s->n_layers - 1, (int)v[i]);
        s->cross[v[i]] = s->gated[v[i]] = s->cross_qk_norm = true;
    }
    if (n == 0 || n >= s->n_layers)
        return config_fail(c, ST_INVALID, "cross_attention_layers",
                           "expected some of the %d layers, found %d", s->n_layers, n);
    t->names = &MLLAMA_TENSORS;
    t->embed_rows = t->vocab + 8; /* the picture's token and some that are reserved */
    config_skip(c, (const char *const[]){"dropout", NULL});
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

static bool read(config *c, model_spec *out) {
    config text = config_sub(c, "text_config"), vision = config_sub(c, "vision_config");
    if (!family_read_text(&text, "mllama_text_model", &out->text) || !read_tower(&vision, &out->tower))
        return false;
    join_spec *j = &out->join;
    j->kind = JOIN_LINEAR;
    j->bias = true;
    j->in = out->tower.stack.width * out->tower.n_features;
    j->interleaved = out->tower.n_features - 1;
    j->hidden = j->out = out->text.stack.width;
    out->fuse = FUSE_CROSS;
    out->image_token = (int32_t)config_int_as(c, "image_token_id", "image_token_index", 128256, 0, INT32_MAX);
    if (out->image_token >= out->text.embed_rows)
        return config_fail(c, ST_INVALID, "image_token_index", "expected an id below %d, found %d",
                           out->text.embed_rows, (int)out->image_token);
    out->plan_image = plan_image;
    out->image_rows = image_rows;
    out->arrangement = arrangement;
    out->prompt_adds_special = true;
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

static bool read_text_alone(config *c, model_spec *out) {
    return family_read_text_only(c, out);
}

/* ---- tensors ---- */

#define CROSS_LAYER "layers.%d."
static const char *const CROSS[L_COUNT] = {
    [L_NORM1_G] = CROSS_LAYER "input_layernorm.weight",
    [L_Q_W] = CROSS_LAYER "cross_attn.q_proj.weight",
    [L_K_W] = CROSS_LAYER "cross_attn.k_proj.weight",
    [L_V_W] = CROSS_LAYER "cross_attn.v_proj.weight",
    [L_O_W] = CROSS_LAYER "cross_attn.o_proj.weight",
    [L_QNORM_G] = CROSS_LAYER "cross_attn.q_norm.weight",
    [L_KNORM_G] = CROSS_LAYER "cross_attn.k_norm.weight",
    [L_SCALE1] = CROSS_LAYER "cross_attn_attn_gate",
    [L_NORM2_G] = CROSS_LAYER "post_attention_layernorm.weight",
    [L_GATE_W] = CROSS_LAYER "mlp.gate_proj.weight",
    [L_UP_W] = CROSS_LAYER "mlp.up_proj.weight",
    [L_DOWN_W] = CROSS_LAYER "mlp.down_proj.weight",
    [L_SCALE2] = CROSS_LAYER "cross_attn_mlp_gate",
};
static const text_names MLLAMA_TENSORS = {
    .layer = NAMES_TEXT_LAYER, .cross = CROSS, .names = NAMES_TEXT_REST};

#define VIT_LAYER(at)                                                                                        \
    {                                                                                                        \
        [L_NORM1_G] = at "input_layernorm.weight", [L_NORM1_B] = at "input_layernorm.bias",                  \
        [L_Q_W] = at "self_attn.q_proj.weight", [L_K_W] = at "self_attn.k_proj.weight",                      \
        [L_V_W] = at "self_attn.v_proj.weight", [L_O_W] = at "self_attn.o_proj.weight",                      \
        [L_NORM2_G] = at "post_attention_layernorm.weight",                                                  \
        [L_NORM2_B] = at "post_attention_layernorm.bias", [L_UP_W] = at "mlp.fc1.weight",                    \
        [L_UP_B] = at "mlp.fc1.bias", [L_DOWN_W] = at "mlp.fc2.weight", [L_DOWN_B] = at "mlp.fc2.bias",      \
        [L_SCALE1] = at "gate_attn", [L_SCALE2] = at "gate_ffn",                                             \
    }
static const char *const TOWER_LAYER[L_COUNT] = VIT_LAYER("transformer.layers.%d.");
static const char *const TOWER_TAIL[L_COUNT] = VIT_LAYER("global_transformer.layers.%d.");
static const char *const TOWER[S_FIRST_TEXT] = {
    [S_PATCH_W] = "patch_embedding.weight",
    [S_CLASS] = "class_embedding",
    [S_POS] = "gated_positional_embedding.embedding",
    [S_PRE_G] = "layernorm_pre.weight",
    [S_PRE_B] = "layernorm_pre.bias",
    [S_POST_G] = "layernorm_post.weight",
    [S_POST_B] = "layernorm_post.bias",
    [S_POS_GATE] = "gated_positional_embedding.gate",
    [S_TILE_POS] = "gated_positional_embedding.tile_embedding.weight",
    [S_PRE_TILE] = "pre_tile_positional_embedding.embedding.weight",
    [S_PRE_TILE_GATE] = "pre_tile_positional_embedding.gate",
    [S_POST_TILE] = "post_tile_positional_embedding.embedding.weight",
    [S_POST_TILE_GATE] = "post_tile_positional_embedding.gate",
};
static const char *const TOWER_AT[] = {"vision_model.", "model.vision_model.", NULL};
static const char *const JOIN_AT[] = {"multi_modal_projector.", "model.multi_modal_projector.", NULL};
static const char *const TEXT_AT[] = {"language_model.model.", "model.language_model.", NULL};
static const char *const HEAD_AT[] = {"language_model.", "", NULL};
static const char *const ALONE_AT[] = {"model.", "language_model.model.", NULL};
static const ignore_rule IGNORED[] = {
    {"*.rotary_emb.inv_freq", "computed from the config"},
    {NULL, NULL},
};
static const name_sheet SHEET = {
    .tower_at = TOWER_AT,
    .join_at = JOIN_AT,
    .linear_at = JOIN_AT,
    .text_at = TEXT_AT,
    .head_at = HEAD_AT,
    .tower_layer = TOWER_LAYER,
    .tower_tail = TOWER_TAIL,
    .names = TOWER,
    .ignored = IGNORED,
};
static const name_sheet SHEET_ALONE = {.text_at = ALONE_AT, .head_at = HEAD_AT, .ignored = IGNORED};

const family FAMILY_MLLAMA = {
    .name = "mllama",
    .does = "cross-attention in chosen layers, tanh gates; a picture's tiles see each other",
    .architecture = "MllamaForConditionalGeneration",
    .image_class = "MllamaImageProcessor",
    .read = read,
    .sheet = &SHEET,
};
const family FAMILY_MLLAMA_TEXT = {
    .name = "mllama_text_model",
    .does = "text, the layers for pictures passed over",
    .architecture = "MllamaForCausalLM",
    .read = read_text_alone,
    .read_text = read_text,
    .sheet = &SHEET_ALONE,
};
