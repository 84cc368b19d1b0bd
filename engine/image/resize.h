/* resize.h - inside engine/image: resizing out of a picture that may be thought of as padded, and its inner
 * loops.
 *
 * Threads: pure. Owner: out is the caller's (image_fini). Source: Pillow's Image.resize, every pixel equal.
 * Tested by tests/engine/image/test_resize.c. */
#ifndef VLMD_ENGINE_IMAGE_RESIZE_H
#define VLMD_ENGINE_IMAGE_RESIZE_H

#include "engine/image/image.h"

enum {
    RESIZE_BITS = 22, /* of the fraction in a weight: 32 less 8 of the pixel less 2 for overshoot */
    RESIZE_BETWEEN_BYTES = 32 << 20 /* of the strip between the two passes, where one column is not more */
};

/* A picture of w x h in the color pad, with im at (x, y). Nothing of the padding is stored. */
typedef struct resize_view {
    const image *im;
    int w, h, x, y;
    uint8_t pad[3];
} resize_view;

/* The box [x, x+cw) x [y, y+ch) of the view resized to w x h; outside of that 0. */
bool resize_view_crop(const resize_view *v, int w, int h, resample filter, int x, int y, int cw, int ch,
                      image *out, status *st);

/* One resized pixel (or row) reads count source pixels from first on, with the weights from k[off] on. */
typedef struct resize_tap {
    int first, count;
    size_t off;
} resize_tap;

/* Horizontal: n RGB pixels dst[i] = sum of src[taps[i]] weighted. Vertical: bytes dst[i] = sum over rows. */
typedef void resize_row_fn(const uint8_t *src, const resize_tap *taps, const int32_t *k, int n, uint8_t *dst);
typedef void resize_col_fn(const uint8_t *src, size_t stride, const int32_t *k, int count, uint8_t *dst,
                           size_t bytes);
resize_row_fn resize_row_c, resize_row_avx2;
resize_col_fn resize_col_c, resize_col_avx2;
#endif
