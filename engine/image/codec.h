/* codec.h - inside engine/image: what the file formats share. Not for other folders; they include image.h.
 *
 * A format is two functions: its header (from a reader, that is base64 or bytes, moving forwards only) and
 * its decoder (from the whole file, told the header that was accepted). The header decides every allocation;
 * a decoder whose library then reads something else from the file refuses it. Threads: pure. Owner: a
 * decoder's out is the caller's, also after failure (rgb NULL or freed by image_fini). */
#ifndef VLMD_ENGINE_IMAGE_CODEC_H
#define VLMD_ENGINE_IMAGE_CODEC_H

#include "engine/image/base64.h"
#include "engine/image/image.h"

enum { CODEC_WINDOW_BYTES = 3072, CODEC_MAX_SIDE = 1000000 };

/* Reads a file forwards, from bytes or from base64 by a small window. Errors: eof is the truncated file, bad
 * the byte that is no base64. */
typedef struct codec_reader {
    const uint8_t *mem; /* NULL: base64 */
    size_t n, pos;      /* of the window, or of mem */
    uint64_t consumed;  /* bytes read or skipped so far */
    base64_state b64;
    bool eof;
    uint8_t window[CODEC_WINDOW_BYTES];
} codec_reader;
void codec_reader_bytes(codec_reader *r, const void *file, size_t n);
void codec_reader_base64(codec_reader *r, const char *s, size_t n);
bool codec_read(codec_reader *r, void *dst, size_t n);
bool codec_skip(codec_reader *r, uint64_t n);
/* The status for a reader that stopped: rubbish in the base64, or a file that ends in its header. Returns
 * false. */
bool codec_reader_failed(const codec_reader *r, const char *format, status *st);

typedef struct codec_header {
    image_format format;
    int w, h;             /* as stored, before orientation */
    int orientation;      /* 1..8 */
    size_t work_bytes;    /* of the decoder, without the file and the RGB it fills */
    uint64_t min_bytes;   /* a file shorter than this cannot hold the picture the header names */
    int components;       /* JPEG */
    bool multi_scan;      /* JPEG: the whole picture's coefficients are kept */
    bool progressive;     /* JPEG */
    int depth, color;     /* PNG: bits a sample and color type */
    bool interlaced;      /* PNG, GIF */
    bool alpha;           /* WebP: the frame has transparency */
    uint64_t frame_off;   /* WebP animation: where the first frame's chunks lie in the file, else 0 */
    uint32_t frame_bytes; /* and how many bytes they take */
    int fx, fy, fw, fh;   /* WebP animation and GIF: the first frame on the canvas */
} codec_header;

/* Tells the format by the first bytes, reads the header, applies the limits. file_bytes: the whole file's
 * length, or an upper bound of it. */
bool codec_header_read(codec_reader *r, size_t file_bytes, const image_limits *lim, codec_header *out,
                       status *st);

/* Each begins behind the bytes that told the format: JPEG 3, PNG 8, WebP 12, GIF 6. */
bool jpeg_header(codec_reader *r, codec_header *out, status *st);
bool png_header(codec_reader *r, codec_header *out, status *st);
bool webp_header(codec_reader *r, const uint8_t riff[12], codec_header *out, status *st);
bool gif_header(codec_reader *r, codec_header *out, status *st);

bool jpeg_decode(const uint8_t *file, size_t n, const codec_header *h, const image_limits *lim, image *out,
                 status *st);
bool png_decode(const uint8_t *file, size_t n, const codec_header *h, image *out, status *st);
bool webp_decode(const uint8_t *file, size_t n, const codec_header *h, image *out, status *st);
bool gif_decode(const uint8_t *file, size_t n, const codec_header *h, image *out, status *st);

/* "the picture's JPEG data is broken: <reason of ours>", ST_INVALID. Returns false. */
bool codec_broken(status *st, const char *format, const char *reason);
bool codec_no_memory(status *st, size_t bytes);
/* Allocates out->rgb for w x h; out is empty. */
bool codec_alloc(image *out, int w, int h, status *st);

static inline bool codec_has_avx2(void) {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2");
#else
    return false;
#endif
}

/* Value c with opacity a (0..255) over white, as Pillow's alpha_composite rounds it. */
static inline uint8_t codec_over_white(unsigned c, unsigned a) {
    unsigned t = c * a + 255u * (255u - a) + 128u;
    return (uint8_t)((t + (t >> 8)) >> 8);
}

/* Orientation 1..8 from a TIFF block (an Exif segment without its "Exif\0\0"); 1 when there is none. */
int exif_orientation(const uint8_t *tiff, size_t n);
/* Turns im as the orientation says; needs a second picture's memory while it works. */
bool exif_apply(image *im, int orientation, status *st);

static inline uint32_t be16(const uint8_t *p) {
    return (uint32_t)p[0] << 8 | p[1];
}
static inline uint32_t be32(const uint8_t *p) {
    return be16(p) << 16 | be16(p + 2);
}
static inline uint32_t le16(const uint8_t *p) {
    return (uint32_t)p[1] << 8 | p[0];
}
static inline uint32_t le24(const uint8_t *p) {
    return le16(p) | (uint32_t)p[2] << 16;
}
static inline uint32_t le32(const uint8_t *p) {
    return le16(p) | le16(p + 2) << 16;
}

#endif
