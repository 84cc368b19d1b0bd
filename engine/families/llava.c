/* llava.c - LLaVA as published: a ViT's hidden states, a linear or two-layer projector, spliced into a decoder.
 *
 * Source: transformers' LlavaConfig, LlavaProcessor and modeling_llava.py. mm_projector_type is the original
 * training code's key: "linear" is one matrix (LLaVA v1), "mlp2x_gelu" the two that the reference always has.
 * Tested by tests/engine/model/test_model.c and tests/e2e/test_parity.py. */
#include <string.h>

#include "engine/families/family.h"

static void read_join(config *c, model_spec *out) {
    const char *type = config_str(c, "mm_projector_type", "mlp2x_gelu");
    join_config_mlp(c, out);
    if (strcmp(type, "linear") == 0)
        out->join.kind = JOIN_LINEAR;
    else if (strcmp(type, "mlp2x_gelu") != 0)
        config_fail(c, ST_UNSUPPORTED, "mm_projector_type", "expected linear or mlp2x_gelu, found %.60s",
                    type);
}

static bool read(config *c, model_spec *out) {
    config text = config_sub(c, "text_config"), vision = config_sub(c, "vision_config");
    if (!family_read_part(&text, "llama", &out->text) ||
        !tower_config_read(&vision, "clip_vision_model", &out->tower))
        return false;
    join_config_features(c, -2, "default", &out->tower);
    read_join(c, out);
    if (config_bool(c, "tie_word_embeddings", false)) out->text.tied = true;
    join_config_splice(c, 32000, out);
    out->image_rows = spec_rows_of_square;
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
    .tower_at = COMPOSED_TOWER_AT,
    .join_at = COMPOSED_PROJECTOR_AT,
    .linear_at = LINEAR_AT,
    .text_at = COMPOSED_TEXT_AT,
    .head_at = COMPOSED_HEAD_AT,
    .tower_layer = NAMES_TOWER_LAYER,
    .names = NAMES,
    .ignored = COMPOSED_IGNORED,
};

const family FAMILY_LLAVA = {
    .name = "llava",
    .does = "early fusion: hidden states of a ViT through an MLP or one matrix (LLaVA v1)",
    .architecture = "LlavaForConditionalGeneration",
    .parts = CLIP_PARTS,
    .image_class = "LlavaImageProcessor",
    .read = read,
    .sheet = &SHEET,
};
