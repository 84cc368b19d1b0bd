/* encode.h - pictures on their way through tower and join: what tower.c, join.c, lot.c and encode.c share.
 *
 * Internal to engine/model. Thread: the engine's. Pictures under way own their activations on the device, so that any number of
 * them can stand half done while decode steps use the scratch; scratch is touched within one slice only, and how much
 * does not depend on the picture.
 *
 * What a picture has for itself is its encode: pixels, what its join keeps, its rows. What goes through the tower is a lot of
 * one or several of them. Their tiles, picture by picture, are one list; a pass takes so many neighbours of one grid as fit into
 * a block of rows through the tower side by side, each a sequence of its own, and then through the join. All ops are row-exact,
 * so neither who is in the lot nor how large a block is changes a bit. */
#ifndef VLMD_ENGINE_MODEL_ENCODE_H
#define VLMD_ENGINE_MODEL_ENCODE_H

#include "engine/model/impl.h"

typedef struct grid {
    int w, h; /* patches of a tile, across and down */
} grid;

typedef struct encode_lot encode_lot;

struct encode {
    const model *m;
    backend *be;
    prep_plan plan;
    encode_lot *lot; /* NULL: it is over */
    void *work;      /* all but the rows; given back by encode_shrink */
    void *result;    /* `sets` */
    tensor pixels;   /* u8, all tiles */
    tensor text;     /* i32: ids that are read with the picture; nd 0: none */
    tensor joined;   /* f32 [join rows of all tiles, and the newline's], or `rows` itself */
    tensor from, by; /* [rows, SPEC_PACK_TAPS] how the result is packed; nd 0: it is `joined` */
    /* what the join keeps between its slices, see join_room; nd 0: not kept */
    tensor join_x, join_q, join_k, join_v, beside_k, beside_v, context, join_ids, pool_from, pool_by;
    tensor sets; /* f32 [1 + deep sets, rows each, text width] as rows: the result */
    tensor rows; /* the first of them */
};

/* Neighbours in the list of a lot's tiles: tile `tile` of picture `picture` is the first. Where all tiles of a picture are one
 * sequence (tower_together), a pass is a picture, and counts as one tile. */
typedef struct pass {
    int picture, tile, n;
    grid g;
} pass;

struct encode_lot {
    const model *m;
    const model_spec *s; /* m's */
    model *measured;     /* m is this one, owned: see encode.c */
    backend *be;
    encode **all;  /* [n] */
    int n, n_left; /* so many of them have not left it; the last frees it */
    int n_slices,
        next; /* of all passes; the one to run, which goes on behind them with the packing of each picture's rows */
    pass at;    /* the pass under way, */
    int begins; /* its first slice */
    void *work;
    tensor x, q, k, v; /* hidden rows and a layer's q, k, v of a pass; room for the largest */
    tensor features;   /* what the join reads, likewise, or x itself */
    tensor ids;        /* i32: index arrays, see tower.c */
    grid ids_of;       /* what they describe: this grid (w 0: none yet), */
    int ids_tiles;     /* so many tiles */
};

/* ---- lot.c: passes, memory of what is shared, slices in order ---- */

/* The pass behind p (n 0: the first); false: there is none, and p->picture is l->n. */
bool pass_next(const encode_lot *l, pass *p);
/* Tile i of a pass: whose it is, and where its joined rows begin. */
typedef struct lot_tile {
    encode *e;
    tile at;
    int64_t joined;
} lot_tile;
lot_tile lot_tile_at(const encode_lot *l, const pass *p, int i);
/* Bytes of `work`, by s and the plans of all. No more for several pictures than for each of them alone, added up. */
size_t lot_bytes(const encode_lot *l);
/* Makes it ready to run: tensors at l->work (NULL: shapes alone), slices. */
void lot_lay_out(encode_lot *l);
void lot_slice(ctx *c, encode_lot *l); /* the next, of n_slices */

/* ---- tower.c: tiles of one grid ---- */

