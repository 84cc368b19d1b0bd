/* embed_run.h - a dual encoder's device side of a turn: memory planned at start, one step of texts, a slice of a picture.
 *
 * As runner.h for a decoder. A step holds whole texts, each a sequence of its own. Nothing is allocated on the device after
 * embed_run_init but the buffers of pictures. Threads: made by engine_new's caller, then the engine's. Owner: the engine.
 * Tested by tests/e2e/test_embeddings.py. */
#ifndef VLMD_ENGINE_EMBED_RUN_H
#define VLMD_ENGINE_EMBED_RUN_H

#include "engine/embed.h"
#include "engine/model/dual.h"

typedef struct embed_run {
    backend *be;
    const model *model;
    int width, max_rows;
    int n_rows, n_texts; /* of the step that is being filled */
    /* host, as struct step names them; all in `host`, and the same layout in `dev` on the device */
    int32_t *host, *ids, *pos, *q_start, *kv_len, *out_rows, *dev;
    float *vectors; /* [n_texts, width] after a step */
    arena scratch;
    ctx c;
} embed_run;

/* Device memory that embed_run_init will take, by dry runs. */
bool embed_run_measure(backend *be, const model *m, int max_rows, size_t *bytes, status *st);
/* max_rows: at least those of the longest text. Errors: ST_NO_MEMORY; what the dry run found. After a failure nothing is
 * owned. */
bool embed_run_init(embed_run *r, backend *be, const model *m, int max_rows, status *st);
void embed_run_fini(embed_run *r);

void embed_run_clear(embed_run *r);
/* False, and nothing added, when its rows do not fit any more. ids: [it->n] */
bool embed_run_add(embed_run *r, const embed_item *it, const int32_t *ids);
/* Vectors of the texts that were added, in their order. */
bool embed_run_step(embed_run *r, status *st);
/* One slice more of a picture and those that go with it. True: their rows are ready. False with st set: it failed. */
bool embed_run_slice(embed_run *r, encode *e, status *st);
bool embed_run_row(embed_run *r, const encode *e, float *vector, status *st); /* of a picture that is ready */

#endif
