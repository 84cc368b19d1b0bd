/* png.c - PNG: the header by our own walk over the chunks, the pixels by libpng.
 *
 * Thread: any. Owner of memory: libpng allocates through mem_* and gives everything back in each call.
 * Every color type at every depth, alpha and tRNS over white, 16 bits to the high byte, gamma and profiles
 * ignored, as Pillow does. Interlaced rows are placed here, so that no second whole picture is needed. Chunks
 * that say nothing about pixels are passed over (their checksums still count). Source: W3C PNG (third
 * edition). Tested by tests/engine/image/test_decode.c. */
#include <setjmp.h>
#include <string.h>

#include <png.h>

#include "engine/image/codec.h"

/* ---- header ---- */

bool png_header(codec_reader *r, codec_header *out, status *st) {
    uint8_t b[13];
    if (!codec_read(r, b, 8)) return false;
    if (be32(b) != 13 || memcmp(b + 4, "IHDR", 4) != 0)
        return codec_broken(st, "PNG", "it does not begin with an IHDR chunk");
    if (!codec_read(r, b, 13) || !codec_skip(r, 4)) return false;
    if (be32(b) > INT32_MAX || be32(b + 4) > INT32_MAX)
        return codec_broken(st, "PNG", "its size is over 2147483647");
    out->w = (int)be32(b);
    out->h = (int)be32(b + 4);
    out->depth = b[8];
    out->color = b[9];
    out->interlaced = b[12] == 1;
    static const uint8_t depths[7] = {1 | 2 | 4 | 8 | 16, 0, 8 | 16, 1 | 2 | 4 | 8, 8 | 16, 0, 8 | 16};
    static const uint8_t channels[7] = {1, 0, 3, 1, 2, 0, 4};
    bool power = out->depth && !(out->depth & (out->depth - 1));
    if (out->color > 6 || !power || !(depths[out->color] & out->depth))
        return codec_broken(st, "PNG", "no such combination of color type and bit depth");
    if (b[10] != 0 || b[11] != 0 || b[12] > 1)
        return codec_broken(st, "PNG", "unknown compression, filter or interlace method");
    /* libpng: a few rows of up to 8 bytes a pixel, zlib's window, its structures; ours: one row of RGBA */
    uint64_t row = (uint64_t)out->w * 8 + 64;
    out->work_bytes = (size_t)(row * 5 + ((uint64_t)1 << 20));
    /* deflate makes at most 1032 bytes of one */
    uint64_t raw =
        ((uint64_t)out->w * channels[out->color] * (unsigned)out->depth + 7) / 8 * (uint64_t)out->h;
    out->min_bytes = raw / 1032;
    if ((int64_t)out->w * out->h > INT32_MAX) return true; /* refused by any limit; look no further */
    for (;;) {
        if (!codec_read(r, b, 8)) return false;
        uint32_t n = be32(b);
        if (n > INT32_MAX) return codec_broken(st, "PNG", "a chunk's length is over 2147483647");
        if (memcmp(b + 4, "IDAT", 4) == 0) return true;
        if (memcmp(b + 4, "IEND", 4) == 0) return codec_broken(st, "PNG", "it ends before any picture data");
        if (memcmp(b + 4, "eXIf", 4) == 0 && n <= 65536) {
            uint8_t *s = mem_alloc(n);
            if (!s) return codec_no_memory(st, n);
            bool ok = codec_read(r, s, n);
            if (ok) out->orientation = exif_orientation(s, n);
            mem_free(s);
            if (!ok || !codec_skip(r, 4)) return false;
        } else if (!codec_skip(r, (uint64_t)n + 4)) {
            return false;
        }
    }
}

/* ---- pixels ---- */

typedef struct decoder {
    png_structp png;
    png_infop info;
    const uint8_t *p;
    size_t left;
    bool ended; /* the file ran out */
    bool no_memory;
    uint8_t *row;
} decoder;

static void on_error(png_structp png, png_const_charp text) {
    (void)text; /* libpng's words are not for clients */
    png_longjmp(png, 1);
}
static void on_warning(png_structp png, png_const_charp text) {
    (void)png, (void)text;
}

static void on_read(png_structp png, png_bytep dst, png_size_t n) {
    decoder *d = png_get_io_ptr(png);
    if (n > d->left) {
        d->ended = true;
        png_longjmp(png, 1);
    }
    memcpy(dst, d->p, n);
    d->p += n;
    d->left -= n;
}

static png_voidp on_malloc(png_structp png, png_alloc_size_t n) {
    decoder *d = png_get_mem_ptr(png);
    void *p = mem_alloc(n);
    if (!p) d->no_memory = true;
    return p;
}
static void on_free(png_structp png, png_voidp p) {
    (void)png;
    mem_free(p);
}

