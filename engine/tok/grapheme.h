/* grapheme.h - user-perceived characters: where a text may be cut between them.
 *
 * Source: Unicode Standard Annex #29, extended grapheme clusters, with the properties of the library's tables (sets
 * "gb..." of unicode_tables.c). A map is read-only after grapheme_init. Tested by tests/engine/tok/test_tok.c. */
#ifndef VLMD_ENGINE_TOK_GRAPHEME_H
#define VLMD_ENGINE_TOK_GRAPHEME_H

#include "engine/tok/uset.h"

bool grapheme_init(cpmap *m, status *st); /* cpmap_fini frees */
/* The length in bytes of the grapheme that valid UTF-8 s[0..n) begins with; n > 0. */
size_t grapheme_next(const cpmap *m, const char *s, size_t n);

#endif
