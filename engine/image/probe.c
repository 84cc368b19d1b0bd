/* probe.c - which format a file has, what its header says, and whether that may be decoded; then decoding.
 *
 * Thread: probe on HTTP threads, decode on picture workers. Owner of memory: image.rgb is the caller's; the
 * bytes that base64 stood for are freed here. The format's functions lie in jpeg.c, png.c, webp.c and gif.c.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "engine/image/codec.h"

const image_limits IMAGE_LIMITS_DEFAULT = {
    .max_pixels = 64000000, .max_encoded_bytes = (size_t)64 << 20, .max_scans = 100};

static const char *const format_name[] = {"JPEG", "PNG", "WebP", "GIF"};

/* ---- reader ---- */

void codec_reader_bytes(codec_reader *r, const void *file, size_t n) {
    r->mem = file;
    r->n = n;
    r->pos = 0;
    r->consumed = 0;
    r->eof = false;
    base64_begin(&r->b64, NULL, 0);
}

void codec_reader_base64(codec_reader *r, const char *s, size_t n) {
    r->mem = NULL;
    r->n = r->pos = 0;
    r->consumed = 0;
    r->eof = false;
    base64_begin(&r->b64, s, n);
}

static bool refill(codec_reader *r) {
    if (!r->mem) {
        r->pos = 0;
        r->n = base64_some(&r->b64, r->window, sizeof r->window);
        if (r->n) return true;
    }
    r->eof = true;
    return false;
}

bool codec_read(codec_reader *r, void *dst, size_t n) {
    uint8_t *d = dst;
    while (n) {
        if (r->pos == r->n && (r->mem || !refill(r))) return !(r->eof = true);
        size_t k = r->n - r->pos < n ? r->n - r->pos : n;
        memcpy(d, (r->mem ? r->mem : r->window) + r->pos, k);
        r->pos += k;
        r->consumed += k;
        d += k;
        n -= k;
    }
    return true;
}

bool codec_skip(codec_reader *r, uint64_t n) {
    while (n) {
        if (r->pos == r->n) {
            if (!r->mem) {
                size_t k = base64_skip(&r->b64, n < SIZE_MAX ? (size_t)n : SIZE_MAX);
                r->consumed += k;
                n -= k;
                if (!n) break;
            }
            if (r->mem || !refill(r)) return !(r->eof = true);
        }
        uint64_t k = r->n - r->pos < n ? r->n - r->pos : n;
        r->pos += (size_t)k;
        r->consumed += k;
        n -= k;
    }
    return true;
}

bool codec_reader_failed(const codec_reader *r, const char *format, status *st) {
    if (r->b64.bad) {
        size_t at = (size_t)(r->b64.p - r->b64.start);
        if (r->b64.p < r->b64.end)
            return status_set(
                st, ST_INVALID,
                "the picture's data is not base64: expected one of A-Z a-z 0-9 + / = at character %zu, "
                "found byte 0x%02x",
                at, *r->b64.p);
        return status_set(st, ST_INVALID,
                          "the picture's base64 is cut off: one digit is left over at its end");
    }
    return status_set(st, ST_INVALID, "the picture is truncated: its %s header ends after %" PRIu64 " bytes",
                      format, r->consumed);
}

/* ---- shared by the formats ---- */

bool codec_broken(status *st, const char *format, const char *reason) {
    return status_set(st, ST_INVALID, "the picture's %s data is broken or cut off: %s", format, reason);
}

bool codec_no_memory(status *st, size_t bytes) {
    return status_set(st, ST_NO_MEMORY, "no memory for a picture (%zu bytes)", bytes);
}

bool codec_alloc(image *out, int w, int h, status *st) {
    size_t bytes = (size_t)w * (size_t)h * 3;
    out->w = w;
    out->h = h;
    out->rgb = mem_alloc(bytes);
    return out->rgb ? true : codec_no_memory(st, bytes);
}

void image_fini(image *im) {
    if (!im) return;
    mem_free(im->rgb);
    memset(im, 0, sizeof *im);
}

/* ---- header ---- */

