/* coca.c - CoCa as open_clip publishes it: a picture's captions. A CLIP-like tower, pooled by attention to a fixed number of rows;
 * a causal decoder whose first half reads the text alone and whose second half takes turns between the text and the picture.
 *
 * The first half ends in a row of its own (cls_emb) for contrastive use, behind all tokens, which no token sees; it is not
 * computed. Its mask hides what follows a token of text_cfg.pad_id, one place late; generate() stops at the model's pad_id, so only
 * a prompt could hold one, and such a prompt is refused.
 * Source: open_clip's coca_model.py, transformer.py, model.py (CLIPVisionCfg, CLIPTextCfg), transform.py.
 * Tested by tests/e2e/test_parity.py, tests/e2e/test_captions.py. */
#include <math.h>
#include <string.h>

#include "engine/families/family.h"

/* ---- config ---- */

static void only_empty(config *c, const char *key) {
    const json_t *v = config_get(c, key);
    bool empty =
        !v || (json_is_object(v) && !json_object_size(v)) || (json_is_string(v) && !json_string_length(v));
    if (!empty) config_fail(c, ST_UNSUPPORTED, key, "only null is implemented");
}

/* Blocks of another kind, and other functions within blocks. */
static void only_plain_blocks(config *c) {
    static const char *const off[] = {"qk_norm",    "scaled_cosine_attn", "scale_heads", "scale_attn_inner",
                                      "scale_attn", "scale_fc",           NULL};
    for (int i = 0; off[i]; i++) config_only_bool(c, off[i], false);
    only_empty(c, "act_kwargs");
    only_empty(c, "norm_kwargs");
    const char *type = config_str(c, "block_type", "default");
    if (strcmp(type, "default") != 0)
        config_fail(c, ST_UNSUPPORTED, "block_type", "only \"default\" is implemented, found \"%.60s\"",
                    type);
}

static bool read_heads(config *c, const char *key, int heads, stack_spec *s) {
    if (heads < 1 || s->width % heads)
        return config_fail(c, ST_INVALID, key, "expected heads that divide the width %d, found %d heads",
                           s->width, heads);
    s->heads = s->kv_heads = heads;
    s->head_dim = s->width / heads;
    s->attn_scale = (float)(1.0 / sqrt((double)s->head_dim));
    return true;
}

static void plain_stack(stack_spec *s, act activation) {
    s->norm = NORM_LAYER;
    s->norm_eps = 1e-5f; /* torch's own */
    s->activation = activation;
    s->q_bias = s->k_bias = s->v_bias = s->o_bias = s->mlp_bias = true;
    s->rope.kind = ROPE_NONE;
}

static bool is_scaled(config *c) {
    return config_get(c, "ls_init_value") != NULL; /* what it was once set to does not matter */
}

static bool read_tower(config *c, act activation, tower_spec *t) {
    stack_spec *s = &t->stack;
    const char *timm = config_str(c, "timm_model_name", "");
    if (*timm)
        return config_fail(c, ST_UNSUPPORTED, "timm_model_name",
                           "a tower of another library is not implemented, found \"%.60s\"", timm);
    s->n_layers = t->run_layers = (int)config_int(c, "layers", 12, 1, SPEC_MAX_LAYERS);
    s->width = (int)config_int(c, "width", 768, 1, 1 << 16);
    s->ffn = (int)(s->width * config_num(c, "mlp_ratio", 4, 0.01, 64));
    int64_t head_width = config_int(c, "head_width", 64, 1, 1 << 16);
    plain_stack(s, activation);
    if (c->st->code != ST_OK || !read_heads(c, "head_width", (int)(s->width / head_width), s)) return false;
    s->layer_scale = is_scaled(c);
    t->image_size = config_square(c, "image_size", 224);
    t->patch = config_square(c, "patch_size", 16);
    if (t->patch > t->image_size || s->ffn < 1)
        return config_fail(c, ST_INVALID, "patch_size", "%d is larger than image_size %d", t->patch,
                           t->image_size);
    t->cls = true;
    t->pre_norm = !config_bool(c, "no_ln_pre", false);
    t->n_features = 1;
    t->features[0] = s->n_layers;
    config_only_bool(c, "output_tokens", true);
    only_plain_blocks(c);
    config_skip(
        c, (const char *const[]){"patch_dropout", "pos_embed_type", NULL}); /* the table is stored anyway */
    return c->st->code == ST_OK;
}

