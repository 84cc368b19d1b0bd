/* tiles.h - from one decoded picture to the tiles that a tower reads, as data: a list of steps, each of which takes a box
 * of the picture (or of an earlier step's canvas), resizes it, stands it on a canvas and cuts that into tiles.
 *
 * A plan is made from the picture's size alone, before anything is decoded. Threads: pure; plans are made on HTTP
 * threads, tiles on picture workers. Owner: whoever holds a `tiles` frees it with tiles_fini; a plan owns nothing.
 * Errors: ST_TOO_LARGE over the limit of pixels, ST_INVALID for a side of 0, ST_NO_MEMORY.
 * Tested by tests/engine/image/test_prep.c (against the reference's image processors) and test_tiles.c. */
#ifndef VLMD_ENGINE_IMAGE_TILES_H
#define VLMD_ENGINE_IMAGE_TILES_H

#include "engine/image/image.h"

enum { PREP_MAX_STEPS = 20 };

typedef struct prep_step {
    int from;       /* -1: the picture; else the canvas of an earlier step */
    int x, y, w, h; /* box of that: within it, or around all of it (what lies outside is pad_rgb) */
    int rw, rh;     /* the box is resized to */
    resample filter;
    int cx, cy, cw, ch; /* canvas: this box of the resized one; what lies outside of that is 0 */
    int tw, th; /* the canvas is cut into tiles of this size, row by row; 0: it is only a source of others */
    uint8_t pad_rgb[3];
} prep_step;

typedef struct prep_plan {
    int n_steps, n_tiles;
    int n_text; /* ids of a text that are read with the picture (model_spec.reads); before it is known, the most there
                    can be */
    size_t bytes; /* of all tiles' pixels */
    prep_step steps[PREP_MAX_STEPS];
} prep_plan;

typedef struct tile {
    int w, h;  /* pixels */
    size_t at; /* byte in tiles.rgb */
} tile;

/* For who writes a plan: the step that resizes box [x, x+w) x [y, y+h) of `from` to rw x rh, which is its one tile. */
prep_step *prep_plan_add(prep_plan *p, int from, int x, int y, int w, int h, int rw, int rh, resample filter);
/* Counts tiles and bytes, checks every step; a plan is ready after this. */
bool prep_plan_finish(prep_plan *p, int w, int h, const image_limits *lim, status *st);
/* The plan of a picture of w x h under one processor's settings: a single tile. */
bool prep_plan_one(const prep_spec *s, int w, int h, const image_limits *lim, prep_plan *out, status *st);
/* The same, in tiles where s->cut says so (cut.c). */
bool prep_plan_cut(const prep_spec *s, int w, int h, const image_limits *lim, prep_plan *out, status *st);
/* The step that is cut into several tiles, or whose one tile is the last: its grid. */
void prep_plan_grid(const prep_plan *p, int *columns, int *rows);

tile prep_plan_tile(const prep_plan *p, int i);
/* Bytes of tiles that were made: pixels and text. */
size_t prep_plan_bytes(const prep_plan *p);
/* Upper bound of what tiles_make allocates for a picture of w x h, the picture and the tiles not counted. */
size_t prep_work_bytes(const prep_plan *p, int w, int h);

typedef struct
    tiles { /* 8-bit RGB: the tiles of the plan one after the other, each row-major without padding */
    prep_plan plan;
    uint8_t *rgb;  /* owned; NULL: none */
    int32_t *text; /* [plan.n_text], owned; NULL: none, or not known */
} tiles;
/* in is not changed and has the size that the plan was made for; out has no text. */
bool tiles_make(const prep_plan *p, const image *in, tiles *out, status *st);
void tiles_fini(tiles *t);

#endif
