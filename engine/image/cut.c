/* cut.c - plans of pictures that become several tiles: which grid, which sizes, in which order. The rules are data of the
 * image processor (prep_cut); whose they are is engine/families' business.
 *
 * Thread: HTTP threads. Owns nothing. Divisions and roundings are the library's, in double precision and in its order.
 * Source: transformers 5.23 image_processing_utils.py (select_best_resolution, get_patch_output_size) and the Pillow
 * classes of LLaVA-NeXT and LLaVA-OneVision (points), GOT-OCR 2 (ratio), Idefics3 and SmolVLM (edge).
 * Tested by tests/engine/image/test_cut.c over sizes from the reference. */
#include <math.h>
#include <string.h>

#include "engine/image/tiles.h"

static bool fail_size(int w, int h, status *st) {
    return status_set(st, ST_INVALID, "a picture has %dx%d pixels", w, h);
}

static prep_step *add_tiles(prep_plan *p, int from, int w, int h, int columns, int rows, const prep_spec *s) {
    prep_step *t = prep_plan_add(p, from, 0, 0, w, h, columns * s->cut.side, rows * s->cut.side, s->filter);
    t->tw = t->th = s->cut.side;
    return t;
}

/* ---- the best of a list of sizes ---- */

/* The one that keeps most of the picture's pixels and then wastes least; the first of equals. */
static const struct prep_point *best_point(const prep_cut *c, double w, double h) {
    const struct prep_point *best = NULL;
    double most = 0, least_waste = INFINITY;
    for (const struct prep_point *p = c->points; p < c->points + c->n_points; p++) {
        double sw = p->w / w, sh = p->h / h, scale = sh < sw ? sh : sw;
        double kept = floor(w * scale) * floor(h * scale);
        if (w * h < kept) kept = w * h;
        double waste = (double)p->w * p->h - kept;
        if (kept > most || (kept == most && waste < least_waste)) {
            most = kept;
            least_waste = waste;
            best = p;
        }
    }
    return best;
}

static int side_within(double side, double scale, int most) {
    double v = ceil(side * scale);
    return v < most ? (int)v : most;
}

static void plan_points(const prep_spec *s, int w, int h, prep_plan *out) {
    const struct prep_point *best = best_point(&s->cut, w, h);
    double sw = (double)best->w / w, sh = (double)best->h / h;
    bool wide = sw < sh;
    int rw = wide ? best->w : side_within(w, sh, best->w);
    int rh = wide ? side_within(h, sw, best->h) : best->h;
    add_tiles(out, -1, w, h, 1, 1, s);
    prep_step *t = prep_plan_add(out, -1, 0, 0, w, h, rw, rh, s->filter);
    t->cx = -((best->w - rw) / 2);
    t->cy = -((best->h - rh) / 2);
    t->cw = best->w;
    t->ch = best->h;
    t->tw = t->th = s->cut.side;
}

/* ---- the grid of the nearest ratio ---- */

/* By rising number of tiles, then columns. Of equally near ones the larger wins, while its area is less than twice the
 * picture's. */
static void nearest_grid(const prep_cut *c, double w, double h, int *columns, int *rows) {
    double ratio = w / h, least = INFINITY;
    *columns = *rows = 1;
    for (int n = c->min_tiles; n <= c->max_tiles; n++)
        for (int x = 1; x <= n; x++) {
            if (n % x) continue;
            int y = n / x;
            double off = fabs(ratio - (double)x / y);
            if (off < least || (off == least && w * h > 0.5 * c->side * c->side * x * y)) {
                least = off;
                *columns = x;
                *rows = y;
            }
        }
}

static void plan_ratio(const prep_spec *s, int w, int h, prep_plan *out) {
    int columns = 1, rows = 1;
    if (s->cut.max_tiles > 1) nearest_grid(&s->cut, w, h, &columns, &rows);
    add_tiles(out, -1, w, h, columns, rows, s);
    if (columns * rows > 1) add_tiles(out, -1, w, h, 1, 1, s);
}

/* ---- by the longest edge ---- */

/* No picture is scaled beyond this. */
enum { EDGE_MAX = 4096 };

/* The short side of a picture whose long one becomes `edge`; ratio is long to short. */
static double short_side(double edge, double ratio, bool wide) {
    return floor(wide ? edge / ratio : edge * ratio);
}

