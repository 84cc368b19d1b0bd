/* spec.h - what a model is, as data. A family's file fills it from config.json; model/ reads it and never asks for
 * a family's name. Mechanisms are named for what they do. Immutable after load; owned by the model. */
#ifndef VLMD_ENGINE_MODEL_SPEC_H
#define VLMD_ENGINE_MODEL_SPEC_H

#include "engine/image/image.h"
#include "kernels/ops.h"

enum { SPEC_MAX_LAYERS = 256, SPEC_MAX_FEATURES = 16, SPEC_MAX_EOS = 16 };

typedef enum rope_kind {
    ROPE_NONE,
    ROPE_DEFAULT,
    ROPE_LINEAR,
    ROPE_DYNAMIC,
    ROPE_LLAMA3,
    ROPE_YARN
} rope_kind;
typedef struct rope_spec { /* HF modeling_rope_utils; all lengths in tokens */
    rope_kind kind;
    float theta, factor;
    int dims;                                /* rotated part of a head */
    int max_pos;                             /* the length that "dynamic" and "yarn" stretch from */
    float low_freq_factor, high_freq_factor; /* llama3 */
    float beta_fast, beta_slow, attention_factor, mscale,
        mscale_all_dim; /* yarn; attention_factor 0: by rule */
    bool truncate;
} rope_spec;

/* One transformer stack: ViT, Q-Former and decoder are rows of these options. */
typedef struct stack_spec {
    int n_layers, width, heads, kv_heads, head_dim, ffn;
    norm_kind norm;
    float norm_eps;
    act activation;
    bool glu; /* act(gate) * up instead of act(up) */
    bool q_bias, k_bias, v_bias, o_bias, mlp_bias;
    bool qk_norm; /* RMS norm of each head of q and k before rope */
    bool causal;
    float attn_scale;            /* 1/sqrt(head_dim) unless the config says otherwise */
    int window[SPEC_MAX_LAYERS]; /* sliding window of a layer, 0: none */
    rope_spec rope;
} stack_spec;

typedef struct tower_spec {
    stack_spec stack;
    int image_size, patch;           /* pixels; a grid of (image_size/patch)^2 patches */
    bool patch_bias, cls, pre_norm;  /* CLS row in front; norm before the first layer */
    bool post_norm;                  /* the norm behind the last layer is part of the feature */
    int n_features;                  /* hidden states that are joined along the width */
    int features[SPEC_MAX_FEATURES]; /* 0 = input of layer 0, n = output of layer n-1 */
    bool drop_first;                 /* select strategy "default": the first row goes */
    int run_layers;                  /* layers that the features need; those behind them are not loaded */
    int rows;                        /* rows of the result for one picture */
    /* 0: every picture is image_size square. Else any grid of at most so many patches, whose positions are resampled from
     * a table of table_side x table_side; the patch matrix then reads pixels before channels. */
    int max_patches, table_side;
} tower_spec;

typedef enum join_kind { JOIN_NONE, JOIN_LINEAR, JOIN_MLP } join_kind;
typedef struct join_spec {
    join_kind kind;
    act activation;
    bool bias;
    int in, hidden, out;
} join_spec;

typedef struct text_spec {
    stack_spec stack;
    int vocab, max_pos; /* positions that the model is made for, a stretched rope's included */
    bool tied;          /* lm_head is the embedding table */
    float embed_scale;  /* 1 unless the model scales its embeddings */
    int32_t bos, eos;   /* what the reference assumes where no file says; -1: none */
} text_spec;

typedef enum fuse_kind { FUSE_NONE, FUSE_SPLICE } fuse_kind;

/* Two towers that meet in one space, instead of a decoder: `text` is the stack that reads a text, and a text or a picture
 * becomes one vector. */
typedef enum dual_pick {                     /* the row that stands for a text */
                         DUAL_PICK_ID,       /* the first that is pick_id, where none is the first of all */
                         DUAL_PICK_GREATEST, /* the first of the greatest id */
                         DUAL_PICK_LAST
} dual_pick;
typedef enum dual_head {                  /* the row that stands for a picture */
                         DUAL_HEAD_FIRST, /* the first, normed and projected */
                         DUAL_HEAD_PROBE /* what a learned query finds in all of them, and a feed-forward of the tower's shape */
} dual_head;
typedef struct dual_spec {
    bool on;
    int width; /* of the vectors */
    dual_pick pick;
    int32_t pick_id;
    bool text_bias; /* of the text's projection */
    bool pads;      /* every text is padded to the same length, and its rows see the padding */
    int pad_to;     /* that length; 0: the tokenizer's model_max_length, at most text.max_pos */
    int32_t pad_id; /* unless the tokenizer names another */
    dual_head head;
    bool sigmoid; /* a pair is judged on its own, with a bias, instead of against the other labels */
} dual_spec;

/* One run of ids that stand for a picture in the prompt: n times id. Rows of the picture belong to the runs whose
 * id is image_token, in order. */
typedef struct image_run {
    int32_t id;
    int n;
} image_run;

typedef struct model_spec {
    const char *family; /* the registry's name, for people; code never compares it */
    tower_spec tower;   /* stack.n_layers 0: no tower */
    join_spec join;
    text_spec text;
    dual_spec dual;
    fuse_kind fuse;
    int32_t image_token;       /* the placeholder's id, -1 without pictures */
    int32_t bos;               /* -1: none */
    int32_t eos[SPEC_MAX_EOS]; /* generation_config.json's, else config.json's */
    int n_eos;
    /* How the reference turns a rendered chat into ids: a processor lets the tokenizer add its specials unless the
     * text begins with BOS; a bare tokenizer adds none. */
    bool prompt_adds_special;
    prep_spec prep;
    /* What a picture becomes in the prompt (after prep_plan: planned size w x h): fills runs, returns how many (<= max),
     * 0 when the tower cannot take this size. Source: the reference's processor of this family. */
    int (*image_runs)(const struct model_spec *s, int w, int h, image_run *runs, int max);
    /* generation_config.json's defaults for a request; NaN / -1 where it says nothing */
    float temperature, top_p, min_p, repetition_penalty;
    int top_k, max_new_tokens;
} model_spec;

#endif
