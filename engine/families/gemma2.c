/* gemma2.c - Gemma 2 decoders, on their own and as the text half of another model: four norms a layer, every other layer
 * with a window, capped scores and logits.
 *
 * Source: transformers' Gemma2Config and modeling_gemma2.py. Tested by tests/engine/model/test_model.c. */
#include <math.h>

#include "engine/families/family.h"

static bool read_text(config *c, text_spec *t) {
    static const text_defaults d = {.vocab = 256000,
                                    .width = 2304,
                                    .ffn = 9216,
                                    .layers = 26,
                                    .heads = 8,
                                    .kv_heads = 4,
                                    .head_dim = 256,
                                    .max_pos = 8192,
                                    .eps = 1e-6,
                                    .bos = 2,
                                    .eos = 1,
                                    .tied = true};
    if (!text_config_base(c, &d, t) || !text_config_window_pattern(c, 4096, 2, t)) return false;
    stack_spec *s = &t->stack;
    s->q_bias = s->k_bias = s->v_bias = s->o_bias = config_bool(c, "attention_bias", false);
    s->norm_offset = 1;
    s->post_norms = true;
    s->activation = config_act(c, "hidden_activation", "gelu_pytorch_tanh");
    s->attn_scale = (float)(1 / sqrt(config_num(c, "query_pre_attn_scalar", 256, 1e-6, 1e9)));
    s->attn_softcap = text_config_softcap(c, "attn_logit_softcapping", 50);
    t->logit_softcap = text_config_softcap(c, "final_logit_softcapping", 30);
    t->embed_scale = (float)sqrt((double)s->width);
    t->names = &NAMES_TEXT_SANDWICH;
    t->both_ways = config_bool(c, "use_bidirectional_attention", false);
    static const char *const unused[] = {"cache_implementation", "sliding_window_size", NULL};
    config_skip(c, unused);
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

const family FAMILY_GEMMA2 = {
    .name = "gemma2",
    .does = "text, capped scores and logits",
    .architecture = "Gemma2ForCausalLM",
    .read = family_read_text_only,
    .read_text = read_text,
    .sheet = &SHEET_TEXT_ONLY,
};