/* From hidden rows to those that the decoder sees. */
static bool read_pool(config *c, int out, tower_spec *t, join_spec *j) {
    const json_t *how = config_get(c, "attentional_pool");
    const char *type = config_str(c, "pool_type", "tok");
    bool tok = strcmp(type, "tok") == 0 ||
               strcmp(type, "avg") == 0; /* the first row, or the mean of the rest, leaves */
    stack_spec *s = &j->stack;
    if (!tok && strcmp(type, "none") != 0)
        return config_fail(c, ST_INVALID, "pool_type",
                           "expected \"tok\", \"avg\" or \"none\", found \"%.60s\"", type);
    if (how && !json_is_boolean(how))
        return config_fail(c, ST_UNSUPPORTED, "attentional_pool",
                           "only true and false are implemented, found %.60s",
                           json_is_string(how) ? json_string_value(how) : "another type");
    bool late = config_bool(c, "final_ln_after_pool", false); /* counts without a pool alone */
    j->latents = (int)config_int(c, "attn_pooler_queries", 256, 2, 1 << 16);
    int heads = (int)config_int(c, "attn_pooler_heads", 8, 1, 1 << 12);
    j->in = t->stack.width;
    j->out = j->hidden = out;
    if (!json_is_true(how)) {
        if (t->stack.width != out)
            return config_fail(c, ST_INVALID, "width",
                               "without attentional_pool expected multimodal_cfg.width %d, found %d", out,
                               t->stack.width);
        t->post_norm = !late;
        t->drop_first = tok;
        j->kind = JOIN_NONE;
        j->latents = 0;
        return true;
    }
    j->kind = JOIN_ATTEND;
    j->drop_first = tok;
    j->norm = NORM_LAYER;
    j->norm_eps = 1e-5f;
    s->n_layers = 1;
    s->width = out;
    s->context_width = t->stack.width;
    s->context_norm[0] = true;
    plain_stack(s, ACT_NONE);
    return read_heads(c, "attn_pooler_heads", heads, s);
}

/* The two halves are one stack: they have to be alike. */
static bool same(config *c, const char *key, int64_t found, int64_t want) {
    return found == want || config_fail(c, ST_UNSUPPORTED, key, "expected %lld, as in text_cfg, found %lld",
                                        (long long)want, (long long)found);
}

static const text_names TENSORS;

static bool read_text(config *c, config *more, act activation, text_spec *t) {
    stack_spec *s = &t->stack;
    const char *hf = config_str(c, "hf_model_name", "");
    if (*hf)
        return config_fail(c, ST_UNSUPPORTED, "hf_model_name",
                           "a text tower of another library is not implemented, found \"%.60s\"", hf);
    t->vocab = (int)config_int(c, "vocab_size", 49408, 2, 1 << 24);
    int context = (int)config_int(c, "context_length", 77, 2, 1 << 20);
    t->max_pos = (int)config_int(more, "context_length", 77, 2, 1 << 20);
    if (t->max_pos > context) t->max_pos = context;
    t->learned_pos = context + 1; /* the last one is the contrastive row's */
    s->width = (int)config_int(c, "width", 512, 1, 1 << 16);
    t->tail_from = (int)config_int(c, "layers", 12, 1, SPEC_MAX_LAYERS);
    int turns = (int)config_int(more, "layers", 12, 1, SPEC_MAX_LAYERS);
    int heads = (int)config_int(c, "heads", 8, 1, 1 << 12);
    plain_stack(s, activation);
    s->ffn = 4 * s->width; /* of the second half the reference takes no other */
    s->layer_scale = is_scaled(c);
    if (c->st->code != ST_OK ||
        !same(c, "mlp_ratio", (int64_t)(s->width * config_num(c, "mlp_ratio", 4, 0.01, 64)), s->ffn))
        return false;
    if (!same(more, "width", config_int(more, "width", 512, 1, 1 << 16), s->width) ||
        !same(more, "heads", config_int(more, "heads", 8, 1, 1 << 12), heads) ||
        !read_heads(c, "heads", heads, s))
        return false;
    if (is_scaled(more) != s->layer_scale)
        return config_fail(more, ST_UNSUPPORTED, "ls_init_value",
                           "expected one as text_cfg has it: both or none");
    if (t->tail_from + 2 * turns > SPEC_MAX_LAYERS)
        return config_fail(more, ST_INVALID, "layers", "%d of two kinds behind %d are over %d", turns,
                           t->tail_from, SPEC_MAX_LAYERS);
    s->n_layers = t->tail_from + 2 * turns;
    for (int i = t->tail_from + 1; i < s->n_layers; i += 2) s->cross[i] = s->context_norm[i] = true;
    s->causal = true;
    t->embed_scale = 1;
    t->names = &TENSORS;
    t->bos = t->vocab > 49406 ? 49406 : -1; /* generate()'s own numbers */
    t->eos = t->vocab > 49407 ? 49407 : -1;
    config_only_bool(c, "embed_cls", true);
    if (!config_has(c, "embed_cls"))
        config_fail(c, ST_UNSUPPORTED, "embed_cls",
                    "only true is implemented, and false where it is left out");
    config_only_bool(c, "no_causal_mask", false);
    config_only_bool(c, "output_tokens", true);
    only_plain_blocks(c);
    only_empty(c, "tokenizer_mode");
    only_empty(c, "tokenizer_kwargs");
    /* The contrastive row's; which tokenizer the folder's own files say. */
    static const char *const unused[] = {"pool_type", "proj_type",         "proj_bias", "final_ln_after_pool",
                                         "eos_id",    "hf_tokenizer_name", NULL};
    config_skip(c, unused);
    /* Read by no one: the second half is made of context_length, width, heads, layers and ls_init_value. */
    static const char *const ignored[] = {"vocab_size", "mlp_ratio",         "dim_head",
                                          "n_queries",  "attn_pooler_heads", NULL};
    config_skip(more, ignored);
    return c->st->code == ST_OK;
}

