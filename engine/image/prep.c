/* prep.c - the plan of a picture that becomes one tile by one image processor's settings.
 *
 * Thread: HTTP threads. Owns nothing.
 * Divisions and roundings are the library's, in double precision and in its order, so that sizes agree to the
 * pixel. Source: transformers 5.23 image_transforms.py (get_resize_output_image_size,
 * get_size_with_aspect_ratio, center_crop) and image_utils.py (get_image_size_for_max_height_width). Tested
 * by tests/engine/image/test_prep.c. */
#include <math.h>
#include <string.h>

#include "engine/image/tiles.h"

enum { MAX_RATIO = 200 }; /* smart_resize's */

static int64_t floor_half(int64_t v) {
    return v >= 0 ? v / 2 : -((1 - v) / 2);
}

/* The reference's smart_resize. */
static void about_its_own(const prep_spec *p, double w, double h, double *rw, double *rh) {
    double factor = (double)p->patch * p->merge;
    *rw = rint(w / factor) * factor;
    *rh = rint(h / factor) * factor;
    if (*rh * *rw > p->size_h) {
        double beta = sqrt(h * w / p->size_h);
        *rw = fmax(factor, floor(w / beta / factor) * factor);
        *rh = fmax(factor, floor(h / beta / factor) * factor);
    } else if (*rh * *rw < p->size_w) {
        double beta = sqrt(p->size_w / (h * w));
        *rw = ceil(w * beta / factor) * factor;
        *rh = ceil(h * beta / factor) * factor;
    }
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
    case PREP_SIZE_PIXELS: about_its_own(p, w, h, rw, rh); return;
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

bool prep_plan_one(const prep_spec *p, int w, int h, const image_limits *lim, prep_plan *out, status *st) {
    double rw, rh;
    memset(out, 0, sizeof *out);
    if (w < 1 || h < 1) return status_set(st, ST_INVALID, "a picture has %dx%d pixels", w, h);
    if (p->size == PREP_SIZE_PIXELS && (w > h ? (double)w / h : (double)h / w) > MAX_RATIO)
        return status_set(
            st, ST_INVALID,
            "a picture of %dx%d pixels is too narrow: one side may be at most %d times the other", w, h,
            MAX_RATIO);
    if (p->pad_square && p->no_pad_rgb && w != h)
        return status_set(st, ST_INVALID,
                          "a picture of %dx%d pixels would be padded to a square, but the image processor's "
                          "image_mean is no colour: expected 0 to 1",
                          w, h);
    int side = w > h ? w : h, vw = p->pad_square ? side : w, vh = p->pad_square ? side : h;
    resized(p, vw, vh, &rw, &rh);
    if (rw < 1 || rh < 1)
        return status_set(st, ST_INVALID,
                          "a picture of %dx%d pixels would be resized to %.0fx%.0f; it is too narrow", vw, vh,
                          rw, rh);
    if (rw > INT32_MAX / 2 || rh > INT32_MAX / 2)
        return status_set(st, ST_TOO_LARGE,
                          "a picture of %dx%d pixels would be resized to %.0fx%.0f; it is too narrow", vw, vh,
                          rw, rh);
    prep_step *s =
        prep_plan_add(out, -1, -((vw - w) / 2), -((vh - h) / 2), vw, vh, (int)rw, (int)rh, p->filter);
    memcpy(s->pad_rgb, p->pad_rgb, sizeof s->pad_rgb);
    if (p->crop) {
        int64_t across = (int64_t)s->rw - p->crop_w, down = (int64_t)s->rh - p->crop_h;
        s->cx = (int)(p->crop_even ? (int64_t)rint((double)across / 2) : floor_half(across));
        s->cy = (int)(p->crop_even ? (int64_t)rint((double)down / 2) : floor_half(down));
        s->cw = s->tw = p->crop_w;
        s->ch = s->th = p->crop_h;
    }
    return prep_plan_finish(out, w, h, lim, st);
}
