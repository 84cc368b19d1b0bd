/* family.h - what a family's file offers to the registry, and what it may use.
 *
 * Source of every default: the configuration classes of the reference library (transformers 5). */
#ifndef VLMD_ENGINE_FAMILIES_FAMILY_H
#define VLMD_ENGINE_FAMILIES_FAMILY_H

#include "engine/families/config.h"
#include "engine/families/registry.h"

typedef struct family {
    const char *name;         /* config.json's model_type */
    const char *architecture; /* the reference's class that vlmd serves */
    const char *does;         /* a line for the table of families: how pictures reach the text */
    /* config.json as a whole to a spec; NULL for a part that never stands alone. */
    bool (*read)(config *c, model_spec *out);
    /* The family as the text half of another, or on its own; NULL without a decoder. */
    bool (*read_text)(config *c, text_spec *out);
    const name_sheet *sheet;
    const name_sheet *(*sheet_of)(
        const model_spec *s); /* where the names depend on the config; NULL: sheet */
    /* Parts that config.json may leave out, with the keys that the reference then gives to their classes (init_kwargs):
     * pairs of a key and a JSON object in which ' stands for ". NULL-terminated; NULL: no such part. */
    const char *const (*parts)[2];
    const char *image_class; /* that of an image processor's file which names none */
    bool own_prep;           /* read fills prep as well: there is no file of an image processor */
    /* What only config.json and the image processor's file together say, after both were read; NULL: nothing. */
    bool (*check)(config *c, model_spec *out);
} family;

const family *family_find(const char *model_type); /* NULL: unknown */
/* The text half that c's model_type (or def) names; the error lists those that are known. */
bool family_read_text(config *c, const char *def, text_spec *out);
/* The same under a class whose own head does not cap its logits, whatever the text's config says: most that take pictures. */
bool family_read_part(config *c, const char *def, text_spec *out);

extern const family FAMILY_MLLAMA, FAMILY_MLLAMA_TEXT;
extern const family FAMILY_LLAVA, FAMILY_LLAMA, FAMILY_MISTRAL, FAMILY_QWEN2, FAMILY_QWEN3, FAMILY_GEMMA,
    FAMILY_GEMMA2, FAMILY_GEMMA3_TEXT, FAMILY_OPT, FAMILY_GEMMA3, FAMILY_PALIGEMMA;
extern const family FAMILY_QWEN2_VL, FAMILY_QWEN2_5_VL, FAMILY_QWEN3_VL;
extern const family FAMILY_IDEFICS2, FAMILY_BLIP2, FAMILY_INSTRUCTBLIP, FAMILY_BLIP_VQA, FAMILY_COCA;
extern const family FAMILY_CLIP, FAMILY_SIGLIP, FAMILY_SIGLIP2;
extern const family FAMILY_LLAVA_NEXT, FAMILY_LLAVA_ONEVISION, FAMILY_INTERNVL, FAMILY_IDEFICS3,
    FAMILY_SMOLVLM;

/* generation_config.json, where it is silent config.json, where that is silent its text_config. */
void generation_read(config *gen, config *top, config *text, model_spec *out);

/* A text model on its own. */
bool family_read_text_only(config *c, model_spec *out);

/* ---- shared mechanisms (text_config.c, stack_config.c, tower_config.c) ---- */

typedef struct text_defaults {
    int vocab, width, ffn, layers, heads, kv_heads /* 0: as heads */, head_dim /* 0: width / heads */,
        max_pos;
    double eps, theta /* 0: 10000 */;
    int32_t bos, eos; /* -1: none */
    bool tied;
    bool own_rope; /* the family reads it */
} text_defaults;
/* Sizes, activation, rope and tied embeddings of a pre-norm RMS decoder with a gated feed-forward. */
bool text_config_base(config *c, const text_defaults *d, text_spec *out);
/* A rope's settings; theta and outer_original (0: none): what stands beside the object p. */
void text_config_rope(config *p, const text_spec *t, double theta, double partial, int64_t outer_original,
                      rope_spec *out);