static bool triple(config *c, const char *key, const float def[3], float out[3]) {
    const json_t *v = config_get(c, key);
    for (size_t i = 0; i < 3; i++) {
        const json_t *e = json_is_array(v) ? json_array_get(v, i) : v;
        if (v && (!json_is_number(e) || (json_is_array(v) && json_array_size(v) != 3)))
            return config_fail(c, ST_INVALID, key, "expected a number or a list of 3");
        out[i] = v ? (float)json_number_value(e) : def[i];
    }
    return true;
}

/* The size is the tower's, whatever is said here. */
static bool read_prep(config *c, int side, prep_spec *p) {
    static const float mean[3] = {0.48145466f, 0.4578275f, 0.40821073f},
                       std[3] = {0.26862954f, 0.26130258f, 0.27577711f};
    const char *filter = config_str(c, "interpolation", "bicubic"),
               *mode = config_str(c, "resize_mode", "shortest");
    p->rescale = 1 / 255.0f;
    if (!triple(c, "mean", mean, p->mean) || !triple(c, "std", std, p->std)) return false;
    for (int i = 0; i < 3; i++)
        if (!(p->std[i] > 0)) return config_fail(c, ST_INVALID, "std", "expected numbers over 0");
    bool bicubic = strcmp(filter, "bicubic") == 0 || strcmp(filter, "random") == 0;
    if (!bicubic && strcmp(filter, "bilinear") != 0)
        return config_fail(c, ST_INVALID, "interpolation",
                           "expected \"bicubic\", \"bilinear\" or \"random\", found \"%.60s\"", filter);
    p->filter = bicubic ? RESAMPLE_BICUBIC : RESAMPLE_BILINEAR;
    p->size_w = side;
    if (strcmp(mode, "shortest") == 0) {
        p->size = PREP_SIZE_SHORTEST;
        p->crop = p->crop_even = true;
        p->crop_w = p->crop_h = side;
    } else if (strcmp(mode, "squash") == 0) {
        p->size = PREP_SIZE_EXACT;
        p->size_h = side;
    } else {
        return config_fail(c, ST_UNSUPPORTED, "resize_mode",
                           "only \"shortest\" and \"squash\" are implemented, found \"%.60s\"", mode);
    }
    config_skip(c, (const char *const[]){"size", "mode", "fill_color", NULL});
    return c->st->code == ST_OK;
}

/* ---- pictures ---- */

static int image_rows(const model_spec *s, const prep_plan *p) {
    int all = spec_rows_of_square(s, p);
    return s->join.kind != JOIN_ATTEND || !all ? all : s->join.latents - (s->join.drop_first ? 1 : 0);
}

/* The picture itself has no place in the text, which begins with this token. */
static void write_image(const model_spec *s, const prep_plan *p, image_text *out) {
    (void)p;
    image_text_id(out, s->open_id);
}

/* The reference's generate() takes a picture and a text that the caption goes on from. */
static const char TEMPLATE[] =
    "{% if messages | length != 1 or messages[0].role != 'user' %}"
    "{{ raise_exception('this model captions a picture: expected one message, of the user, found ' ~ "
    "messages | length ~ "
    "', the first of the ' ~ messages[0].role) }}"
    "{% endif %}"
    "{% for p in messages[0].content %}{% if p.type == 'image' %}<image>{% endif %}{% endfor %}"
    "{% for p in messages[0].content %}{% if p.type == 'text' %}{{ p.text }} {% endif %}{% endfor %}";

