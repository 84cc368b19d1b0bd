/* runner.h - the device's side of a turn: memory planned at start, one step of the decoder, a slice of an
 * encode.
 *
 * Nothing is allocated on the device after runner_init but the buffers of pictures.
 * Threads: made by engine_new's caller, then the engine's. Owner: the engine.
 * Tested by tests/engine/sched. */
#ifndef VLMD_ENGINE_RUNNER_H
#define VLMD_ENGINE_RUNNER_H

#include "engine/batch.h"

typedef struct runner_options {
    int max_rows, max_seqs; /* of a step */
    int max_len;            /* tokens of a sequence */
    int n_pages;            /* of the KV cache, page 0 included */
} runner_options;

typedef struct runner {
    backend *be;
    const model *model;
    kv_cache kv;
    batch batch;
    arena scratch; /* activations; base is device memory */
    ctx c;
    sample_row *rows;       /* [max_seqs] how to choose from the logits of the step, set by the caller */
    sample_result *results; /* [max_seqs] */
} runner;

/* Device bytes of a runner without its KV pages. */
typedef struct runner_needs {
    size_t activation_bytes, step_bytes;
} runner_needs;
/* By dry runs of a model that may have been opened only, with any n_pages; the backend hears what work memory ops want. */
bool runner_measure(backend *be, const model *m, const runner_options *o, runner_needs *out, status *st);

/* Measures a step of the largest shape and a picture's encode by dry runs, then takes all memory. Errors:
 * ST_NO_MEMORY (how much what wanted); what the dry run found. After a failure nothing is owned. */
bool runner_init(runner *r, backend *be, const model *m, const runner_options *o, status *st);
void runner_fini(runner *r);

/* Runs what r->batch holds and fills results[0, n_out) by rows[0, n_out). Keys and values are written;
 * running the same step again writes the same. */
bool runner_step(runner *r, status *st);

/* seen_prepare: a sequence whose pictures stand apart, all of them encoded. */
bool runner_prepare_seen(runner *r, seq *s, status *st);

/* Runs one slice more of a picture. True: its rows are ready. False with st set: it failed. */
bool runner_encode(runner *r, encode *e, status *st);

#endif
