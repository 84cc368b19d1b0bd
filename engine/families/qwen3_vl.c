/* qwen3_vl.c - Qwen3-VL, the dense ones: a ViT on the picture's own grid with a resampled table of positions, whose inner layers
 * also reach the first layers of a Qwen3 decoder (deepstack).
 *
 * Source: transformers' Qwen3VLConfig and modeling_qwen3_vl.py. Tested by tests/engine/model/test_model.c and
 * tests/e2e/test_parity.py. */
#include <math.h>

#include "engine/families/native_config.h"

/* The layers in the order in which they run; each has the join of its place in the list. */
static void read_deepstack(config *v, model_spec *out) {
    deep_spec *d = &out->deep;
    int32_t layer[SPEC_MAX_DEEP + 1] = {8, 16, 24};
    int n = config_has(v, "deepstack_visual_indexes")
                ? config_ints(v, "deepstack_visual_indexes", layer, SPEC_MAX_DEEP + 1)
                : 3;
    if (n > SPEC_MAX_DEEP || n > out->text.stack.n_layers) {
        config_fail(v, ST_UNSUPPORTED, "deepstack_visual_indexes",
                    "expected at most %d (the decoder has %d layers)", SPEC_MAX_DEEP,
                    out->text.stack.n_layers);
        return;
    }
    for (int i = 0; i < n; i++) {
        int at = d->n++;
        if (layer[i] < 0 || layer[i] >= out->tower.stack.n_layers)
            config_fail(v, ST_INVALID, "deepstack_visual_indexes", "expected layers 0 to %d, found %d",
                        out->tower.stack.n_layers - 1, (int)layer[i]);
        for (; at > 0 && d->state[at - 1] > layer[i] + 1; at--)
            d->state[at] = d->state[at - 1], d->which[at] = d->which[at - 1];
        if (at > 0 && d->state[at - 1] == layer[i] + 1)
            config_fail(v, ST_UNSUPPORTED, "deepstack_visual_indexes", "layer %d stands twice",
                        (int)layer[i]);
        d->state[at] = layer[i] + 1;
        d->which[at] = i;
    }
    d->join = out->join;
    d->join.normed = JOIN_NORM_MERGED;
}

static bool read(config *c, model_spec *out) {
    static const native_text t = {.type = "qwen3_vl_text",
                                  .base = {.vocab = 151936,
                                           .width = 4096,
                                           .ffn = 22016,
                                           .layers = 32,
                                           .heads = 32,
                                           .kv_heads = 32,
                                           .head_dim = 128,
                                           .max_pos = 128000,
                                           .eps = 1e-6,
                                           .bos = -1,
                                           .eos = -1,
                                           .own_rope = true},
                                  .theta = 5e5,
                                  .deal = ROPE_INTERLEAVED,
                                  .section = {24, 20, 20}};
    static const native_tower d = {.types = {"qwen3_vl_vision", "qwen3_vl"},
                                   .depth = 27,
                                   .width = 1152,
                                   .heads = 16,
                                   .patch = 16,
                                   .width_key = "hidden_size",
                                   .activation = "gelu_pytorch_tanh",
                                   .norm = NORM_LAYER};
    config sub, v = config_sub(c, "vision_config"), *text = native_read_text(c, &t, &sub, &out->text);
    if (!text || !native_read_tower(&v, &d, out)) return false;
    stack_spec *k = &out->text.stack;
    k->q_bias = k->k_bias = k->v_bias = k->o_bias = config_bool(text, "attention_bias", false);
    k->qk_norm = true;
    config_only_bool(text, "use_sliding_window", false);
    tower_spec *w = &out->tower;
    w->stack.ffn = (int)config_int(&v, "intermediate_size", 4304, 1, 1 << 20);
    w->patch_bias = true;
    w->no_pos = false;
    w->pos_rows = (int)config_int(&v, "num_position_embeddings", 2304, 1, 1 << 24);
    w->pos_corners = (int)sqrt((double)w->pos_rows);
    out->join.out = (int)config_int(&v, "out_hidden_size", 3584, 1, 1 << 17);
    read_deepstack(&v, out);
    return native_done(c, text, &v, out);
}

static const char *const LAYER[L_COUNT] = {
    NATIVE_LAYER,
    [L_UP_W] = "blocks.%d.mlp.linear_fc1.weight",
    [L_UP_B] = "blocks.%d.mlp.linear_fc1.bias",
    [L_DOWN_W] = "blocks.%d.mlp.linear_fc2.weight",
    [L_DOWN_B] = "blocks.%d.mlp.linear_fc2.bias",
};
static const char *const NAMES_OF_ALL[S_FIRST_TEXT] = {
    [S_PATCH_W] = "patch_embed.proj.weight",
    [S_PATCH_B] = "patch_embed.proj.bias",
    [S_POS] = "pos_embed.weight",
    [S_JOIN_G] = "norm.weight",
    [S_JOIN_B] = "norm.bias",
    [S_FC1_W] = "linear_fc1.weight",
    [S_FC1_B] = "linear_fc1.bias",
    [S_FC2_W] = "linear_fc2.weight",
    [S_FC2_B] = "linear_fc2.bias",
};
static const char *const DEEP[JOIN_SLOTS] = {
    [S_JOIN_G - S_FIRST_JOIN] = "deepstack_merger_list.%d.norm.weight",
    [S_JOIN_B - S_FIRST_JOIN] = "deepstack_merger_list.%d.norm.bias",
    [S_FC1_W - S_FIRST_JOIN] = "deepstack_merger_list.%d.linear_fc1.weight",
    [S_FC1_B - S_FIRST_JOIN] = "deepstack_merger_list.%d.linear_fc1.bias",
    [S_FC2_W - S_FIRST_JOIN] = "deepstack_merger_list.%d.linear_fc2.weight",
    [S_FC2_B - S_FIRST_JOIN] = "deepstack_merger_list.%d.linear_fc2.bias",
};
static const name_sheet SHEET = {
    .tower_at = NATIVE_TOWER_AT,
    .join_at = NATIVE_JOIN_AT,
    .text_at = NATIVE_TEXT_AT,
    .head_at = NATIVE_HEAD_AT,
    .tower_layer = LAYER,
    .names = NAMES_OF_ALL,
    .deep = DEEP,
    .ignored = NATIVE_IGNORED,
};

const family FAMILY_QWEN3_VL = {
    .name = "qwen3_vl",
    .does = "early fusion at native resolution, resampled positions, deep features, interleaved M-RoPE",
    .architecture = "Qwen3VLForConditionalGeneration",
    .image_class = "Qwen2VLImageProcessor",
    .read = read,
    .check = native_check,
    .sheet = &SHEET,
};