static bool read(config *c, model_spec *out) {
    config model = config_sub(c, "model_cfg"), prep = config_sub(c, "preprocess_cfg");
    if (!model.j) return config_fail(c, ST_INVALID, "model_cfg", "missing");
    if (!config_has(&model, "multimodal_cfg"))
        return config_fail(
            &model, ST_UNSUPPORTED, "multimodal_cfg",
            "missing; of open_clip's format only CoCa, which has it, is implemented. A CLIP is served from "
            "the reference library's format, a config.json of model_type clip");
    config vision = config_sub(&model, "vision_cfg"), text = config_sub(&model, "text_cfg"),
           more = config_sub(&model, "multimodal_cfg");
    act activation = config_bool(&model, "quick_gelu", false) ? ACT_QUICK_GELU : ACT_GELU;
    if (!read_tower(&vision, activation, &out->tower) || !read_text(&text, &more, activation, &out->text) ||
        !read_pool(&vision, out->text.stack.width, &out->tower, &out->join) ||
        !read_prep(&prep, out->tower.image_size, &out->prep))
        return false;
    int64_t embed = config_int(&model, "embed_dim", out->text.stack.width, 1, 1 << 16);
    if (out->join.kind == JOIN_ATTEND && embed != out->text.stack.width)
        return config_fail(&model, ST_INVALID, "embed_dim", "expected multimodal_cfg.width %d, found %lld",
                           out->text.stack.width, (long long)embed);
    static const char *const unused[] = {
        "custom_text", "pad_id", "init_logit_scale", "init_logit_bias", "nonscalar_logit_scale", NULL};
    config_skip(&model, unused);
    out->barred_id = (int32_t)config_int(&text, "pad_id", 0, 0, INT32_MAX);
    out->fuse = FUSE_CROSS;
    out->no_place = out->needs_picture = true;
    out->max_pictures = 1;
    out->placeholder = "<image>";
    out->chat_template = TEMPLATE;
    out->image_rows = image_rows;
    out->write_image = write_image;
    config *all[] = {&model, &vision, &text, &more, &prep, c};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) config_warn_unknown(all[i]);
    return c->st->code == ST_OK;
}

/* generate() begins with one number and ends at two; of what it samples by default only the most probable token. */
static bool check(config *c, model_spec *out) {
    config model = config_sub(c, "model_cfg");
    int32_t pad = (int32_t)config_int(&model, "pad_id", 0, 0, INT32_MAX);
    if (c->st->code != ST_OK) return false;
    if (out->bos < 0 || out->bos >= out->text.vocab)
        return status_set(
            c->st, ST_INVALID,
            "expected a vocabulary with open_clip's start token 49406, or generation_config.json with a "
            "bos_token_id below %d, found %d",
            out->text.vocab, (int)out->bos);
    out->open_id = out->bos;
    if (out->n_eos < SPEC_MAX_EOS && pad < out->text.vocab) out->eos[out->n_eos++] = pad;
    if (isnan(out->temperature)) out->temperature = 0;
    return true;
}

/* ---- tensors ---- */

#define BLOCK(at)                                                                                            \
    [L_NORM1_G] = at "ln_1.weight", [L_NORM1_B] = at "ln_1.bias", [L_Q_W] = at "attn.in_proj_weight#0/3",    \
    [L_K_W] = at "attn.in_proj_weight#1/3", [L_V_W] = at "attn.in_proj_weight#2/3",                          \
    [L_Q_B] = at "attn.in_proj_bias#0/3", [L_K_B] = at "attn.in_proj_bias#1/3",                              \
    [L_V_B] = at "attn.in_proj_bias#2/3", [L_O_W] = at "attn.out_proj.weight",                               \
    [L_O_B] = at "attn.out_proj.bias", [L_NORM2_G] = at "ln_2.weight", [L_NORM2_B] = at "ln_2.bias",         \
    [L_UP_W] = at "mlp.c_fc.weight", [L_UP_B] = at "mlp.c_fc.bias", [L_DOWN_W] = at "mlp.c_proj.weight",     \
    [L_DOWN_B] = at "mlp.c_proj.bias", [L_SCALE1] = at "ls_1.gamma", [L_SCALE2] = at "ls_2.gamma"

