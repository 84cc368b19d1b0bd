/* blip2.c - BLIP-2: an EVA-like ViT's last state, which the learned queries of a Q-Former read; what they become stands before
 * the text of an OPT.
 *
 * Source: transformers' Blip2Config, Blip2Processor and modeling_blip_2.py. Tested by tests/e2e/test_parity.py. */
#include "engine/families/family.h"

/* The checkpoints bring no template: the form of questions that the model's authors publish, a system's text as it is. A
 * picture alone asks for a caption, which is what the bare BOS does. */
#define TEXT "{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}"
static const char TEMPLATE[] =
    "{%- for m in messages %}{% set text %}{% if m.content is string %}{{ m.content }}{% else %}" TEXT
    "{% endif %}{% endset %}{% if text %}{% if not loop.first %}{{ ' ' }}{% endif %}"
    "{% if m.role == 'user' %}Question: {{ text }}{% elif m.role == 'assistant' %}Answer: {{ text }}."
    "{% else %}{{ text }}{% endif %}"
    "{% if loop.last and m.role == 'user' and add_generation_prompt %} Answer:{% endif %}{% endif %}{% "
    "endfor %}";

static bool read(config *c, model_spec *out) {
    if (!qformer_config_read(c, false, out)) return false;
    out->chat_template = TEMPLATE;
    config_skip(c, (const char *const[]){"image_text_hidden_size", "initializer_factor",
                                         "use_decoder_only_language_model", "tie_word_embeddings",
                                         "is_composition", NULL});
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

const family FAMILY_BLIP2 = {
    .name = "blip-2",
    .does =
        "early fusion through a Q-Former: learned queries attend to the picture and stand before the text",
    .architecture = "Blip2ForConditionalGeneration",
    .image_class = "BlipImageProcessor",
    .read = read,
    .sheet = &SHEET_QFORMER,
};
