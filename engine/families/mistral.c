/* mistral.c - Mistral decoders, on their own and as the text half of another model.
 *
 * Source: transformers' MistralConfig and modeling_mistral.py. Tested by tests/engine/model/test_model.c. */
#include "engine/families/family.h"

static bool read_text(config *c, text_spec *t) {
    static const text_defaults d = {.vocab = 32000,
                                    .width = 4096,
                                    .ffn = 14336,
                                    .layers = 32,
                                    .heads = 32,
                                    .kv_heads = 8,
                                    .max_pos = 131072,
                                    .eps = 1e-6,
                                    .bos = 1,
                                    .eos = 2};
    if (!text_config_base(c, &d, t)) return false;
    /* One window for every layer: 4096 when the key is left out, none when it is null. */
    const json_t *v = c->j ? json_object_get(c->j, "sliding_window") : NULL;
    int window = v && json_is_null(v) ? 0 : (int)config_int(c, "sliding_window", 4096, 1, 1 << 27);
    for (int i = 0; i < t->stack.n_layers; i++) t->stack.window[i] = window;
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

const family FAMILY_MISTRAL = {
    .name = "mistral",
    .does = "text, sliding window",
    .architecture = "MistralForCausalLM",
    .read = family_read_text_only,
    .read_text = read_text,
    .sheet = &SHEET_TEXT_ONLY,
};