static const char *const ALONE[L_COUNT] = {BLOCK("text.transformer.resblocks.%d.")};
static const char *const TAIL[L_COUNT] = {BLOCK("text_decoder.resblocks.%d.")};
static const char *const CROSS[L_COUNT] = {
    BLOCK("text_decoder.cross_attn.%d."),
    [L_CONTEXT_G] = "text_decoder.cross_attn.%d.ln_1_kv.weight",
    [L_CONTEXT_B] = "text_decoder.cross_attn.%d.ln_1_kv.bias",
};
static const char *const TEXT[S_COUNT] = {
    [S_EMBED] = "text.token_embedding.weight",   [S_EMBED_POS] = "text.positional_embedding",
    [S_NORM_G] = "text_decoder.ln_final.weight", [S_NORM_B] = "text_decoder.ln_final.bias",
    [S_HEAD] = "text_decoder.text_projection^T",
};
static const text_names TENSORS = {.layer = ALONE, .tail = TAIL, .cross = CROSS, .names = TEXT};

static const char *const TOWER_LAYER[L_COUNT] = {BLOCK("transformer.resblocks.%d.")};
/* torch keeps the three matrices as one where their widths are equal. */
#define POOL                                                                                                 \
    [L_NORM1_G] = "attn_pool.ln_q.weight", [L_NORM1_B] = "attn_pool.ln_q.bias",                              \
    [L_CONTEXT_G] = "attn_pool.ln_k.weight", [L_CONTEXT_B] = "attn_pool.ln_k.bias",                          \
    [L_Q_B] = "attn_pool.attn.in_proj_bias#0/3", [L_K_B] = "attn_pool.attn.in_proj_bias#1/3",                \
    [L_V_B] = "attn_pool.attn.in_proj_bias#2/3", [L_O_W] = "attn_pool.attn.out_proj.weight",                 \
    [L_O_B] = "attn_pool.attn.out_proj.bias"
static const char *const POOL_APART[L_COUNT] = {
    POOL,
    [L_Q_W] = "attn_pool.attn.q_proj_weight",
    [L_K_W] = "attn_pool.attn.k_proj_weight",
    [L_V_W] = "attn_pool.attn.v_proj_weight",
};
static const char *const POOL_AS_ONE[L_COUNT] = {
    POOL,
    [L_Q_W] = "attn_pool.attn.in_proj_weight#0/3",
    [L_K_W] = "attn_pool.attn.in_proj_weight#1/3",
    [L_V_W] = "attn_pool.attn.in_proj_weight#2/3",
};
static const char *const TOWER[S_FIRST_TEXT] = {
    [S_PATCH_W] = "conv1.weight",    [S_CLASS] = "class_embedding", [S_POS] = "positional_embedding",
    [S_PRE_G] = "ln_pre.weight",     [S_PRE_B] = "ln_pre.bias",     [S_POST_G] = "ln_post.weight",
    [S_POST_B] = "ln_post.bias",     [S_JOIN_G] = "ln_post.weight", [S_JOIN_B] = "ln_post.bias",
    [S_LATENTS] = "attn_pool.query",
};
static const char *const TOWER_AT[] = {"visual.", NULL}, *const TEXT_AT[] = {"", NULL};
static const ignore_rule IGNORED[] = {
    {"text.cls_emb", "for contrastive use"},
    {"text.ln_final.*", "for contrastive use"},
    {"text.text_projection*", "for contrastive use"},
    {"visual.proj", "for contrastive use"},
    {"visual.ln_post.*", "for contrastive use"},
    {"logit_scale", "for contrastive use"},
    {"logit_bias", "for contrastive use"},
    {NULL, NULL},
};
#define SHEET(pool)                                                                                          \
    {                                                                                                        \
        .tower_at = TOWER_AT, .join_at = TOWER_AT, .text_at = TEXT_AT, .head_at = TEXT_AT,                   \
        .tower_layer = TOWER_LAYER, .join_layer = pool, .names = TOWER, .ignored = IGNORED,                  \
    }
static const name_sheet APART = SHEET(POOL_APART), AS_ONE = SHEET(POOL_AS_ONE);

static const name_sheet *sheet_of(const model_spec *s) {
    return s->join.in == s->join.out ? &AS_ONE : &APART;
}

const family FAMILY_COCA = {
    .name = "coca",
    .does = "captions, open_clip's format: text alone, then in turns cross-attention to a picture pooled by "
            "attention",
    .architecture = "CoCa",
    .read = read,
    .sheet_of = sheet_of,
    .own_prep = true,
    .check = check,
};
