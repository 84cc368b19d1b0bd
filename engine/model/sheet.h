/* sheet.h - a model's parameters as slots, and the sheets on which a family writes where the slots' tensors stand.
 *
 * A slot that the spec does not call for stays empty. Data only; immutable. */
#ifndef VLMD_ENGINE_MODEL_SHEET_H
#define VLMD_ENGINE_MODEL_SHEET_H

#include "engine/model/spec.h"

/* Parameters of one layer of a stack. _G gain, _W matrix, _B bias. */
typedef enum layer_slot {
    L_NORM1_G,
    L_NORM1_B, /* before attention */
    L_Q_W,
    L_Q_B,
    L_K_W,
    L_K_B,
    L_V_W,
    L_V_B, /* [H*hd, D], [K*hd, D], [K*hd, D] */
    L_O_W,
    L_O_B, /* [D, H*hd] */
    L_QNORM_G,
    L_KNORM_G, /* [hd] */
    L_POST1_G,
    L_POST1_B, /* behind attention */
    L_NORM2_G,
    L_NORM2_B, /* before the feed-forward */
    L_GATE_W,
    L_GATE_B,
    L_UP_W,
    L_UP_B, /* [F, D] */
    L_DOWN_W,
    L_DOWN_B, /* [D, F] */
    L_POST2_G,
    L_POST2_B, /* behind the feed-forward */
    L_CONTEXT_G,
    L_CONTEXT_B, /* before keys and values of the rows that others attend to */
    L_SCALE1,
    L_SCALE2, /* [D], or [1] of a gate: what attention and feed-forward give is multiplied by it */
    L_BESIDE_NORM_G,
    L_BESIDE_NORM_B,
    L_BESIDE_Q_W,
    L_BESIDE_Q_B,
    L_BESIDE_K_W,
    L_BESIDE_K_B,
    L_BESIDE_V_W,
    L_BESIDE_V_B, /* [H*hd, D], [K*hd, beside_width] twice: attention to other rows, behind the one to its own */
    L_BESIDE_O_W,
    L_BESIDE_O_B, /* [D, H*hd] */
    L_TEXT_UP_W,
    L_TEXT_UP_B,
    L_TEXT_DOWN_W,
    L_TEXT_DOWN_B,
    L_TEXT_NORM_G,
    L_TEXT_NORM_B, /* text_ffn: [F, D], [D, F], and behind them */
    L_COUNT
} layer_slot;

/* Parameters outside of layers. */
typedef enum slot {
    S_PATCH_W,
    S_PATCH_B,
    S_CLASS,
    S_POS,
    S_PRE_G,
    S_PRE_B,
    S_POST_G,
    S_POST_B, /* tower */
    S_POS_GATE,
    S_TILE_POS, /* [arrangements + 1, max_tiles * rows of a tile * D] */
    S_PRE_TILE,
    S_PRE_TILE_GATE,
    S_POST_TILE,
    S_POST_TILE_GATE, /* [arrangements + 1, max_tiles * D] and [1]; tower of tiles together */
    S_JOIN_G,
    S_JOIN_B,
    S_LATENTS, /* [latents, D] */
    S_READ_EMBED,
    S_READ_POS,  /* [read_vocab, D] and [read_pos, D]; S_JOIN_G and S_JOIN_B are the norm behind their sum */
    S_FC_GATE_W, /* [hidden, in]: FC1 and FC2 are gated */
    S_FC1_W,
    S_FC1_B,
    S_FC2_W,
    S_FC2_B,
    S_NEWLINE, /* join; [out], behind the rows of a line */
    S_EMBED,
    S_EMBED_IN,  /* [D, embed_width] */
    S_EMBED_POS, /* [learned_pos, D] */
    S_EMBED_NORM_G,
    S_EMBED_NORM_B,
    S_NORM_G,
    S_NORM_B,
    S_EMBED_OUT, /* [embed_width, D]; text */
    S_HEAD,      /* [vocab, embed_width] */
    S_HEAD_FC_W,
    S_HEAD_FC_B, /* [D, D] */
    S_HEAD_NORM_G,
    S_HEAD_NORM_B,
    S_HEAD_B, /* [vocab]; head */
    S_COUNT
} slot;
enum {
    S_FIRST_JOIN = S_JOIN_G,
    JOIN_SLOTS = S_NEWLINE - S_FIRST_JOIN,
    S_FIRST_TEXT = S_EMBED,
    S_FIRST_HEAD = S_HEAD
};

/* Parameters of a dual encoder beside its two stacks. */
typedef enum dual_slot {
    DUAL_TEXT_W,
    DUAL_TEXT_B,  /* [width, D] */
    DUAL_IMAGE_W, /* [width, D] */
    DUAL_PROBE,   /* [1, 1, D] */
    DUAL_Q_W,
    DUAL_Q_B,
    DUAL_K_W,
    DUAL_K_B,
    DUAL_V_W,
    DUAL_V_B,
    DUAL_O_W,
    DUAL_O_B, /* [D, D], of the probe's attention */
    DUAL_NORM_G,
    DUAL_NORM_B, /* before its feed-forward */
    DUAL_UP_W,
    DUAL_UP_B, /* [F, D] */
    DUAL_DOWN_W,
    DUAL_DOWN_B, /* [D, F] */
    DUAL_SCALE,
    DUAL_BIAS, /* [] or [1]: logarithm of the scale, and what is added behind it */
    DUAL_COUNT
} dual_slot;

typedef struct ignore_rule {
    const char *glob, *why; /* whole tensor name, '*' any run of characters */
} ignore_rule;

/* A decoder's tensors behind the prefixes of a sheet: every family that has it calls them so. */
typedef struct text_names {
    const char *const *layer; /* [L_COUNT], "%d" for the layer */
    const char *const *names; /* [S_COUNT], from S_FIRST_TEXT on */
    const char *const *cross; /* as layer, of layers that attend to pictures; NULL without any */
    const char *tied_bias;    /* of the head's bias, where the file has another name for it */
    const char *const *
        tail; /* likewise from text.tail_from on, where each kind is counted by itself; NULL: layer goes on */
} text_names;

typedef struct name_sheet {
    /* NULL-terminated lists of prefixes under which a section's names may stand in a checkpoint. */
    const char *const *tower_at, *const *join_at, *const *text_at, *const *head_at;
    const char *const *linear_at;   /* of a join of one matrix, whose tensors are "weight" and "bias" */
    const char *const *tower_layer; /* [L_COUNT], "%d" for the layer */
    const char *const *join_layer;  /* likewise, of a join with layers */
    const char *const
        *tower_tail; /* likewise from tower.tail_from on, counted from there; NULL: tower_layer goes on */
    const char *const *names; /* [S_FIRST_TEXT]; "name^T": the matrix stands there as [in, out] */
    const char *const
        *deep; /* [JOIN_SLOTS] of the joins of hidden states, with "%d" for which, at tower_at */
    const char *const *dual_at, *const *dual; /* dual: [DUAL_COUNT] */
    const ignore_rule *ignored;               /* ends with glob NULL */
} name_sheet;

#endif
