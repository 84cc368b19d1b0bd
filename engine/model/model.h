/* model.h - a loaded checkpoint and its forward passes. Only the engine's thread runs them; the model itself is
 * read-only after model_load. No tensor's bytes are touched here except through ops and uploads.
 * Tested by tests/engine/model (against goldens of the reference library) and tests/e2e/test_parity.py. */
#ifndef VLMD_ENGINE_MODEL_MODEL_H
#define VLMD_ENGINE_MODEL_MODEL_H

#include "engine/model/spec.h"

typedef struct model model;

/* dir: a Hugging Face folder. Weights stay mmapped. Errors say which file, which tensor, expected and found. */
model *model_load(const char *dir, backend *be, status *st);
/* model_load in two steps: a model that was only opened does for dry runs; a device with memory of its own has none of its
 * bytes before model_upload, and how many that will be model_device_bytes says (0: the mapped ones do). */
model *model_open(const char *dir, backend *be, status *st);
bool model_upload(model *m, status *st);
size_t model_device_bytes(const model *m);
void model_free(model *m); /* before its backend */
const model_spec *model_get_spec(const model *m);
size_t model_weight_bytes(const model *m);
dtype model_weight_dtype(const model *m); /* of the decoder's matrices */
/* The text of `vlmd inspect`: architecture, tensors with shapes and dtypes, ignored ones, memory, picture tokens. */
bool model_inspect(const char *dir, buf *out, status *st);

/* ---- decoder ----------------------------------------------------------------------------------------------- */

/* The paged KV cache's memory, one pair of pools a layer, owned by engine/kv. f32 [P, K, KV_PAGE_TOK, hd]. */
typedef struct kv_pool {
    int n_layers, n_pages;
    tensor *k, *v;
} kv_pool;

/* One step's rows, ragged: sequence s owns rows q_start[s] .. q_start[s+1]-1. All tensors are device i32. */
typedef struct step {
    int n_rows, n_seqs, n_out;
    tensor ids;      /* [N]; -1: the row comes from a splice */
    tensor pos;      /* [N], or [N, axes] where the decoder's rope has several */
    tensor rope_len; /* [N] the length the reference had when it ran this row: max(prompt length, pos + 1) */
    tensor slots;    /* [N] where k and v go; -1: nowhere */
    tensor q_start;  /* [S+1] */
    tensor kv_len;   /* [S] keys of s after this step's rows are written */
    tensor pages;    /* [S, max pages of a sequence] */
    tensor out_rows; /* [n_out] rows whose logits are wanted */
    tensor
        limit; /* [N] the row sees keys before this one, its span's; 0: those up to its own. nd 0: no spans */
    /* More rows than one pass takes: each layer first keeps the keys and values of all, then goes on, both in blocks of
     * block_rows. Block b describes its rows of each sequence as q_start and kv_len do for all. n_blocks 0: one pass. */
    int n_blocks, block_rows;
    const struct step_block { tensor q_start, kv_len; } * blocks;
    /* FUSE_CROSS: runs of rows that see the same rows of pictures, in rising order; rows of sequences without pictures are in
     * none. */
    int n_cross;
    const struct step_cross {
        int row, n;
        tensor rows;            /* f32 [m, spec_image_width] */
        tensor q_start, kv_len; /* {0, n}, {m} */
        bool past; /* a picture lies behind them; rows before all pictures skip the layers' feed-forward */
    } * cross;
    int n_splices;
    const row_run *splices; /* rows of an encoded picture, [n, width]: the batch's rows from `row` on */
    const struct
        step_source { /* where each of them is from: `from` on in each of the picture's sets; NULL: one set */
        const struct encode *picture;
        int from;
    } * sources;
} step;

/* Logits f32 [n_out, vocab] in c->scratch. Row-exact. In dry mode it measures. */
tensor decoder_forward(ctx *c, const model *m, const kv_pool *kv, const step *s);

/* ---- pictures: tower and join, resumable within a layer -------------------------------------------------------- */

typedef struct encode encode;
/* Whether a tile of w x h pixels is what the tower was made for. */
bool tower_takes(const tower_spec *t, int w, int h);
/* Device bytes that the encode of a picture of this plan holds between its slices, its result included. */
size_t encode_bytes(const model_spec *s, const prep_plan *plan);
/* Starts an encode of prepared pixels and the text that is read with them, which are copied. Owns its buffers until encode_free. pixels->rgb NULL: holds no
 * buffers, for measuring under a dry ctx what scratch encode_run takes for any picture, however many go together. */
encode *encode_new(const model *m, backend *be, const tiles *pixels, status *st);
/* n >= 1 encodes that go through the tower together, out[n]; bit for bit what each would be alone. The slices of one are those
 * of all: whichever is given to encode_run, all go on, and all are ready at the same time. Once one is shrunk or freed, none
 * may run. Together they hold no more than encode_bytes of each. False: none is there. */
bool encode_new_many(const model *m, backend *be, const tiles *const *pixels, int n, encode **out,
                     status *st);
/* Tiles that could go through the tower beside those of a picture of plan p in the same time or little more; 0: none. */
int encode_room_beside(const model_spec *s, const prep_plan *p);
/* Whether a picture's tiles are such as could: of the same grid as p's. */
bool encode_goes_beside(const model_spec *s, const prep_plan *p, const prep_plan *other);
/* Runs at most max_slices further slices; true when the rows are ready. A slice is a block of rows (backend_encode_rows)
 * through the patch embedding, through half a layer, or through the join; stopping anywhere changes no bit. Errors: in
 * c. */
bool encode_run(ctx *c, encode *e, int max_slices);
int encode_slices(const encode *e); /* how many slices a whole encode takes */
const prep_plan *encode_plan(const encode *e);
tensor encode_rows(const encode *e);          /* f32 [n, text width], once encode_run returned true */
tensor encode_deep(const encode *e, int set); /* those that are added behind layer `set` of the decoder */
/* Gives back all but the rows (what a finished picture keeps until its sequence ends). */
void encode_shrink(encode *e);
size_t encode_kept_bytes(const encode *e); /* of all sets of rows */
void encode_free(encode *e);
/* Runs blank pictures of every kind of pass that there is, whose buffers take at most room bytes at a time; once: just one
 * picture of each kind of tile. Waits. Returns how many encodes. Errors: in c. */
int encode_warm(ctx *c, const model *m, size_t room, bool once);

#endif
