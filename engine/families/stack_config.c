/* stack_config.c - the keys that transformers of LayerNorms share: ViTs, BERTs, the text towers of dual encoders.
 *
 * Source: transformers' configuration classes, which give them the same names. Thread: the loader's. */
#include <math.h>

#include "engine/families/family.h"

bool stack_config_heads(config *c, int def, stack_spec *s) {
    s->heads = s->kv_heads = (int)config_int(c, "num_attention_heads", def, 1, 1 << 12);
    if (s->width % s->heads)
        return config_fail(c, ST_INVALID, "hidden_size",
                           "expected a multiple of num_attention_heads %d, found %d", s->heads, s->width);
    s->head_dim = s->width / s->heads;
    s->attn_scale = (float)(1.0 / sqrt((double)s->head_dim));
    return true;
}

bool stack_config_read(config *c, const stack_defaults *d, stack_spec *s) {
    s->n_layers = (int)config_int(c, "num_hidden_layers", d->layers, 1, SPEC_MAX_LAYERS);
    s->width = (int)config_int(c, "hidden_size", d->width, 1, 1 << 16);
    s->ffn = (int)config_int(c, "intermediate_size", d->ffn, 1, 1 << 20);
    if (!stack_config_heads(c, d->heads, s)) return false;
    s->norm = NORM_LAYER;
    s->norm_eps = (float)config_num(c, "layer_norm_eps", d->eps, 0, 1);
    s->activation = config_act(c, "hidden_act", d->activation);
    s->q_bias = s->k_bias = s->v_bias = s->o_bias = s->mlp_bias = true;
    s->rope.kind = ROPE_NONE;
    return c->st->code == ST_OK;
}
