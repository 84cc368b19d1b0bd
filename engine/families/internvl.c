/* internvl.c - InternVL in the library's own format: a ViT with layer scale, four neighbours merged into one row, tiles in
 * the grid of the nearest ratio with the whole picture behind them.
 *
 * Source: transformers' InternVLConfig, InternVLProcessor, GotOcr2ImageProcessor and modeling_internvl.py. The processor cuts
 * pictures always; crop_to_patches in its file is overruled. Tested by tests/engine/families/test_plans.c and
 * tests/e2e/test_parity.py. */
#include <math.h>
#include <string.h>

#include "engine/families/family.h"

static bool read_tower(config *c, bool last_state, tower_spec *t) {
    const char *norm = config_str(c, "norm_type", "layer_norm");
    bool rms = strcmp(norm, "rms_norm") == 0, bias = config_bool(c, "attention_bias", false);
    if (!rms && strcmp(norm, "layer_norm") != 0)
        config_fail(c, ST_UNSUPPORTED, "norm_type", "expected layer_norm or rms_norm, found %.60s", norm);
    config_only_bool(c, "use_absolute_position_embeddings", true);
    bool qk_norm = config_bool(c, "use_qk_norm", false), pools = config_bool(c, "use_mean_pooling", true);
    static const char *const unused[] = {"use_mask_token", "layer_scale_init_value", "hidden_dropout_prob",
                                         "projection_dropout", NULL};
    config_skip(c, unused);
    if (!tower_config_read(c, "internvl_vision", t)) return false;
    stack_spec *s = &t->stack;
    s->norm = rms ? NORM_RMS : NORM_LAYER;
    s->q_bias = s->k_bias = s->v_bias = bias;
    s->qk_norm_full = qk_norm;
    s->qk_norm_eps = 1e-6f; /* its norm class's own, whatever the layers' */
    s->layer_scale = true;
    t->post_norm = last_state && !pools;
    return true;
}

static void read_join(config *c, model_spec *out) {
    join_spec *j = &out->join;
    tower_spec *t = &out->tower;
    double ratio = config_num(c, "downsample_ratio", 0.5, 1e-3, 1);
    j->kind = JOIN_MLP;
    j->merge = (int)rint(1 / ratio);
    int side = t->image_size / t->patch;
    /* As the reference multiplies and divides. */
    if (j->merge * ratio != 1 || fmod(side, ratio) != 0 || side % j->merge)
        config_fail(c, ST_UNSUPPORTED, "downsample_ratio",
                    "expected 1 over a divisor of the %d patches of a side, found %g", side, ratio);
    j->normed = JOIN_NORM_MERGED;
    j->norm = NORM_LAYER;
    j->norm_eps = 1e-5f; /* torch's own */
    j->activation = config_act(c, "projector_hidden_act", "gelu");
    j->bias = true;
    j->in = t->stack.width * j->merge * j->merge;
    j->hidden = j->out = out->text.stack.width;
}

static void write_image(const model_spec *s, const prep_plan *p, image_text *out) {
    image_text_named(out, "start_image_token", "<img>");
    image_text_rows(out, spec_rows_of_tiles(s, p));
    image_text_named(out, "end_image_token", "</img>");
}

