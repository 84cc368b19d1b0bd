/* llama.c - Llama decoders, on their own and as the text half of another model.
 *
 * Source: transformers' LlamaConfig and modeling_llama.py. Tested by tests/engine/model/test_model.c. */
#include "engine/families/family.h"

static bool read_text(config *c, text_spec *t) {
    static const text_defaults d = {.vocab = 32000,
                                    .width = 4096,
                                    .ffn = 11008,
                                    .layers = 32,
                                    .heads = 32,
                                    .max_pos = 2048,
                                    .eps = 1e-6,
                                    .bos = 1,
                                    .eos = 2};
    if (!text_config_base(c, &d, t)) return false;
    bool bias = config_bool(c, "attention_bias", false);
    t->stack.q_bias = t->stack.k_bias = t->stack.v_bias = t->stack.o_bias = bias;
    t->stack.mlp_bias = config_bool(c, "mlp_bias", false);
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

const family FAMILY_LLAMA = {
    .name = "llama",
    .does = "text",
    .architecture = "LlamaForCausalLM",
    .read = family_read_text_only,
    .read_text = read_text,
    .sheet = &SHEET_TEXT_ONLY,
};
