/* chat_request.h - the body of a chat completion, checked field by field.
 *
 * chat_request_parse lifts the pictures, parses the JSON and fills engine_chat and engine_params; whatever is
 * wrong is named with OpenAI's path of the field. Fields that vlmd has not built are refused unless they ask
 * for nothing; unknown names are reported to `unknown` and otherwise ignored. Threads: one (an HTTP thread).
 * Memory: the request owns everything but the body, whose bytes the pictures stay in. Tested by
 * tests/server/test_chat_request.c, fuzzed by tests/fuzz/fuzz_request.c. */
#ifndef VLMD_SERVER_CHAT_REQUEST_H
#define VLMD_SERVER_CHAT_REQUEST_H

#include "engine/engine.h"
#include "server/body_scan.h"

enum {
    CHAT_MAX_STOPS = 64,
    CHAT_MAX_STOP_BYTES = 16 << 10, /* of all stop strings together */
    CHAT_MAX_STOP_IDS = 256,
    /* JSON text for a token: escaped characters take up to 12 bytes, and tokens of more than five are rare. */
    CHAT_TOKEN_BYTES = 64,
    CHAT_MIN_TEXT_BYTES = 1 << 20 /* what any model takes: other fields need room, too */
};

typedef struct chat_context {
    engine_params defaults;
    int vocab_size, max_model_len;
    void (*unknown)(void *arg, const char *name); /* may be NULL */
    void *arg;
} chat_context;

typedef struct chat_request {
    engine_chat chat;     /* points into the rest */
    engine_params params; /* likewise */
    const char *model;    /* NULL: left out */
    bool stream, include_usage, logprobs, return_token_ids;
    const char *max_tokens_name; /* the field that set params.max_tokens */
    /* owned */
    json_t *root;
    json_t *kept; /* URLs that were not lifted, taken out of root */
    body_scan scan;
    engine_image *images;
    char (*image_params)[64];
    int cap_images;
    const char **stops;
    int32_t *stop_ids, *bias_ids;
    float *bias;
} chat_request;

/* Changes the body in place. chat_request_fini may be called after any result. */
bool chat_request_parse(chat_request *r, char *body, size_t n, const chat_context *ctx, status *st);
void chat_request_fini(chat_request *r);

/* Refuses JSON text, its pictures lifted, that no prompt of max_model_len tokens could come from: what parses it takes
 * many times its size. ST_INVALID. */
bool chat_request_text_fits(const body_scan *scan, int max_model_len, status *st);

/* The messages alone, for /tokenize: r->root, r->scan are set by the caller; fills r->chat. */
bool chat_request_messages(chat_request *r, status *st);

#endif
