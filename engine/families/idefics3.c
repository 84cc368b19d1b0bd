/* idefics3.c - Idefics3 and SmolVLM: a SigLIP-like tower over tiles, k x k neighbours merged and projected by one matrix,
 * markers of row and column in the text.
 *
 * Source: transformers' Idefics3Config, SmolVLMConfig, their processors and modeling_idefics3.py. Tested by
 * tests/engine/families/test_plans.c and tests/e2e/test_parity.py. */
#include <stdio.h>

#include "engine/families/family.h"

static void read_join(config *c, model_spec *out) {
    join_spec *j = &out->join;
    int side = out->tower.image_size / out->tower.patch;
    j->kind = JOIN_LINEAR;
    j->merge = (int)config_int(c, "scale_factor", 2, 1, 64);
    if (side % j->merge)
        config_fail(c, ST_INVALID, "scale_factor",
                    "expected a divisor of the %d patches of the tower's side, found %d", side, j->merge);
    j->in = out->tower.stack.width * j->merge * j->merge;
    j->out = out->text.stack.width;
}

static void put_whole(image_text *out, int rows) {
    image_text_named(out, "fake_image_token", "<fake_token_around_image>");
    image_text_named(out, "global_image_token", "<global-img>");
    image_text_rows(out, rows);
    image_text_named(out, "fake_image_token", "<fake_token_around_image>");
}

static void write_image(const model_spec *s, const prep_plan *p, image_text *out) {
    int columns, rows, each = spec_rows_of_tiles(s, p) / p->n_tiles;
    prep_plan_grid(p, &columns, &rows);
    for (int y = 0; y < rows && p->n_tiles > 1; y++) {
        for (int x = 0; x < columns; x++) {
            char at[48];
            snprintf(at, sizeof at, "<row_%d_col_%d>", y + 1, x + 1);
            image_text_named(out, "fake_image_token", "<fake_token_around_image>");
            image_text_puts(out, at);
            image_text_rows(out, each);
        }
        image_text_puts(out, y + 1 < rows ? "\n" : "\n\n");
    }
    put_whole(out, each);
}

static bool read(config *c, model_spec *out) {
    config text = config_sub(c, "text_config"), vision = config_sub(c, "vision_config");
    static const char *const unused[] = {"max_image_size",      "size",           "use_base_siglip",
                                         "tie_word_embeddings", "video_sampling", NULL};
    config_skip(&vision, unused);
    if (!family_read_part(&text, "llama", &out->text) ||
        !tower_config_read_as(&vision, "idefics3_vision", &out->tower))
        return false;
    tower_spec *t = &out->tower;
    t->pos_buckets = t->post_norm = true;
    t->n_features = 1;
    t->features[0] = t->run_layers = t->stack.n_layers;
    read_join(c, out);
    if (config_bool(c, "tie_word_embeddings", false)) out->text.tied = true;
    join_config_splice(c, 128257, out);
    out->image_rows = spec_rows_of_tiles;
    out->write_image = write_image;
    static const char *const top[] = {"image_seq_length", "_pad_token_id", NULL};
    config_skip(c, top);
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

static bool check(config *c, model_spec *out) {
    return out->prep.cut.kind == PREP_CUT_EDGE ||
           config_fail(c, ST_UNSUPPORTED, "model_type",
                       "the image processor's class is not Idefics3's or SmolVLM's, which it needs");
}

static const char *const TOWER_AT[] = {"model.vision_model.", "vision_model.", NULL};
static const char *const LINEAR_AT[] = {"model.connector.modality_projection.proj.",
                                        "connector.modality_projection.proj.", NULL};
static const char *const TEXT_AT[] = {"model.text_model.", "text_model.", NULL};
static const char *const HEAD_AT[] = {"", NULL};
static const ignore_rule IGNORED[] = {
    {"*.rotary_emb.inv_freq", "computed from the config"},
    {"*vision_model.embeddings.position_ids", "a plain count"},
    {NULL, NULL},
};
static const name_sheet SHEET = {
    .tower_at = TOWER_AT,
    .linear_at = LINEAR_AT,
    .text_at = TEXT_AT,
    .head_at = HEAD_AT,
    .tower_layer = NAMES_TOWER_LAYER,
    .names = NAMES,
    .ignored = IGNORED,
};

static const char *const PARTS[][2] = {
    {"text_config", "{'model_type':'llama','rms_norm_eps':1e-5}"},
    {NULL, NULL},
};

const family FAMILY_IDEFICS3 = {
    .name = "idefics3",
    .does = "early fusion, tiles with markers of row and column; pixel shuffle, linear",
    .architecture = "Idefics3ForConditionalGeneration",
    .parts = PARTS,
    .image_class = "Idefics3ImageProcessor",
    .read = read,
    .check = check,
    .sheet = &SHEET,
};

const family FAMILY_SMOLVLM = {
    .name = "smolvlm",
    .does = "early fusion, tiles with markers of row and column; pixel shuffle, linear",
    .architecture = "SmolVLMForConditionalGeneration",
    .parts = PARTS,
    .image_class = "SmolVLMImageProcessor",
    .read = read,
    .check = check,
    .sheet = &SHEET,
};
