/* gemma.c - Gemma decoders, on their own and as the text half of another model: gains count from 1, embeddings are scaled.
 *
 * Source: transformers' GemmaConfig and modeling_gemma.py. The reference rounds the scale to the table's dtype; what
 * computes in f32, as vlmd does, has it in f32. Tested by tests/engine/model/test_model.c. */
#include <math.h>

#include "engine/families/family.h"

static bool read_text(config *c, text_spec *t) {
    static const text_defaults d = {.vocab = 256000,
                                    .width = 3072,
                                    .ffn = 24576,
                                    .layers = 28,
                                    .heads = 16,
                                    .kv_heads = 16,
                                    .head_dim = 256,
                                    .max_pos = 8192,
                                    .eps = 1e-6,
                                    .bos = 2,
                                    .eos = 1,
                                    .tied = true};
    if (!text_config_base(c, &d, t)) return false;
    bool bias = config_bool(c, "attention_bias", false);
    t->stack.q_bias = t->stack.k_bias = t->stack.v_bias = t->stack.o_bias = bias;
    t->stack.norm_offset = 1;
    t->embed_scale = (float)sqrt((double)t->stack.width);
    /* The first releases say "gelu" and mean the approximation. */
    t->stack.activation = config_act(c, "hidden_act", "gelu_pytorch_tanh");
    if (t->stack.activation == ACT_GELU) t->stack.activation = ACT_GELU_TANH;
    config_get(c, "hidden_activation"); /* of those releases; the reference reads the other */
    t->both_ways = config_bool(c, "use_bidirectional_attention", false);
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

const family FAMILY_GEMMA = {
    .name = "gemma",
    .does = "text",
    .architecture = "GemmaForCausalLM",
    .read = family_read_text_only,
    .read_text = read_text,
    .sheet = &SHEET_TEXT_ONLY,
};
