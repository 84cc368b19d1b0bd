/* spec.h - what a model is, as data. A family's file fills it from config.json; model/ reads it and never asks for
 * a family's name. Mechanisms are named for what they do. Immutable after load; owned by the model. */
#ifndef VLMD_ENGINE_MODEL_SPEC_H
#define VLMD_ENGINE_MODEL_SPEC_H

#include "engine/image/tiles.h"
#include "kernels/ops.h"

enum { SPEC_MAX_LAYERS = 256, SPEC_MAX_FEATURES = 16, SPEC_MAX_EOS = 16, SPEC_MAX_BANNED = 64 };

typedef enum rope_kind {
    ROPE_NONE,
    ROPE_DEFAULT,
    ROPE_LINEAR,
    ROPE_DYNAMIC,
    ROPE_LLAMA3,
    ROPE_YARN
} rope_kind;
typedef enum rope_deal { /* which of a row's positions turn which pairs, where it has several */
                         ROPE_SECTIONS, /* section[a] pairs in turn by position a */
                         ROPE_INTERLEAVED, /* pair j by position a = j % axes while j < axes * section[a], else by the first */
                         ROPE_SPATIAL /* as many by each, and each begins anew with the highest frequency */
} rope_deal;
enum { ROPE_MAX_AXES = 3 };
typedef struct rope_spec { /* HF modeling_rope_utils; all lengths in tokens */
    rope_kind kind;
    float theta, factor;
    int dims;                                /* rotated part of a head */
    int max_pos;                             /* the length that "dynamic" and "yarn" stretch from */
    float low_freq_factor, high_freq_factor; /* llama3 */
    float beta_fast, beta_slow, attention_factor, mscale,
        mscale_all_dim; /* yarn; attention_factor 0: by rule */
    bool truncate;
    int axes; /* positions of a row: 0 and 1 are one */
    rope_deal deal;
    int section[ROPE_MAX_AXES];
} rope_spec;

/* One transformer stack: ViT, Q-Former and decoder are rows of these options. */
typedef struct stack_spec {
    int n_layers, width, heads, kv_heads, head_dim, ffn; /* ffn 0: no feed-forward */
    norm_kind norm;
    float norm_eps;
    float norm_offset; /* a gain g counts as norm_offset + g */
    bool norm_plain;   /* layer norms without parameters */
    bool norm_after; /* of the sum with the residual, instead of what goes into attention and feed-forward */
    bool context_norm[SPEC_MAX_LAYERS]; /* rows that others attend to have a norm of their own */
    int context_width;                  /* of those rows, where it is not width; 0: it is */
    bool
        layer_scale; /* what comes out of either is multiplied by a vector, the last thing before the residual */
    bool gated[SPEC_MAX_LAYERS]; /* likewise, by tanh of a single number */
    bool post_norms;             /* also of what comes out of either, before it joins the residual */
    act activation;
    bool glu; /* act(gate) * up instead of act(up) */
    bool q_bias, k_bias, v_bias, o_bias, mlp_bias;
    bool qk_norm;      /* RMS norm of each head of q and k before rope */
    bool qk_norm_full; /* likewise, of all heads as one row */
    float qk_norm_eps; /* 0: norm_eps */
    bool causal;
    float attn_scale;            /* 1/sqrt(head_dim) unless the config says otherwise */
    float attn_softcap;          /* of the scores; 0: none */
    int window[SPEC_MAX_LAYERS]; /* sliding window of a layer, 0: none */
    bool cross[SPEC_MAX_LAYERS]; /* the layer attends to other rows instead of to its own */
    bool cross_qk_norm;          /* of such a layer queries and keys are normed, as qk_norm does it */
    int beside_width; /* of rows that some layers attend to as well, between their own and the feed-forward; 0: none */
    bool beside
        [SPEC_MAX_LAYERS]; /* those layers; with a norm, projections and biases like their own attention's */
    bool
        text_ffn; /* rows of a text have a feed-forward of their own, but in the last layer, where they end */
    rope_spec rope;
} stack_spec;

/* Layer i attends to other rows, instead of to its own or beside. */
static inline bool stack_sees(const stack_spec *s, int i) {
    return s->cross[i] || s->beside[i];
}

