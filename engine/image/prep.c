/* prep.c - the size a picture gets before a tower reads it, and the pixels of that size.
 *
 * Thread: prep_plan on HTTP threads, prep_run on picture workers. Owner of memory: out is the caller's.
 * Divisions and roundings are the library's, in double precision and in its order, so that sizes agree to the
 * pixel. Source: transformers 5.23 image_transforms.py (get_resize_output_image_size,
 * get_size_with_aspect_ratio, center_crop) and image_utils.py (get_image_size_for_max_height_width). Tested
 * by tests/engine/image/test_prep.c. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "engine/image/codec.h"
#include "engine/image/resize.h"

typedef struct plan {
    int side;   /* of the padded square, 0 without padding */
    int w, h;   /* after resizing */
    int x, y;   /* of the crop's box in that */
    int ow, oh; /* the final size */
} plan;

static int64_t floor_half(int64_t v) {
    return v >= 0 ? v / 2 : -((1 - v) / 2);
}

/* The library looks for the scale by halving an interval, and so its answer is not quite the best one. */
static void fit_patches(double w, double h, double patch, double most, double *rw, double *rh) {
    double low = 1e-5 / 10, high = 100;
    for (bool found = false;; found = high - low < 1e-5) {
        double scale = found ? low : (low + high) / 2;
        *rw = fmax(patch, ceil(w * scale / patch) * patch);
        *rh = fmax(patch, ceil(h * scale / patch) * patch);
        if (found) return;
        *(*rw / patch * (*rh / patch) <= most ? &low : &high) = scale;
    }
}

/* Sides as doubles: they hold every intermediate value exactly as the library's do. */
static void resized(const prep_spec *p, double w, double h, double *rw, double *rh) {
    double edge = p->size_w, shorter = w < h ? w : h, longer = w < h ? h : w;
    *rw = w;
    *rh = h;
    switch (p->size) {
    case PREP_SIZE_NONE: return;
    case PREP_SIZE_EXACT: *rw = p->size_w, *rh = p->size_h; return;
    case PREP_SIZE_SHORTEST:
        if (!p->size_h) {
            double other = floor(edge * longer / shorter);
            *rw = w <= h ? edge : other;
            *rh = w <= h ? other : edge;
        } else {
            double raw = edge;
            if (longer / shorter * edge > p->size_h) {
                raw = p->size_h * shorter / longer;
                edge = rint(raw);
            }
            if (shorter == edge) return;
            *rw = w < h ? edge : floor(raw * w / h);
            *rh = w < h ? floor(raw * h / w) : edge;
        }
        return;
    case PREP_SIZE_PATCHES: fit_patches(w, h, p->size_h, p->size_w, rw, rh); return;
    case PREP_SIZE_LONGEST:
    case PREP_SIZE_WITHIN: {
        double sh = (p->size == PREP_SIZE_WITHIN ? p->size_h : edge) / h, sw = edge / w,
               scale = sh < sw ? sh : sw;
        *rw = floor(w * scale);
        *rh = floor(h * scale);
        return;
    }
    }
}

static bool make_plan(const prep_spec *p, int w, int h, const image_limits *lim, plan *out, status *st) {
    double rw, rh;
    memset(out, 0, sizeof *out);
    if (p->pad_square) w = h = out->side = w > h ? w : h;
    resized(p, w, h, &rw, &rh);
    if (rw < 1 || rh < 1)
        return status_set(st, ST_INVALID,
                          "a picture of %dx%d pixels would be resized to %.0fx%.0f; it is too narrow", w, h,
                          rw, rh);
    if (rw > INT32_MAX / 2 || rh > INT32_MAX / 2)
        return status_set(st, ST_TOO_LARGE,
                          "a picture of %dx%d pixels would be resized to %.0fx%.0f; it is too narrow", w, h,
                          rw, rh);
    out->w = out->ow = (int)rw;
    out->h = out->oh = (int)rh;
    if (p->crop) {
        out->ow = p->crop_w;
        out->oh = p->crop_h;
        out->x = (int)floor_half((int64_t)out->w - p->crop_w);
        out->y = (int)floor_half((int64_t)out->h - p->crop_h);
    }
    if ((int64_t)out->ow * out->oh > lim->max_pixels)
        return status_set(st, ST_TOO_LARGE,
                          "a picture of %dx%d pixels would become %dx%d, more than the limit of %" PRId64
                          " pixels",
                          w, h, out->ow, out->oh, lim->max_pixels);
    return true;
}

bool prep_plan(const prep_spec *p, int w, int h, const image_limits *lim, int *out_w, int *out_h,
               status *st) {
    plan l;
    *out_w = *out_h = 0;
    if (w < 1 || h < 1) return status_set(st, ST_INVALID, "a picture has %dx%d pixels", w, h);
    if (!make_plan(p, w, h, lim, &l, st)) return false;
    *out_w = l.ow;
    *out_h = l.oh;
    return true;
}

size_t prep_work_bytes(const prep_spec *p, int w, int h) {
    plan l;
    const image_limits any = {.max_pixels = INT64_MAX};
    if (!make_plan(p, w, h, &any, &l, NULL)) return 0;
    if (l.side) w = h = l.side;
    /* The strip between the two passes; then the filters' weights (at most six for each pixel of a line in and one for
     * each out) and a few lines. */
    size_t rows = (size_t)h * 3, between = rows * (size_t)l.ow;
    if (between > RESIZE_BETWEEN_BYTES) between = rows > RESIZE_BETWEEN_BYTES ? rows : RESIZE_BETWEEN_BYTES;
    return between + 64 * ((size_t)w + (size_t)h + (size_t)l.ow + (size_t)l.oh) + (1 << 16);
}

bool prep_run(const prep_spec *p, const image *in, const image_limits *lim, image *out, status *st) {
    plan l;
    memset(out, 0, sizeof *out);
    if (!make_plan(p, in->w, in->h, lim, &l, st)) return false;
    resize_view v = {.im = in, .w = in->w, .h = in->h};
    if (l.side) {
        v.w = v.h = l.side;
        v.x = (l.side - in->w) / 2;
        v.y = (l.side - in->h) / 2;
        memcpy(v.pad, p->pad_rgb, 3);
    }
    return resize_view_crop(&v, l.w, l.h, p->filter, l.x, l.y, l.ow, l.oh, out, st);
}
