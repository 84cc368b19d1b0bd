/* seen.h - FUSE_CROSS: which rows of pictures the rows of a sequence see, and the runs of a step's rows that see the same.
 *
 * A row sees the pictures of the last group before it (a group: picture tokens next to each other; within one, those up to
 * itself). Rows before all pictures see all of them, with what pads each picture to its full number of tiles. Where no
 * picture has a place among the rows, every row sees all of them. The keys and values of one picture are read where its encode left them; those of several lie in a copy of the sequence's own, the rows
 * that hold something of all pictures first, so that what a row sees is always in one piece.
 * Threads: the engine's. Owner: the sequence, of its copy; the batch, of the runs. Source: transformers'
 * processing_mllama.py (get_cross_attention_token_mask) and modeling_mllama.py (_prepare_cross_attention_mask).
 * Tested by tests/engine/sched/test_seen.c and tests/e2e/test_parity.py. */
#ifndef VLMD_ENGINE_SEEN_H
#define VLMD_ENGINE_SEEN_H

#include "engine/seq.h"

typedef struct seen {
    int from, n; /* rows of all pictures of the sequence, as they lie */
    bool past;   /* a picture stands before the row */
} seen;

/* What a row sees of a prompt whose picture i has images[i].all rows, images[i].hold of which hold something of it. */
seen seen_by(const prompt *p, const seq_image *images, int row);

/* Once all pictures are encoded and before the first row runs: makes the copy of a sequence with several. Errors in c. */
void seen_prepare(ctx *c, const model_spec *spec, seq *s);
void seen_drop(seq *s, backend *be);

/* ---- runs of a step ---- */

typedef struct seen_runs {
    struct step_cross *v;   /* [max_rows] */
    int n, max_rows, width; /* of the rows that are seen; 0: there are none */
    int32_t *host, *dev;    /* of run r: {0, its rows}, {rows it sees}, 4 numbers apart */
    backend *be;
} seen_runs;

/* be NULL: host side only. Errors: ST_NO_MEMORY. After a failure nothing is owned. */
bool seen_runs_init(seen_runs *r, backend *be, int max_rows, int width, status *st);
void seen_runs_fini(seen_runs *r);
/* Rows [from, to) of s, which are rows row0 .. of the step; none where s has no pictures. */
void seen_runs_add(seen_runs *r, const seq *s, int from, int to, int row0);
/* Rows [0, n) of a step without sequences of its own see all of `rows`, f32 [m, width]. */
void seen_runs_add_blank(seen_runs *r, tensor rows, int n);
void seen_runs_upload(seen_runs *r, ctx *c);
/* One run of rows, without data: for a dry run. */
void seen_runs_describe(seen_runs *r, int rows);

#endif
