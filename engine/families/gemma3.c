/* gemma3.c - Gemma 3: SigLIP's last state, pooled, normed and projected, spliced into Gemma 3's decoder, where a picture's
 * tokens see each other. Long pictures may come with crops (pan and scan).
 *
 * Source: transformers' Gemma3Config, Gemma3Processor, Gemma3ImageProcessor and modeling_gemma3.py. Its processor takes the
 * settings of pan and scan from the call alone, the file's are vlmd's. Tested by tests/engine/model/test_model.c and
 * tests/e2e/test_parity.py. */
#include <math.h>

#include "engine/families/family.h"

/* How many crops along the longer side; 0: none. */
static int count_crops(const prep_spec *p, int w, int h) {
    double longer = w >= h ? w : h, shorter = w >= h ? h : w;
    if (p->pan_crops < 1 || longer / shorter < p->pan_min_ratio) return 0;
    double n = floor(longer / shorter + 0.5), most = floor(longer / p->pan_min_side);
    n = n < most ? n : most;
    n = n > 2 ? n : 2;
    n = n < p->pan_crops ? n : p->pan_crops;
    double side = ceil(longer / n);
    return (side < shorter ? side : shorter) < p->pan_min_side ? 0 : (int)n;
}

static bool plan_image(const model_spec *s, const image_ask *a, const image_limits *lim, prep_plan *out,
                       status *st) {
    const prep_spec *p = &s->prep;
    if (!prep_plan_one(p, a->w, a->h, lim, out, st)) return false;
    int side = s->tower.image_size, n = count_crops(p, a->w, a->h);
    bool wide = a->w >= a->h;
    int w = wide && n ? (a->w + n - 1) / n : a->w, h = wide || !n ? a->h : (a->h + n - 1) / n;
    for (int i = 0; i < n; i++) {
        int x = wide ? i * w : 0, y = wide ? 0 : i * h;
        if (x >= a->w || y >= a->h)
            return status_set(st, ST_INVALID, "a picture of %dx%d pixels cannot be cut into %d crops", a->w,
                              a->h, n);
        prep_plan_add(out, -1, x, y, x + w < a->w ? w : a->w - x, y + h < a->h ? h : a->h - y, side, side,
                      p->filter);
    }
    return prep_plan_finish(out, a->w, a->h, lim, st);
}

static int tile_rows(const model_spec *s) {
    int side = s->tower.image_size / s->tower.patch / s->join.pool;
    return side * side;
}

static int image_rows(const model_spec *s, const prep_plan *p) {
    for (int i = 0; i < p->n_tiles; i++) {
        tile t = prep_plan_tile(p, i);
        if (t.w != s->tower.image_size || t.h != s->tower.image_size) return 0;
    }
    return p->n_tiles * tile_rows(s);
}

static void write_tile(const model_spec *s, image_text *out) {
    image_text_puts(out, "\n\n");
    image_text_id(out, s->open_id);
    image_text_rows(out, tile_rows(s));
    image_text_id(out, s->close_id);
    image_text_puts(out, "\n\n");
}

static void write_image(const model_spec *s, const prep_plan *p, image_text *out) {
    if (p->n_tiles > 1) image_text_puts(out, "Here is the original image ");
    write_tile(s, out);
    if (p->n_tiles > 1) image_text_puts(out, " and here are some crops to help you see better ");
    for (int i = 1; i < p->n_tiles; i++) {
        if (i > 1) image_text_puts(out, " ");
        write_tile(s, out);
    }
}

static bool read_join(config *c, model_spec *out) {
    join_spec *j = &out->join;
    int tokens = (int)config_int(c, "mm_tokens_per_image", 256, 1, 1 << 20);
    int patches = out->tower.image_size / out->tower.patch, side = (int)sqrt((double)tokens);
    j->kind = JOIN_POOL;
    j->in = out->tower.stack.width;
    j->out = out->text.stack.width;
    j->normed = JOIN_NORM_ROW;
    j->norm = NORM_RMS;
    j->norm_eps = out->tower.stack.norm_eps;
    j->norm_offset = 1;
    j->pool = side ? patches / side : 0;
    if (j->pool < 1 || (patches / j->pool) * (patches / j->pool) != tokens)
        return config_fail(c, ST_INVALID, "mm_tokens_per_image",
                           "%d tokens cannot be pooled from %d x %d patches", tokens, patches, patches);
    return true;
}

static bool read(config *c, model_spec *out) {
    config text = config_sub(c, "text_config"), vision = config_sub(c, "vision_config");
    if (!config_has(c, "vision_config")) return config_fail(c, ST_INVALID, "vision_config", "missing");
    tower_spec *t = &out->tower;
    if (!family_read_part(&text, "gemma3_text", &out->text) ||
        !tower_config_read(&vision, "siglip_vision_model", t))
        return false;
    t->post_norm = true;
    t->n_features = 1;
    t->features[0] = t->run_layers = t->stack.n_layers;
    if (!read_join(c, out)) return false;
    out->text.tied = config_bool(c, "tie_word_embeddings", true);
    out->fuse = FUSE_SPLICE;
    out->image_token = (int32_t)config_int_as(c, "image_token_id", "image_token_index", 262144, 0, INT32_MAX);
    out->open_id = (int32_t)config_int_as(c, "boi_token_id", "boi_token_index", 255999, 0, INT32_MAX);
    out->close_id = (int32_t)config_int_as(c, "eoi_token_id", "eoi_token_index", 256000, 0, INT32_MAX);
    out->placeholder_id = out->open_id;
    out->plan_image = plan_image;
    out->image_rows = image_rows;
    out->write_image = write_image;
    out->both_ways = BOTH_PICTURE;
    out->span_rows = tile_rows(out);
    out->prompt_adds_special = true;
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

static const char *const NAMES_POOL[S_FIRST_TEXT] = {
    [S_PATCH_W] = "embeddings.patch_embedding.weight",
    [S_PATCH_B] = "embeddings.patch_embedding.bias",
    [S_POS] = "embeddings.position_embedding.weight",
    [S_POST_G] = "post_layernorm.weight",
    [S_POST_B] = "post_layernorm.bias",
    [S_FC1_W] = "mm_input_projection_weight^T",
    [S_JOIN_G] = "mm_soft_emb_norm.weight",
};
static const name_sheet SHEET = {
    .tower_at = COMPOSED_TOWER_AT,
    .join_at = COMPOSED_PROJECTOR_AT,
    .text_at = COMPOSED_TEXT_AT,
    .head_at = COMPOSED_HEAD_AT,
    .tower_layer = NAMES_TOWER_LAYER,
    .names = NAMES_POOL,
    .ignored = COMPOSED_IGNORED,
};

const family FAMILY_GEMMA3 = {
    .name = "gemma3",
    .does = "early fusion: 4 x 4 patches averaged, a picture's tokens see each other, pan and scan",
    .architecture = "Gemma3ForConditionalGeneration",
    .image_class = "Gemma3ImageProcessor",
    .read = read,
    .sheet = &SHEET,
};