/* One row of channels 1 to 4 (grey, grey + alpha, RGB, RGBA) to every step-th RGB pixel of dst. */
static void put_row(const uint8_t *s, int channels, int n, uint8_t *dst, int step) {
    for (int i = 0; i < n; i++, s += channels, dst += 3 * step) {
        switch (channels) {
        case 1: dst[0] = dst[1] = dst[2] = s[0]; break;
        case 2: dst[0] = dst[1] = dst[2] = codec_over_white(s[0], s[1]); break;
        case 3: dst[0] = s[0], dst[1] = s[1], dst[2] = s[2]; break;
        case 4:
            for (int c = 0; c < 3; c++) dst[c] = codec_over_white(s[c], s[3]);
            break;
        }
    }
}

static void run(decoder *d, const codec_header *h, image *out) {
    static const uint8_t unused[] =
        "bKGD\0cHRM\0eXIf\0gAMA\0hIST\0iCCP\0iTXt\0oFFs\0pCAL\0pHYs\0sBIT\0sCAL\0sPLT\0"
        "sRGB\0sTER\0tEXt\0tIME\0zTXt";
    png_structp png = d->png;
    png_set_read_fn(png, d, on_read);
    png_set_crc_action(png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_set_user_limits(png, CODEC_MAX_SIDE, CODEC_MAX_SIDE);
    png_set_chunk_malloc_max(png, (png_alloc_size_t)1 << 20);
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, unused, (int)(sizeof unused / 5));
    png_read_info(png, d->info);
    if ((int)png_get_image_width(png, d->info) != h->w || (int)png_get_image_height(png, d->info) != h->h ||
        png_get_color_type(png, d->info) != h->color || png_get_bit_depth(png, d->info) != h->depth)
        png_longjmp(png, 1);
    png_set_expand(png); /* palette to RGB, grey to 8 bits, tRNS to alpha */
    if (h->depth == 16) png_set_strip_16(png);
    /* png_set_interlace_handling is left out on purpose: rows of a pass come packed, as they lie in the file
     */
    png_read_update_info(png, d->info);
    int channels = png_get_channels(png, d->info);
    if (png_get_bit_depth(png, d->info) != 8 || channels < 1 || channels > 4) png_longjmp(png, 1);
    if (!h->interlaced) {
        for (int y = 0; y < h->h; y++) {
            uint8_t *dst = out->rgb + (size_t)y * (size_t)h->w * 3;
            if (channels == 3) {
                png_read_row(png, dst, NULL);
            } else {
                png_read_row(png, d->row, NULL);
                put_row(d->row, channels, h->w, dst, 1);
            }
        }
    } else {
        for (int pass = 0; pass < 7; pass++) {
            int cols = (int)PNG_PASS_COLS((png_uint_32)h->w, pass),
                rows = (int)PNG_PASS_ROWS((png_uint_32)h->h, pass);
            if (!cols) continue; /* an empty pass has no rows in the file either */
            for (int y = 0; y < rows; y++) {
                png_read_row(png, d->row, NULL);
                size_t at = (size_t)PNG_ROW_FROM_PASS_ROW(y, pass) * (size_t)h->w + PNG_PASS_START_COL(pass);
                put_row(d->row, channels, cols, out->rgb + at * 3, 1 << PNG_PASS_COL_SHIFT(pass));
            }
        }
    }
    png_read_end(png, NULL);
}

bool png_decode(const uint8_t *file, size_t n, const codec_header *h, image *out, status *st) {
    volatile bool ok = false;
    if (!codec_alloc(out, h->w, h->h, st)) return false;
    decoder *d = mem_calloc(1, sizeof *d); /* not on the stack: it must outlive a longjmp with its values */
    if (!d) return codec_no_memory(st, sizeof *d);
    d->p = file;
    d->left = n;
    d->row = mem_alloc((size_t)h->w * 8 + 64);
    if (d->row)
        d->png =
            png_create_read_struct_2(PNG_LIBPNG_VER_STRING, d, on_error, on_warning, d, on_malloc, on_free);
    d->info = d->png ? png_create_info_struct(d->png) : NULL;
    if (!d->info) {
        codec_no_memory(st, (size_t)h->w * 8);
    } else if (setjmp(png_jmpbuf(d->png)) == 0) {
        run(d, h, out);
        ok = true;
    } else if (d->no_memory) {
        codec_no_memory(st, h->work_bytes);
    } else {
        codec_broken(st, "PNG",
                     d->ended ? "the file ends before its last chunk"
                              : "a checksum is wrong, or its compressed data makes no sense");
    }
    png_destroy_read_struct(&d->png, &d->info, NULL);
    mem_free(d->row);
    mem_free(d);
    return ok;
}
