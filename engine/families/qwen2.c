/* qwen2.c - Qwen2 decoders, on their own and as the text half of another model.
 *
 * Source: transformers' Qwen2Config and modeling_qwen2.py. Tested by tests/engine/model/test_model.c. */
#include "engine/families/family.h"

static bool read_text(config *c, text_spec *t) {
    static const text_defaults d = {.vocab = 151936,
                                    .width = 4096,
                                    .ffn = 22016,
                                    .layers = 32,
                                    .heads = 32,
                                    .kv_heads = 32,
                                    .max_pos = 32768,
                                    .eps = 1e-6,
                                    .bos = -1,
                                    .eos = -1};
    if (!text_config_base(c, &d, t) || !text_config_windows(c, 28, t)) return false;
    t->stack.q_bias = t->stack.k_bias = t->stack.v_bias = true;
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

const family FAMILY_QWEN2 = {
    .name = "qwen2",
    .does = "text",
    .architecture = "Qwen2ForCausalLM",
    .read = family_read_text_only,
    .read_text = read_text,
    .sheet = &SHEET_TEXT_ONLY,
};
