/* embed.h - inputs of a job that wants vectors: texts as rows of ids, pictures, and the vectors as they come.
 *
 * Made on an HTTP thread, from then on its job's (seq.h): read by picture workers, written by the engine's thread. Owner:
 * whoever holds it; embed_free gives back all but the bytes that its pictures point to. Source: the reference library's
 * processors (truncation keeps what the tokenizer puts behind a text; SigLIP's texts are padded, see spec.h) and text
 * towers (which row stands for a text). Tested by tests/engine/test_embed.c. */
#ifndef VLMD_ENGINE_EMBED_H
#define VLMD_ENGINE_EMBED_H

#include "engine/prompt.h"

typedef struct embed_item {
    int image; /* of the prompt's pictures; -1: a text */
    int from, n,
        pick; /* a text: its ids [from, from + n) of the prompt's, padding included, and the row that stands for it */
    bool have; /* its vector is there; the engine's thread */
} embed_item;

struct embed {
    prompt *prompt; /* ids of all texts, one behind the other, and pictures; NULL once a job has it */
    embed_item *items;
    int n_items, width;
    int n_tokens; /* of texts without padding, and rows of the tower for pictures */
    bool raw;
    int priority;
    /* the engine's thread */
    float *vectors; /* [n_items, width] */
    int n_left;     /* items without a vector */
    int next;       /* no text before this one waits for a step */
};

/* Fills k->embed for a dual encoder. tokenizer_config may be NULL. Errors: settings that are not implemented. */
bool embed_rules_read(promptkit *k, const json_t *tokenizer_config, status *st);

/* Errors: those of engine_embed_new. */
embed *embed_new(const promptkit *k, const engine_embed_input *in, int n, const engine_embed_options *o,
                 status *st);

/* The next text that waits for a step, or NULL. */
embed_item *embed_next_text(embed *x);
/* Takes a vector as a tower gave it, and normalises it unless it is to stay raw. False: it holds numbers that are not
 * finite. */
bool embed_take(embed *x, embed_item *it, const float *vector);

#endif
