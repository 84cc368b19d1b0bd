/* tiles.c - see tiles.h. Source: Pillow's resize and crop, in the order in which the reference's image processors call
 * them. Owner of memory: canvases live while a later step reads them; the tiles are the caller's. */
#include "engine/image/tiles.h"

#include <inttypes.h>
#include <string.h>

#include "engine/image/codec.h"
#include "engine/image/resize.h"

prep_step *prep_plan_add(prep_plan *p, int from, int x, int y, int w, int h, int rw, int rh,
                         resample filter) {
    CHECK(p->n_steps < PREP_MAX_STEPS);
    prep_step *s = &p->steps[p->n_steps++];
    *s = (prep_step){.from = from, .x = x, .y = y, .w = w, .h = h, .rw = rw, .rh = rh, .filter = filter};
    s->cw = s->tw = rw;
    s->ch = s->th = rh;
    return s;
}

static void source_size(const prep_plan *p, const prep_step *s, int *w, int *h) {
    if (s->from >= 0) {
        *w = p->steps[s->from].cw;
        *h = p->steps[s->from].ch;
    }
}

static bool is_around(const prep_step *s, int w, int h) {
    return s->x <= 0 && s->y <= 0 && s->x + s->w >= w && s->y + s->h >= h;
}

static bool is_whole(const prep_step *s, int w, int h) {
    return s->x == 0 && s->y == 0 && s->w == w && s->h == h;
}

static bool check_step(const prep_plan *p, int i, int w, int h, const image_limits *lim, status *st) {
    const prep_step *s = &p->steps[i];
    CHECK(s->from < i);
    if (s->rw < 1 || s->rh < 1 || s->cw < 1 || s->ch < 1 || s->w < 1 || s->h < 1)
        return status_set(st, ST_INVALID,
                          "a picture of %dx%d pixels would be resized to %dx%d; it is too narrow", w, h,
                          s->rw, s->rh);
    int sw = w, sh = h;
    source_size(p, s, &sw, &sh);
    CHECK(is_around(s, sw, sh) || (s->x >= 0 && s->y >= 0 && s->x + s->w <= sw && s->y + s->h <= sh));
    CHECK(s->tw == 0 || (s->tw > 0 && s->th > 0 && s->cw % s->tw == 0 && s->ch % s->th == 0));
    if ((int64_t)s->cw * s->ch > lim->max_pixels)
        return status_set(st, ST_TOO_LARGE,
                          "a picture of %dx%d pixels would become %dx%d, more than the limit of %" PRId64
                          " pixels",
                          w, h, s->cw, s->ch, lim->max_pixels);
    return true;
}

bool prep_plan_finish(prep_plan *p, int w, int h, const image_limits *lim, status *st) {
    if (w < 1 || h < 1) return status_set(st, ST_INVALID, "a picture has %dx%d pixels", w, h);
    p->n_tiles = 0;
    p->bytes = 0;
    for (int i = 0; i < p->n_steps; i++) {
        const prep_step *s = &p->steps[i];
        if (!check_step(p, i, w, h, lim, st)) return false;
        if (!s->tw) continue;
        p->n_tiles += s->cw / s->tw * (s->ch / s->th);
        p->bytes += (size_t)s->cw * (size_t)s->ch * 3;
    }
    CHECK(p->n_tiles > 0);
    if (p->bytes / 3 > (uint64_t)lim->max_pixels)
        return status_set(
            st, ST_TOO_LARGE,
            "a picture of %dx%d pixels would become %d tiles of %zu pixels, more than the limit of "
            "%" PRId64,
            w, h, p->n_tiles, p->bytes / 3, lim->max_pixels);
    return true;
}

tile prep_plan_tile(const prep_plan *p, int i) {
    size_t at = 0;
    CHECK(i >= 0 && i < p->n_tiles);
    for (const prep_step *s = p->steps;; s++) {
        if (!s->tw) continue;
        int n = s->cw / s->tw * (s->ch / s->th);
        size_t each = (size_t)s->tw * (size_t)s->th * 3;
        if (i < n) return (tile){s->tw, s->th, at + (size_t)i * each};
        i -= n;
        at += (size_t)n * each;
    }
}

/* ---- memory ---- */

/* While one box of w x h is resized: the strip between the two passes; then the filters' weights (at most six for each
 * pixel of a line in and one for each out) and a few lines. */
