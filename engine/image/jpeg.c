/* jpeg.c - JPEG: the header by our own walk over the segments, the pixels by libjpeg-turbo.
 *
 * Thread: any. Owner of memory: libjpeg's pools end with each call; out->rgb is the caller's.
 * Pixels are those of Pillow's convert("RGB"): integer IDCT, smooth chroma upsampling, CMYK taken as inverted
 * (as every program that writes one does). A warning after which pixels would be wrong is an error: a
 * truncated file is refused. Sources: ITU-T T.81, libjpeg-turbo's libjpeg.txt, Pillow. Tested by
 * tests/engine/image/test_decode.c. */
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

#include "engine/image/codec.h"

/* ---- header ---- */

static bool frame_header(const uint8_t *s, size_t n, int marker, codec_header *out, int samp[4][2],
                         status *st) {
    if (n < 6 || n < 6 + 3 * (size_t)s[5]) return codec_broken(st, "JPEG", "its frame header is too short");
    if (out->components) return codec_broken(st, "JPEG", "it has two frame headers");
    bool arithmetic = marker == 0xc9 || marker == 0xca;
    if (marker != 0xc0 && marker != 0xc1 && marker != 0xc2 && !arithmetic)
        return status_set(st, ST_UNSUPPORTED,
                          "the picture is a lossless or hierarchical JPEG, which is not supported");
    if (s[0] != 8)
        return status_set(st, ST_UNSUPPORTED, "the picture is a JPEG of %d bits; 8 are supported", s[0]);
    out->h = (int)be16(s + 1);
    out->w = (int)be16(s + 3);
    out->components = s[5];
    out->progressive = marker == 0xc2 || marker == 0xca;
    if (out->components != 1 && out->components != 3 && out->components != 4)
        return status_set(st, ST_UNSUPPORTED,
                          "the picture is a JPEG of %d components; 1, 3 and 4 are supported",
                          out->components);
    for (int i = 0; i < out->components; i++) {
        samp[i][0] = s[7 + 3 * i] >> 4;
        samp[i][1] = s[7 + 3 * i] & 15;
        if (samp[i][0] < 1 || samp[i][0] > 4 || samp[i][1] < 1 || samp[i][1] > 4)
            return codec_broken(st, "JPEG", "a sampling factor is not 1 to 4");
    }
    return true;
}

/* What libjpeg allocates, and the least that a file of this size can have: every block takes at least one
 * bit. */
static void plan(codec_header *out, int samp[4][2], bool arithmetic) {
    int hmax = 1, vmax = 1;
    for (int i = 0; i < out->components; i++) {
        hmax = samp[i][0] > hmax ? samp[i][0] : hmax;
        vmax = samp[i][1] > vmax ? samp[i][1] : vmax;
    }
    uint64_t mcux = ((uint64_t)out->w + 8u * (unsigned)hmax - 1) / (8u * (unsigned)hmax);
    uint64_t mcuy = ((uint64_t)out->h + 8u * (unsigned)vmax - 1) / (8u * (unsigned)vmax), blocks = 0,
             real = 0;
    for (int i = 0; i < out->components; i++) {
        uint64_t wide = mcux * 8 * (unsigned)hmax;
        blocks += mcux * (unsigned)samp[i][0] * (mcuy + 1) * (unsigned)samp[i][1];
        real += (uint64_t)out->w * (unsigned)samp[i][0] / (unsigned)hmax / 8 *
                ((uint64_t)out->h * (unsigned)samp[i][1] / (unsigned)vmax / 8);
        /* rows of samples: the group being read, its neighbours for smooth upsampling, and what is upsampled
         */
        out->work_bytes += (size_t)(wide * 8 * (unsigned)vmax * 6);
    }
    out->work_bytes += (size_t)1 << 20;
    if (out->multi_scan) out->work_bytes += (size_t)(blocks * 64 * sizeof(JCOEF));
    out->min_bytes = arithmetic ? 0 : real / 8;
}

