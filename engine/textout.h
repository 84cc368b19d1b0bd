/* textout.h - from the ids of one answer to its text: detokenises, finds stop strings, holds back what is
 * undecided, and makes the token entries of an event.
 *
 * Threads: one at a time (made where the request is submitted, then the engine's thread). Owner: the sequence
 * embeds it. Stop strings are found in the decoded text, wherever token boundaries lie, by one automaton over
 * all of them (Aho and Corasick 1975): the work is proportional to the text, whatever the number of stop
 * strings. The stop string whose end comes first wins; of those that end together, the longest. The text ends
 * in front of it. Tested by tests/engine/test_textout.c. */
#ifndef VLMD_ENGINE_TEXTOUT_H
#define VLMD_ENGINE_TEXTOUT_H

#include "engine/engine.h"
#include "engine/tok/tok.h"
#include "kernels/ops.h"

enum { TEXTOUT_MAX_STOP_BYTES = 256 * 1024 }; /* of all stop strings of a request together */

typedef struct textout_node {   /* one state: a prefix of some stop string */
    uint32_t child, n_children; /* children lie together, sorted by byte */
    uint32_t fail;              /* the longest proper suffix that is a prefix too */
    uint32_t depth;             /* length of the prefix in bytes */
    uint32_t match;             /* length of the longest stop string that ends here, 0: none */
    uint8_t byte;
} textout_node;

typedef struct textout {
    const tok *tok;
    tok_stream *stream;
    textout_node *nodes; /* NULL: no stop strings */
    uint32_t n_nodes, state;
    int min_tokens, n_tokens;
    bool stopped;
    buf held;  /* decoded and undecided: the prefix that state stands for is its end */
    buf piece; /* the text of the last piece */
    buf bytes; /* the bytes of the last piece's token entries */
    engine_token token;
} textout;

typedef struct textout_piece { /* owns nothing: valid until the next call on the same textout */
    const char *text;          /* decided text, whole characters; never NULL, n_text may be 0 */
    size_t n_text;
    const engine_token *tokens; /* one entry a pushed token; none from textout_end */
    int n_tokens;
    bool stopped; /* a stop string ended the answer: FINISH_STOP, push no more */
} textout_piece;

/* Reads p->stop and p->min_tokens (a stop string counts only if it ends after the first min_tokens tokens). t
 * must outlive the textout. Errors: ST_INVALID (an empty stop string or one that is not UTF-8), ST_TOO_LARGE
 * (over TEXTOUT_MAX_STOP_BYTES), both with param "stop"; ST_NO_MEMORY. After a failure nothing is owned. */
bool textout_init(textout *o, const tok *t, const engine_params *p, status *st);
void textout_fini(textout *o);

/* One chosen token. is_stop_token: it ends the answer and has an entry, but no text; call textout_end next.
 * The entry's bytes are what the token adds to the text: none for a special token, which the text leaves out.
 * False: no memory. */
bool textout_push(textout *o, const sample_result *r, bool is_stop_token, textout_piece *out);

/* The answer is over for another reason than a stop string: gives the text that was held back (after a stop
 * string: nothing). What the decoder gives last may itself complete a stop string. False: no memory. */
bool textout_end(textout *o, textout_piece *out);

#endif
