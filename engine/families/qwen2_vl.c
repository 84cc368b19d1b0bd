/* qwen2_vl.c - Qwen2-VL: a ViT on the picture's own grid, 2 x 2 patches merged into a token, a Qwen2 decoder whose rope knows
 * a picture's lines and columns.
 *
 * Source: transformers' Qwen2VLConfig, Qwen2VLProcessor and modeling_qwen2_vl.py. Tested by tests/engine/model/test_model.c and
 * tests/e2e/test_parity.py. */
#include "engine/families/native_config.h"

static bool read(config *c, model_spec *out) {
    static const native_text t = {.type = "qwen2_vl_text",
                                  .flat = true,
                                  .base = NATIVE_QWEN2_TEXT,
                                  .theta = 1e6,
                                  .deal = ROPE_SECTIONS,
                                  .section = {16, 24, 24}};
    static const native_tower d = {.types = {"qwen2_vl_vision", "qwen2_vl"},
                                   .depth = 32,
                                   .width = 1280,
                                   .heads = 16,
                                   .patch = 14,
                                   .width_key = "embed_dim",
                                   .activation = "quick_gelu",
                                   .norm = NORM_LAYER};
    config sub, v = config_sub(c, "vision_config"), *text = native_read_text(c, &t, &sub, &out->text);
    if (!text || !native_qwen2_decoder(text, &out->text) || !native_read_tower(&v, &d, out)) return false;
    stack_spec *s = &out->tower.stack;
    s->ffn = s->width * (int)config_int(&v, "mlp_ratio", 4, 1, 64);
    out->join.out = (int)config_int(&v, "hidden_size", 3584, 1, 1 << 17);
    return native_done(c, text, &v, out);
}

static const char *const LAYER[L_COUNT] = {
    NATIVE_LAYER,
    [L_UP_W] = "blocks.%d.mlp.fc1.weight",
    [L_UP_B] = "blocks.%d.mlp.fc1.bias",
    [L_DOWN_W] = "blocks.%d.mlp.fc2.weight",
    [L_DOWN_B] = "blocks.%d.mlp.fc2.bias",
};
static const name_sheet SHEET = {
    .tower_at = NATIVE_TOWER_AT,
    .join_at = NATIVE_JOIN_AT,
    .text_at = NATIVE_TEXT_AT,
    .head_at = NATIVE_HEAD_AT,
    .tower_layer = LAYER,
    .names = NATIVE_NAMES,
    .ignored = NATIVE_IGNORED,
};

const family FAMILY_QWEN2_VL = {
    .name = "qwen2_vl",
    .does = "early fusion at native resolution: 2-D rotary tower, 2 x 2 merged, M-RoPE",
    .architecture = "Qwen2VLForConditionalGeneration",
    .image_class = "Qwen2VLImageProcessor",
    .read = read,
    .check = native_check,
    .sheet = &SHEET,
};
