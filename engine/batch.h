/* batch.h - one step's rows: filled on the host sequence by sequence, then sent to the device in one copy. Where each array
 * lies there depends on the step's shape alone, so that a step can be captured once and replayed.
 *
 * Threads: the engine's. Owner: the runner. Tested by tests/engine/sched/test_batch.c. */
#ifndef VLMD_ENGINE_BATCH_H
#define VLMD_ENGINE_BATCH_H

#include "engine/seen.h"

typedef struct batch {
    int max_rows, max_seqs, max_pages; /* max_pages: of one sequence */
    int axes;                          /* positions of a row */
    int rope_from;                     /* text_spec's; the caller's to set, 0 at first */
    int block_rows, max_blocks;        /* a step of more rows than block_rows runs in blocks of so many */
    int n_rows, n_seqs, n_out, n_splices;
    size_t n_list_words, max_list_words; /* of the rules' lists */
    /* host, as struct step names them; all in `host` */
    int32_t *host, *ids, *pos, *rope_len, *slots, *q_start, *kv_len, *pages, *out_rows, *limit;
    int32_t *from;     /* [max_rows] the result of the step before that is the row's id; -1: ids has it */
    sample_row *rules; /* [max_seqs] how to choose from the logits of each wanted row */
    row_run *splices;  /* [max_rows] */
    struct step_source *sources; /* of each */
    struct step_block *blocks;   /* [max_blocks] */
    bool spans;                  /* rows have limits */
    seen_runs cross;             /* of sequences whose pictures stand apart */
    backend *be;
    int32_t *dev; /* one step as batch_pack lays it out; NULL for be NULL */
} batch;

/* What of a step its caller passes on: the rest of it is in the same block. */
typedef struct batch_step {
    step s;
    tensor from;  /* i32 [N] */
    tensor rules; /* i32 words, for op_sample */
} batch_step;

/* One pass takes block_rows; span_rows more fit into a step (0: nothing attends both ways), so that a span always does.
 * axes: as rope_spec has it. max_list_words: room for the rules' lists of one step. be NULL: host side only. Errors: ST_NO_MEMORY. After a failure
 * nothing is owned. */
bool batch_init(batch *b, backend *be, int block_rows, int span_rows, int max_seqs, int max_pages, int axes,
                size_t max_list_words, status *st);
/* Makes room for sequences whose pictures stand apart. */
bool batch_init_cross(batch *b, int width, status *st); /* width: of their rows, spec_image_width */
void batch_fini(batch *b);
size_t batch_bytes(const batch *b); /* of the largest step: what batch_pack may write */

void batch_clear(batch *b);
/* Adds rows [s->n_done, s->n_done + n) of s, whose pages are there and whose pictures are encoded; no span may be cut
 * at their end. The last row's logits are wanted when it is the last one that s has: then true, and they are row n_out - 1 of the logits. False, and nothing
 * added, when the lists of its rule find no room: *fits. */
bool batch_add(batch *b, const seq *s, int n, bool *fits);
/* One row for each sequence, all of them wanted and none that has to do with pictures: a step that can be captured. */
static inline bool batch_only_decodes(const batch *b) {
    return b->n_rows > 0 && b->n_rows == b->n_seqs && b->n_rows == b->n_out && b->n_splices == 0 &&
           b->cross.n == 0;
}
/* Adds rows that write nothing and whose results nobody reads, on page 0: sequences of `each` rows until there are
 * n_seqs. */
void batch_pad(batch *b, int n_seqs, int each);
/* Writes the step to `to`; returns how many bytes. */
size_t batch_pack(const batch *b, int32_t *to);
/* Sends what pack leaves out: which pictures rows see that stand apart. */
void batch_upload_cross(batch *b, ctx *c);
/* The step as the device will have it; points into b. */
void batch_describe(const batch *b, batch_step *out);
/* The largest step of a kind, without data: what a dry run measures. One row a sequence; one pass; in blocks. */
typedef enum batch_kind { BATCH_DECODES, BATCH_ONE_PASS, BATCH_BLOCKS } batch_kind;
void batch_describe_largest(batch *b, batch_kind kind, batch_step *out);

#endif