bool jpeg_header(codec_reader *r, codec_header *out, status *st) {
    int samp[4][2] = {{0}};
    bool arithmetic = false, exif = false;
    uint8_t b[4];
    b[1] = 0xff; /* the first bytes were ff d8 ff */
    for (;;) {
        /* fill bytes, and rubbish between segments, which libjpeg skips too */
        if (b[1] != 0xff) {
            do {
                if (!codec_read(r, b + 1, 1)) return false;
            } while (b[1] != 0xff);
        }
        do {
            if (!codec_read(r, b + 1, 1)) return false;
        } while (b[1] == 0xff);
        int marker = b[1];
        b[1] = 0;
        if (marker == 0 || marker == 0x01 || (marker >= 0xd0 && marker <= 0xd7)) continue;
        if (marker == 0xd8) return codec_broken(st, "JPEG", "a second picture begins in its header");
        if (marker == 0xd9) return codec_broken(st, "JPEG", "it ends before any picture data");
        if (!codec_read(r, b + 2, 2)) return false;
        size_t n = be16(b + 2);
        if (n < 2) return codec_broken(st, "JPEG", "a segment's length is less than 2");
        n -= 2;
        bool sof = marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc;
        if (sof) {
            uint8_t s[6 + 3 * 255];
            size_t k = n < sizeof s ? n : sizeof s;
            if (!codec_read(r, s, k) || !codec_skip(r, n - k)) return false;
            if (!frame_header(s, k, marker, out, samp, st)) return false;
            arithmetic = marker == 0xc9 || marker == 0xca;
        } else if (marker == 0xe1 && !exif && n >= 14) {
            uint8_t *s = mem_alloc(n);
            if (!s) return codec_no_memory(st, n);
            bool ok = codec_read(r, s, n);
            if (ok && memcmp(s, "Exif\0", 5) == 0) {
                exif = true;
                out->orientation = exif_orientation(s + 6, n - 6);
            }
            mem_free(s);
            if (!ok) return false;
        } else if (marker == 0xda) {
            uint8_t count;
            if (!out->components)
                return codec_broken(st, "JPEG", "picture data comes before the frame header");
            if (n < 1 || !codec_read(r, &count, 1)) return false;
            out->multi_scan = out->progressive || count < out->components;
            plan(out, samp, arithmetic);
            return true;
        } else if (!codec_skip(r, n)) {
            return false;
        }
    }
}

/* ---- pixels ---- */

typedef struct decoder {
    struct jpeg_decompress_struct cinfo;
    struct jpeg_error_mgr err;
    struct jpeg_source_mgr src;
    struct jpeg_progress_mgr progress;
    jmp_buf jump;
    const char *reason; /* ours; set before the jump */
    int max_scans;
    const atomic_bool *cancelled;
    bool past_end; /* the source ran out and an end mark was put in */
} decoder;

_Noreturn static void stop(decoder *d, const char *reason) {
    d->reason = reason;
    longjmp(d->jump, 1);
}

/* libjpeg has about a hundred messages; a client is told the kind. */
static void on_error(j_common_ptr cinfo) {
    decoder *d = cinfo->client_data;
    switch (cinfo->err->msg_code) {
    case JERR_OUT_OF_MEMORY:
    case JERR_NO_BACKING_STORE: stop(d, NULL);
    case JERR_EMPTY_IMAGE: stop(d, "its height or width is 0");
    case JERR_NO_HUFF_TABLE:
    case JERR_BAD_HUFF_TABLE:
    case JERR_DHT_INDEX: stop(d, "a Huffman table is missing or broken");
    case JERR_NO_QUANT_TABLE:
    case JERR_DQT_INDEX: stop(d, "a quantization table is missing or broken");
    case JERR_BAD_PROGRESSION:
    case JERR_BAD_PROG_SCRIPT: stop(d, "its progressive scans contradict each other");
    case JERR_CONVERSION_NOTIMPL:
    case JERR_BAD_J_COLORSPACE: stop(d, "its color space is unknown");
    default: stop(d, "a segment does not follow the format");
    }
}

static void on_message(j_common_ptr cinfo, int level) {
    decoder *d = cinfo->client_data;
    if (level >= 0) return; /* a trace */
    switch (cinfo->err->msg_code) {
    /* harmless: the pixels are right */
    case JWRN_EXTRANEOUS_DATA:
    case JWRN_ADOBE_XFORM:
    case JWRN_JFIF_MAJOR:
    case JWRN_JPEG_EOF: return; /* judged by past_end */
    case JWRN_HIT_MARKER: stop(d, "its data ends before the last row");
    case JWRN_MUST_RESYNC: stop(d, "a restart mark is missing");
    default: stop(d, "its coded data makes no sense");
    }
}

static void no_output(j_common_ptr cinfo) {
    (void)cinfo;
}
static void source_none(j_decompress_ptr cinfo) {
    (void)cinfo;
}

static boolean source_end(j_decompress_ptr cinfo) {
    static const JOCTET eoi[2] = {0xff, JPEG_EOI};
    decoder *d = cinfo->client_data;
    d->past_end = true;
    cinfo->src->next_input_byte = eoi;
    cinfo->src->bytes_in_buffer = 2;
    return TRUE;
}