typedef struct tower_spec {
    stack_spec stack;
    int image_size, patch; /* pixels; a grid of (image_size/patch)^2 patches; 0: any grid */
    int frames;            /* that a patch's matrix reads, of which a picture fills all; 0 is 1 */
    bool no_pos;           /* no table of positions */
    int pos_corners,
        pos_rows; /* pos_corners > 0: the table has pos_rows, a square of so many places a side is first,
                                       and it is resampled to a tile's grid, corner on corner */
    int window; /* patches, a multiple of join.merge: layers see squares of so many a side; 0: all see everything */
    bool sees_all[SPEC_MAX_LAYERS]; /* with windows: layers that see everything */
    bool patch_bias, cls, pre_norm; /* CLS row in front; norm before the first layer */
    bool post_norm;                 /* the layer norm behind the last layer is part of its feature */
    bool
        pos_buckets; /* a patch's place in the table goes by its fraction of the side (bucket.c), so that grids may
                         differ from the table's */
    int n_features;                  /* hidden states that are joined along the width */
    int features[SPEC_MAX_FEATURES]; /* 0 = input of layer 0, n = output of layer n-1 */
    bool drop_first;                 /* select strategy "default": the first row goes */
    int run_layers;                  /* layers that the features need; those behind them are not loaded */
    /* 0: the table of positions is image_size's grid. Else a square table of pos_side, resampled to a tile's own grid of at
     * most max_patches; the patch matrix then reads channels after pixels. */
    int pos_side, max_patches;
    /* All tiles of a picture in one sequence, padded to max_tiles of them and each to a multiple of pad_rows (0: each tile is
     * one of its own): positions by arrangement of tiles, gated; from layer tail_from on behind a norm (S_POST_G) and another
     * embedding of the tile. */
    int max_tiles, pad_rows, tail_from, arrangements;
    /* Rows that a slice of an encode works on, at most: the backend's (model_open), not the config's. No bit depends on it. */
    int block_rows;
} tower_spec;
static inline bool tower_together(const tower_spec *t) {
    return t->max_tiles > 0;
}
/* Rows that a tile of gw x gh patches, or all tiles together, give to the join. */
static inline int tower_features_rows(const tower_spec *t, int gw, int gh) {
    if (tower_together(t)) return t->max_tiles * (gw * gh + 1);
    return gw * gh + (t->cls ? 1 : 0) - (t->drop_first ? 1 : 0);
}

/* NONE: the features are the rows. POOL: the mean of pool x pool patches, then normed and linear. PERCEIVER: learned latents
 * attend to a tile layer by layer, join_layers.c. ATTEND: once, and nothing else, attend.c.
 * QFORMER: learned latents, normed, attend to each other and in some layers to a tile beside that; linear. Where it reads a
 * text (read_vocab), its rows and the latents' attend to each other; join_layers.c.
 * READER: a text (model_spec.reads) whose rows attend to themselves and to the tile; they are the rows, join_layers.c */
typedef enum join_kind {
    JOIN_NONE,
    JOIN_LINEAR,
    JOIN_MLP,
    JOIN_POOL,
    JOIN_PERCEIVER,
    JOIN_ATTEND,
    JOIN_QFORMER,
    JOIN_READER
} join_kind;
typedef enum join_norm {
    JOIN_NORM_NONE,
    JOIN_NORM_ROW,   /* of each feature row */
    JOIN_NORM_MERGED /* of the rows that are merged, as one */
} join_norm;
typedef struct join_spec {
    join_kind kind;
    int merge; /* k: blocks of k x k neighbours, side by side, are one row of k * k times the width; 0 or 1: none */
    join_norm normed; /* before the first matrix */
    norm_kind norm;
    float norm_eps;
    act activation;
    bool bias;
    int in, hidden, out; /* in: of a merged row; QFORMER: of a latent */
    int pool;
    float norm_offset;        /* a gain g counts as norm_offset + g */
    stack_spec stack;         /* of a join with layers: PERCEIVER, ATTEND (one), QFORMER, READER */
    int read_vocab, read_pos; /* rows of the tables of a text that it reads: ids, positions */
    int latents;              /* rows that a tile becomes, whatever its size */
    bool drop_first;          /* the first of them is no row of the result: ATTEND */
    int interleaved; /* that many features lie behind the first one, number by number in turn; 0: one after the other */
} join_spec;

/* Hidden states of layers within the tower that join a picture's rows further up: set k goes through a join of its own and
 * is added behind layer k of the decoder. */
enum { SPEC_MAX_DEEP = 16 };
typedef struct deep_spec {
    int n;
    int state[SPEC_MAX_DEEP]; /* rising; as tower_spec.features */
    int which[SPEC_MAX_DEEP]; /* of the checkpoint's joins */
    join_spec join;
} deep_spec;

