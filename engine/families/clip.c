/* clip.c - CLIP: a causal text tower read at its end token, a ViT read at CLS, each projected without bias.
 *
 * Source: transformers' CLIPConfig and modeling_clip.py. Configs of before eos_token_id was right say 2 and mean the
 * greatest id. text_config_dict and vision_config_dict, where they are not null, replace the newer objects as a whole.
 * Tested by tests/engine/model/test_dual.c and tests/e2e/test_embeddings.py. */
#include "engine/families/dual_config.h"

static config half(config *c, const char *key, const char *old) {
    return config_sub(c, config_has(c, old) ? old : key);
}

static bool read(config *c, model_spec *out) {
    static const dual_text_defaults d = {
        .vocab = 49408, .max_pos = 77, .stack = {12, 512, 2048, 8, 1e-5, "quick_gelu"}, .causal = true};
    config text = half(c, "text_config", "text_config_dict");
    config vision = half(c, "vision_config", "vision_config_dict");
    static const char *const unused[] = {"logit_scale_init_value", "text_config", "vision_config", NULL};
    config_skip(c, unused);
    if (!dual_config_text(&text, &d, out) || !dual_config_tower(&vision, "clip_vision_model", out))
        return false;
    dual_spec *s = &out->dual;
    s->width = (int)config_int(c, "projection_dim", 512, 1, 1 << 16);
    s->pick_id = (int32_t)config_int(&text, "eos_token_id", 49407, 0, INT32_MAX);
    s->pick = s->pick_id == 2 ? DUAL_PICK_GREATEST : DUAL_PICK_ID;
    s->head = DUAL_HEAD_FIRST;
    config_warn_unknown(&text);
    dual_config_done(c, out);
    return c->st->code == ST_OK;
}

static const char *const NAMES_CLIP[DUAL_COUNT] = {
    [DUAL_TEXT_W] = "text_projection.weight",
    [DUAL_IMAGE_W] = "visual_projection.weight",
    [DUAL_SCALE] = "logit_scale",
};
static const name_sheet SHEET = {
    .tower_at = DUAL_TOWER_AT,
    .text_at = DUAL_TEXT_AT,
    .tower_layer = NAMES_TOWER_LAYER,
    .names = NAMES_DUAL_TOWER,
    .dual_at = DUAL_AT,
    .dual = NAMES_CLIP,
    .ignored = DUAL_IGNORED,
};

const family FAMILY_CLIP = {
    .name = "clip",
    .does = "dual encoder: contrastive, softmax over labels; pooled at the end of the text",
    .architecture = "CLIPModel",
    .image_class = "CLIPImageProcessor",
    .read = read,
    .sheet = &SHEET,
};
