/* reply.h - JSON text of OpenAI's reply objects, and the one place where a status becomes an HTTP status.
 *
 * Everything appends to a buf; the buf's sticky `failed` tells of missing memory. Text goes in as UTF-8 and
 * whatever is not becomes U+FFFD. Threads: any, one buf each. Tested by tests/server/test_reply.c. */
#ifndef VLMD_SERVER_REPLY_H
#define VLMD_SERVER_REPLY_H

#include "engine/engine.h"
#include "kernels/base.h"
#include "server/outbox.h"

/* "text" with quotes and escapes. */
void json_put_string(buf *b, const char *p, size_t n);
void json_put_cstring(buf *b, const char *s); /* null when s is NULL */
/* A finite number; infinities and NaN, which JSON lacks, become +-9999 and 0, as OpenAI's clients know them.
 */
void json_put_real(buf *b, double v);
/* Standard alphabet, padded (RFC 4648), without quotes. */
void reply_base64(buf *b, const void *bytes, size_t n);

/* 200 for ST_OK; the table is in kernels/base.h beside each code. */
int reply_http_status(const status *st);
/* {"error":{...}}: type and code follow from the HTTP status unless code is given. */
void reply_error(buf *b, int http, const char *message, const char *param, const char *code);
void reply_error_status(buf *b, const status *st);

/* What all objects of one reply share. All is borrowed. */
typedef struct reply_head {
    const char *id, *model;
    long created;
    bool logprobs, token_ids;
    const int32_t *prompt_ids; /* NULL: not asked for */
    size_t n_prompt_ids;
} reply_head;

const char *reply_finish_name(engine_finish f);
/* An unstreamed reply: batch holds all of each choice. */
void reply_completion(buf *b, const reply_head *h, const outbox_batch *batch, const outbox_end *end);
/* {"content":[...]} of the choice's tokens. */
void reply_logprobs(buf *b, const outbox_choice *c);
void reply_usage(buf *b, const outbox_end *end);
void reply_ids(buf *b, const int32_t *ids, size_t n);
void reply_choice_ids(buf *b, const outbox_choice *c);

#endif
