/* batch.h - one step's rows: filled on the host sequence by sequence, then uploaded to device arrays whose
 * addresses never change, so that a step can be captured once and replayed.
 *
 * Threads: the engine's. Owner: the runner. Tested by tests/engine/sched/test_batch.c. */
#ifndef VLMD_ENGINE_BATCH_H
#define VLMD_ENGINE_BATCH_H

#include "engine/seq.h"

typedef struct batch {
    int max_rows, max_seqs, max_pages; /* max_pages: of one sequence */
    int axes;                          /* positions of a row */
    int n_rows, n_seqs, n_out, n_splices;
    /* host, as struct step names them; all in `host` */
    int32_t *host, *ids, *pos, *rope_len, *slots, *q_start, *kv_len, *pages, *out_rows;
    struct step_splice *splices; /* [max_rows] */
    backend *be;
    int32_t *dev; /* the same layout on the device; NULL for be NULL */
} batch;

/* axes: as rope_spec has it. be NULL: host side only. Errors: ST_NO_MEMORY. After a failure nothing is owned. */
bool batch_init(batch *b, backend *be, int max_rows, int max_seqs, int max_pages, int axes, status *st);
void batch_fini(batch *b);

void batch_clear(batch *b);
/* Adds rows [s->n_done, s->n_done + n) of s, whose pages are there and whose pictures are encoded. The last
 * row's logits are wanted when it is the last one that s has: then true, and they are row n_out - 1 of the
 * logits. */
bool batch_add(batch *b, const seq *s, int n);
/* Uploads what was added and describes it in out, which points into b. */
void batch_upload(batch *b, ctx *c, step *out);
/* The largest step, or the largest of one row a sequence, without data: what a dry run measures. */
void batch_describe_largest(const batch *b, bool decodes, step *out);
size_t batch_bytes(const batch *b); /* of the device */

#endif
