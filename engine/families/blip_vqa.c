/* blip_vqa.c - BLIP for questions about pictures: a ViT, a BERT-like encoder of the question whose layers attend to the
 * picture, and a BERT-like decoder of the answer whose layers attend to the question's states alone.
 *
 * Source: transformers' BlipConfig, BlipProcessor, modeling_blip.py and modeling_blip_text.py.
 * Tested by tests/e2e/test_parity.py and tests/e2e/test_question.py. */
#include <string.h>

#include "engine/families/family.h"

static const text_names NAMES_ANSWER;

static void read_bert(config *c, stack_spec *s) {
    if (!stack_config_read(c, &(stack_defaults){12, 768, 3072, 8, 1e-12, "gelu"}, s)) return;
    s->norm_after = true;
    s->beside_width = s->width;
    for (int i = 0; i < s->n_layers; i++) s->beside[i] = true;
}

/* One config for both: what reads the question, and what writes the answer. */
static bool read_text(config *c, bool tied, model_spec *out) {
    text_spec *t = &out->text;
    join_spec *j = &out->join;
    read_bert(c, &t->stack);
    t->vocab = (int)config_int(c, "vocab_size", 30524, 1, 1 << 24);
    t->max_pos = t->learned_pos = (int)config_int(c, "max_position_embeddings", 512, 2, 1 << 24);
    t->embed_scale = 1;
    t->embed_norm = t->no_final_norm = t->head_transform = t->head_bias = true;
    t->tied = t->tied_bias = config_bool(c, "tie_word_embeddings", true) || tied;
    t->bos = (int32_t)config_int(c, "bos_token_id", 30522, 0, t->vocab - 1);
    t->eos = (int32_t)config_int(c, "sep_token_id", 102, 0, t->vocab - 1);
    t->names = &NAMES_ANSWER;
    config_only_bool(c, "is_decoder", true);
    j->kind = JOIN_READER;
    j->stack = t->stack;
    j->in = j->stack.beside_width = out->tower.stack.width;
    j->hidden = j->out = t->stack.width;
    j->read_vocab = t->vocab;
    j->read_pos = t->max_pos;
    t->stack.causal = true;
    /* the reference gives both stacks matrices that read the picture's width */
    if (c->st->code == ST_OK && j->in != j->out)
        return config_fail(c, ST_INVALID, "hidden_size",
                           "expected vision_config.hidden_size %d, found %d: the answer's layers attend to "
                           "the question's states by matrices of that width",
                           j->in, j->out);
    out->reads = (reads_spec){.what = READS_QUESTION, .max_tok = j->read_pos, .vocab = j->read_vocab};
    config_skip(c, (const char *const[]){"encoder_hidden_size", "hidden_dropout_prob",
                                         "attention_probs_dropout_prob", "label_smoothing",
                                         "add_cross_attention", "is_encoder_decoder", NULL});
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

/* As many as the question has. */
static int image_rows(const model_spec *s, const prep_plan *p) {
    tile one = prep_plan_tile(p, 0);
    bool fits = p->n_tiles == 1 && one.w == s->tower.image_size && one.h == s->tower.image_size;
    return fits ? p->n_text : 0;
}

static bool read(config *c, model_spec *out) {
    config text = config_sub(c, "text_config"), vision = config_sub(c, "vision_config");
    tower_spec *t = &out->tower;
    config_skip(&vision, (const char *const[]){"add_cross_attention", "is_encoder_decoder", NULL});
    if (!tower_config_read_as(&vision, "blip_vision_model", t)) return false;
    t->n_features = 1;
    t->features[0] = t->run_layers = t->stack.n_layers;
    t->post_norm = true;
    config_str(&text, "model_type", "blip_text_model");
    if (!read_text(&text, config_bool(c, "tie_word_embeddings", true), out)) return false;
    out->fuse = FUSE_CROSS;
    out->image_rows = image_rows;
    config_skip(c, (const char *const[]){"image_text_hidden_size", "logit_scale_init_value",
                                         "label_smoothing", NULL});
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

/* The reference's generate takes both from text_config, whatever generation_config.json says, and bans nothing. */
static bool check(config *c, model_spec *out) {
    out->bos = out->text.bos;
    out->eos[0] = out->text.eos;
    out->n_eos = 1;
    out->n_banned = 0;
    return c->st->code == ST_OK;
}

/* ---- tensors ---- */

#define AT "encoder.layer.%d."
static const char *const BERT_LAYER[L_COUNT] = {
    [L_Q_W] = AT "attention.self.query.weight",
    [L_Q_B] = AT "attention.self.query.bias",
    [L_K_W] = AT "attention.self.key.weight",
    [L_K_B] = AT "attention.self.key.bias",
    [L_V_W] = AT "attention.self.value.weight",
    [L_V_B] = AT "attention.self.value.bias",
    [L_O_W] = AT "attention.output.dense.weight",
    [L_O_B] = AT "attention.output.dense.bias",
    [L_NORM1_G] = AT "attention.output.LayerNorm.weight",
    [L_NORM1_B] = AT "attention.output.LayerNorm.bias",
    [L_BESIDE_Q_W] = AT "crossattention.self.query.weight",
    [L_BESIDE_Q_B] = AT "crossattention.self.query.bias",
    [L_BESIDE_K_W] = AT "crossattention.self.key.weight",
    [L_BESIDE_K_B] = AT "crossattention.self.key.bias",
    [L_BESIDE_V_W] = AT "crossattention.self.value.weight",
    [L_BESIDE_V_B] = AT "crossattention.self.value.bias",
    [L_BESIDE_O_W] = AT "crossattention.output.dense.weight",
    [L_BESIDE_O_B] = AT "crossattention.output.dense.bias",
    [L_BESIDE_NORM_G] = AT "crossattention.output.LayerNorm.weight",
    [L_BESIDE_NORM_B] = AT "crossattention.output.LayerNorm.bias",
    [L_UP_W] = AT "intermediate.dense.weight",
    [L_UP_B] = AT "intermediate.dense.bias",
    [L_DOWN_W] = AT "output.dense.weight",
    [L_DOWN_B] = AT "output.dense.bias",
    [L_NORM2_G] = AT "output.LayerNorm.weight",
    [L_NORM2_B] = AT "output.LayerNorm.bias",
};
static const char *const ANSWER[S_COUNT] = {
    [S_EMBED] = "embeddings.word_embeddings.weight",
    [S_EMBED_POS] = "embeddings.position_embeddings.weight",
    [S_EMBED_NORM_G] = "embeddings.LayerNorm.weight",
    [S_EMBED_NORM_B] = "embeddings.LayerNorm.bias",
    [S_HEAD] = "decoder.weight",
    [S_HEAD_FC_W] = "transform.dense.weight",
    [S_HEAD_FC_B] = "transform.dense.bias",
    [S_HEAD_NORM_G] = "transform.LayerNorm.weight",
    [S_HEAD_NORM_B] = "transform.LayerNorm.bias",
    [S_HEAD_B] = "decoder.bias",
};
static const text_names NAMES_ANSWER = {.layer = BERT_LAYER, .names = ANSWER, .tied_bias = "bias"};

static const char *const TENSORS[S_FIRST_TEXT] = {
    [S_PATCH_W] = "embeddings.patch_embedding.weight",
    [S_PATCH_B] = "embeddings.patch_embedding.bias",
    [S_CLASS] = "embeddings.class_embedding",
    [S_POS] = "embeddings.position_embedding",
    [S_POST_G] = "post_layernorm.weight",
    [S_POST_B] = "post_layernorm.bias",
    [S_READ_EMBED] = "embeddings.word_embeddings.weight",
    [S_READ_POS] = "embeddings.position_embeddings.weight",
    [S_JOIN_G] = "embeddings.LayerNorm.weight",
    [S_JOIN_B] = "embeddings.LayerNorm.bias",
};
static const char *const TOWER_AT[] = {"vision_model.", NULL};
static const char *const JOIN_AT[] = {"text_encoder.", NULL};
static const char *const TEXT_AT[] = {"text_decoder.bert.", NULL};
static const char *const HEAD_AT[] = {"text_decoder.cls.predictions.", NULL};
static const ignore_rule IGNORED[] = {
    {"*embeddings.position_ids", "a plain count"},
    {NULL, NULL},
};
static const name_sheet SHEET = {
    .tower_at = TOWER_AT,
    .join_at = JOIN_AT,
    .text_at = TEXT_AT,
    .head_at = HEAD_AT,
    .tower_layer = NAMES_TOWER_LAYER_FUSED,
    .join_layer = BERT_LAYER,
    .names = TENSORS,
    .ignored = IGNORED,
};

const family FAMILY_BLIP_VQA = {
    .name = "blip",
    .does = "late fusion: a text encoder reads the question with the picture, the answer's decoder reads its "
            "states",
    .architecture = "BlipForQuestionAnswering",
    .image_class = "BlipImageProcessor",
    .read = read,
    .sheet = &SHEET,
    .check = check,
};
