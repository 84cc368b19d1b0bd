/* opt.c - OPT decoders, on their own and as the text half of another model: learned positions, layer norms, biases.
 *
 * Source: transformers' OPTConfig and modeling_opt.py. Tested by tests/engine/model/test_model.c. */
#include <string.h>

#include "engine/families/family.h"

enum { POSITIONS_FROM = 2 }; /* row of the table for position 0, whatever the padding id */

static const char *const LAYER[L_COUNT] = {
    [L_NORM1_G] = "decoder.layers.%d.self_attn_layer_norm.weight",
    [L_NORM1_B] = "decoder.layers.%d.self_attn_layer_norm.bias",
    [L_Q_W] = "decoder.layers.%d.self_attn.q_proj.weight",
    [L_Q_B] = "decoder.layers.%d.self_attn.q_proj.bias",
    [L_K_W] = "decoder.layers.%d.self_attn.k_proj.weight",
    [L_K_B] = "decoder.layers.%d.self_attn.k_proj.bias",
    [L_V_W] = "decoder.layers.%d.self_attn.v_proj.weight",
    [L_V_B] = "decoder.layers.%d.self_attn.v_proj.bias",
    [L_O_W] = "decoder.layers.%d.self_attn.out_proj.weight",
    [L_O_B] = "decoder.layers.%d.self_attn.out_proj.bias",
    [L_NORM2_G] = "decoder.layers.%d.final_layer_norm.weight",
    [L_NORM2_B] = "decoder.layers.%d.final_layer_norm.bias",
    [L_UP_W] = "decoder.layers.%d.fc1.weight",
    [L_UP_B] = "decoder.layers.%d.fc1.bias",
    [L_DOWN_W] = "decoder.layers.%d.fc2.weight",
    [L_DOWN_B] = "decoder.layers.%d.fc2.bias",
};
static const char *const NAMES_OPT[S_COUNT] = {
    [S_EMBED] = "decoder.embed_tokens.weight",
    [S_EMBED_IN] = "decoder.project_in.weight",
    [S_EMBED_POS] = "decoder.embed_positions.weight",
    [S_NORM_G] = "decoder.final_layer_norm.weight",
    [S_NORM_B] = "decoder.final_layer_norm.bias",
    [S_EMBED_OUT] = "decoder.project_out.weight",
    [S_HEAD] = "lm_head.weight",
};
static const text_names TENSORS = {.layer = LAYER, .names = NAMES_OPT};

static bool read_text(config *c, text_spec *t) {
    stack_spec *s = &t->stack;
    t->vocab = (int)config_int(c, "vocab_size", 50272, 1, 1 << 24);
    t->max_pos = (int)config_int(c, "max_position_embeddings", 2048, 1, 1 << 24);
    t->learned_pos = t->max_pos + POSITIONS_FROM;
    t->learned_pos_from = POSITIONS_FROM;
    t->embed_scale = 1;
    t->bos = t->eos = 2;
    t->tied = config_bool(c, "tie_word_embeddings", true);
    t->names = &TENSORS;
    s->n_layers = (int)config_int(c, "num_hidden_layers", 12, 1, SPEC_MAX_LAYERS);
    s->width = (int)config_int(c, "hidden_size", 768, 1, 1 << 17);
    s->ffn = (int)config_int(c, "ffn_dim", 3072, 1, 1 << 20);
    if (!stack_config_heads(c, 12, s)) return false;
    s->norm = NORM_LAYER;
    s->norm_eps = 1e-5f;
    s->norm_after = !config_bool(c, "do_layer_norm_before", true);
    s->norm_plain = !config_bool(c, "layer_norm_elementwise_affine", true);
    t->no_final_norm = config_bool(c, "_remove_final_layer_norm", false) || s->norm_after;
    s->activation = config_act(c, "activation_function", "relu");
    s->causal = true;
    s->q_bias = s->k_bias = s->v_bias = s->o_bias = s->mlp_bias = config_bool(c, "enable_bias", true);
    int embed = (int)config_int(c, "word_embed_proj_dim", s->width, 1, 1 << 17);
    t->embed_width = embed == s->width ? 0 : embed;
    config_only_bool(c, "is_encoder_decoder", false);
    static const char *const unused[] = {"activation_dropout", "layerdrop", "init_std", NULL};
    config_skip(c, unused);
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

const family FAMILY_OPT = {
    .name = "opt",
    .does = "text, learned positions",
    .architecture = "OPTForCausalLM",
    .read = family_read_text_only,
    .read_text = read_text,
    .sheet = &SHEET_TEXT_ONLY,
};
