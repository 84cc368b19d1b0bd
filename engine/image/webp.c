/* webp.c - WebP: the header by our own walk over the RIFF chunks, the pixels by libwebp.
 *
 * Thread: any. Owner of memory: libwebp frees what it allocates in each call.
 * Lossy, lossless, alpha over white; of an animation the first frame on its canvas. What the frame leaves
 * uncovered is white where the file says it has transparency and black elsewhere, as Pillow shows it. Source:
 * RFC 9649. Tested by tests/engine/image/test_decode.c. */
#include <string.h>

#include <webp/decode.h>

#include "engine/image/codec.h"

enum { FLAG_ANIMATION = 0x02, FLAG_EXIF = 0x08, FLAG_ALPHA = 0x10 };

/* A generous count of what libwebp keeps: rows for a lossy frame and its alpha plane, all pixels and the code
 * tables for a lossless one (tables grow with the file; encoders stop at about 2,600 groups, 12 kB each). */
static void plan(codec_header *out, bool lossless, uint32_t chunk_bytes) {
    size_t px = (size_t)out->fw * (size_t)out->fh, groups = chunk_bytes / 16;
    if (groups > 2600) groups = 2600;
    out->work_bytes = ((size_t)1 << 20) + (size_t)out->fw * 256 + groups * 12800;
    out->work_bytes +=
        lossless ? px * 4 + (size_t)out->fw * 64 : px * 5; /* an alpha plane may be lossless itself */
    out->work_bytes += px * 4;                             /* our RGBA */
}

/* The size in a VP8 or VP8L bitstream's first ten bytes. */
static bool stream_size(const uint8_t *b, bool lossless, int *w, int *h) {
    if (lossless) {
        uint32_t v = le32(b + 1);
        *w = (int)(v & 0x3fff) + 1;
        *h = (int)(v >> 14 & 0x3fff) + 1;
        return b[0] == 0x2f;
    }
    *w = (int)(le16(b + 6) & 0x3fff);
    *h = (int)(le16(b + 8) & 0x3fff);
    return !(b[0] & 1) && memcmp(b + 3, "\x9d\x01\x2a", 3) == 0;
}

static bool read_exif(codec_reader *r, uint32_t n, codec_header *out, status *st) {
    uint8_t *s = mem_alloc(n);
    if (!s) return codec_no_memory(st, n);
    bool ok = codec_read(r, s, n);
    if (ok) {
        size_t skip = n >= 6 && memcmp(s, "Exif\0", 5) == 0 ? 6 : 0; /* some writers keep JPEG's mark */
        out->orientation = exif_orientation(s + skip, n - skip);
    }
    mem_free(s);
    return ok;
}

bool webp_header(codec_reader *r, const uint8_t riff[12], codec_header *out, status *st) {
    uint8_t b[16];
    uint64_t end = (uint64_t)le32(riff + 4) + 8;
    uint8_t flags = 0;
    bool first = true, extended = false, framed = false;
    out->min_bytes = end;
    while (r->consumed + 8 <= end) {
        if (!codec_read(r, b, 8)) return false;
        uint32_t n = le32(b + 4);
        uint64_t left = end - r->consumed, padded = (uint64_t)n + (n & 1);
        if (n > left) return codec_broken(st, "WebP", "a chunk is longer than the file");
        bool lossy = memcmp(b, "VP8 ", 4) == 0, lossless = memcmp(b, "VP8L", 4) == 0;
        bool anmf = memcmp(b, "ANMF", 4) == 0, exif = memcmp(b, "EXIF", 4) == 0;
        if (first && memcmp(b, "VP8X", 4) == 0) {
            if (n < 10) return codec_broken(st, "WebP", "its VP8X chunk is too short");
            if (!codec_read(r, b, 10) || !codec_skip(r, padded - 10)) return false;
            extended = true;
            flags = b[0];
            out->alpha = flags & FLAG_ALPHA;
            out->w = out->fw = (int)le24(b + 4) + 1;
            out->h = out->fh = (int)le24(b + 7) + 1;
        } else if (first || ((lossy || lossless) && !framed && !(flags & FLAG_ANIMATION))) {
            int w, h;
            if (!lossy && !lossless) return codec_broken(st, "WebP", "it begins with an unknown chunk");
            if (n < 10) return codec_broken(st, "WebP", "its picture is too short");
            if (!codec_read(r, b, 10)) return false;
            if (!stream_size(b, lossless, &w, &h))
                return codec_broken(st, "WebP", "its picture has no valid header");
            if (extended && (w != out->w || h != out->h))
                return codec_broken(st, "WebP", "its picture and its canvas differ in size");
            out->w = out->fw = w;
            out->h = out->fh = h;
            framed = true;
            plan(out, lossless, n);
            if (!(flags & FLAG_EXIF)) return true;
            if (!codec_skip(r, padded - 10)) return false;
        } else if (anmf && !framed && flags & FLAG_ANIMATION) {
            if (n < 24) return codec_broken(st, "WebP", "its first frame is too short");
            if (!codec_read(r, b, 16)) return false;
            out->fx = 2 * (int)le24(b);
            out->fy = 2 * (int)le24(b + 3);
            out->fw = (int)le24(b + 6) + 1;
            out->fh = (int)le24(b + 9) + 1;
            if (out->fx + out->fw > out->w || out->fy + out->fh > out->h)
                return codec_broken(st, "WebP", "its first frame lies outside the canvas");
            out->frame_off = r->consumed;
            out->frame_bytes = n - 16;
            framed = true;
            plan(out, true, n);
            if (!(flags & FLAG_EXIF)) return true;
            if (!codec_skip(r, padded - 16)) return false;
        } else if (exif && n > 0 && n <= 1u << 20) {
            if (!read_exif(r, n, out, st)) return false;
            if (framed) return true;
            if (!codec_skip(r, padded - n)) return false;
        } else {
            if (!codec_skip(r, padded < left ? padded : left)) return false;
        }
        first = false;
    }
    return framed ? true : codec_broken(st, "WebP", "it holds no picture");
}