typedef struct text_spec {
    stack_spec stack;
    int embed_rows;     /* of the table; 0: vocab. Ids behind vocab can be read, but not chosen */
    int vocab, max_pos; /* positions that the model is made for, a stretched rope's included */
    bool tied;          /* lm_head is the embedding table */
    float embed_scale;  /* of looked-up rows, not of pictures'; 1 unless the model scales its embeddings */
    int embed_width; /* of the table and the head; not stack.width: a matrix leads in, another out; 0: stack.width */
    int learned_pos;      /* rows of a table that is added by position; 0: none */
    int learned_pos_from; /* its row for position 0 */
    int rope_from; /* the reference's first position, as a rope that stretches by the greatest one sees it */
    bool embed_norm; /* of what layer 0 takes */
    bool no_final_norm;
    bool head_transform; /* a matrix with bias, the stack's activation and a layer norm before the head */
    bool head_bias, tied_bias;      /* the latter: it may stand under another name (sheet.h) */
    float logit_softcap;            /* 0: none */
    rope_spec rope_local;           /* of the windowed layers, where it is another; else ROPE_NONE */
    bool both_ways;                 /* the config wants it: who reads it says for which rows */
    int32_t bos, eos;               /* what the reference assumes where no file says; -1: none */
    const struct text_names *names; /* its tensors (sheet.h) */
    int tail_from;                  /* from this layer on they have other names, where names->tail says */
} text_spec;

static inline int text_embed_rows(const text_spec *t) {
    return t->embed_rows ? t->embed_rows : t->vocab;
}
static inline int text_embed_width(const text_spec *t) {
    return t->embed_width ? t->embed_width : t->stack.width;
}

/* How pictures reach the decoder: as rows among the text's, or as keys and values that some layers (stack.cross, stack.beside)
 * attend to, kept apart from the text's. */
typedef enum fuse_kind { FUSE_NONE, FUSE_SPLICE, FUSE_CROSS } fuse_kind;

/* Two towers that meet in one space, instead of a decoder: `text` is the stack that reads a text, and a text or a picture
 * becomes one vector of join.out numbers. */
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

/* What a family knows of a picture when it says what becomes of it: its header, and how many the prompt has. */
typedef struct image_ask {
    int w, h, n_images;
} image_ask;

/* The text that stands for pictures in a prompt, while it is written. A run of rows is written as one placeholder of its
 * length, so that a long one costs nothing before its length is checked. */
typedef struct image_text {
    bool set_off; /* a space follows the picture, unless white space or '<' does */
    buf *text;
    const char *row_token;                            /* the spelling of image_token */
    const json_t *names;                              /* the tokenizer's named tokens, or NULL */
    const char *(*spell)(const void *of, int32_t id); /* an added token's spelling, or NULL */
    const void *of;
    struct image_text_run {
        int image, n;
    } * runs; /* [n_runs], owned */
    int n_runs, cap_runs, image;
    bool failed; /* no memory */
} image_text;
void image_text_puts(image_text *t, const char *s);
/* The token that the tokenizer's config gives this name; otherwise: where it gives none. */
void image_text_named(image_text *t, const char *name, const char *otherwise);
void image_text_id(image_text *t, int32_t id); /* a token by its id */
void image_text_rows(image_text *t,
                     int n); /* n > 0 rows of the picture, after those that were written before */
void image_text_fini(image_text *t);

/* Spans of rows that see each other, what stands behind included: each run of a picture's rows; the whole prompt, then
 * in windowed layers too. */
typedef enum both_ways { BOTH_NONE, BOTH_PICTURE, BOTH_PROMPT } both_ways;

enum { SPEC_PACK_TAPS = 4 };
typedef struct pack_row { /* a row of the result: the sum of weight[k] * joined row from[k]; from -1: none */
    int32_t from[SPEC_PACK_TAPS];
    float weight[SPEC_PACK_TAPS];
} pack_row;

/* Text that goes with a picture to its encode, beside what becomes of it in the prompt. */
typedef enum reads_what {
    READS_NOTHING,
    READS_PROMPT,  /* the whole rendered prompt, without what stands for pictures */
    READS_QUESTION /* the one text of a chat that is one picture and one question; the prompt is BOS alone */
} reads_what;
typedef struct reads_spec {
    reads_what what;
    int max_tok;           /* its ids at most, a tokenizer's specials included: a longer one is refused */
    int vocab;             /* every id is below */
    const char *tokenizer; /* the folder within the checkpoint's that has its tokenizer; NULL: the model's */
} reads_spec;

