/* image.h - pictures: base64 and headers, decoding, resizing, and the pixels a tower reads.
 *
 * Threads: all functions are pure; probe and plan run on HTTP threads (headers only), decode and prepare on
 * the picture workers, never on the engine's thread. Owner: whoever passes an image in frees it with
 * image_fini. Errors are ST_INVALID / ST_TOO_LARGE / ST_UNSUPPORTED with a reason of ours: text from a
 * decoder library never reaches a client. Sources: Pillow (decode modes, resize), transformers' image
 * processors (the Pillow ones). */
#ifndef VLMD_ENGINE_IMAGE_H
#define VLMD_ENGINE_IMAGE_H

#include <jansson.h>
#include <stdatomic.h>

#include "kernels/base.h"

typedef enum image_format { IMAGE_JPEG, IMAGE_PNG, IMAGE_WEBP, IMAGE_GIF } image_format;

typedef struct image_limits {
    int64_t max_pixels;           /* w*h of the file, and of any size after resize; default 64 million */
    size_t max_encoded_bytes;     /* of the compressed file */
    int max_scans;                /* progressive JPEG; default 100 */
    const atomic_bool *cancelled; /* NULL, or a flag that ends a long decode early (ST_CANCELLED) */
} image_limits;
extern const image_limits IMAGE_LIMITS_DEFAULT;

/* The base64 of a data URL (after the comma), as it lies in the request body. */
typedef struct image_source {
    const char *b64;
    size_t n;
} image_source;

/* Splits "data:image/png;base64,...." into its base64 part; false (ST_INVALID) when it is no base64 data URL.
 */
bool image_source_from_url(const char *url, size_t n, image_source *out, status *st);

/* Standard and URL-safe alphabet, padding optional, white space skipped, JSON's escapes understood (a span of
 * a body is not unescaped); appends to out. False on other bytes (out then holds what came before) and
 * without memory (out->failed). Source: RFC 4648. Tested by tests/engine/image/test_base64.c. */
bool base64_decode(const char *s, size_t n, buf *out);

typedef struct image_info {
    image_format format;
    int w, h;            /* as a viewer shows it: EXIF orientation applied */
    size_t decode_bytes; /* upper bound of what decoding allocates at once */
} image_info;

/* From the header alone: decodes no more base64 than the header needs. Refuses what is over the limits. */
bool image_probe(const image_source *src, const image_limits *lim, image_info *out, status *st);

typedef struct image { /* 8-bit RGB, row-major, no padding; rgb owned */
    int w, h;
    uint8_t *rgb;
} image;
void image_fini(image *im);

/* Whole picture; alpha over white, 16 bits to the high byte, first frame of an animation. A truncated file is
 * an error, never a half-grey picture. */
bool image_decode(const image_source *src, const image_limits *lim, image *out, status *st);
bool image_decode_bytes(const void *file, size_t n, const image_limits *lim, image *out, status *st);

typedef enum resample {
    RESAMPLE_NEAREST = 0,
    RESAMPLE_LANCZOS = 1,
    RESAMPLE_BILINEAR = 2,
    RESAMPLE_BICUBIC = 3,
    RESAMPLE_BOX = 4,
    RESAMPLE_HAMMING = 5
} resample; /* Pillow's numbers */

/* Pillow's Image.resize((w, h), filter): every pixel equal. Then crop: only rows/columns of the box
 * [x, x+cw) x [y, y+ch) of the resized picture are computed and kept. */
bool image_resize_crop(const image *in, int w, int h, resample filter, int x, int y, int cw, int ch,
                       image *out, status *st);

/* ---- preprocess: preprocessor_config.json / processor_config.json as data --------------------------------
 */

typedef enum prep_size {
    PREP_SIZE_NONE,
    PREP_SIZE_SHORTEST, /* the short side becomes size_w; the long one at most size_h when that is not 0 */
    PREP_SIZE_LONGEST,  /* the long side becomes size_w */
    PREP_SIZE_EXACT,    /* size_w x size_h */
    PREP_SIZE_PIXELS, /* about its own size and ratio, from size_w to size_h pixels in all, sides multiples of patch * merge */
    /* as many patches of size_h pixels as fit into size_w of them at about the same ratio, sides rounded up to whole ones */
    PREP_SIZE_PATCHES,
    PREP_SIZE_WITHIN /* as large as fits into size_w x size_h at the same ratio, also larger than it was */
} prep_size;

/* How a picture becomes several tiles of one side (cut.c). */
typedef enum prep_cut_kind {
    PREP_CUT_NONE,
    PREP_CUT_POINTS, /* the whole, squashed into a tile; then the best of a list of sizes, with black around */
    PREP_CUT_RATIO, /* the grid of the nearest ratio; behind more than one tile the whole, squashed into one */
    PREP_CUT_QUARTERS, /* four quarters and the whole, or the whole alone, each scaled for itself within two edges */
    PREP_CUT_EDGE /* scaled by the longest edge, sides raised to whole tiles; behind several the whole, squashed */
} prep_cut_kind;

enum { PREP_MAX_POINTS = 64 };
typedef struct prep_cut {
    prep_cut_kind kind;
    int side;                 /* of a tile, pixels */
    int min_tiles, max_tiles; /* ratio: of the grid */
    bool whole_only;          /* edge: scaled, then squashed into one tile; quarters: none */
    int n_points;
    struct prep_point {
        int32_t h, w; /* multiples of side */
    } points[PREP_MAX_POINTS];
} prep_cut;

/* How a picture becomes the one tile that a tower reads (tiles.h makes it). Order: pad to square (LLaVA's do_pad), resize, centre crop,
 * rescale, normalise. The last two are not applied to pixels here: patchify does them from 8 bits. */
typedef struct prep_spec {
    bool pad_square;
    uint8_t pad_rgb[3]; /* int(mean * 255) */
    bool no_pad_rgb;    /* that is no colour; what would be padded is refused */
    prep_size size;
    int size_w, size_h;
    resample filter;
    bool crop;
    int crop_w, crop_h;
    bool
        crop_even; /* where the crop cannot stand in the middle, at an even row and column instead of the smaller one */
    int patch, merge, frames;    /* of the tower that it was made for; 0: the file does not say */
    int max_tiles;               /* max_image_tiles, for who cuts pictures into tiles of size_w x size_h */
    prep_cut cut;                /* kind other than none: pad_square and crop do not count */
    int pan_crops, pan_min_side; /* pan and scan: at most so many crops of at least so many pixels; 0: none */
    double pan_min_ratio;        /* of a picture's sides, from which on */
    float rescale;               /* 1 when do_rescale is false */
    float mean[3], std[3];       /* 0 and 1 when do_normalize is false */
} prep_spec;

/* Reads the old flat form (preprocessor_config.json) and the new one (processor_config.json:image_processor),
 * int or object sizes, defaults of the class named in image_processor_type (or feature_extractor_type) where
 * a key is left out. Names that end in Fast or Pil mean the same class; no name at all means the CLIP
 * defaults and a do_pad that pads to a square. config is the image processor's object, or a
 * processor_config.json that holds one. ST_UNSUPPORTED for a class or a setting that vlmd does not have,
 * ST_INVALID for a value that makes no sense. Source: transformers 5.23, the Pillow classes. Tested by
 * tests/engine/image/test_prep.c. */
bool prep_spec_from_json(const json_t *config, prep_spec *out, status *st);

#endif