grid tower_grid(const tower_spec *t, const tile *i);
/* Rows of the tower for a grid before any is dropped: the patches, and CLS. */
int tower_rows(const tower_spec *t, grid g);
int tower_ids_count(const tower_spec *t, grid g, int n_tiles); /* of i32 in `ids` */
/* Slices until the hidden rows are those behind layer `state` (0: those before the first); all: of run_layers. */
int tower_slices_until(const tower_spec *t, grid g, int n_tiles, int state);
int tower_slices(const tower_spec *t, grid g, int n_tiles);
/* Slice i of a pass, whose features are complete after the last. */
void tower_slice(ctx *c, encode_lot *l, const pass *p, int i);
/* The join reads the hidden rows themselves. */
bool tower_hidden_is_feature(const tower_spec *t);
/* i32 {0, 1} and {tower_rows} on the device, of the pass whose slices have begun. */
tensor tower_one(const encode_lot *l, const pass *p);
tensor tower_len(const encode_lot *l, const pass *p);
/* Patches of a tile in the given order, normalised, to out[n, 3 * patch * patch]. */
void tower_patchify(ctx *c, const encode *e, const tile *at, tensor order, tensor out);
/* Rows [from, from + n) of tile `number` of a pass after layer `state` (0: before the first), where a feature is made of them;
 * of `rows` rows of a tile that are kept. */
void tower_keep_features(ctx *c, encode_lot *l, int number, int state, int64_t from, int64_t n, int64_t rows);

/* ---- tower_tiled.c: all tiles of a picture together ---- */

#define TILED_NORM_EPS 1e-5f /* torch's own, whatever the config says of the layers' */
int tiled_rows(const tower_spec *t, grid g);
int tiled_ids_count(const tower_spec *t, grid g);
int tiled_slices(const tower_spec *t, grid g, int n_tiles);
void tiled_slice(ctx *c, encode_lot *l, const pass *p, int i);

/* ---- blocks.c: a pass's rows in the blocks that its slices work on, tiles and windows whole or each by itself ---- */

/* So many of block_rows, the last one of what is left. */
static inline int blocks_even(const tower_spec *t, int64_t rows) {
    return (int)((rows + t->block_rows - 1) / t->block_rows);
}
typedef struct row_span {
    int64_t from, n;
} row_span;
/* The i-th of them. */
static inline row_span blocks_span(const tower_spec *t, int64_t rows, int i) {
    int64_t from = (int64_t)i * t->block_rows, left = rows - from;
    return (row_span){from, left < t->block_rows ? left : t->block_rows};
}
/* Tiles of a grid that fit into one block together, at least 1: what a pass has at most. */
int blocks_tiles(const tower_spec *t, grid g);

typedef struct tower_block {
    int from, n;       /* rows */
    int tiles;         /* whose they are, all of them whole if there are several */
    int see_from, see; /* with windows: the rows that they see in a layer that has them, */
    int n_windows,
        windows; /* as so many sequences, the first of which is this window, counted tile by tile */
    int ids;     /* words of ids before this block's */
} tower_block;
/* Of as many tiles as fit into a block, or of one. */
int blocks_count(const tower_spec *t, grid g, int n_tiles);
tower_block blocks_at(const tower_spec *t, grid g, int n_tiles, int i);
int blocks_ids(const tower_spec *t, grid g, int n_tiles); /* words of all blocks */
void blocks_fill(const tower_spec *t, grid g, int n_tiles, int32_t *ids);
/* A block's sequences in a layer that sees whole tiles, or windows: words of ids before q_start[n + 1] and kv_len[n]. */
typedef struct tower_seqs {
    int n, start, len;
} tower_seqs;
tower_seqs blocks_seqs(const tower_block *b, bool windows);
/* order[i]: which cell of k x k patches, counted line by line, stands i-th: window by window. */
void blocks_order(const tower_spec *t, int k, grid g, int32_t *order);

/* ---- corners.c: a square table of positions for another grid, corner on corner ---- */

enum { CORNER_TAPS = 4 };
/* The taps of the patch at (x, y). */
void corners_taps(int side, grid g, int x, int y, int32_t from[CORNER_TAPS], float by[CORNER_TAPS]);

