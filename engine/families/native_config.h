/* native_config.h - what the families that read pictures at their own size share: nested and flat configs, rope with a picture's
 * lines and columns, towers on any grid, tensor names.
 *
 * Thread: the loader's. Tested by tests/engine/model/test_model.c and tests/e2e/test_parity.py. */
#ifndef VLMD_ENGINE_FAMILIES_NATIVE_CONFIG_H
#define VLMD_ENGINE_FAMILIES_NATIVE_CONFIG_H

#include "engine/families/family.h"

typedef struct native_text {
    const char *type; /* text_config.model_type */
    bool flat;        /* without text_config its keys stand at the top, as the first checkpoints have them */
    text_defaults base;
    double theta;
    rope_deal deal;
    int section[ROPE_MAX_AXES];
} native_text;
/* The first two families' decoder. */
#define NATIVE_QWEN2_TEXT                                                                                    \
    {                                                                                                        \
        .vocab = 152064, .width = 8192, .ffn = 29568, .layers = 80, .heads = 64, .kv_heads = 8,              \
        .max_pos = 32768, .eps = 1e-5, .bos = 151643, .eos = 151645, .own_rope = true                        \
    }
/* What of it native_read_text does not know: windows, biases; heads that fill the width. */
bool native_qwen2_decoder(config *text, text_spec *out);
/* Sizes and rope of the decoder. Returns the config that it stands in (sub's memory or c itself); NULL: it failed. */
config *native_read_text(config *c, const native_text *d, config *sub, text_spec *out);

typedef struct native_tower {
    const char *types[2]; /* vision_config.model_type; the second by mistake in the first checkpoints */
    int depth, width, heads, patch;
    const char *width_key, *activation;
    norm_kind norm;
} native_tower;
/* The tower but its feed-forward and its positions, and a join that merges. v: vision_config, read further by the caller. */
bool native_read_tower(config *v, const native_tower *d, model_spec *out);
/* The rest, once all of v and text are read: tokens, and one warning each for what nobody asked for. */
bool native_done(config *c, config *text, config *v, model_spec *out);

/* family.check: pictures become what the tower was made for. */
bool native_check(config *c, model_spec *out);

/* Rows of a tower's [L_COUNT] that all have. */
#define NATIVE_LAYER                                                                                         \
    [L_NORM1_G] = "blocks.%d.norm1.weight", [L_NORM1_B] = "blocks.%d.norm1.bias",                            \
    [L_Q_W] = "blocks.%d.attn.qkv.weight#0/3", [L_Q_B] = "blocks.%d.attn.qkv.bias#0/3",                      \
    [L_K_W] = "blocks.%d.attn.qkv.weight#1/3", [L_K_B] = "blocks.%d.attn.qkv.bias#1/3",                      \
    [L_V_W] = "blocks.%d.attn.qkv.weight#2/3", [L_V_B] = "blocks.%d.attn.qkv.bias#2/3",                      \
    [L_O_W] = "blocks.%d.attn.proj.weight", [L_O_B] = "blocks.%d.attn.proj.bias",                            \
    [L_NORM2_G] = "blocks.%d.norm2.weight", [L_NORM2_B] = "blocks.%d.norm2.bias"
extern const char *const NATIVE_TOWER_AT[], *const NATIVE_JOIN_AT[], *const NATIVE_TEXT_AT[],
                                                                         *const NATIVE_HEAD_AT[];
extern const char *const NATIVE_NAMES[S_FIRST_TEXT]; /* of a join called ln_q and mlp */
extern const ignore_rule NATIVE_IGNORED[];
/* What of a sheet all have. */
#define NATIVE_SHEET                                                                                         \
    .tower_at = NATIVE_TOWER_AT, .join_at = NATIVE_JOIN_AT, .text_at = NATIVE_TEXT_AT,                       \
    .head_at = NATIVE_HEAD_AT, .ignored = NATIVE_IGNORED

#endif