typedef struct model_spec {
    const char *family; /* the registry's name, for people; code never compares it */
    tower_spec tower;   /* stack.n_layers 0: no tower */
    join_spec join;
    deep_spec deep;
    text_spec text;
    dual_spec dual;
    fuse_kind fuse;
    int32_t image_token; /* the placeholder's id, -1 without pictures, or where added_token stands for it */
    int32_t video_token; /* its like for what is not served; 0: none */
    int32_t bos;         /* -1: none */
    int32_t eos[SPEC_MAX_EOS]; /* generation_config.json's, else config.json's */
    int n_eos;
    int32_t banned[SPEC_MAX_BANNED]; /* ids that no answer has: generation_config.json's */
    int n_banned;
    /* How the reference turns a rendered chat into ids: a processor lets the tokenizer add its specials unless the
     * text begins with BOS; a bare tokenizer adds none. */
    bool prompt_adds_special;
    prep_spec prep;
    reads_spec reads;
    /* ---- pictures; source: the reference's processor of the family. All are pure. ---- */
    const char *placeholder;   /* what the chat template writes for a picture; NULL: image_token's spelling */
    int32_t placeholder_id;    /* or the token that it writes; 0: none */
    int32_t open_id, close_id; /* tokens around a picture's rows, for write_image */
    /* Where the config names no image_token: what the processor adds to a tokenizer that lacks it. NULL: nothing. */
    const char *added_token;
    bool needs_picture; /* the reference takes no prompt without */
    int max_pictures;   /* of a prompt; 0: any number */
    /* A prompt's pictures stand before all of its text, BOS included; the template writes nothing for them. */
    bool pictures_in_front;
    bool no_place;     /* FUSE_CROSS: pictures have no token in the prompt; each of its rows sees them */
    int32_t barred_id; /* its rows would be hidden from others, which is not implemented; -1: none */
    bool bos_behind_pictures;  /* the processor puts BOS behind the last picture */
    const char *prompt_end;    /* and this behind the prompt; NULL: nothing */
    const char *chat_template; /* where a checkpoint brings none; NULL: none */
    /* The tiles that a picture becomes; NULL: by prep alone. Ends with prep_plan_finish. */
    bool (*plan_image)(const struct model_spec *s, const image_ask *a, const image_limits *lim,
                       prep_plan *out, status *st);
    /* Rows of the result for a planned picture; 0: a size that the tower does not take. FUSE_CROSS: of keys and values. */
    int (*image_rows)(const struct model_spec *s, const prep_plan *p);
    /* What replaces the placeholder; rows add up to image_rows. NULL: all of its rows in one run; FUSE_CROSS: one. */
    void (*write_image)(const struct model_spec *s, const prep_plan *p, image_text *out);
    /* How the rows of the result are made of those that the join gave, tile by tile (behind the last one stands
     * S_NEWLINE's vector where there is one): fills rows[image_rows]. NULL: they are the same. */
    void (*pack)(const struct model_spec *s, const prep_plan *p, pack_row *rows);
    int (*arrangement)(const struct model_spec *s,
                       const prep_plan *p); /* tower_together: which of 1 .. arrangements */
    bool newline;                           /* the join brings a vector for ends of lines */
    int pack_limit; /* packing resamples a picture of more tiles' worth of rows than this; 0: never */
    both_ways both_ways;
    int span_rows; /* of the longest such span; 0: as long as the context */
    /* generation_config.json's defaults for a request; NaN / -1 where it says nothing */
    float temperature, top_p, min_p, repetition_penalty;
    int top_k, max_new_tokens;
} model_spec;

/* FUSE_CROSS: keys and values of a picture's row, of all layers that attend to them. Else the decoder's width. */
int spec_image_width(const model_spec *s);
/* FUSE_CROSS: rows in front that hold the picture itself; those behind stand for tiles that it does not have. */
int spec_image_seen(const model_spec *s, const prep_plan *p);

/* plan_image, or its default. n_text is that of the longest text. */
bool spec_plan_image(const model_spec *s, const image_ask *a, const image_limits *lim, prep_plan *out,
                     status *st);
/* write_image, or its default. */
void spec_write_image(const model_spec *s, const prep_plan *p, image_text *out);
/* image_rows of a model that takes one tile of tower.image_size squared; pack NULL. */
int spec_rows_of_square(const model_spec *s, const prep_plan *p);
/* Rows that the join gives for a tile; 0: a size that the tower does not take. */
int spec_rows_of_tile(const model_spec *s, const tile *t);
/* image_rows of a model whose rows are those of all tiles in turn. */
int spec_rows_of_tiles(const model_spec *s, const prep_plan *p);

#endif