/* ---- bucket.c: where patch i of n in a line stands in a table of `side` places ---- */

int bucket_of(int i, int n, int side);

/* ---- resample.c: a square table of positions for another grid ---- */

/* Places of a table of side x side that a place of the grid is a mixture of, at most. */
int resample_taps(int side, grid g);
/* Which they are and how much of each, for places line by line: [g.w * g.h, taps]. Source: torch's upsample_bilinear2d
 * with antialias. */
void resample_table(int side, grid g, int32_t *from, float *by);

/* ---- join_room.c: what a join keeps between its slices ---- */

/* So many rows of each; 0: none. Each join's file says what it needs for the largest tile's features and the plan's n_text. */
typedef struct join_room {
    int64_t own; /* join_x [own, stack.width], and with queries join_q [own, H*hd] */
    bool queries;
    int64_t keys, beside; /* join_k and join_v [keys, K*hd]; beside_k and beside_v [beside, K*hd] */
    int64_t context;      /* context [context, stack.width] */
    int64_t ids;          /* of i32 in join_ids, [1, ids] */
    int64_t taps, tap_of; /* pool_from and pool_by [taps, tap_of]: join_pool_taps of tiles of one size */
} join_room;
/* features_rows: of the tile that has most. A multiple of 64 bytes; at: so many, or NULL, where there is nothing but shapes. */
size_t join_room_bytes(const model_spec *s, const prep_plan *p, int64_t features_rows);
void join_room_point(encode *e, void *at, int64_t features_rows);
/* n of join_ids. */
tensor join_ids_at(const encode *e, int64_t from, int64_t n);
/* Fills join_ids: 0, 1, ... n - 1, then those in behind. */
void join_ids_upload(ctx *c, const encode *e, int n, const int32_t *behind, int n_behind);
/* Words and positions of the text that the join reads, rows s of it, to x. */
void join_read(ctx *c, const encode *e, row_span s, tensor x);
/* What stands in it from the beginning. */
void join_room_upload(ctx *c, const encode *e);

/* ---- perceiver.c: the join of learned latents; rows: of the tile's features ---- */

join_room perceiver_room(const join_spec *j, int64_t rows);
int perceiver_slices(const model_spec *s, int64_t rows);
void perceiver_slice(ctx *c, const encode *e, tensor features, tensor out, int i);

/* ---- qformer.c: the join of queries that attend to a tile beside each other and a text; rows: of the tile's features ---- */

join_room qformer_room(const join_spec *j, int64_t rows, int n_text);
int qformer_slices(const model_spec *s, int rows, int n_text);
void qformer_slice(ctx *c, const encode *e, tensor features, tensor out, int i);

/* ---- reader.c: the join of a text that attends to the tile; out: keys and values of its rows (cross_keep) ---- */

join_room reader_room(const join_spec *j, int64_t rows, int n_text);
int reader_slices(const model_spec *s, int64_t rows, int n_text);
void reader_slice(ctx *c, const encode *e, tensor features, tensor out, int i);

/* ---- attend.c: the join of learned latents that attend once ---- */

join_room attend_room(const join_spec *j, int64_t rows);
int attend_rows(const join_spec *j);
int attend_slices(const model_spec *s, int64_t rows);
void attend_slice(ctx *c, const encode *e, tensor features, tensor out, int i);

/* ---- join.c: a tile's features to rows of the decoder's width ---- */

/* Of one tile; n_text: its plan's */
int join_rows(const model_spec *s, grid g, int n_text);
/* Of a join that pools: patches and weights of each of its rows, [join_rows, pool * pool]. */
void join_pool_taps(const join_spec *j, grid g, int32_t *from, float *by);
/* Of the features of a pass. */
int join_slices(const encode_lot *l, const pass *p);
void join_slice(ctx *c, encode_lot *l, const pass *p, int i);
/* Of the rows of set `set`, from the hidden rows through a join of its own. */
int join_deep_slices(const encode_lot *l, const pass *p);
void join_deep_slice(ctx *c, encode_lot *l, const pass *p, int set, int i);

#endif
