/* llava_next.c - LLaVA-NeXT (1.6): LLaVA with pictures at the best of a list of sizes, in tiles, and rows of newlines.
 *
 * Source: transformers' LlavaNextConfig, LlavaNextProcessor and modeling_llava_next.py. Tested by
 * tests/engine/families/test_plans.c and tests/e2e/test_parity.py. */
#include "engine/families/anyres.h"

static bool read(config *c, model_spec *out) {
    config text = config_sub(c, "text_config"), vision = config_sub(c, "vision_config");
    if (!family_read_part(&text, "llama", &out->text) ||
        !tower_config_read(&vision, "clip_vision_model", &out->tower) ||
        !join_config_features(c, -2, "default", &out->tower) || !anyres_check_tower(c, &out->tower))
        return false;
    join_config_mlp(c, out);
    if (config_bool(c, "tie_word_embeddings", false)) out->text.tied = true;
    join_config_splice(c, 32000, out);
    out->newline = true;
    out->image_rows = anyres_rows;
    out->pack = anyres_pack;
    static const char *const unused[] = {"image_seq_length", "image_grid_pinpoints", NULL};
    config_skip(c, unused);
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

static bool check(config *c, model_spec *out) {
    return anyres_check_points(c, "LlavaNextImageProcessor", out);
}

const family FAMILY_LLAVA_NEXT = {
    .name = "llava_next",
    .does = "early fusion, tiles of any resolution, un-padded, a newline row; MLP",
    .architecture = "LlavaNextForConditionalGeneration",
    .parts = CLIP_PARTS,
    .image_class = "LlavaNextImageProcessor",
    .read = read,
    .check = check,
    .sheet = &ANYRES_SHEET,
};