/* Decodes the chunks p[0..n) of one frame into dst; alpha: RGBA, else RGB. */
static bool frame(const uint8_t *p, size_t n, const codec_header *h, bool alpha, uint8_t *dst, status *st) {
    /* Refused memory half way, libwebp calls the data broken, or crashes: it is not begun where there is none. */
    void *room = mem_alloc(h->work_bytes);
    if (!room) return codec_no_memory(st, h->work_bytes);
    mem_free(room);
    WebPDecoderConfig config;
    size_t stride = (size_t)h->fw * (alpha ? 4 : 3);
    if (!WebPInitDecoderConfig(&config)) return codec_broken(st, "WebP", "the decoder does not fit");
    config.output.colorspace = alpha ? MODE_RGBA : MODE_RGB;
    config.output.is_external_memory = 1;
    config.output.u.RGBA.rgba = dst;
    config.output.u.RGBA.stride = (int)stride;
    config.output.u.RGBA.size = stride * (size_t)h->fh;
    VP8StatusCode code = WebPDecode(p, n, &config);
    WebPFreeDecBuffer(&config.output);
    switch (code) {
    case VP8_STATUS_OK: return true;
    case VP8_STATUS_OUT_OF_MEMORY: return codec_no_memory(st, h->work_bytes);
    case VP8_STATUS_NOT_ENOUGH_DATA:
    case VP8_STATUS_SUSPENDED: return codec_broken(st, "WebP", "its data ends before the last row");
    default: return codec_broken(st, "WebP", "its compressed data makes no sense");
    }
}

bool webp_decode(const uint8_t *file, size_t n, const codec_header *h, image *out, status *st) {
    const uint8_t *p = file + h->frame_off;
    size_t len = h->frame_off ? h->frame_bytes : n;
    WebPBitstreamFeatures f;
    if (h->frame_off > n || len > n - h->frame_off)
        return codec_broken(st, "WebP", "its first frame is cut off");
    if (WebPGetFeatures(p, len, &f) != VP8_STATUS_OK)
        return codec_broken(st, "WebP", "its picture has no valid header");
    if (f.width != h->fw || f.height != h->fh || f.has_animation)
        return codec_broken(st, "WebP", "it contains two headers of different sizes");
    if (!codec_alloc(out, h->w, h->h, st)) return false;
    bool covers = h->fw == h->w && h->fh == h->h, alpha = h->frame_off ? h->alpha : f.has_alpha;
    if (covers && !alpha) return frame(p, len, h, false, out->rgb, st);
    size_t bytes = (size_t)h->fw * (size_t)h->fh * 4;
    uint8_t *rgba = mem_alloc(bytes);
    if (!rgba) return codec_no_memory(st, bytes);
    bool ok = frame(p, len, h, true, rgba, st);
    if (ok) {
        if (!covers) memset(out->rgb, alpha ? 255 : 0, (size_t)h->w * (size_t)h->h * 3);
        for (int y = 0; y < h->fh; y++) {
            const uint8_t *s = rgba + (size_t)y * (size_t)h->fw * 4;
            uint8_t *d = out->rgb + ((size_t)(h->fy + y) * (size_t)h->w + (size_t)h->fx) * 3;
            for (int x = 0; x < h->fw; x++, s += 4, d += 3)
                for (int c = 0; c < 3; c++) d[c] = alpha ? codec_over_white(s[c], s[3]) : s[c];
        }
    }
    mem_free(rgba);
    return ok;
}
