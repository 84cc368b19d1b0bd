/* gemma3_text.c - Gemma 3 decoders, on their own and as the text half of another model: norms on queries and keys, most
 * layers with a window and a rope of their own.
 *
 * Source: transformers' Gemma3TextConfig and modeling_gemma3.py. Tested by tests/engine/model/test_model.c. */
#include <math.h>

#include "engine/families/family.h"

/* What rope_scaling, if there is one, makes of what rope_parameters says of the layers without a window. The kind stands there
 * already, be it the plain one, so that only rope_type changes it: an older "type" does not. Returns a new reference or NULL. */
static json_t *laid_over(config *c, const json_t *under, const json_t *over) {
    json_t *j = under ? json_copy((json_t *)(uintptr_t)under) : json_pack("{s:s}", "rope_type", "default");
    if (j && json_object_update(j, (json_t *)(uintptr_t)over) == 0) return j;
    json_decref(j);
    config_fail(c, ST_NO_MEMORY, "rope_scaling", "no memory");
    return NULL;
}

/* rope_parameters holds an object a kind of layer; the old form spreads the same over rope_theta, rope_scaling (of the
 * layers without a window) and rope_local_base_freq. */
static void read_ropes(config *c, text_spec *t) {
    double theta = config_num(c, "rope_theta", 1e6, 1e-3, 1e15);
    double local_theta = config_num(c, "rope_local_base_freq", 1e4, 1e-3, 1e15);
    config both = config_sub(c, "rope_parameters"), scaling = config_sub(c, "rope_scaling");
    config full = config_sub(&both, "full_attention"), local = config_sub(&both, "sliding_attention");
    json_t *own = scaling.j && json_object_size(scaling.j) > 0 ? laid_over(c, full.j, scaling.j) : NULL;
    config *p = own ? &scaling : &full;
    if (own) scaling.j = own;
    text_config_rope(p, t, theta, 1, 0, &t->stack.rope);
    json_decref(own);
    text_config_rope(&local, t, local_theta, 1, 0, &t->rope_local);
    /* YaRN's key is looked for beside the objects of the kinds of layers, and not within them. */
    t->stack.rope.truncate = t->rope_local.truncate = config_bool(&both, "truncate", true);
    config_warn_unknown(&both);
}

static bool read_text(config *c, text_spec *t) {
    static const text_defaults d = {.vocab = 262208,
                                    .width = 2304,
                                    .ffn = 9216,
                                    .layers = 26,
                                    .heads = 8,
                                    .kv_heads = 4,
                                    .head_dim = 256,
                                    .max_pos = 131072,
                                    .eps = 1e-6,
                                    .bos = 2,
                                    .eos = 1,
                                    .tied = true,
                                    .own_rope = true};
    int pattern = (int)config_int(c, "sliding_window_pattern", 6, 1, SPEC_MAX_LAYERS);
    if (!text_config_base(c, &d, t) || !text_config_window_pattern(c, 4096, pattern, t)) return false;
    read_ropes(c, t);
    stack_spec *s = &t->stack;
    s->q_bias = s->k_bias = s->v_bias = s->o_bias = config_bool(c, "attention_bias", false);
    s->norm_offset = 1;
    s->post_norms = s->qk_norm = true;
    s->activation = config_act(c, "hidden_activation", "gelu_pytorch_tanh");
    s->attn_scale = (float)(1 / sqrt(config_num(c, "query_pre_attn_scalar", 256, 1e-6, 1e9)));
    t->logit_softcap = text_config_softcap(c, "final_logit_softcapping", 0);
    t->embed_scale = (float)sqrt((double)s->width);
    t->names = &NAMES_TEXT_SANDWICH;
    config_only_bool(c, "use_bidirectional_attention", false);
    /* attn_logit_softcapping is a key of the class that its attention does not use. */
    static const char *const unused[] = {"attn_logit_softcapping", "cache_implementation",
                                         "_sliding_window_pattern", NULL};
    config_skip(c, unused);
    config_warn_unknown(c);
    return c->st->code == ST_OK;
}

const family FAMILY_GEMMA3_TEXT = {
    .name = "gemma3_text",
    .does = "text, local and global layers",
    .architecture = "Gemma3ForCausalLM",
    .read = family_read_text_only,
    .read_text = read_text,
    .sheet = &SHEET_TEXT_ONLY,
};
