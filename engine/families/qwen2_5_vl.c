/* qwen2_5_vl.c - Qwen2.5-VL: as Qwen2-VL, but most layers of the ViT see windows only, with RMS norms and gated feed-forwards.
 *
 * Source: transformers' Qwen2_5_VLConfig and modeling_qwen2_5_vl.py. Tested by tests/engine/model/test_model.c and
 * tests/e2e/test_parity.py. */
#include "engine/families/native_config.h"

/* A window is so many merged cells a side; layers that are named see everything. */
static void read_windows(config *v, int merge, tower_spec *t) {
    int32_t full[SPEC_MAX_LAYERS] = {7, 15, 23, 31};
    int size = (int)config_int(v, "window_size", 112, 1, 1 << 16), cells = size / merge / t->patch;
    int n = config_has(v, "fullatt_block_indexes")
                ? config_ints(v, "fullatt_block_indexes", full, SPEC_MAX_LAYERS)
                : 4;
    if (cells < 1)
        config_fail(v, ST_INVALID, "window_size", "%d is less than a merged cell of %d pixels", size,
                    merge * t->patch);
    t->window = cells * merge;
    for (int i = 0; i < n; i++)
        if (full[i] >= 0 && full[i] < t->stack.n_layers) t->sees_all[full[i]] = true;
}

static bool read(config *c, model_spec *out) {
    static const native_text t = {.type = "qwen2_5_vl_text",
                                  .flat = true,
                                  .base = NATIVE_QWEN2_TEXT,
                                  .theta = 1e6,
                                  .deal = ROPE_SECTIONS,
                                  .section = {16, 24, 24}};
    static const native_tower d = {.types = {"qwen2_5_vl_vision", "qwen2_5_vl"},
                                   .depth = 32,
                                   .width = 3584,
                                   .heads = 16,
                                   .patch = 14,
                                   .width_key = "hidden_size",
                                   .activation = "silu",
                                   .norm = NORM_RMS};
    config sub, v = config_sub(c, "vision_config"), *text = native_read_text(c, &t, &sub, &out->text);
    if (!text || !native_qwen2_decoder(text, &out->text) || !native_read_tower(&v, &d, out)) return false;
    stack_spec *s = &out->tower.stack;
    s->glu = true;
    s->ffn = (int)config_int(&v, "intermediate_size", 3420, 1, 1 << 20);
    out->join.out = (int)config_int(&v, "out_hidden_size", 3584, 1, 1 << 17);
    read_windows(&v, out->join.merge, &out->tower);
    return native_done(c, text, &v, out);
}

static const char *const LAYER[L_COUNT] = {
    NATIVE_LAYER,
    [L_GATE_W] = "blocks.%d.mlp.gate_proj.weight",
    [L_GATE_B] = "blocks.%d.mlp.gate_proj.bias",
    [L_UP_W] = "blocks.%d.mlp.up_proj.weight",
    [L_UP_B] = "blocks.%d.mlp.up_proj.bias",
    [L_DOWN_W] = "blocks.%d.mlp.down_proj.weight",
    [L_DOWN_B] = "blocks.%d.mlp.down_proj.bias",
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

const family FAMILY_QWEN2_5_VL = {
    .name = "qwen2_5_vl",
    .does = "early fusion at native resolution, windows in the tower, M-RoPE",
    .architecture = "Qwen2_5_VLForConditionalGeneration",
    .image_class = "Qwen2VLImageProcessor",
    .read = read,
    .check = native_check,
    .sheet = &SHEET,
};
