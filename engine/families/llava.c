/* llava.c - LLaVA as published: a ViT's hidden states, a linear or two-layer projector, spliced into a decoder.
 *
 * Source: transformers' LlavaConfig, LlavaProcessor and modeling_llava.py. mm_projector_type is the original
 * training code's key: "linear" is one matrix (LLaVA v1), "mlp2x_gelu" the two that the reference always has.
 * Tested by tests/engine/model/test_model.c and tests/e2e/test_parity.py. */
#include <string.h>

#include "engine/families/family.h"

static void read_features(config *c, tower_spec *t) {
    int32_t v[SPEC_MAX_FEATURES];
    t->n_features = config_ints(c, "vision_feature_layer", v, SPEC_MAX_FEATURES);
    if (config_has(c, "vision_feature_layer") && t->n_features == 0)
        config_fail(c, ST_INVALID, "vision_feature_layer", "expected at least one layer");
    if (t->n_features == 0) {
        t->n_features = 1;
        v[0] = -2;
    }
    int states = t->stack.n_layers + 1;
    for (int i = 0; i < t->n_features; i++) {
        if (v[i] < -states || v[i] >= states) {
            config_fail(c, ST_INVALID, "vision_feature_layer",
                        "expected -%d to %d (the tower has %d layers), found %d", states, states - 1,
                        states - 1, (int)v[i]);
            return;
        }
        t->features[i] = v[i] < 0 ? v[i] + states : v[i];
        if (t->features[i] > t->run_layers) t->run_layers = t->features[i];
    }
    const char *strategy = config_str(c, "vision_feature_select_strategy", "default");
    t->drop_first = strcmp(strategy, "default") == 0;
    if (!t->drop_first && strcmp(strategy, "full") != 0)
        config_fail(c, ST_UNSUPPORTED, "vision_feature_select_strategy",
                    "expected default or full, found %.60s", strategy);
    int side = t->image_size / t->patch;
    if (tower_features_rows(t, side, side) < 1)
        config_fail(c, ST_INVALID, "vision_feature_select_strategy",
                    "default leaves no row of a single patch");
}

static void read_join(config *c, model_spec *out) {
    join_spec *j = &out->join;
    const char *type = config_str(c, "mm_projector_type", "mlp2x_gelu");
    j->kind = strcmp(type, "linear") == 0 ? JOIN_LINEAR : JOIN_MLP;
    if (j->kind == JOIN_MLP && strcmp(type, "mlp2x_gelu") != 0)
        config_fail(c, ST_UNSUPPORTED, "mm_projector_type", "expected linear or mlp2x_gelu, found %.60s",
                    type);
    j->activation = config_act(c, "projector_hidden_act", "gelu");
    j->bias = config_bool(c, "multimodal_projector_bias", true);
    j->in = out->tower.stack.width * out->tower.n_features;
    j->hidden = j->out = out->text.stack.width;
}

static bool read(config *c, model_spec *out) {
    config text = config_sub(c, "text_config"), vision = config_sub(c, "vision_config");
    if (!family_read_text(&text, "llama", &out->text) ||
        !tower_config_read(&vision, "clip_vision_model", &out->tower))
        return false;
    read_features(c, &out->tower);
    read_join(c, out);
    if (config_bool(c, "tie_word_embeddings", false)) out->text.tied = true;
    out->fuse = FUSE_SPLICE;
    /* image_token_id is another name of the same attribute. */
    int64_t id = config_int(c, "image_token_id", 32000, 0, INT32_MAX);
    out->image_token = (int32_t)config_int(c, "image_token_index", id, 0, INT32_MAX);
    out->image_rows = spec_rows_of_square;
    out->prompt_adds_special = true;
    static const char *const unused[] = {"image_seq_length", "vision_tower_name", "mm_vision_select_layer",
                                         NULL};
    config_skip(c, unused);
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

static const char *const LINEAR_AT[] = {"multi_modal_projector.linear_1.",
                                        "model.multi_modal_projector.linear_1.",
                                        "multi_modal_projector.linear.",
                                        "model.multi_modal_projector.linear.",
                                        "multi_modal_projector.",
                                        "model.multi_modal_projector.",
                                        "mm_projector.",
                                        "model.mm_projector.",
                                        NULL};
static const name_sheet SHEET = {
    .tower_at = PAIR_TOWER_AT,
    .join_at = PAIR_JOIN_AT,
    .linear_at = LINEAR_AT,
    .text_at = PAIR_TEXT_AT,
    .head_at = PAIR_HEAD_AT,
    .tower_layer = NAMES_TOWER_LAYER,
    .names = NAMES,
    .ignored = PAIR_IGNORED,
};

const family FAMILY_LLAVA = {
    .name = "llava",
    .architecture = "LlavaForConditionalGeneration",
    .read = read,
    .sheet = &SHEET,
};