static void scale_by_edge(double edge, double *w, double *h) {
    double ratio = *w / *h;
    bool wide = *w >= *h;
    double *lng = wide ? w : h, *shrt = wide ? h : w;
    *lng = edge;
    *shrt = short_side(edge, ratio, wide);
    if (fmod(*shrt, 2) != 0) *shrt += 1;
    if (*shrt < 1) *shrt = 1;
    if (edge <= EDGE_MAX) return;
    ratio = *w / *h;
    wide = *w >= *h;
    lng = wide ? w : h, shrt = wide ? h : w;
    *lng = EDGE_MAX;
    *shrt = short_side(EDGE_MAX, ratio, wide);
    if (*shrt < 1) *shrt = 1;
}

static int whole_tiles(double length, int side) {
    return (int)ceil(length / side);
}

static void plan_edge(const prep_spec *s, int w, int h, prep_plan *out) {
    double rw = w, rh = h;
    int side = s->cut.side, from = -1;
    if (s->size == PREP_SIZE_LONGEST) scale_by_edge(s->size_w, &rw, &rh);
    if (s->size == PREP_SIZE_EXACT) rw = s->size_w, rh = s->size_h;
    if (s->size != PREP_SIZE_NONE) {
        prep_step *scaled = prep_plan_add(out, -1, 0, 0, w, h, (int)rw, (int)rh, s->filter);
        scaled->tw = scaled->th = 0;
        from = 0;
    }
    int columns = 1, rows = 1;
    if (!s->cut.whole_only) {
        double ratio = rw / rh;
        bool wide = rw >= rh;
        int lng = whole_tiles(wide ? rw : rh, side);
        int shrt = whole_tiles(short_side((double)lng * side, ratio, wide), side);
        columns = wide ? lng : shrt;
        rows = wide ? shrt : lng;
    }
    add_tiles(out, from, (int)rw, (int)rh, columns, rows, s);
    if (columns * rows > 1) add_tiles(out, from + 1, columns * side, rows * side, 1, 1, s);
}

/* ---- quarters ---- */

static void add_scaled(const prep_spec *s, int x, int y, int w, int h, prep_plan *out) {
    int rw = w, rh = h, least = s->size_w, most = s->size_h;
    double ratio = (double)w / h;
    if (s->size == PREP_SIZE_EXACT) {
        rw = s->size_w;
        rh = s->size_h;
    } else if (s->size == PREP_SIZE_SHORTEST) {
        if (w >= h && w > most) {
            rw = most;
            rh = (int)(rw / ratio);
        } else if (h > w && h > most) {
            rh = most;
            rw = (int)(rh * ratio);
        }
        rw = rw > least ? rw : least;
        rh = rh > least ? rh : least;
    }
    prep_plan_add(out, -1, x, y, w, h, rw, rh, s->filter);
}

static void plan_quarters(const prep_spec *s, int w, int h, prep_plan *out) {
    int mw = w / 2, mh = h / 2;
    for (int i = 0; i < 4 && !s->cut.whole_only; i++)
        add_scaled(s, i % 2 ? mw : 0, i / 2 ? mh : 0, i % 2 ? w - mw : mw, i / 2 ? h - mh : mh, out);
    add_scaled(s, 0, 0, w, h, out);
}

bool prep_plan_cut(const prep_spec *s, int w, int h, const image_limits *lim, prep_plan *out, status *st) {
    if (s->cut.kind == PREP_CUT_NONE) return prep_plan_one(s, w, h, lim, out, st);
    memset(out, 0, sizeof *out);
    if (w < 1 || h < 1) return fail_size(w, h, st);
    switch (s->cut.kind) {
    case PREP_CUT_POINTS: plan_points(s, w, h, out); break;
    case PREP_CUT_RATIO: plan_ratio(s, w, h, out); break;
    case PREP_CUT_QUARTERS: plan_quarters(s, w, h, out); break;
    case PREP_CUT_EDGE: plan_edge(s, w, h, out); break;
    case PREP_CUT_NONE: break;
    }
    return prep_plan_finish(out, w, h, lim, st);
}

void prep_plan_grid(const prep_plan *p, int *columns, int *rows) {
    *columns = *rows = 1;
    for (int i = 0; i < p->n_steps; i++) {
        const prep_step *s = &p->steps[i];
        if (s->tw && s->cw / s->tw * (s->ch / s->th) > 1) {
            *columns = s->cw / s->tw;
            *rows = s->ch / s->th;
        }
    }
}
