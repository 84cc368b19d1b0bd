/* idefics2.c - Idefics2: a SigLIP-like tower at a picture's own ratio over four quarters and the whole, resampled to a few
 * learned latents, markers around each in the text.
 *
 * Source: transformers' Idefics2Config, Idefics2Processor and modeling_idefics2.py. Tested by tests/e2e/test_parity.py. */
#include <math.h>
#include <string.h>

#include "engine/families/family.h"

#define EDGE "<fake_token_around_image>"

static bool ends_with(const buf *b, const char *s) {
    size_t n = strlen(s);
    return b->len >= n && memcmp(b->data + b->len - n, s, n) == 0;
}

/* Markers of neighbours that meet are one, also those of the picture before. */
static void write_image(const model_spec *s, const prep_plan *p, image_text *out) {
    for (int i = 0; i < p->n_tiles; i++) {
        if (!ends_with(out->text, EDGE)) image_text_puts(out, EDGE);
        image_text_rows(out, s->join.latents);
        image_text_puts(out, EDGE);
    }
    out->set_off = true;
}

static int image_rows(const model_spec *s, const prep_plan *p) {
    for (int i = 0; i < p->n_tiles; i++) {
        tile t = prep_plan_tile(p, i);
        if (t.w < s->tower.patch || t.h < s->tower.patch) return 0;
    }
    return p->n_tiles * s->join.latents;
}

static bool read_join(config *c, model_spec *out) {
    config p = config_sub(c, "perceiver_config");
    join_spec *j = &out->join;
    stack_spec *k = &j->stack;
    const stack_spec *text = &out->text.stack;
    config_get(&p, "model_type");
    j->kind = JOIN_PERCEIVER;
    j->activation = text->activation;
    j->in = out->tower.stack.width;
    j->hidden = text->ffn;
    j->out = text->width;
    j->latents = (int)config_int(&p, "resampler_n_latents", 64, 1, 1 << 16);
    k->n_layers = (int)config_int(&p, "resampler_depth", 3, 1, SPEC_MAX_LAYERS);
    k->heads = (int)config_int(&p, "resampler_n_heads", 16, 1, 1 << 12);
    k->head_dim = (int)config_int(&p, "resampler_head_dim", 96, 1, 1024);
    k->kv_heads = (int)config_int(&p, "num_key_value_heads", 4, 1, 1 << 12);
    if (k->heads % k->kv_heads)
        return config_fail(&p, ST_INVALID, "num_key_value_heads",
                           "expected a divisor of resampler_n_heads %d, found %d", k->heads, k->kv_heads);
    k->activation = config_act(&p, "hidden_act", "silu");
    k->norm = NORM_RMS;
    k->norm_eps = (float)config_num(&p, "rms_norm_eps", 1e-6, 0, 1);
    /* One that does not fit the decoder takes its width and its eps from there, as the reference does. */
    k->width = (int)config_int(&p, "hidden_size", 4096, 1, 1 << 17);
    if (k->width != text->width) {
        k->width = text->width;
        k->norm_eps = text->norm_eps;
    }
    k->ffn = 4 * k->width;
    k->glu = true;
    for (int i = 0; i < k->n_layers; i++) k->context_norm[i] = true;
    k->attn_scale = (float)(1.0 / sqrt((double)k->head_dim));
    config_skip(&p, (const char *const[]){"attention_dropout", NULL});
    config_warn_unknown(&p);
    return c->st->code == ST_OK;
}

static bool read(config *c, model_spec *out) {
    config text = config_sub(c, "text_config"), vision = config_sub(c, "vision_config");
    if (!family_read_part(&text, "mistral", &out->text) ||
        !tower_config_read_as(&vision, "idefics2_vision", &out->tower) || !read_join(c, out))
        return false;
    tower_spec *t = &out->tower;
    t->pos_buckets = t->post_norm = true;
    t->n_features = 1;
    t->features[0] = t->run_layers = t->stack.n_layers;
    if (config_bool(c, "tie_word_embeddings", false)) out->text.tied = true;
    join_config_splice(c, 32001, out);
    out->image_rows = image_rows;
    out->write_image = write_image;
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

#define LAYER "perceiver_resampler.layers.%d."
static const char *const JOIN_LAYER[L_COUNT] = {
    [L_NORM1_G] = LAYER "input_latents_norm.weight",
    [L_CONTEXT_G] = LAYER "input_context_norm.weight",
    [L_Q_W] = LAYER "self_attn.q_proj.weight",
    [L_K_W] = LAYER "self_attn.k_proj.weight",
    [L_V_W] = LAYER "self_attn.v_proj.weight",
    [L_O_W] = LAYER "self_attn.o_proj.weight",
    [L_NORM2_G] = LAYER "post_attention_layernorm.weight",
    [L_GATE_W] = LAYER "mlp.gate_proj.weight",
    [L_UP_W] = LAYER "mlp.up_proj.weight",
    [L_DOWN_W] = LAYER "mlp.down_proj.weight",
};
static const char *const TENSORS[S_FIRST_TEXT] = {
    NAMES_VIT,
    [S_FC_GATE_W] = "modality_projection.gate_proj.weight",
    [S_FC1_W] = "modality_projection.up_proj.weight",
    [S_FC2_W] = "modality_projection.down_proj.weight",
    [S_LATENTS] = "perceiver_resampler.latents",
    [S_JOIN_G] = "perceiver_resampler.norm.weight",
};
static const char *const TOWER_AT[] = {"model.vision_model.", "vision_model.", NULL};
static const char *const JOIN_AT[] = {"model.connector.", "connector.", NULL};
static const char *const TEXT_AT[] = {"model.text_model.", "text_model.", NULL};
static const char *const HEAD_AT[] = {"", NULL};
static const ignore_rule IGNORED[] = {
    {"*.rotary_emb.inv_freq", "computed from the config"},
    {"*vision_model.embeddings.position_ids", "a plain count"},
    {NULL, NULL},
};
static const name_sheet SHEET = {
    .tower_at = TOWER_AT,
    .join_at = JOIN_AT,
    .text_at = TEXT_AT,
    .head_at = HEAD_AT,
    .tower_layer = NAMES_TOWER_LAYER,
    .join_layer = JOIN_LAYER,
    .names = TENSORS,
    .ignored = IGNORED,
};

static const char *const PARTS[][2] = {
    {"text_config", "{'model_type':'mistral','max_position_embeddings':32768,'rms_norm_eps':1e-5}"},
    {NULL, NULL},
};

const family FAMILY_IDEFICS2 = {
    .name = "idefics2",
    .does = "early fusion through a perceiver: learned latents read four quarters and the whole",
    .architecture = "Idefics2ForConditionalGeneration",
    .parts = PARTS,
    .image_class = "Idefics2ImageProcessor",
    .read = read,
    .sheet = &SHEET,
};
