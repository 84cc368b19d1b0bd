/* encode.h - one picture on its way through tower and join: what tower.c, join.c and encode.c share.
 *
 * Internal to engine/model. Thread: the engine's. An encode owns its activations on the device, so that any number of
 * pictures can stand half done while decode steps use the scratch; scratch is touched within one slice only, and how much
 * does not depend on the picture. */
#ifndef VLMD_ENGINE_MODEL_ENCODE_H
#define VLMD_ENGINE_MODEL_ENCODE_H

#include "engine/model/impl.h"

typedef struct grid {
    int w, h; /* patches of a tile, across and down */
} grid;

struct encode {
    const model *m;
    backend *be;
    prep_plan plan;
    int next; /* slice to run: each tile's patches, layers and join, tile by tile; then the packing of rows */
    void *work;        /* all but the rows; given back by encode_shrink */
    void *result;      /* f32 [rows, text width] */
    tensor pixels;     /* u8, all tiles */
    tensor x, q, k, v; /* hidden rows and a layer's q, k, v of the tile under way; room for the largest */
    tensor features;   /* what the join reads, likewise */
    tensor ids;        /* i32: the tile's index arrays, see tower.c */
    grid ids_of;       /* the grid that ids describes; w 0: none yet */
    tensor joined;     /* f32 [join rows of all tiles, and the newline's], or the result itself */
    tensor from, by;   /* [rows, SPEC_PACK_TAPS] how the result is packed; nd 0: it is `joined` */
    tensor rows;
};

/* ---- tower.c: one tile ---- */

grid tower_grid(const tower_spec *t, const tile *i);
/* Rows of the tower for a grid before any is dropped: the patches, and CLS. */
int tower_rows(const tower_spec *t, grid g);
int tower_ids_count(const tower_spec *t, grid g); /* of i32 in `ids` */
int tower_slices(const tower_spec *t, grid g);
/* Slice i of tile `at`, whose features are complete after the last. */
void tower_slice(ctx *c, encode *e, const tile *at, int i);

/* ---- bucket.c: where patch i of n in a line stands in a table of `side` places ---- */

int bucket_of(int i, int n, int side);

/* ---- join.c: a tile's features to rows of the decoder's width ---- */

int join_rows(const model_spec *s, grid g);
int join_slices(const model_spec *s, grid g);
void join_slice(ctx *c, const model *m, grid g, tensor features, tensor out, int i);

#endif
