/* siglip.c - SigLIP: a text tower without mask, padded to its full length and read at its last place; a ViT that a learned
 * query reads; pairs judged one by one. The fixed sizes of SigLIP 2 are this class, too.
 *
 * Source: transformers' SiglipConfig and modeling_siglip.py. Tested by tests/engine/model/test_dual.c and
 * tests/e2e/test_embeddings.py. */
#include "engine/families/dual_config.h"

bool siglip_read_as(config *c, const char *vision_type, model_spec *out) {
    static const dual_text_defaults d = {
        .vocab = 32000, .max_pos = 64, .stack = {12, 768, 3072, 12, 1e-6, "gelu_pytorch_tanh"}};
    config text = config_sub(c, "text_config"), vision = config_sub(c, "vision_config");
    config_only_bool(&vision, "vision_use_head", true);
    if (!dual_config_text(&text, &d, out) || !dual_config_tower(&vision, vision_type, out)) return false;
    dual_spec *s = &out->dual;
    s->width = (int)config_int(&text, "projection_size", out->text.stack.width, 1, 1 << 16);
    if (s->width != out->tower.stack.width)
        return config_fail(&text, ST_INVALID, "projection_size",
                           "%d for texts, but vision_config.hidden_size gives pictures vectors of %d",
                           s->width, out->tower.stack.width);
    s->pick = DUAL_PICK_LAST;
    s->pads = true;
    s->pad_id = (int32_t)config_int(&text, "pad_token_id", 1, 0, INT32_MAX);
    s->text_bias = true;
    s->head = DUAL_HEAD_PROBE;
    s->sigmoid = true;
    config_warn_unknown(&text);
    dual_config_done(c, out);
    return c->st->code == ST_OK;
}

static bool read(config *c, model_spec *out) {
    return siglip_read_as(c, "siglip_vision_model", out);
}

#define HEAD "vision_model.head."
static const char *const NAMES_SIGLIP[DUAL_COUNT] = {
    [DUAL_TEXT_W] = "text_model.head.weight",
    [DUAL_TEXT_B] = "text_model.head.bias",
    [DUAL_PROBE] = HEAD "probe",
    [DUAL_Q_W] = HEAD "attention.in_proj_weight#0/3",
    [DUAL_Q_B] = HEAD "attention.in_proj_bias#0/3",
    [DUAL_K_W] = HEAD "attention.in_proj_weight#1/3",
    [DUAL_K_B] = HEAD "attention.in_proj_bias#1/3",
    [DUAL_V_W] = HEAD "attention.in_proj_weight#2/3",
    [DUAL_V_B] = HEAD "attention.in_proj_bias#2/3",
    [DUAL_O_W] = HEAD "attention.out_proj.weight",
    [DUAL_O_B] = HEAD "attention.out_proj.bias",
    [DUAL_NORM_G] = HEAD "layernorm.weight",
    [DUAL_NORM_B] = HEAD "layernorm.bias",
    [DUAL_UP_W] = HEAD "mlp.fc1.weight",
    [DUAL_UP_B] = HEAD "mlp.fc1.bias",
    [DUAL_DOWN_W] = HEAD "mlp.fc2.weight",
    [DUAL_DOWN_B] = HEAD "mlp.fc2.bias",
    [DUAL_SCALE] = "logit_scale",
    [DUAL_BIAS] = "logit_bias",
};
const name_sheet SHEET_SIGLIP = {
    .tower_at = DUAL_TOWER_AT,
    .text_at = DUAL_TEXT_AT,
    .tower_layer = NAMES_TOWER_LAYER,
    .names = NAMES_DUAL_TOWER,
    .dual_at = DUAL_AT,
    .dual = NAMES_SIGLIP,
    .ignored = DUAL_IGNORED,
};

const family FAMILY_SIGLIP = {
    .name = "siglip",
    .does = "dual encoder: sigmoid of each pair; a probe pools the picture (SigLIP 2 of one size too)",
    .architecture = "SiglipModel",
    .image_class = "SiglipImageProcessor",
    .read = read,
    .sheet = &SHEET_SIGLIP,
};