/* use_sliding_window, sliding_window, max_window_layers (else def_from), layer_types. */
bool text_config_windows(config *c, int def_from, text_spec *out);
/* sliding_window and layer_types; without the list every pattern-th layer has no window. */
bool text_config_window_pattern(config *c, int def_window, int pattern, text_spec *out);
/* The number under key; def when it is left out, 0 when null. */
float text_config_softcap(config *c, const char *key, double def);

/* What a configuration class says of a stack that a config does not. */
typedef struct stack_defaults {
    int layers, width, ffn, heads;
    double eps;
    const char *activation;
} stack_defaults;
/* Sizes, epsilon and activation of layers with LayerNorms and all biases, without rotary positions. */
bool stack_config_read(config *c, const stack_defaults *d, stack_spec *s);
/* num_attention_heads, which share out s->width. */
bool stack_config_heads(config *c, int def, stack_spec *s);

/* A ViT's vision_config by its model_type (or def). */
bool tower_config_read(config *c, const char *def, tower_spec *out);
/* The same as a kind that the family prescribes, whatever its model_type. */
bool tower_config_read_as(config *c, const char *kind, tower_spec *out);

/* ---- tower, projector, decoder (join_config.c) ---- */

/* vision_feature_layer and vision_feature_select_strategy, with their defaults. */
bool join_config_features(config *c, int def_layer, const char *def_strategy, tower_spec *t);
/* A CLIP ViT-L/14 of 336 pixels stands for a vision_config that is left out. */
extern const char *const CLIP_PARTS[][2];
/* The two-layer projector. */
void join_config_mlp(config *c, model_spec *out);
/* Rows of pictures stand in place of image_token_index (image_token_id). */
void join_config_splice(config *c, int32_t def_token, model_spec *out);
/* Where the parts' tensors stand in the library's composed models, old and new; the join's with their module's name. */
extern const char *const COMPOSED_TOWER_AT[], *const COMPOSED_JOIN_AT[], *const COMPOSED_PROJECTOR_AT[],
                                                                             *const COMPOSED_TEXT_AT[],
                                                                                 *const COMPOSED_HEAD_AT[];
extern const ignore_rule COMPOSED_IGNORED[];

/* ---- tower, Q-Former, decoder (qformer_config.c) ---- */

/* vision_config, qformer_config, text_config and the placeholder; reads: the prompt's text goes to the Q-Former as well. */
bool qformer_config_read(config *c, bool reads, model_spec *out);
extern const name_sheet SHEET_QFORMER, SHEET_QFORMER_READING; /* without a text, with one */

/* Tensor names of a decoder and of a ViT as the reference library writes them. */
extern const text_names NAMES_TEXT;                                                  /* two norms a layer */
extern const text_names NAMES_TEXT_SANDWICH;                                         /* four */
extern const char *const NAMES_TEXT_LAYER[L_COUNT], *const NAMES_TEXT_REST[S_COUNT]; /* of NAMES_TEXT */
extern const char *const NAMES_TOWER_LAYER[L_COUNT];
extern const char *const NAMES_TOWER_LAYER_FUSED[L_COUNT]; /* q, k, v in one tensor: BLIP's */
extern const char *const NAMES[S_FIRST_TEXT];
#define NAMES_VIT                                                                                            \
    [S_PATCH_W] = "embeddings.patch_embedding.weight", [S_PATCH_B] = "embeddings.patch_embedding.bias",      \
    [S_CLASS] = "embeddings.class_embedding", [S_POS] = "embeddings.position_embedding.weight",              \
    [S_PRE_G] = "pre_layrnorm.weight", [S_PRE_B] = "pre_layrnorm.bias",                                      \
    [S_POST_G] = "post_layernorm.weight", [S_POST_B] = "post_layernorm.bias"
extern const name_sheet SHEET_TEXT_ONLY;
extern const name_sheet ANYRES_SHEET;

#endif
