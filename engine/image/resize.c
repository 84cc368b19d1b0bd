/* resize.c - Pillow's resampling: 8 bits in and out, weights in fixed point, first along rows, then along
 * columns.
 *
 * Thread: any. Owner of memory: everything but out is freed before return.
 * Only what the crop keeps is computed. The picture between the two passes is cut into blocks of columns, and
 * weights are made a block at a time, so that memory stays bounded for any ratio of sizes (a block never
 * needs more than one column of the source's height, or the weights of one pixel). */
#include "engine/image/resize.h"

#include <math.h>
#include <string.h>

#include "engine/image/codec.h"

enum { WEIGHTS_AT_ONCE = 1 << 20 };

/* ---- filters: support in source pixels at scale 1, and the weight at distance x ---- */

static double box(double x) {
    return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
}

static double triangle(double x) {
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

static double hamming(double x) {
    x = fabs(x);
    if (x == 0.0) return 1.0;
    if (x >= 1.0) return 0.0;
    x *= M_PI;
    return sin(x) / x * ((double)0.54f + (double)0.46f * cos(x));
}

static double bicubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static double sinc(double x) {
    if (x == 0.0) return 1.0;
    x *= M_PI;
    return sin(x) / x;
}

static double lanczos(double x) {
    return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
}

typedef struct axis {
    double (*weight)(double);
    double scale, stretch, support; /* source pixels a resized one; the same but at least 1; half a window */
    int in, out;
    double *w; /* room for one window */
} axis;

static bool axis_init(axis *a, int in, int out, resample filter, status *st) {
    static const struct {
        double (*weight)(double);
        double support;
    } filters[] = {[RESAMPLE_LANCZOS] = {lanczos, 3},
                   [RESAMPLE_BILINEAR] = {triangle, 1},
                   [RESAMPLE_BICUBIC] = {bicubic, 2},
                   [RESAMPLE_BOX] = {box, 0.5},
                   [RESAMPLE_HAMMING] = {hamming, 1}};
    a->weight = filters[filter].weight;
    a->in = in;
    a->out = out;
    a->scale = (double)in / out;
    a->stretch = a->scale < 1.0 ? 1.0 : a->scale;
    a->support = filters[filter].support * a->stretch;
    double room = ceil(a->support) * 2 + 2;
    size_t n = room < in ? (size_t)room : (size_t)in;
    a->w = mem_alloc(n * sizeof *a->w);
    return a->w ? true : codec_no_memory(st, n * sizeof *a->w);
}

static resize_tap axis_window(const axis *a, int o) {
    double center = (o + 0.5) * a->scale;
    int lo = (int)(center - a->support + 0.5), hi = (int)(center + a->support + 0.5);
    if (lo < 0) lo = 0;
    if (hi > a->in) hi = a->in;
    return (resize_tap){lo, hi - lo, 0};
}

static void axis_weights(const axis *a, int o, resize_tap t, int32_t *k) {
    double center = (o + 0.5) * a->scale, inverse = 1.0 / a->stretch, sum = 0;
    for (int i = 0; i < t.count; i++) {
        a->w[i] = a->weight((i + t.first - center + 0.5) * inverse);
        sum += a->w[i];
    }
    for (int i = 0; i < t.count; i++) {
        double v = (sum != 0.0 ? a->w[i] / sum : a->w[i]) * (1 << RESIZE_BITS);
        k[i] = (int32_t)(v < 0 ? v - 0.5 : v + 0.5);
    }
}

/* ---- inner loops ---- */

static inline uint8_t clip8(int32_t v) {
    v >>= RESIZE_BITS;
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

void resize_row_c(const uint8_t *src, const resize_tap *taps, const int32_t *k, int n, uint8_t *dst) {
    for (int i = 0; i < n; i++, dst += 3) {
        const uint8_t *s = src + (size_t)taps[i].first * 3;
        const int32_t *w = k + taps[i].off;
        int32_t r = 1 << (RESIZE_BITS - 1), g = r, b = r;
        for (int t = 0; t < taps[i].count; t++, s += 3) {
            r += s[0] * w[t];
            g += s[1] * w[t];
            b += s[2] * w[t];
        }
        dst[0] = clip8(r), dst[1] = clip8(g), dst[2] = clip8(b);
    }
}

void resize_col_c(const uint8_t *src, size_t stride, const int32_t *k, int count, uint8_t *dst,
                  size_t bytes) {
    enum { CHUNK = 64 };
    for (size_t at = 0; at < bytes; at += CHUNK) {
        int32_t acc[CHUNK];
        size_t n = bytes - at < CHUNK ? bytes - at : CHUNK;
        for (size_t i = 0; i < n; i++) acc[i] = 1 << (RESIZE_BITS - 1);
        for (int t = 0; t < count; t++) {
            const uint8_t *s = src + (size_t)t * stride + at;
            for (size_t i = 0; i < n; i++) acc[i] += s[i] * k[t];
        }
        for (size_t i = 0; i < n; i++) dst[at + i] = clip8(acc[i]);
    }
}

/* ---- the view's rows ---- */

/* Fills row (v->w pixels) with the padding, once; view_row then only renews the picture's part. */
static void view_pad_row(const resize_view *v, uint8_t *row) {
    for (int i = 0; i < v->w; i++) memcpy(row + 3 * (size_t)i, v->pad, 3);
}

static bool view_has_row(const resize_view *v, int y) {
    return y >= v->y && y < v->y + v->im->h;
}

/* Row y of the view; row is room for a padded one, or NULL when the picture is as wide as the view. */
static const uint8_t *view_row(const resize_view *v, int y, uint8_t *row) {
    size_t bytes = (size_t)v->im->w * 3;
    const uint8_t *s = v->im->rgb + (size_t)(y - v->y) * bytes;
    if (!row) return s;
    memcpy(row + (size_t)v->x * 3, s, bytes);
    return row;
}

/* ---- the two passes ---- */

typedef struct job {
    const resize_view *v;
    axis across, down;
    bool do_across, do_down;
    int x0, x1, y0, y1; /* of the resized picture, inside it */
    int top, rows;      /* of the view that they read */
    image *out;
    int ox, oy;      /* where (x0, y0) lies in out */
    uint8_t *padded; /* a row of the view; NULL when there is no padding beside the picture */
    uint8_t *plain;  /* a row of padding only, resampled; NULL without padding */
    uint8_t *blank;  /* a row of padding only */
    uint8_t *between;
    int32_t *k;
    resize_tap *taps;
    size_t k_cap;
    resize_row_fn *row_fn;
    resize_col_fn *col_fn;
} job;

/* The n columns of j->taps, of every needed row, resampled along the row, to dst (stride bytes between rows).
 */
static void across_block(job *j, int n, uint8_t *dst, size_t stride) {
    const resize_view *v = j->v;
    /* Windows move to the right, so those that touch the picture are in one piece [a, b). */
    int a = 0, b = n;
    while (a < n && j->taps[a].first + j->taps[a].count <= v->x) a++;
    while (b > a && j->taps[b - 1].first >= v->x + v->im->w) b--;
    if (j->blank) j->row_fn(j->blank, j->taps, j->k, n, j->plain);
    for (int r = 0; r < j->rows; r++, dst += stride) {
        if (!view_has_row(v, j->top + r)) {
            memcpy(dst, j->plain, (size_t)n * 3);
            continue;
        }
        const uint8_t *s = view_row(v, j->top + r, j->padded);
        if (a > 0) memcpy(dst, j->plain, (size_t)a * 3);
        if (b < n) memcpy(dst + (size_t)b * 3, j->plain + (size_t)b * 3, (size_t)(n - b) * 3);
        j->row_fn(s, j->taps + a, j->k, b - a, dst + (size_t)a * 3);
    }
}

/* Columns [c, c + n) of every needed row into j->between, whatever the row pass is. */
static void across(job *j, int c, int n) {
    size_t stride = (size_t)n * 3;
    if (!j->do_across) {
        for (int r = 0; r < j->rows; r++) {
            const uint8_t *s =
                view_has_row(j->v, j->top + r) ? view_row(j->v, j->top + r, j->padded) : j->blank;
            memcpy(j->between + (size_t)r * stride, s + (size_t)c * 3, stride);
        }
        return;
    }
    for (int done = 0; done < n;) {
        size_t used = 0;
        int m = 0;
        for (; done + m < n; m++) {
            resize_tap t = axis_window(&j->across, c + done + m);
            if (m && used + (size_t)t.count > j->k_cap) break;
            t.off = used;
            used += (size_t)t.count;
            axis_weights(&j->across, c + done + m, t, j->k + t.off);
            j->taps[m] = t;
        }
        across_block(j, m, j->between + (size_t)done * 3, stride);
        done += m;
    }
}

static void down(job *j, int c, int n, int32_t *k) {
    size_t bytes = (size_t)n * 3;
    for (int y = j->y0; y < j->y1; y++) {
        size_t at = (size_t)(j->oy + y - j->y0) * (size_t)j->out->w + (size_t)(j->ox + c - j->x0);
        if (!j->do_down) {
            memcpy(j->out->rgb + at * 3, j->between + (size_t)(y - j->top) * bytes, bytes);
            continue;
        }
        resize_tap t = axis_window(&j->down, y);
        axis_weights(&j->down, y, t, k);
        j->col_fn(j->between + (size_t)(t.first - j->top) * bytes, bytes, k, t.count, j->out->rgb + at * 3,
                  bytes);
    }
}

static bool run(job *j, status *st) {
    size_t need = 1, most = 1;
    if (j->do_across)
        for (int x = j->x0; x < j->x1; x++) {
            size_t n = (size_t)axis_window(&j->across, x).count;
            need += n;
            most = n > most ? n : most;
        }
    j->k_cap = need < WEIGHTS_AT_ONCE ? need : most > WEIGHTS_AT_ONCE ? most : WEIGHTS_AT_ONCE;
    size_t tall = 1;
    if (j->do_down)
        for (int y = j->y0; y < j->y1; y++) {
            size_t n = (size_t)axis_window(&j->down, y).count;
            tall = n > tall ? n : tall;
        }
    int wide = j->x1 - j->x0;
    size_t fit = (size_t)RESIZE_BETWEEN_BYTES / 3 / (size_t)j->rows;
    int block = fit < 1 ? 1 : fit < (size_t)wide ? (int)fit : wide;
    int32_t *k = mem_alloc(tall * sizeof *k);
    j->k = mem_alloc(j->k_cap * sizeof *j->k);
    j->taps = mem_alloc((size_t)block * sizeof *j->taps);
    j->between = mem_alloc((size_t)block * (size_t)j->rows * 3);
    bool ok = k && j->k && j->taps && j->between;
    if (j->v->w != j->v->im->w || j->v->h != j->v->im->h) {
        j->blank = mem_alloc((size_t)j->v->w * 3);
        j->plain = mem_alloc((size_t)block * 3);
        ok = ok && j->blank && j->plain;
        if (ok) view_pad_row(j->v, j->blank);
        if (j->v->w != j->v->im->w) {
            j->padded = mem_alloc((size_t)j->v->w * 3);
            ok = ok && j->padded;
            if (ok) view_pad_row(j->v, j->padded);
        }
    }
    if (!ok) codec_no_memory(st, (size_t)block * (size_t)j->rows * 3);
    for (int c = j->x0; ok && c < j->x1; c += block) {
        int n = j->x1 - c < block ? j->x1 - c : block;
        across(j, c, n);
        down(j, c, n, k);
    }
    mem_free(k);
    mem_free(j->k);
    mem_free(j->taps);
    mem_free(j->between);
    mem_free(j->blank);
    mem_free(j->plain);
    mem_free(j->padded);
    return ok;
}

/* Row y of the view resized along columns only, columns [lo, lo + cols): the same sum as col_fn's, with the
 * padding's share added up in one go (sums of integers do not mind their order). */
static void padded_col(const resize_view *v, resize_tap t, const int32_t *k, int lo, int cols, int32_t *acc,
                       uint8_t *dst) {
    int32_t all = 0, outside = 0;
    for (int i = 0; i < t.count; i++) {
        all += k[i];
        if (!view_has_row(v, t.first + i)) outside += k[i];
    }
    for (int x = 0; x < cols; x++) {
        int xx = lo + x - v->x;
        bool in = xx >= 0 && xx < v->im->w;
        for (int c = 0; c < 3; c++)
            acc[3 * x + c] = (1 << (RESIZE_BITS - 1)) + v->pad[c] * (in ? outside : all);
    }
    int from = v->x > lo ? v->x : lo, to = v->x + v->im->w < lo + cols ? v->x + v->im->w : lo + cols;
    for (int i = 0; i < t.count && from < to; i++) {
        if (!view_has_row(v, t.first + i)) continue;
        const uint8_t *s =
            v->im->rgb + ((size_t)(t.first + i - v->y) * (size_t)v->im->w + (size_t)(from - v->x)) * 3;
        int32_t *a = acc + 3 * (from - lo);
        for (int b = 0; b < 3 * (to - from); b++) a[b] += s[b] * k[i];
    }
    for (int b = 0; b < 3 * cols; b++) dst[b] = clip8(acc[b]);
}

/* Columns before rows: one finished row at a time, so only a row is kept between the passes. */
static bool run_down_first(job *j, status *st) {
    const resize_view *v = j->v;
    int n = j->x1 - j->x0;
    resize_tap last = axis_window(&j->across, j->x1 - 1);
    int lo = axis_window(&j->across, j->x0).first, cols = last.first + last.count - lo;
    size_t need = 0, tall = 1;
    for (int x = j->x0; x < j->x1; x++) need += (size_t)axis_window(&j->across, x).count;
    for (int y = j->y0; y < j->y1; y++) {
        size_t c = (size_t)axis_window(&j->down, y).count;
        tall = c > tall ? c : tall;
    }
    bool padded = v->w != v->im->w || v->h != v->im->h;
    int32_t *k = mem_alloc(tall * sizeof *k),
            *acc = padded ? mem_alloc((size_t)cols * 3 * sizeof *acc) : NULL;
    j->k = mem_alloc(need * sizeof *j->k);
    j->taps = mem_alloc((size_t)n * sizeof *j->taps);
    j->between = mem_alloc((size_t)cols * 3);
    bool ok = k && j->k && j->taps && j->between && (acc || !padded);
    if (ok) {
        size_t used = 0;
        for (int i = 0; i < n; i++) {
            resize_tap t = axis_window(&j->across, j->x0 + i);
            t.off = used;
            axis_weights(&j->across, j->x0 + i, t, j->k + used);
            used += (size_t)t.count;
            t.first -= lo;
            j->taps[i] = t;
        }
        for (int y = j->y0; y < j->y1; y++) {
            size_t at = (size_t)(j->oy + y - j->y0) * (size_t)j->out->w + (size_t)j->ox,
                   stride = (size_t)v->im->w * 3;
            resize_tap t = axis_window(&j->down, y);
            axis_weights(&j->down, y, t, k);
            if (padded)
                padded_col(v, t, k, lo, cols, acc, j->between);
            else
                j->col_fn(v->im->rgb + (size_t)t.first * stride + (size_t)lo * 3, stride, k, t.count,
                          j->between, (size_t)cols * 3);
            j->row_fn(j->between, j->taps, j->k, n, j->out->rgb + at * 3);
        }
    } else {
        codec_no_memory(st, need * sizeof *j->k + (size_t)cols * 3);
    }
    mem_free(k);
    mem_free(acc);
    mem_free(j->k);
    mem_free(j->taps);
    mem_free(j->between);
    return ok;
}

/* Nearest takes no windows: the place is added up step by step, as Pillow's affine transform does, rounding
 * included. */
static bool nearest(const resize_view *v, int w, int h, job *j, status *st) {
    size_t n = (size_t)(j->x1 - j->x0);
    int *xs = mem_alloc(n * sizeof *xs);
    if (!xs) return codec_no_memory(st, n * sizeof *xs);
    double sx = (double)v->w / w, sy = (double)v->h / h, at = sx * 0.5;
    for (int x = 0; x < j->x1; x++, at += sx)
        if (x >= j->x0) xs[x - j->x0] = (int)at < v->w ? (int)at : -1;
    at = sy * 0.5;
    for (int y = 0; y < j->y1; y++, at += sy) {
        if (y < j->y0 || (int)at >= v->h) continue;
        int yy = (int)at - v->y;
        uint8_t *d = j->out->rgb + ((size_t)(j->oy + y - j->y0) * (size_t)j->out->w + (size_t)j->ox) * 3;
        for (size_t i = 0; i < n; i++, d += 3) {
            if (xs[i] < 0) continue;
            int xx = xs[i] - v->x;
            bool in = xx >= 0 && xx < v->im->w && yy >= 0 && yy < v->im->h;
            memcpy(d, in ? v->im->rgb + ((size_t)yy * (size_t)v->im->w + (size_t)xx) * 3 : v->pad, 3);
        }
    }
    mem_free(xs);
    return true;
}

bool resize_view_crop(const resize_view *v, int w, int h, resample filter, int x, int y, int cw, int ch,
                      image *out, status *st) {
    memset(out, 0, sizeof *out);
    if (w < 1 || h < 1 || cw < 1 || ch < 1)
        return status_set(st, ST_INVALID,
                          "a picture would be resized to %dx%d and cut to %dx%d; every side must be 1 "
                          "or more",
                          w, h, cw, ch);
    CHECK(v->im->w >= 1 && v->im->h >= 1 && v->im->rgb && filter >= RESAMPLE_NEAREST &&
          filter <= RESAMPLE_HAMMING);
    if (!codec_alloc(out, cw, ch, st)) return false;
    int64_t x1 = (int64_t)x + cw, y1 = (int64_t)y + ch;
    job j = {.v = v, .out = out};
    j.x0 = x > 0 ? x : 0;
    j.y0 = y > 0 ? y : 0;
    j.x1 = (int)(x1 < w ? x1 : w);
    j.y1 = (int)(y1 < h ? y1 : h);
    j.ox = (int)((int64_t)j.x0 - x);
    j.oy = (int)((int64_t)j.y0 - y);
    if (j.x0 > x || j.y0 > y || x1 > w || y1 > h) memset(out->rgb, 0, (size_t)cw * (size_t)ch * 3);
    if (j.x0 >= j.x1 || j.y0 >= j.y1) return true;
    bool ok = true;
    if (filter == RESAMPLE_NEAREST && (w != v->w || h != v->h)) {
        ok = nearest(v, w, h, &j, st);
    } else {
        bool fast = codec_has_avx2();
        j.row_fn = fast ? resize_row_avx2 : resize_row_c;
        j.col_fn = fast ? resize_col_avx2 : resize_col_c;
        j.do_across = w != v->w;
        j.do_down = h != v->h;
        ok = (!j.do_across || axis_init(&j.across, v->w, w, filter, st)) &&
             (!j.do_down || axis_init(&j.down, v->h, h, filter, st));
        j.top = j.y0;
        j.rows = j.y1 - j.y0;
        if (ok && j.do_down) {
            resize_tap last = axis_window(&j.down, j.y1 - 1);
            j.top = axis_window(&j.down, j.y0).first;
            j.rows = last.first + last.count - j.top;
        }
        /* Rounding to 8 bits between the passes makes their order visible. Pillow 13 goes down the columns
         * first when that takes away more than twice as many rows as columns go (found by trying; older
         * versions never do). */
        bool down_first = j.do_across && j.do_down && h < v->h && (int64_t)v->h - h > 2 * ((int64_t)v->w - w);
        ok = ok && (down_first ? run_down_first(&j, st) : run(&j, st));
        mem_free(j.across.w);
        mem_free(j.down.w);
    }
    if (!ok) image_fini(out);
    return ok;
}

bool image_resize_crop(const image *in, int w, int h, resample filter, int x, int y, int cw, int ch,
                       image *out, status *st) {
    resize_view v = {.im = in, .w = in->w, .h = in->h};
    return resize_view_crop(&v, w, h, filter, x, y, cw, ch, out, st);
}
