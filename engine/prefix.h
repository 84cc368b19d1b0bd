/* prefix.h - what a KV page is known by: a chain of SHA-256 over all that its rows depend on.
 *
 * key(page) = H(key of the page before, the rows of this page); a row of text enters by its id, a picture's row by
 * the picture's content key and its place within the picture. The chain begins with a root over what every row
 * sees outside its own past. So equal keys mean equal keys and values, bit for bit. Keys never leave the process.
 * Threads: pure functions. Owner: nothing. Tested by tests/engine/sched/test_prefix.c. */
#ifndef VLMD_ENGINE_PREFIX_H
#define VLMD_ENGINE_PREFIX_H

#include "engine/prompt.h"
#include "kernels/ops.h"

typedef struct page_key {
    uint8_t h[32];
} page_key;

/* blob: everything that rows see besides their past, serialised without ambiguity; n 0: nothing. */
void prefix_root(page_key *out, const void *blob, size_t n);
/* Rows [row0, end) of p, which must be there, behind parent; out may be parent. */
void prefix_rows(page_key *out, const page_key *parent, const prompt *p, int row0, int end);
/* The same of one page, rows [row0, row0 + KV_PAGE_TOK). */
void prefix_next(page_key *out, const page_key *parent, const prompt *p, int row0);

#endif