static bool read(config *c, model_spec *out) {
    config text = config_sub(c, "text_config"), vision = config_sub(c, "vision_config");
    int64_t layer = config_int(c, "vision_feature_layer", -1, INT32_MIN, INT32_MAX);
    if (!family_read_part(&text, "qwen2", &out->text) || !read_tower(&vision, layer == -1, &out->tower) ||
        !join_config_features(c, -1, "default", &out->tower))
        return false;
    if (!out->tower.drop_first)
        config_fail(c, ST_UNSUPPORTED, "vision_feature_select_strategy",
                    "full keeps the CLS row, which has no place in a grid");
    read_join(c, out);
    if (config_bool(c, "tie_word_embeddings", true)) out->text.tied = true;
    join_config_splice(c, 151667, out);
    out->image_rows = spec_rows_of_tiles;
    out->write_image = write_image;
    static const char *const unused[] = {"image_seq_length", NULL};
    config_skip(c, unused);
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

static bool check(config *c, model_spec *out) {
    return out->prep.cut.kind == PREP_CUT_RATIO ||
           config_fail(c, ST_UNSUPPORTED, "model_type",
                       "the image processor's class is not GotOcr2ImageProcessor, which it needs");
}

static const char *const TOWER_LAYER[L_COUNT] = {
    [L_NORM1_G] = "encoder.layer.%d.layernorm_before.weight",
    [L_NORM1_B] = "encoder.layer.%d.layernorm_before.bias",
    [L_Q_W] = "encoder.layer.%d.attention.q_proj.weight",
    [L_Q_B] = "encoder.layer.%d.attention.q_proj.bias",
    [L_K_W] = "encoder.layer.%d.attention.k_proj.weight",
    [L_K_B] = "encoder.layer.%d.attention.k_proj.bias",
    [L_V_W] = "encoder.layer.%d.attention.v_proj.weight",
    [L_V_B] = "encoder.layer.%d.attention.v_proj.bias",
    [L_QNORM_G] = "encoder.layer.%d.attention.q_norm.weight",
    [L_KNORM_G] = "encoder.layer.%d.attention.k_norm.weight",
    [L_O_W] = "encoder.layer.%d.attention.projection_layer.weight",
    [L_O_B] = "encoder.layer.%d.attention.projection_layer.bias",
    [L_SCALE1] = "encoder.layer.%d.lambda_1",
    [L_NORM2_G] = "encoder.layer.%d.layernorm_after.weight",
    [L_NORM2_B] = "encoder.layer.%d.layernorm_after.bias",
    [L_UP_W] = "encoder.layer.%d.mlp.fc1.weight",
    [L_UP_B] = "encoder.layer.%d.mlp.fc1.bias",
    [L_DOWN_W] = "encoder.layer.%d.mlp.fc2.weight",
    [L_DOWN_B] = "encoder.layer.%d.mlp.fc2.bias",
    [L_SCALE2] = "encoder.layer.%d.lambda_2",
};
static const char *const SHEET_NAMES[S_FIRST_TEXT] = {
    [S_PATCH_W] = "embeddings.patch_embeddings.projection.weight",
    [S_PATCH_B] = "embeddings.patch_embeddings.projection.bias",
    [S_CLASS] = "embeddings.cls_token",
    [S_POS] = "embeddings.position_embeddings",
    [S_POST_G] = "layernorm.weight",
    [S_POST_B] = "layernorm.bias",
    [S_JOIN_G] = "multi_modal_projector.layer_norm.weight",
    [S_JOIN_B] = "multi_modal_projector.layer_norm.bias",
    [S_FC1_W] = "multi_modal_projector.linear_1.weight",
    [S_FC1_B] = "multi_modal_projector.linear_1.bias",
    [S_FC2_W] = "multi_modal_projector.linear_2.weight",
    [S_FC2_B] = "multi_modal_projector.linear_2.bias",
};
static const ignore_rule IGNORED[] = {
    {"*.rotary_emb.inv_freq", "computed from the config"},
    {"*vision_tower.embeddings.mask_token", "hides patches while training"},
    {"*vision_tower.layernorm.*", "behind the features"},
    {NULL, NULL},
};
static const name_sheet SHEET = {
    .tower_at = COMPOSED_TOWER_AT,
    .join_at = COMPOSED_JOIN_AT,
    .text_at = COMPOSED_TEXT_AT,
    .head_at = COMPOSED_HEAD_AT,
    .tower_layer = TOWER_LAYER,
    .names = SHEET_NAMES,
    .ignored = IGNORED,
};

const family FAMILY_INTERNVL = {
    .name = "internvl",
    .does = "early fusion, tiles by nearest ratio; pixel shuffle, MLP",
    .architecture = "InternVLForConditionalGeneration",
    .image_class = "GotOcr2ImageProcessor",
    .read = read,
    .check = check,
    .sheet = &SHEET,
};
