/* paligemma.c - PaliGemma and PaliGemma 2: SigLIP's last state, one matrix, spliced into Gemma, whose prompt attends both
 * ways.
 *
 * A prompt is the pictures' rows, BOS, the text and a line break; the tokenizer's own BOS is not used. Positions count from
 * 1 in the reference, which a rotary decoder does not notice.
 * Source: transformers' PaliGemmaConfig, PaliGemmaProcessor and modeling_paligemma.py. Tested by
 * tests/engine/model/test_model.c and tests/e2e/test_parity.py. */
#include "engine/families/family.h"

/* The checkpoints bring no template: pictures, then the texts, a line each. */
static const char TEMPLATE[] =
    "{%- for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content if p.type == 'image' %}<image>{% endfor %}"
    "{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}{% endif %}"
    "{% if not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}";

static void read_tower(config *c, model_spec *out) {
    config vision = config_sub(c, "vision_config");
    tower_spec *t = &out->tower;
    static const char *const unused[] = {"num_image_tokens", "num_positions", "projector_hidden_act", NULL};
    config_skip(&vision, unused);
    if (!tower_config_read(&vision, "siglip_vision_model", t)) return;
    t->post_norm = true;
    t->n_features = 1;
    t->features[0] = t->run_layers = t->stack.n_layers;
}

static bool read(config *c, model_spec *out) {
    config text = config_sub(c, "text_config");
    config_get(&text, "num_image_tokens");
    read_tower(c, out);
    if (c->st->code != ST_OK || !family_read_text(&text, "gemma", &out->text)) return false;
    out->text.tied = config_bool(c, "tie_word_embeddings", true);
    out->join = (join_spec){.kind = JOIN_LINEAR, .bias = true, .in = out->tower.stack.width};
    out->join.out = (int)config_int(c, "projection_dim", 2048, 1, 1 << 17);
    if (out->join.out != out->text.stack.width)
        return config_fail(c, ST_INVALID, "projection_dim", "expected text_config.hidden_size %d, found %d",
                           out->text.stack.width, out->join.out);
    out->text.rope_from = 1;
    out->fuse = FUSE_SPLICE;
    out->image_token = (int32_t)config_int_as(c, "image_token_id", "image_token_index", 256000, 0, INT32_MAX);
    out->image_rows = spec_rows_of_square;
    out->both_ways = BOTH_PROMPT;
    out->needs_picture = true;
    out->bos_behind_pictures = true;
    out->prompt_end = "\n";
    out->chat_template = TEMPLATE;
    static const char *const unused[] = {"hidden_size", "_vocab_size", "num_hidden_layers", NULL};
    config_skip(c, unused);
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

static const char *const LINEAR_AT[] = {"multi_modal_projector.linear.",
                                        "model.multi_modal_projector.linear.", NULL};
static const name_sheet SHEET = {
    .tower_at = COMPOSED_TOWER_AT,
    .join_at = COMPOSED_PROJECTOR_AT,
    .linear_at = LINEAR_AT,
    .text_at = COMPOSED_TEXT_AT,
    .head_at = COMPOSED_HEAD_AT,
    .tower_layer = NAMES_TOWER_LAYER,
    .names = NAMES,
    .ignored = COMPOSED_IGNORED,
};

static const char *const PARTS[][2] = {
    {"vision_config",
     "{'model_type':'siglip_vision_model','intermediate_size':4096,'hidden_size':1152,'patch_size':14,"
     "'image_size':224,'num_hidden_layers':27,'num_attention_heads':16}"},
    {"text_config",
     "{'model_type':'gemma','hidden_size':2048,'num_hidden_layers':18,'intermediate_size':16384,"
     "'num_attention_heads':8,'num_key_value_heads':1,'vocab_size':257152}"},
    {NULL, NULL},
};

const family FAMILY_PALIGEMMA = {
    .name = "paligemma",
    .does = "early fusion, one matrix; a prompt's tokens see each other",
    .architecture = "PaliGemmaForConditionalGeneration",
    .parts = PARTS,
    .image_class = "SiglipImageProcessor",
    .read = read,
    .sheet = &SHEET,
};
