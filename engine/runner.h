/* runner.h - the device's side of a turn: memory planned at start, steps of the decoder, slices of an encode.
 *
 * A step is launched, and its results are asked for later: where the device works beside the host, the next one can be
 * launched before that. Steps of decode rows are padded to a bucket of sequence counts there, and each bucket's step was
 * captured at start. Nothing is allocated on the device after runner_init but the buffers of pictures.
 * Threads: made by engine_new's caller, then the engine's. Owner: the engine.
 * Tested by tests/engine/sched and test_device.c there. */
#ifndef VLMD_ENGINE_RUNNER_H
#define VLMD_ENGINE_RUNNER_H

#include "engine/batch.h"
#include "engine/idle.h"

enum { STEPS_AHEAD = 1 }; /* launched before the results of the one before are asked for */

typedef struct runner_options {
    int max_rows, max_seqs; /* of a step */
    int max_len;            /* tokens of a sequence */
    int n_pages;            /* of the KV cache, page 0 included */
    dtype kv_type;          /* what its pages are made of */
    bool no_graphs;         /* every step is launched op by op */
} runner_options;

typedef struct runner_slot { /* of a step under way */
    int32_t *staging;        /* pinned, [batch_bytes] */
    sample_result *results;  /* pinned, [max_seqs] */
    backend_mark *done;
    uint64_t work; /* idle's */
} runner_slot;

typedef struct runner_graph {
    int n_seqs;
    backend_graph *graph;
} runner_graph;

typedef struct runner {
    backend *be;
    const model *model;
    kv_cache kv;
    batch batch;
    arena scratch, picture_scratch; /* activations; base is device memory */
    ctx c, pictures;
    int32_t *results; /* device [max_seqs, SAMPLE_RESULT_WORDS]: those of the last step launched */
    runner_slot slots[STEPS_AHEAD + 1];
    int next_slot;
    runner_graph *graphs; /* [n_graphs] by n_seqs */
    int n_graphs;
    backend_mark *encoded;
    idle idle;
    bool encoding; /* slices were launched since the last mark: a work of idle's */
    uint64_t encode_work;
    size_t device_bytes; /* of all that but KV pages and work memory */
} runner;

/* Device bytes of a runner without its KV pages. */
typedef struct runner_needs {
    size_t activation_bytes, step_bytes;
    size_t graph_bytes; /* estimated: they are the driver's */
} runner_needs;
/* By dry runs of a model that may have been opened only, with any n_pages; the backend hears what work memory ops want. */
bool runner_measure(backend *be, const model *m, const runner_options *o, runner_needs *out, status *st);

/* Measures a step of the largest shape and a picture's encode by dry runs, takes all memory, and where steps can be
 * captured captures them. Errors: ST_NO_MEMORY (how much what wanted); what the dry run found. After a failure nothing is
 * owned. */
bool runner_init(runner *r, backend *be, const model *m, const runner_options *o, status *st);
void runner_fini(runner *r);

/* Launches what r->batch holds (which may be padded by it). Returns where runner_results finds it, -1: it failed. Keys and
 * values are written; running the same step again writes the same. At most STEPS_AHEAD others may be under way. */
int runner_launch(runner *r, status *st);
/* Waits for that step: its n_out results, valid until the slot's next launch. NULL: it failed. */
const sample_result *runner_results(runner *r, int slot, status *st);

/* seen_prepare: a sequence whose pictures stand apart, all of them encoded. */
bool runner_prepare_seen(runner *r, seq *s, status *st);

/* Launches one slice more of a picture and those that go with it. True: none is left, and their rows are ready once what was
 * launched is done. False with st set: it failed. */
bool runner_encode(runner *r, encode *e, status *st);
/* Marks what was launched so far; then: is all of it done? */
void runner_mark_encodes(runner *r, status *st);
bool runner_encodes_reached(const runner *r);
bool runner_wait_encodes(runner *r, status *st); /* false with st set: one of them failed */

/* Nothing is under way, and there is nothing to launch. */
void runner_rest(runner *r);

#endif