static size_t resize_bytes(int w, int h, int ow, int oh) {
    size_t rows = (size_t)h * 3, between = rows * (size_t)ow;
    if (between > RESIZE_BETWEEN_BYTES) between = rows > RESIZE_BETWEEN_BYTES ? rows : RESIZE_BETWEEN_BYTES;
    return between + 64 * ((size_t)w + (size_t)h + (size_t)ow + (size_t)oh) + (1 << 16);
}

size_t prep_work_bytes(const prep_plan *p, int w, int h) {
    size_t kept = 0, most = 0;
    for (int i = 0; i < p->n_steps; i++) {
        const prep_step *s = &p->steps[i];
        int sw = w, sh = h;
        source_size(p, s, &sw, &sh);
        size_t need = resize_bytes(s->w, s->h, s->cw, s->ch);
        if (!is_around(s, sw, sh)) need += (size_t)s->w * (size_t)s->h * 3;
        if (need > most) most = need;
        kept += (size_t)s->cw * (size_t)s->ch * 3;
    }
    /* One tile alone is made where it stays. */
    return most + (p->n_steps == 1 && p->n_tiles == 1 ? 0 : kept);
}

size_t prep_plan_bytes(const prep_plan *p) {
    return p->bytes + (size_t)p->n_text * sizeof(int32_t);
}

/* ---- pixels ---- */

static bool cut_box(const image *in, const prep_step *s, image *out, status *st) {
    if (!codec_alloc(out, s->w, s->h, st)) return false;
    for (int y = 0; y < s->h; y++)
        memcpy(out->rgb + (size_t)y * (size_t)s->w * 3,
               in->rgb + ((size_t)(s->y + y) * (size_t)in->w + (size_t)s->x) * 3, (size_t)s->w * 3);
    return true;
}

static bool make_canvas(const prep_step *s, const image *in, image *out, status *st) {
    image box = {0};
    bool around = is_around(s, in->w, in->h);
    if (!around && !cut_box(in, s, &box, st)) return false;
    resize_view v = {.im = around ? in : &box, .w = s->w, .h = s->h};
    if (around && !is_whole(s, in->w, in->h)) {
        v.x = -s->x;
        v.y = -s->y;
        memcpy(v.pad, s->pad_rgb, sizeof v.pad);
    }
    bool ok = resize_view_crop(&v, s->rw, s->rh, s->filter, s->cx, s->cy, s->cw, s->ch, out, st);
    image_fini(&box);
    return ok;
}

/* The canvas' tiles to out, row by row; returns the bytes. */
static size_t cut_tiles(const prep_step *s, const image *canvas, uint8_t *out) {
    size_t row = (size_t)s->tw * 3, at = 0;
    for (int y = 0; y < s->ch; y += s->th)
        for (int x = 0; x < s->cw; x += s->tw)
            for (int r = 0; r < s->th; r++, at += row)
                memcpy(out + at, canvas->rgb + ((size_t)(y + r) * (size_t)s->cw + (size_t)x) * 3, row);
    return at;
}

static bool make_all(const prep_plan *p, const image *in, image *canvas, tiles *out, status *st) {
    size_t at = 0;
    for (int i = 0; i < p->n_steps; i++) {
        const prep_step *s = &p->steps[i];
        if (!make_canvas(s, s->from < 0 ? in : &canvas[s->from], &canvas[i], st)) return false;
        if (p->n_steps == 1 && p->n_tiles == 1) {
            out->rgb = canvas[i].rgb;
            canvas[i] = (image){0};
            return true;
        }
        if (!out->rgb && !(out->rgb = mem_alloc(p->bytes))) return codec_no_memory(st, p->bytes);
        if (s->tw) at += cut_tiles(s, &canvas[i], out->rgb + at);
    }
    CHECK(at == p->bytes);
    return true;
}

bool tiles_make(const prep_plan *p, const image *in, tiles *out, status *st) {
    image canvas[PREP_MAX_STEPS] = {{0}};
    *out = (tiles){.plan = *p};
    bool ok = make_all(p, in, canvas, out, st);
    for (int i = 0; i < p->n_steps; i++) image_fini(&canvas[i]);
    if (!ok) tiles_fini(out);
    return ok;
}

void tiles_fini(tiles *t) {
    mem_free(t->rgb);
    mem_free(t->text);
    *t = (tiles){0};
}
