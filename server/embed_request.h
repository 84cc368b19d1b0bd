/* embed_request.h - the bodies of /v1/embeddings and /v1/zero-shot, checked field by field.
 *
 * One input is one text or one picture:
 *   "text"                                  [1, 2, 3] (token ids)
 *   {"text": "..."}                         {"type": "text", "text": "..."}
 *   {"image": "data:..."}                   {"type": "image_url", "image_url": "data:..." or {"url": "data:..."}}
 *   {"content": "..." or [one part]}        a message's content, as "messages" has it, too
 * Whatever is wrong is named with the path of its field; unknown names are reported to `unknown` and otherwise ignored.
 * Threads: one (an HTTP thread). Memory: the request owns everything but the body, whose bytes the pictures stay in.
 * Tested by tests/server/test_embed_request.c. */
#ifndef VLMD_SERVER_EMBED_REQUEST_H
#define VLMD_SERVER_EMBED_REQUEST_H

#include "engine/engine.h"
#include "server/body_scan.h"

enum {
    EMBED_MAX_INPUTS = 2048,       /* as OpenAI's */
    EMBED_MAX_TEXT_BYTES = 4 << 20 /* of JSON besides pictures: parsed it takes many times its size */
};

typedef struct embed_context {
    int width, vocab_size;                        /* of the model */
    void (*unknown)(void *arg, const char *name); /* may be NULL */
    void *arg;
} embed_context;

typedef struct embed_request {
    engine_embed_input *in; /* zero-shot: the picture, then its labels as texts */
    int n;
    engine_embed_options o;
    const char *model; /* NULL: left out */
    bool base64;
    const json_t *labels; /* zero-shot: of strings */
    /* owned */
    json_t *root;
    body_scan scan;
    engine_image *images;
    char (*params)[64];
    int32_t *ids;
    size_t n_ids;
    char *texts; /* zero-shot: labels in their template, one behind the other */
    int cap;
} embed_request;

/* Changes the body in place. embed_request_fini may be called after any result. */
bool embed_request_parse(embed_request *r, char *body, size_t n, const embed_context *ctx, status *st);
bool zero_shot_request_parse(embed_request *r, char *body, size_t n, const embed_context *ctx, status *st);
void embed_request_fini(embed_request *r);

#endif
