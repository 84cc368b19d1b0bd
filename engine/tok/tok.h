/* tok.h - tokenizer.json: text to ids and back, equal to the Hugging Face tokenizers library.
 *
 * A tok is read-only after tok_load: any number of threads may encode and decode with one. Text is UTF-8;
 * bytes that are not are taken as U+FFFD, as Python's errors="replace" would have made them. Source:
 * huggingface/tokenizers (the pipeline normalizer, pre_tokenizer, model, post_processor, decoder). */
#ifndef VLMD_ENGINE_TOK_H
#define VLMD_ENGINE_TOK_H

#include <jansson.h>

#include "kernels/base.h"

typedef struct tok tok;

/* path: a tokenizer.json, or the folder that holds it. Errors: ST_NOT_FOUND, ST_INVALID (what is malformed),
 * ST_UNSUPPORTED (a component that is not built, by its name). */
tok *tok_load(const char *path, status *st);
/* The same from a tokenizer.json that is read already; j is not kept. */
tok *tok_from_json(const json_t *j, status *st);
void tok_free(tok *t);

typedef struct tok_ids { /* a growing list of ids; zero-initialise, tok_ids_fini frees */
    int32_t *v;
    size_t n, cap;
} tok_ids;
bool tok_ids_push(tok_ids *ids, int32_t id); /* false: no memory */
void tok_ids_fini(tok_ids *ids);

/* A stretch [begin, end) of bytes that came from a user: no token with special=true matches text that
 * overlaps it (added tokens with special=false do). Spans are sorted and do not overlap. */
typedef struct tok_span {
    size_t begin, end;
} tok_span;

/* Appends the ids of text[0..n) to out. add_special: also what the post-processor adds (BOS, EOS). */
bool tok_encode(const tok *t, const char *text, size_t n, const tok_span *user, size_t n_user,
                bool add_special, tok_ids *out, status *st);

/* The same, with at most max_ids ids: the text's own are cut at its end until what the post-processor adds has room,
 * so CLIP's end token stays (the library's truncation, direction right). ST_INVALID: there is no room for that alone. */
bool tok_encode_max(const tok *t, const char *text, size_t n, const tok_span *user, size_t n_user,
                    bool add_special, size_t max_ids, tok_ids *out, status *st);

/* Appends the text of ids to out; valid UTF-8. skip_special drops tokens with special=true. Ids outside the
 * vocabulary give nothing. Equal to the library's decode(ids, skip_special_tokens). */
bool tok_decode(const tok *t, const int32_t *ids, size_t n, bool skip_special, buf *out, status *st);

/* Decodes one id after another; the texts joined equal tok_decode of all ids, and no piece ends inside a
 * character. Constant work a token (it does not decode from the start again). */
typedef struct tok_stream tok_stream;
tok_stream *tok_stream_new(const tok *t, bool skip_special);
void tok_stream_free(tok_stream *s);
bool tok_stream_push(tok_stream *s, int32_t id, buf *out); /* appends what has become certain */
bool tok_stream_end(tok_stream *s, buf *out);              /* appends what was held back */

/* The bytes that id stands for inside a text (a byte token is one byte, a space marker a space), for log-prob
 * entries. Appends to out; nothing for an id outside the vocabulary. */
bool tok_id_bytes(const tok *t, int32_t id, buf *out);

size_t tok_size(const tok *t);                       /* 1 + the largest id */
int32_t tok_find(const tok *t, const char *token);   /* the id of a vocabulary or added token, or -1 */
const char *tok_id_string(const tok *t, int32_t id); /* as in the vocabulary (undecoded), or NULL */
bool tok_is_special(const tok *t, int32_t id);
/* The pad_id of the file's "padding", or -1 without one. Encoding never pads or cuts by itself, whatever "padding" and
 * "truncation" say: a caller that wants rows of one length appends this, or the id of tokenizer_config.json's
 * pad_token, which counts before it in the reference. */
int32_t tok_pad_id(const tok *t);
/* After loading, before the tok is shared: no user's text matches this added token either, as if it had
 * special=true (a picture placeholder need not have it). Decoding does not change. False: no added token has this
 * id. */
bool tok_guard(tok *t, int32_t id);

#endif