static void source_skip(j_decompress_ptr cinfo, long n) {
    decoder *d = cinfo->client_data;
    if (n <= 0) return;
    if ((size_t)n > cinfo->src->bytes_in_buffer) stop(d, "a segment is longer than the file");
    cinfo->src->next_input_byte += n;
    cinfo->src->bytes_in_buffer -= (size_t)n;
}

/* Called for every row of blocks of every scan. */
static void on_progress(j_common_ptr cinfo) {
    decoder *d = cinfo->client_data;
    if (d->cancelled && atomic_load(d->cancelled)) stop(d, NULL);
    if (((j_decompress_ptr)cinfo)->input_scan_number > d->max_scans) stop(d, "it has too many scans");
}

/* Four values (inverted CMYK) to RGB as Pillow rounds it; in place would overlap, so from a row of its own.
 */
static void cmyk_row(const uint8_t *s, uint8_t *d, int w) {
    for (int x = 0; x < w; x++, s += 4, d += 3) {
        unsigned k = s[3]; /* 255 minus black */
        for (int c = 0; c < 3; c++) {
            unsigned t = (255u - s[c]) * k + 128;
            t = (t + (t >> 8)) >> 8;
            d[c] = (uint8_t)(k > t ? k - t : 0);
        }
    }
}

static bool run(decoder *d, const codec_header *h, image *out, uint8_t *row) {
    j_decompress_ptr c = &d->cinfo;
    jpeg_read_header(c, TRUE);
    if ((int)c->image_width != h->w || (int)c->image_height != h->h || c->num_components != h->components)
        stop(d, "it contains two headers of different sizes");
    c->out_color_space = h->components == 4 ? JCS_CMYK : JCS_RGB;
    c->dct_method = JDCT_ISLOW;
    c->do_fancy_upsampling = TRUE;
    jpeg_start_decompress(c);
    if ((int)c->output_width != h->w || (int)c->output_height != h->h)
        stop(d, "its size changes while it is read");
    for (int y = 0; y < h->h; y++) {
        uint8_t *dst = out->rgb + (size_t)y * (size_t)h->w * 3;
        JSAMPROW rows[1] = {row ? row : dst};
        if (jpeg_read_scanlines(c, rows, 1) != 1) stop(d, "its data ends before the last row");
        if (row) cmyk_row(row, dst, h->w);
    }
    /* One scan is whole once its last row is; of several, those after the end would be missing. */
    if (d->past_end && h->multi_scan) stop(d, "its data ends before the last scan");
    return true;
}

bool jpeg_decode(const uint8_t *file, size_t n, const codec_header *h, const image_limits *lim, image *out,
                 status *st) {
    uint8_t *volatile row = NULL;
    decoder *d = mem_calloc(1, sizeof *d);
    if (!d) return codec_no_memory(st, sizeof *d);
    if (!codec_alloc(out, h->w, h->h, st)) {
        mem_free(d);
        return false;
    }
    if (h->components == 4 && !(row = mem_alloc((size_t)h->w * 4))) {
        mem_free(d);
        return codec_no_memory(st, (size_t)h->w * 4);
    }
    d->cinfo.err = jpeg_std_error(&d->err);
    d->err.error_exit = on_error;
    d->err.emit_message = on_message;
    d->err.output_message = no_output;
    d->cinfo.client_data = d;
    d->max_scans = lim->max_scans;
    d->cancelled = lim->cancelled;
    volatile bool ok = false;
    if (setjmp(d->jump) == 0) {
        jpeg_create_decompress(&d->cinfo);
        d->cinfo.client_data = d;
        d->cinfo.mem->max_memory_to_use = (long)(h->work_bytes + h->work_bytes / 4 + ((size_t)1 << 20));
        d->src = (struct jpeg_source_mgr){.next_input_byte = file,
                                          .bytes_in_buffer = n,
                                          .init_source = source_none,
                                          .fill_input_buffer = source_end,
                                          .skip_input_data = source_skip,
                                          .resync_to_restart = jpeg_resync_to_restart,
                                          .term_source = source_none};
        d->cinfo.src = &d->src;
        d->progress.progress_monitor = on_progress;
        d->cinfo.progress = &d->progress;
        ok = run(d, h, out, row);
    } else if (d->reason) {
        codec_broken(st, "JPEG", d->reason);
    } else if (d->cancelled && atomic_load(d->cancelled)) {
        status_set(st, ST_CANCELLED, "the request was cancelled");
    } else {
        codec_no_memory(st, h->work_bytes);
    }
    jpeg_destroy_decompress(&d->cinfo);
    mem_free(row);
    mem_free(d);
    return ok;
}
