/* qformer_config.c - what models made of an EVA-like ViT, a Q-Former and a decoder have in common: their config, and where their
 * tensors stand.
 *
 * A prompt is the queries' rows, BOS, the text; one picture each. The processor adds <image>, which stands for a row, to a
 * tokenizer that lacks it, and configs from before that name no id of it.
 * Source: transformers' Blip2Config, Blip2Processor, InstructBlipConfig, InstructBlipProcessor. Thread: the loader's. */
#include <string.h>

#include "engine/families/family.h"

static bool read_tower(config *c, tower_spec *t) {
    config vision = config_sub(c, "vision_config");
    bool bias = config_bool(&vision, "qkv_bias", true);
    config_get(&vision, "model_type");
    if (!tower_config_read_as(&vision, "blip_2_vision_model", t)) return false;
    t->stack.q_bias = t->stack.k_bias = t->stack.v_bias = bias;
    t->post_norm = true;
    t->n_features = 1;
    t->features[0] = t->run_layers = t->stack.n_layers;
    return true;
}

static bool read_join(config *c, bool reads, model_spec *out) {
    config q = config_sub(c, "qformer_config");
    join_spec *j = &out->join;
    stack_spec *k = &j->stack;
    if (!stack_config_read(&q, &(stack_defaults){12, 768, 3072, 12, 1e-12, "gelu"}, k)) return false;
    k->norm_after = true;
    k->beside_width = out->tower.stack.width;
    if (strcmp(config_str(&q, "position_embedding_type", "absolute"), "absolute") != 0)
        return config_fail(&q, ST_UNSUPPORTED, "position_embedding_type", "only absolute is implemented");
    int every = (int)config_int(&q, "cross_attention_frequency", 2, 1, 1 << 20);
    for (int i = 0; i < k->n_layers; i += every) k->beside[i] = true;
    j->kind = JOIN_QFORMER;
    j->latents = (int)config_int(c, "num_query_tokens", 32, 1, 1 << 16);
    j->in = k->width;
    j->out = out->text.stack.width;
    j->bias = true;
    if (reads) {
        j->read_vocab = (int)config_int(&q, "vocab_size", 30522, 1, 1 << 24);
        j->read_pos = (int)config_int(&q, "max_position_embeddings", 512, 1, 1 << 20);
        k->text_ffn = true;
        out->reads = (reads_spec){READS_PROMPT, j->read_pos, j->read_vocab, "qformer_tokenizer"};
    }
    /* The tower's width counts, whatever encoder_hidden_size says; without a text the layers for one have none to read. */
    config_skip(&q, (const char *const[]){"model_type", "encoder_hidden_size", "use_qformer_text_input",
                                          "vocab_size", "max_position_embeddings", "hidden_dropout_prob",
                                          "attention_probs_dropout_prob", "classifier_dropout", NULL});
    config_warn_unknown(&q);
    return c->st->code == ST_OK;
}

bool qformer_config_read(config *c, bool reads, model_spec *out) {
    config text = config_sub(c, "text_config");
    if (!family_read_text(&text, "opt", &out->text) || !read_tower(c, &out->tower) ||
        !read_join(c, reads, out))
        return false;
    if (out->text.embed_width)
        return config_fail(&text, ST_UNSUPPORTED, "word_embed_proj_dim",
                           "expected hidden_size %d, as wide as a picture's rows; found %d",
                           out->text.stack.width, out->text.embed_width);
    join_config_splice(c, -1, out);
    if (out->image_token < 0) out->added_token = "<image>";
    if (out->image_token >= text_embed_rows(&out->text))
        return config_fail(c, ST_INVALID, "image_token_index",
                           "expected an id below %d, text_config.vocab_size, found %d",
                           text_embed_rows(&out->text), (int)out->image_token);
    out->image_rows = spec_rows_of_square;
    out->pictures_in_front = out->needs_picture = true;
    out->max_pictures = 1;
    return c->st->code == ST_OK;
}

