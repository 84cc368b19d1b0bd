/* dual_config.c - what the dual encoders share: the text tower's config, a vision tower without features, tensor names.
 *
 * Source: transformers' CLIPTextConfig, SiglipTextConfig, Siglip2TextConfig and their modeling files. Thread: the
 * loader's. */

#include "engine/families/dual_config.h"
#include "engine/model/model.h"

const char *const NAMES_DUAL_TOWER[S_FIRST_TEXT] = {
    [S_PATCH_W] = "embeddings.patch_embedding.weight",
    [S_PATCH_B] = "embeddings.patch_embedding.bias",
    [S_CLASS] = "embeddings.class_embedding",
    [S_POS] = "embeddings.position_embedding.weight",
    [S_PRE_G] = "pre_layrnorm.weight",
    [S_PRE_B] = "pre_layrnorm.bias",
    [S_POST_G] = "post_layernorm.weight",
    [S_POST_B] = "post_layernorm.bias",
};
static const char *const TEXT[S_COUNT] = {
    [S_EMBED] = "embeddings.token_embedding.weight",
    [S_EMBED_POS] = "embeddings.position_embedding.weight",
    [S_NORM_G] = "final_layer_norm.weight",
    [S_NORM_B] = "final_layer_norm.bias",
};
static const text_names NAMES_DUAL_TEXT = {.layer = NAMES_TOWER_LAYER, .names = TEXT};

bool dual_config_text(config *c, const dual_text_defaults *d, model_spec *out) {
    text_spec *t = &out->text;
    stack_spec *s = &t->stack;
    t->vocab = (int)config_int(c, "vocab_size", d->vocab, 1, 1 << 24);
    t->max_pos = (int)config_int(c, "max_position_embeddings", d->max_pos, 2, 1 << 20);
    t->learned_pos = t->max_pos;
    t->names = &NAMES_DUAL_TEXT;
    t->tied = false;
    t->embed_scale = 1;
    t->bos = t->eos = -1;
    if (!stack_config_read(c, &d->stack, s)) return false;
    s->causal = d->causal;
    return c->st->code == ST_OK;
}

bool dual_config_tower(config *c, const char *def, model_spec *out) {
    tower_spec *t = &out->tower;
    if (!tower_config_read(c, def, t)) return false;
    t->run_layers = t->stack.n_layers;
    t->n_features = 1;
    t->features[0] = t->stack.n_layers;
    t->post_norm = true;
    return true;
}

/* One, whatever the tower takes. */
static int image_rows(const model_spec *s, const prep_plan *p) {
    tile one = prep_plan_tile(p, 0);
    return p->n_tiles == 1 && tower_takes(&s->tower, one.w, one.h);
}

void dual_config_done(config *c, model_spec *out) {
    out->dual.on = true;
    out->fuse = FUSE_NONE;
    out->image_token = -1;
    out->image_rows = image_rows;
    out->join.out = out->dual.width;
    out->prompt_adds_special = true;
    config_warn_unknown(c);
}

const char *const DUAL_AT[] = {"", "model.", NULL};
const char *const DUAL_TEXT_AT[] = {"text_model.", "model.text_model.", NULL};
const char *const DUAL_TOWER_AT[] = {"vision_model.", "model.vision_model.", NULL};
const ignore_rule DUAL_IGNORED[] = {
    {"*embeddings.position_ids", "a plain count"},
    {NULL, NULL},
};
