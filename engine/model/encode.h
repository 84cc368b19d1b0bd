/* encode.h - pictures on their way through tower and join: what tower.c, join.c, lot.c and encode.c share.
 *
 * Internal to engine/model. Thread: the engine's. Pictures under way own their activations on the device, so that any number of
 * them can stand half done while decode steps use the scratch; scratch is touched within one slice only, and how much
 * does not depend on the picture.
 *
 * What a picture has for itself is its encode: pixels, its rows. What goes through the tower is a lot of one or several of them.
 * Their tiles, picture by picture, are one list; a pass takes so many neighbours of one grid as fit into a block of rows through
 * the tower side by side, each a sequence of its own, and likewise through the join. All ops are row-exact, so neither who is in
 * the lot nor how large a block is changes a bit. */
#ifndef VLMD_ENGINE_MODEL_ENCODE_H
#define VLMD_ENGINE_MODEL_ENCODE_H

#include "engine/model/impl.h"

typedef struct grid {
    int w, h; /* patches of a tile, across and down */
} grid;

typedef struct encode_lot encode_lot;

/* What a tile's rows in a join see in the attention that is their own, and in the one beside it (stack_spec.beside). */
typedef enum join_keys { KEYS_OWN, KEYS_BESIDE, JOIN_KEYS } join_keys;

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
    tensor sets;     /* f32 [1 + deep sets, rows each, text width] as rows: the result */
    tensor rows;     /* the first of them */
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
    /* what the join keeps of a pass between its slices, see join_room; nd 0: not kept */
    tensor join_x, join_q, context, join_ids, join_k[JOIN_KEYS], join_v[JOIN_KEYS];
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
/* i32 {0, 1}, {rows of a tile} and each tile's first row on the device, of the pass whose slices have begun. */
tensor tower_one(const encode_lot *l, const pass *p);
tensor tower_len(const encode_lot *l, const pass *p);
tensor tower_firsts(const encode_lot *l, const pass *p);
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

/* ---- join_room.c: what a join keeps of a pass between its slices; who sees what ---- */

/* So many rows, pages and words; 0: none. */
typedef struct join_room {
    int64_t own;              /* join_x [own, stack.width], join_q [own, H*hd]: all latents, then all texts */
    int64_t context;          /* context [context, stack.width]: of the tiles' features */
    int64_t pages[JOIN_KEYS]; /* join_k and join_v [pages, K, KV_PAGE_TOK, hd] */
    int64_t ids;              /* of i32 in join_ids */
} join_room;
join_room join_room_of(const encode_lot *l, const pass *p);
/* Lays it out from `at` on (NULL: shapes alone). Returns how many bytes, a multiple of 64. */
size_t join_room_point(encode_lot *l, const join_room *r, void *at);
/* Fills join_ids. */
void join_ids_upload(ctx *c, const encode_lot *l, const pass *p);

/* Rows of a pass, tile by tile: features; learned latents; the texts that are read. */
typedef enum join_part { PART_TILE, PART_LATENTS, PART_TEXT, JOIN_PARTS } join_part;
int join_latents(const join_spec *j); /* rows of a tile's latents */
int64_t join_part_rows(const encode_lot *l, const pass *p, join_part part);
int join_part_blocks(const encode_lot *l, const pass *p, join_part part);
/* A block of latents or texts. */
typedef struct join_block {
    join_part part;
    row_span rows; /* among those of the part */
    int first, n;  /* tiles whose rows are in it */
    int64_t skip;  /* rows of the first one that stand before it */
    int start;     /* words of the part's q_start before its own */
} join_block;
join_block join_block_at(const encode_lot *l, const pass *p, join_part part, int i);
/* Its rows in one of join_x and join_q. */
tensor join_own(const encode_lot *l, const pass *p, const join_block *b, tensor all);
/* i32 [rows]: each row's number among its tile's: of a latent in the table, of a text's position. */
tensor join_which(const encode_lot *l, const pass *p, const join_block *b);
/* Attention of its rows to keys of their tiles, but the scale. */
layer_run join_sees(const encode_lot *l, const pass *p, const join_block *b, join_keys keys);
/* Where rows s of a part have their keys and values: pages and slots. */
layer_run join_writes(const encode_lot *l, const pass *p, join_part part, row_span s);
/* Of a join that pools: what rows s are mixed from, among the features of all tiles: i32 and f32 [n, pool * pool]. */
void join_taps(const encode_lot *l, const pass *p, row_span s, tensor *from, tensor *by);

/* ---- join_layers.c: the joins of latents or texts that attend to tiles layer by layer ---- */

int join_layers_slices(const encode_lot *l, const pass *p);
void join_layers_slice(ctx *c, const encode_lot *l, const pass *p, int i);
/* Keys and values in a layer of rows s of x, which stand for the tiles' features. */
void join_tile_keys(ctx *c, const encode_lot *l, const pass *p, int layer, tensor x, row_span s);

/* ---- attend.c: the join of learned latents that attend once ---- */

int attend_slices(const encode_lot *l, const pass *p);
void attend_slice(ctx *c, const encode_lot *l, const pass *p, int i);

/* ---- dual.c: the head of a dual encoder, which makes one row of each picture ---- */

int dual_picture_slices(const encode_lot *l, const pass *p);
void dual_picture_slice(ctx *c, const encode_lot *l, const pass *p, int i);

/* ---- join.c: a tile's features to rows of the decoder's width ---- */

/* Of one tile; n_text: its plan's */
int join_rows(const model_spec *s, grid g, int n_text);
/* Of a join that pools: patches and weights of each of its rows, [join_rows, pool * pool]. */
void join_pool_taps(const join_spec *j, grid g, int32_t *from, float *by);
/* For rows s of a pass, as they come out of the join, [n, join.out]: where they belong, or scratch. join_put brings them there,
 * wherever they were computed; what becomes keys and values (FUSE_CROSS) is led through those matrices. set: of each picture, -1:
 * its `joined`. */
tensor join_out(ctx *c, const encode_lot *l, const pass *p, int set, row_span s);
void join_put(ctx *c, const encode_lot *l, const pass *p, int set, row_span s, tensor y);
/* Of the features of a pass. */
int join_slices(const encode_lot *l, const pass *p);
void join_slice(ctx *c, encode_lot *l, const pass *p, int i);
/* Of the rows of set `set`, from the hidden rows through a join of its own. */
int join_deep_slices(const encode_lot *l, const pass *p);
void join_deep_slice(ctx *c, encode_lot *l, const pass *p, int set, int i);

#endif
