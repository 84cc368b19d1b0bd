/* llava_onevision.c - LLaVA-OneVision: LLaVA-NeXT's tiles, resampled where they are too many; several pictures in a prompt
 * stand whole in a square instead.
 *
 * Source: transformers' LlavaOnevisionConfig, LlavaOnevisionProcessor and modeling_llava_onevision.py. Tested by
 * tests/engine/families/test_plans.c and tests/e2e/test_parity.py. */
#include <stdio.h>

#include "engine/families/anyres.h"

static bool plan_image(const model_spec *s, const image_ask *a, const image_limits *lim, prep_plan *out,
                       status *st) {
    if (a->n_images == 1) return prep_plan_cut(&s->prep, a->w, a->h, lim, out, st);
    prep_spec whole = s->prep;
    whole.pad_square = true;
    return prep_plan_one(&whole, a->w, a->h, lim, out, st);
}

/* "anyres_max_9": as many tiles' worth of features. */
static void read_limit(config *c, model_spec *out) {
    const char *rule = config_str(c, "vision_aspect_ratio", "anyres_max_9");
    char more;
    if (sscanf(rule, "anyres_max_%4d%c", &out->pack_limit, &more) == 1 && out->pack_limit > 0) return;
    config_fail(c, ST_UNSUPPORTED, "vision_aspect_ratio", "expected anyres_max_ and a number, found %.60s",
                rule);
}

static bool read(config *c, model_spec *out) {
    config text = config_sub(c, "text_config"), vision = config_sub(c, "vision_config");
    if (!family_read_part(&text, "qwen2", &out->text) ||
        !tower_config_read(&vision, "siglip_vision_model", &out->tower) ||
        !join_config_features(c, -1, "full", &out->tower) || !anyres_check_tower(c, &out->tower))
        return false;
    join_config_mlp(c, out);
    if (config_bool(c, "tie_word_embeddings", false)) out->text.tied = true;
    join_config_splice(c, 151646, out);
    read_limit(c, out);
    out->newline = true;
    out->plan_image = plan_image;
    out->image_rows = anyres_rows;
    out->pack = anyres_pack;
    static const char *const unused[] = {"image_seq_length", "image_grid_pinpoints", "video_token_id",
                                         "video_token_index", NULL};
    config_skip(c, unused);
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

static bool check(config *c, model_spec *out) {
    return anyres_check_points(c, "LlavaOnevisionImageProcessor", out);
}

static const char *const PARTS[][2] = {
    {"vision_config",
     "{'model_type':'siglip_vision_model','hidden_size':1152,'intermediate_size':4304,'patch_size':14,"
     "'image_size':384,'num_hidden_layers':26,'num_attention_heads':16}"},
    {NULL, NULL},
};

const family FAMILY_LLAVA_ONEVISION = {
    .name = "llava_onevision",
    .does = "early fusion, tiles of any resolution, resampled over a limit, a newline row; MLP",
    .architecture = "LlavaOnevisionForConditionalGeneration",
    .parts = PARTS,
    .image_class = "LlavaOnevisionImageProcessor",
    .read = read,
    .check = check,
    .sheet = &ANYRES_SHEET,
};
