/* prompt.h - from chat messages to ids and pictures (engine-internal side of engine.h's prompt).
 *
 * Threads: promptkit_load from one thread, afterwards the kit is read-only; prompt_new_chat on HTTP threads;
 * prompt_decode_image on a picture worker; afterwards the engine's thread owns the prompt. Owner: prompt_free gives back all
 * but the bytes that the sources point to. Source: transformers' ProcessorMixin.apply_chat_template and
 * LlavaProcessor; vLLM for lists of parts in a template that takes strings. Covering tests:
 * tests/engine/test_prompt.c, tests/e2e. */
#ifndef VLMD_ENGINE_PROMPT_H
#define VLMD_ENGINE_PROMPT_H

#include "engine/engine.h"
#include "engine/image/key.h"
#include "engine/model/spec.h"
#include "engine/tmpl/tmpl.h"
#include "engine/tok/tok.h"

/* What a prompt needs to know of a loaded checkpoint; read-only, shared by all threads, owned by the engine. */
typedef struct promptkit {
    const model_spec *spec;
    tok *tok;
    tok *read_tok; /* of text that is read with pictures: tok, or one of its own; NULL: there is none */
    tmpl *tmpl;    /* NULL: the checkpoint brings no chat template */
    tmpl_forms forms;
    json_t *template_vars; /* bos_token, eos_token, ... as the reference passes them */
    /* What the template writes for a picture, and the spelling of the token that stands for a row of one; NULL without
     * pictures. */
    const char *placeholder;
    char *row_token;
    int32_t image_token; /* the spec's, or that of its added_token */
    int max_model_len;
    image_limits limits;
    struct {                 /* of a dual encoder (embed.h) */
        int max_tok, pad_to; /* tokens of a text at most; to which it is padded, 0: it is not */
        int32_t pad_id;
        bool pad_left;
    } embed;
} promptkit;
/* model_dir: the files of a tokenizer (tokfiles.h), the chat template wherever find.h looks, or in template_file where that is
 * not NULL. Errors say which file. After a failure nothing is owned. */
bool promptkit_load(promptkit *k, const char *model_dir, const char *template_file, const model_spec *spec,
                    int max_model_len, const image_limits *limits, status *st);
void promptkit_fini(promptkit *k);

typedef struct prompt_image {
    image_source source; /* the caller's bytes, until decoded */
    char *param;
    image_info info;
    tiles pixels;                 /* planned, with its text; after prompt_decode_image there */
    int n_rows;                   /* rows of the decoder's context that it fills */
    size_t decode_need;           /* bytes, while it is decoded; claim.c's */
    size_t encode_bytes;          /* what its encode will hold on the device */
    size_t row_bytes;             /* of its result alone */
    uint8_t key[IMAGE_KEY_BYTES]; /* of the content */
} prompt_image;

typedef struct prompt_rows { /* rows [row, row+n) of the prompt are rows [from, from+n) of picture `image` */
    int row, n, image, from;
} prompt_rows;

typedef struct
    prompt_place { /* of a run that is a whole picture: its rows stand in a grid of `across` columns from position
                                 `first` on, and what comes behind them counts on from `next` */
    int across, first, next;
} prompt_place;

struct prompt {
    tok_ids ids;  /* placeholders expanded */
    tok_ids told; /* what was read in all, text that pictures' encodes alone read first; n 0: the ids */
    prompt_image *images;
    int n_images;
    prompt_rows *rows;    /* in rising order */
    prompt_place *places; /* [n_rows]; NULL: rows have one position */
    int n_rows;
    double resize_s; /* seconds spent resizing and cropping */
};

/* Errors: those of engine_prompt_chat. */
prompt *prompt_new_chat(const promptkit *k, const engine_chat *c, status *st);
/* Probes and plans pictures for a prompt without any. Errors name the picture's param. */
bool prompt_take_images(const promptkit *k, const engine_image *images, int n, prompt *p, status *st);
/* n_rows, encode_bytes and row_bytes of a picture by its plan. Errors: ST_INVALID, the tower does not take it. */
bool prompt_size_image(const promptkit *k, prompt_image *im, status *st);
/* The same ids, rows and pictures, without their bytes, pixels and text: for another answer to it. NULL: no memory. */
prompt *prompt_clone(const prompt *p, status *st);
/* Decodes and prepares picture i; afterwards its source is not read any more. cancelled: NULL, or a flag that
 * ends a long decode early (ST_CANCELLED). An error speaks of "the picture", so that it can be said of another prompt
 * with the same one. */
bool prompt_decode_image(const promptkit *k, prompt *p, int i, const atomic_bool *cancelled, status *st);
/* The first run of picture rows that ends behind row; n_rows: none does. */
int prompt_run_behind(const prompt *p, int row);
/* The last run's picture has so many columns and lines of rows: where they stand, and what comes behind them. */
void prompt_place_last(prompt *p, int across, int down);
/* Where row `row` of the prompt or its answer stands: a picture's rows by picture, line and column, text by the same number
 * in all three. Only where the model's rope has axes. Source: get_rope_index of Qwen2VLModel. Tested by
 * tests/engine/test_positions.c. */
void prompt_position(const prompt *p, int row, int32_t at[ROPE_MAX_AXES]);
/* Names picture i as the one that st is about. Returns false. */
bool prompt_blame_image(const prompt *p, int i, status *st);

/* The tokenizer of a folder alone, as its class has it (token_classes.h): tokenizer.json with, both optional, config.json
 * and tokenizer_config.json. For tools and for a model's second tokenizer; the caller frees it. */
tok *promptkit_tok(const char *dir, status *st);

#endif
