/* batch.h - one step's rows: filled on the host sequence by sequence, then uploaded to device arrays whose
 * addresses never change, so that a step can be captured once and replayed.
 *
 * Threads: the engine's. Owner: the runner. Tested by tests/engine/sched/test_batch.c. */
#ifndef VLMD_ENGINE_BATCH_H
#define VLMD_ENGINE_BATCH_H

#include "engine/seen.h"

typedef struct batch {
    int max_rows, max_seqs, max_pages; /* max_pages: of one sequence */
    int axes;                          /* positions of a row */
    int block_rows, max_blocks;        /* a step of more rows than block_rows runs in blocks of so many */
    int n_rows, n_seqs, n_out, n_splices;
    /* host, as struct step names them; all in `host`. block_start, block_len: of each block, max_seqs + 1 and max_seqs */
    int32_t *host, *ids, *pos, *rope_len, *slots, *q_start, *kv_len, *pages, *out_rows, *limit, *block_start,
        *block_len;
    struct step_splice *splices; /* [max_rows] */
    struct step_block *blocks;   /* [max_blocks] */
    bool spans;                  /* rows have limits */
    seen_runs cross;             /* of sequences whose pictures stand apart */
    backend *be;
    int32_t *dev; /* the same layout on the device; NULL for be NULL */
} batch;

/* One pass takes block_rows; span_rows more fit into a step (0: nothing attends both ways), so that a span always does.
 * axes: as rope_spec has it. be NULL: host side only. Errors: ST_NO_MEMORY. After a failure nothing is owned. */
bool batch_init(batch *b, backend *be, int block_rows, int span_rows, int max_seqs, int max_pages, int axes,
                status *st);
/* Makes room for sequences whose pictures stand apart. */
bool batch_init_cross(batch *b, int width, status *st); /* width: of their rows, spec_image_width */
void batch_fini(batch *b);

void batch_clear(batch *b);
/* Adds rows [s->n_done, s->n_done + n) of s, whose pages are there and whose pictures are encoded; no span may be
 * cut at their end. The last row's logits are wanted when it is the last one that s has: then true, and they are row
 * n_out - 1 of the logits. */
bool batch_add(batch *b, const seq *s, int n);
/* Uploads what was added and describes it in out, which points into b. */
void batch_upload(batch *b, ctx *c, step *out);
/* The largest step of a kind, without data: what a dry run measures. One row a sequence; one pass; in blocks. */
typedef enum batch_kind { BATCH_DECODES, BATCH_ONE_PASS, BATCH_BLOCKS } batch_kind;
void batch_describe_largest(batch *b, batch_kind kind, step *out);
size_t batch_bytes(const batch *b); /* of the device */

#endif