#define QUERY         "qformer.encoder.layer.%d."
#define PAIR(w, name) [w] = QUERY name ".weight", [w + 1] = QUERY name ".bias"
static const char *const JOIN_LAYER[L_COUNT] = {
    PAIR(L_Q_W, "attention.attention.query"),
    PAIR(L_K_W, "attention.attention.key"),
    PAIR(L_V_W, "attention.attention.value"),
    PAIR(L_O_W, "attention.output.dense"),
    PAIR(L_NORM1_G, "attention.output.LayerNorm"),
    PAIR(L_BESIDE_Q_W, "crossattention.attention.query"),
    PAIR(L_BESIDE_K_W, "crossattention.attention.key"),
    PAIR(L_BESIDE_V_W, "crossattention.attention.value"),
    PAIR(L_BESIDE_O_W, "crossattention.output.dense"),
    PAIR(L_BESIDE_NORM_G, "crossattention.output.LayerNorm"),
    PAIR(L_UP_W, "intermediate_query.dense"),
    PAIR(L_DOWN_W, "output_query.dense"),
    PAIR(L_NORM2_G, "output_query.LayerNorm"),
    PAIR(L_TEXT_UP_W, "intermediate.dense"),
    PAIR(L_TEXT_DOWN_W, "output.dense"),
    PAIR(L_TEXT_NORM_G, "output.LayerNorm"),
};
static const char *const TOWER_AT[] = {"vision_model.", NULL};
static const char *const JOIN_AT[] = {"", NULL};
static const char *const TEXT_AT[] = {"language_model.model.", NULL};
static const char *const HEAD_AT[] = {"language_model.", NULL};
#define SHARED                                                                                               \
    .tower_at = TOWER_AT, .join_at = JOIN_AT, .text_at = TEXT_AT, .head_at = HEAD_AT,                        \
    .tower_layer = NAMES_TOWER_LAYER_FUSED, .join_layer = JOIN_LAYER
#define NAMES_SHARED                                                                                         \
    [S_PATCH_W] = "embeddings.patch_embedding.weight", [S_PATCH_B] = "embeddings.patch_embedding.bias",      \
    [S_CLASS] = "embeddings.class_embedding", [S_POS] = "embeddings.position_embedding",                     \
    [S_POST_G] = "post_layernorm.weight", [S_POST_B] = "post_layernorm.bias", [S_LATENTS] = "query_tokens",  \
    [S_FC1_W] = "language_projection.weight", [S_FC1_B] = "language_projection.bias"

static const char *const NAMES_QUERIES[S_FIRST_TEXT] = {
    NAMES_SHARED,
    [S_JOIN_G] = "qformer.layernorm.weight",
    [S_JOIN_B] = "qformer.layernorm.bias",
};
static const ignore_rule IGNORED_QUERIES[] = {
    {"*.rotary_emb.inv_freq", "computed from the config"},
    {"qformer.encoder.layer.*.intermediate.dense.*", "for a text, which the queries are not given"},
    {"qformer.encoder.layer.*.output.dense.*", "for a text, which the queries are not given"},
    {"qformer.encoder.layer.*.output.LayerNorm.*", "for a text, which the queries are not given"},
    {NULL, NULL},
};
const name_sheet SHEET_QFORMER = {SHARED, .names = NAMES_QUERIES, .ignored = IGNORED_QUERIES};

static const char *const NAMES_READING[S_FIRST_TEXT] = {
    NAMES_SHARED,
    [S_READ_EMBED] = "qformer.embeddings.word_embeddings.weight",
    [S_READ_POS] = "qformer.embeddings.position_embeddings.weight",
    [S_JOIN_G] = "qformer.embeddings.layernorm.weight",
    [S_JOIN_B] = "qformer.embeddings.layernorm.bias",
};
static const ignore_rule IGNORED_READING[] = {
    {"*.rotary_emb.inv_freq", "computed from the config"},
    {"qformer.embeddings.position_ids", "a plain count"},
    {"qformer.encoder.layer.*.intermediate.dense.*", "behind the last layer only the queries are read"},
    {"qformer.encoder.layer.*.output.dense.*", "behind the last layer only the queries are read"},
    {"qformer.encoder.layer.*.output.LayerNorm.*", "behind the last layer only the queries are read"},
    {NULL, NULL},
};
const name_sheet SHEET_QFORMER_READING = {SHARED, .names = NAMES_READING, .ignored = IGNORED_READING};
