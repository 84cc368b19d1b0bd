/* rx.h - the regular expressions of tokenizer.json: Oniguruma's Ruby syntax, run by PCRE2.
 *
 * A pattern is parsed here; every literal, class and property becomes a set of code points of the library's
 * Unicode. Code points that no set tells apart form a class (at most 256), text is recoded to one byte a
 * character, and PCRE2 matches plain bytes: no Unicode version but ours takes part, and a huge class costs as
 * little as [a-z]. Not built (ST_UNSUPPORTED, by name): back-references, conditions, \X \y, absent operators,
 * folds of (?i) to several characters (ss for U+00DF). An rx is read-only after rx_new; an rx_work belongs to
 * one thread. Tested by tests/engine/tok/test_rx.c against what the library matched. */
#ifndef VLMD_ENGINE_TOK_RX_H
#define VLMD_ENGINE_TOK_RX_H

#include "kernels/base.h"

typedef struct rx rx;
/* ST_INVALID: malformed; ST_UNSUPPORTED: see above. literal: pattern is plain text. */
rx *rx_new(const char *pattern, size_t n, bool literal, status *st);
void rx_free(rx *r);

typedef struct rx_match { /* bytes [begin, end) of the text; may be empty */
    size_t begin, end;
} rx_match;
/* Working memory of matching; zero-initialise, keep for many calls, rx_work_fini frees. */
typedef struct rx_work {
    rx_match *v; /* the matches of the last rx_find */
    size_t n, cap;
    void *match_data, *context, *stack; /* PCRE2's */
    uint8_t *codes;
    size_t codes_cap;
    double spent_s; /* in slow searches, over all calls */
} rx_work;
void rx_work_fini(rx_work *w);

/* All matches in UTF-8 text, as the library's find_iter gives them, into w->v. ST_INVALID when the pattern
 * needs unreasonable work on this text. */
bool rx_find(const rx *r, rx_work *w, const char *text, size_t n, status *st);

#endif
