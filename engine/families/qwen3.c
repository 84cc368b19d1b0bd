/* qwen3.c - Qwen3 decoders, on their own and as the text half of another model.
 *
 * Source: transformers' Qwen3Config and modeling_qwen3.py. Tested by tests/engine/model/test_model.c. */
#include "engine/families/family.h"

static bool read_text(config *c, text_spec *t) {
    static const text_defaults d = {.vocab = 151936,
                                    .width = 4096,
                                    .ffn = 22016,
                                    .layers = 32,
                                    .heads = 32,
                                    .kv_heads = 32,
                                    .head_dim = 128,
                                    .max_pos = 32768,
                                    .eps = 1e-6,
                                    .bos = -1,
                                    .eos = -1};
    if (!text_config_base(c, &d, t) || !text_config_windows(c, 28, t)) return false;
    bool bias = config_bool(c, "attention_bias", false);
    t->stack.q_bias = t->stack.k_bias = t->stack.v_bias = t->stack.o_bias = bias;
    t->stack.qk_norm = true;
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

const family FAMILY_QWEN3 = {
    .name = "qwen3",
    .does = "text, q/k norms",
    .architecture = "Qwen3ForCausalLM",
    .read = family_read_text_only,
    .read_text = read_text,
    .sheet = &SHEET_TEXT_ONLY,
};