bool codec_header_read(codec_reader *r, size_t file_bytes, const image_limits *lim, codec_header *out,
                       status *st) {
    static const char accepted[] = "the picture is none of the accepted formats (JPEG, PNG, WebP, GIF)";
    uint8_t m[12] = {0};
    char first[3 * sizeof m + 1] = "";
    memset(out, 0, sizeof *out);
    out->orientation = 1;
    size_t got = 0;
    while (got < sizeof m) {
        /* only as far as the bytes can still be one of the four */
        if (got >= 3 && m[0] == 0xff && m[1] == 0xd8 && m[2] == 0xff) break;
        if (got >= 6 && (memcmp(m, "GIF87a", 6) == 0 || memcmp(m, "GIF89a", 6) == 0)) break;
        if (got >= 8 && memcmp(m, "\x89PNG\r\n\x1a\n", 8) == 0) break;
        if (!codec_read(r, m + got, 1)) break;
        size_t at = strlen(first);
        snprintf(first + at, sizeof first - at, "%s%02x", at ? " " : "", m[got]);
        got++;
    }
    if (r->b64.bad) return codec_reader_failed(r, "", st);
    if (!got) return status_set(st, ST_INVALID, "the picture is empty: 0 bytes of data");
    bool ok;
    if (got >= 3 && m[0] == 0xff && m[1] == 0xd8 && m[2] == 0xff) {
        out->format = IMAGE_JPEG;
        ok = jpeg_header(r, out, st);
    } else if (got == 6 && memcmp(m, "GIF8", 4) == 0) {
        out->format = IMAGE_GIF;
        ok = gif_header(r, out, st);
    } else if (got == 8 && memcmp(m, "\x89PNG\r\n\x1a\n", 8) == 0) {
        out->format = IMAGE_PNG;
        ok = png_header(r, out, st);
    } else if (got == 12 && memcmp(m, "RIFF", 4) == 0 && memcmp(m + 8, "WEBP", 4) == 0) {
        out->format = IMAGE_WEBP;
        ok = webp_header(r, m, out, st);
    } else {
        return status_set(st, ST_INVALID, "%s; its first bytes are %s", accepted, first);
    }
    const char *name = format_name[out->format];
    if (!ok) return st && st->code != ST_OK ? false : codec_reader_failed(r, name, st);
    if (out->w < 1 || out->h < 1)
        return status_set(st, ST_INVALID, "the picture's %s header gives a size of %dx%d", name, out->w,
                          out->h);
    if ((int64_t)out->w * out->h > lim->max_pixels)
        return status_set(st, ST_TOO_LARGE, "the picture has %dx%d pixels, more than the limit of %" PRId64,
                          out->w, out->h, lim->max_pixels);
    if (out->w > CODEC_MAX_SIDE || out->h > CODEC_MAX_SIDE)
        return status_set(st, ST_TOO_LARGE, "the picture has %dx%d pixels; a side may have %d", out->w,
                          out->h, CODEC_MAX_SIDE);
    if (file_bytes < out->min_bytes)
        return status_set(
            st, ST_INVALID,
            "the picture's %s data is cut off, or its header lies: %dx%d pixels need at least %" PRIu64
            " bytes, found %zu",
            name, out->w, out->h, out->min_bytes, file_bytes);
    return true;
}

static bool encoded_fits(size_t bytes, const image_limits *lim, status *st) {
    if (bytes <= lim->max_encoded_bytes) return true;
    return status_set(st, ST_TOO_LARGE, "the picture's file has %zu bytes, more than the limit of %zu", bytes,
                      lim->max_encoded_bytes);
}

/* What n characters of base64 can stand for; white space and padding make it less. */
static size_t base64_max_bytes(size_t n) {
    return n / 4 * 3 + 3;
}

bool image_probe(const image_source *src, const image_limits *lim, image_info *out, status *st) {
    codec_reader r;
    codec_header h;
    status local = {0};
    memset(out, 0, sizeof *out);
    /* the last group may be padding */
    if (src->n > 4 && !encoded_fits((src->n - 4) / 4 * 3, lim, st)) return false;
    codec_reader_base64(&r, src->b64, src->n);
    size_t file_bytes = base64_max_bytes(src->n);
    if (!codec_header_read(&r, file_bytes, lim, &h, &local))
        return status_set(st, local.code, "%s", local.msg);
    bool turned = h.orientation >= 5;
    out->format = h.format;
    out->w = turned ? h.h : h.w;
    out->h = turned ? h.w : h.h;
    size_t rgb = (size_t)h.w * (size_t)h.h * 3;
    size_t decoding = file_bytes + 64 + rgb + h.work_bytes,
           turning = h.orientation > 1 ? 2 * rgb + file_bytes + 64 : 0;
    out->decode_bytes = decoding > turning ? decoding : turning;
    return true;
}

/* ---- decode ---- */

bool image_decode_bytes(const void *file, size_t n, const image_limits *lim, image *out, status *st) {
    codec_reader r;
    codec_header h;
    status local = {0};
    memset(out, 0, sizeof *out);
    if (!encoded_fits(n, lim, st)) return false;
    codec_reader_bytes(&r, file ? file : "", n);
    bool ok = codec_header_read(&r, n, lim, &h, &local);
    if (ok) {
        switch (h.format) {
        case IMAGE_JPEG: ok = jpeg_decode(file, n, &h, lim, out, &local); break;
        case IMAGE_PNG: ok = png_decode(file, n, &h, out, &local); break;
        case IMAGE_WEBP: ok = webp_decode(file, n, &h, out, &local); break;
        case IMAGE_GIF: ok = gif_decode(file, n, &h, out, &local); break;
        }
    }
    ok = ok && exif_apply(out, h.orientation, &local);
    if (ok) return true;
    image_fini(out);
    return status_set(st, local.code, "%s", local.msg);
}

bool image_decode(const image_source *src, const image_limits *lim, image *out, status *st) {
    memset(out, 0, sizeof *out);
    if (src->n > 4 && !encoded_fits((src->n - 4) / 4 * 3, lim, st)) return false;
    size_t cap = base64_max_bytes(src->n) + 32; /* the vector path writes whole registers */
    uint8_t *file = mem_alloc(cap);
    if (!file) return codec_no_memory(st, cap);
    codec_reader r;
    codec_reader_base64(&r, src->b64, src->n);
    size_t n = base64_some(&r.b64, file, cap);
    bool ok = !r.b64.bad ? image_decode_bytes(file, n, lim, out, st) : codec_reader_failed(&r, "", st);
    mem_free(file);
    return ok;
}
