/* instructblip.c - InstructBLIP: as BLIP-2, but the Q-Former reads the prompt's text beside its queries, by a tokenizer of its own,
 * so that what the queries find depends on what is asked; what they become stands before the text of a Llama (Vicuna).
 *
 * Source: transformers' InstructBlipConfig, InstructBlipProcessor and modeling_instructblip.py.
 * Tested by tests/e2e/test_parity.py and tests/e2e/test_instruction.py. */
#include <string.h>

#include "engine/families/family.h"

/* The checkpoints bring no template: an instruction is the prompt, as it is. Turns stand below each other. */
static const char TEMPLATE[] =
    "{%- for m in messages %}{% set text %}{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}{% endif %}{% endset %}"
    "{% if text %}{% if not loop.first %}{{ '\n' }}{% endif %}{{ text }}{% endif %}{% endfor %}";

static bool read(config *c, model_spec *out) {
    if (!qformer_config_read(c, true, out)) return false;
    out->chat_template = TEMPLATE;
    config_skip(c, (const char *const[]){"initializer_factor", "use_decoder_only_language_model",
                                         "tie_word_embeddings", "is_composition", NULL});
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

/* A text_config from before the library had Llama names ids that its tokenizer does not have in these places: 1 ends a text there,
 * </s> in truth. */
enum { LLAMA_EOS = 2 };

static bool check(config *c, model_spec *out) {
    config text = config_sub(c, "text_config");
    const json_t *class = json_array_get(config_get(&text, "architectures"), 0);
    bool ends = !json_is_string(class) || strcmp(json_string_value(class), "LLaMAForCausalLM") != 0;
    for (int i = 0; i < out->n_eos; i++) ends = ends || out->eos[i] == LLAMA_EOS;
    if (!ends && out->n_eos < SPEC_MAX_EOS) out->eos[out->n_eos++] = LLAMA_EOS;
    return c->st->code == ST_OK;
}

const family FAMILY_INSTRUCTBLIP = {
    .name = "instructblip",
    .does = "early fusion through a Q-Former that reads the instruction: learned queries attend to it and to "
            "the picture, and stand before the text",
    .architecture = "InstructBlipForConditionalGeneration",
    .image_class = "BlipImageProcessor",
    .read = read,
    .sheet = &SHEET_QFORMER_READING,
    .check = check,
};
