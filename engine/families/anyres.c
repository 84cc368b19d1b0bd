/* anyres.c - see anyres.h. Owns nothing. */
#include "engine/families/anyres.h"

#include <math.h>
#include <string.h>

#include "engine/image/prep_classes.h"

bool anyres_check_tower(config *c, const tower_spec *t) {
    if (t->cls == t->drop_first) return true;
    return config_fail(c, ST_UNSUPPORTED, "vision_feature_select_strategy",
                       t->cls ? "full keeps the tower's CLS row, which has no place in a grid of tiles"
                              : "default drops a patch, for the tower has no CLS row");
}

bool anyres_check_points(config *c, const char *class, const model_spec *s) {
    const prep_cut *cut = &s->prep.cut;
    const prep_cut_class *otherwise = prep_class_cut(class);
    const json_t *list = config_get(c, "image_grid_pinpoints");
    if (cut->kind != PREP_CUT_POINTS)
        return config_fail(c, ST_INVALID, "image_grid_pinpoints",
                           "the image processor's class is another, which has none");
    int n = list ? (int)json_array_size(list) : otherwise->n_points;
    bool same = n == cut->n_points;
    for (int i = 0; same && i < n; i++) {
        const json_t *e = json_array_get(list, (size_t)i);
        int64_t h = list ? json_integer_value(json_array_get(e, 0)) : otherwise->points[i][0];
        int64_t w = list ? json_integer_value(json_array_get(e, 1)) : otherwise->points[i][1];
        same = h == cut->points[i].h && w == cut->points[i].w;
    }
    if (same) return true;
    return config_fail(c, ST_INVALID, "image_grid_pinpoints",
                       "expected the image processor's list of %d, found another of %d", cut->n_points, n);
}

/* The tiles as one grid of features, the window of it that the picture fills, and what becomes of that. */
typedef struct field {
    int side, columns; /* features along a tile; tiles */
    int x, y, w, h;    /* features */
    int out_w, out_h;
} field;

/* int(round(v, 7)) */
static int whole(double v) {
    double f = floor(v);
    return (int)(v - f >= 1 - 0.5e-7 ? f + 1 : f);
}

/* Python's a // b of floats, both over 0. */
static double floor_divided(double a, double b) {
    double d = (a - fmod(a, b)) / b, f = floor(d);
    return d - f > 0.5 ? f + 1 : f;
}

/* The side of the picture in features: as many are cut off at one end as at the other, so one of the black may stay. */
static void unpad(int *from, int *n, double side, double scale) {
    int cut = (*n - whole(side * scale)) / 2;
    *from = cut;
    *n -= 2 * cut;
}

static field field_of(const model_spec *s, const prep_plan *p) {
    const prep_step *first = &p->steps[0];
    double w = first->w, h = first->h;
    field f = {.side = s->tower.image_size / s->tower.patch};
    int rows;
    prep_plan_grid(p, &f.columns, &rows);
    f.w = f.columns * f.side;
    f.h = rows * f.side;
    if (w / h > (double)f.w / f.h)
        unpad(&f.y, &f.h, h, f.w / w);
    else
        unpad(&f.x, &f.w, w, f.h / h);
    f.out_w = f.w;
    f.out_h = f.h;
    if (s->pack_limit) {
        double ratio = sqrt((double)f.h * f.w / ((double)s->pack_limit * f.side * f.side));
        if (ratio > 1.1) {
            f.out_h = (int)floor_divided(f.h, ratio);
            f.out_w = (int)floor_divided(f.w, ratio);
        }
    }
    return f;
}

int anyres_rows(const model_spec *s, const prep_plan *p) {
    tile one = prep_plan_tile(p, 0);
    int base = spec_rows_of_tile(s, &one);
    if (base == 0 || p->n_tiles == 1) return base ? base + 1 : 0;
    field f = field_of(s, p);
    /* A very narrow picture may vanish between the black, and only the whole one stays; the reference resamples none. */
    if (f.w > 0 && f.h > 0 && (f.out_w < 1 || f.out_h < 1)) return 0;
    return base + f.out_h * (f.out_w + 1);
}

/* Row of the joined features at (x, y) of the window; the whole picture's tile stands before the grid's. */
static int joined_at(const field *f, int x, int y) {
    int tx = (f->x + x) / f->side, ty = (f->y + y) / f->side;
    int in = (f->y + y) % f->side * f->side + (f->x + x) % f->side;
    return (1 + ty * f->columns + tx) * f->side * f->side + in;
}

/* Two neighbours and the second one's weight, as torch's bilinear interpolation without aligned corners takes them. */
static float neighbours(int i, int n, int out, int at[2]) {
    float src = ((float)i + 0.5f) * ((float)n / (float)out) - 0.5f;
    if (src < 0) src = 0;
    at[0] = (int)src;
    at[1] = at[0] + (at[0] < n - 1 ? 1 : 0);
    return src - (float)at[0];
}

static pack_row copy_of(int from) {
    return (pack_row){.from = {from, -1, -1, -1}, .weight = {1, 0, 0, 0}};
}

static pack_row resampled(const field *f, int x, int y) {
    int xs[2], ys[2];
    float wx = neighbours(x, f->w, f->out_w, xs), wy = neighbours(y, f->h, f->out_h, ys);
    pack_row r;
    for (int k = 0; k < 4; k++) {
        r.from[k] = joined_at(f, xs[k % 2], ys[k / 2]);
        r.weight[k] = (k / 2 ? wy : 1 - wy) * (k % 2 ? wx : 1 - wx);
    }
    return r;
}

void anyres_pack(const model_spec *s, const prep_plan *p, pack_row *rows) {
    int side = s->tower.image_size / s->tower.patch, base = side * side, newline = p->n_tiles * base;
    for (int i = 0; i < base; i++) *rows++ = copy_of(i);
    if (p->n_tiles == 1) {
        *rows = copy_of(newline);
        return;
    }
    field f = field_of(s, p);
    bool pooled = f.out_w != f.w || f.out_h != f.h;
    for (int y = 0; y < f.out_h; y++) {
        for (int x = 0; x < f.out_w; x++)
            *rows++ = pooled ? resampled(&f, x, y) : copy_of(joined_at(&f, x, y));
        *rows++ = copy_of(newline);
    }
}

static const char *const SHEET_NAMES[S_FIRST_TEXT] = {
    NAMES_VIT,
    [S_FC1_W] = "multi_modal_projector.linear_1.weight",
    [S_FC1_B] = "multi_modal_projector.linear_1.bias",
    [S_FC2_W] = "multi_modal_projector.linear_2.weight",
    [S_FC2_B] = "multi_modal_projector.linear_2.bias",
    [S_NEWLINE] = "image_newline",
};
const name_sheet ANYRES_SHEET = {
    .tower_at = COMPOSED_TOWER_AT,
    .join_at = COMPOSED_JOIN_AT,
    .text_at = COMPOSED_TEXT_AT,
    .head_at = COMPOSED_HEAD_AT,
    .tower_layer = NAMES_TOWER_LAYER,
    .names = SHEET_NAMES,
    .ignored = COMPOSED_IGNORED,
};
