/* join_config.c - what models made of a vision tower, a projector and a decoder have in common: which hidden states are
 * features, the two-layer projector, and where the parts' tensors stand.
 *
 * Source: transformers' LlavaConfig and those that follow it. Thread: the loader's. */
#include <string.h>

#include "engine/families/family.h"

const char *const CLIP_PARTS[][2] = {
    {"vision_config",
     "{'model_type':'clip_vision_model','intermediate_size':4096,'hidden_size':1024,'patch_size':14,"
     "'image_size':336,'num_hidden_layers':24,'num_attention_heads':16}"},
    {NULL, NULL},
};

bool join_config_features(config *c, int def_layer, const char *def_strategy, tower_spec *t) {
    int32_t v[SPEC_MAX_FEATURES];
    t->n_features = config_ints(c, "vision_feature_layer", v, SPEC_MAX_FEATURES);
    if (config_has(c, "vision_feature_layer") && t->n_features == 0)
        config_fail(c, ST_INVALID, "vision_feature_layer", "expected at least one layer");
    if (t->n_features == 0) {
        t->n_features = 1;
        v[0] = def_layer;
    }
    int states = t->stack.n_layers + 1;
    for (int i = 0; i < t->n_features; i++) {
        if (v[i] < -states || v[i] >= states)
            return config_fail(c, ST_INVALID, "vision_feature_layer",
                               "expected -%d to %d (the tower has %d layers), found %d", states, states - 1,
                               states - 1, (int)v[i]);
        t->features[i] = v[i] < 0 ? v[i] + states : v[i];
        if (t->features[i] > t->run_layers) t->run_layers = t->features[i];
    }
    const char *strategy = config_str(c, "vision_feature_select_strategy", def_strategy);
    t->drop_first = strcmp(strategy, "default") == 0;
    if (!t->drop_first && strcmp(strategy, "full") != 0)
        config_fail(c, ST_UNSUPPORTED, "vision_feature_select_strategy",
                    "expected default or full, found %.60s", strategy);
    int side = t->image_size / t->patch;
    if (tower_features_rows(t, side, side) < 1)
        config_fail(c, ST_INVALID, "vision_feature_select_strategy",
                    "default leaves no row of a single patch");
    return c->st->code == ST_OK;
}

void join_config_mlp(config *c, model_spec *out) {
    join_spec *j = &out->join;
    j->kind = JOIN_MLP;
    j->activation = config_act(c, "projector_hidden_act", "gelu");
    j->bias = config_bool(c, "multimodal_projector_bias", true);
    j->in = out->tower.stack.width * out->tower.n_features;
    j->hidden = j->out = out->text.stack.width;
}

void join_config_splice(config *c, int32_t def_token, model_spec *out) {
    out->image_token =
        (int32_t)config_int_as(c, "image_token_id", "image_token_index", def_token, 0, INT32_MAX);
    out->fuse = FUSE_SPLICE;
    out->prompt_adds_special = true;
}

const char *const COMPOSED_TOWER_AT[] = {"model.vision_tower.", "vision_tower.",
                                         "model.vision_tower.vision_model.", "vision_tower.vision_model.",
                                         NULL};
const char *const COMPOSED_JOIN_AT[] = {"model.", "", NULL};
const char *const COMPOSED_PROJECTOR_AT[] = {"model.multi_modal_projector.", "multi_modal_projector.", NULL};
const char *const COMPOSED_TEXT_AT[] = {"model.language_model.", "language_model.model.", "language_model.",
                                        "model.language_model.model.", NULL};
const char *const COMPOSED_HEAD_AT[] = {"", "language_model.", "model.language_model.", NULL};
const ignore_rule COMPOSED_IGNORED[] = {
    {"*.rotary_emb.inv_freq", "computed from the config"},
    {"*vision_tower.*embeddings.position_ids", "a plain count"},
    {"*vision_tower.*post_layernorm.*", "behind the features"},
    {"*vision_tower.*head.*", "pools what is not pooled here"},
    {NULL, NULL},
};
