/* bench_image.c - how fast pictures come in: base64 in GB/s of text, JPEG decoding and resizing in million
 * pixels/s. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include "engine/image/image.h"

enum { W = 4000, H = 3000 };

static unsigned char *jpeg(const image *im, unsigned long *n) {
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr e;
    unsigned char *out = NULL;
    *n = 0;
    c.err = jpeg_std_error(&e);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &out, n);
    c.image_width = (JDIMENSION)im->w;
    c.image_height = (JDIMENSION)im->h;
    c.input_components = 3;
    c.in_color_space = JCS_RGB;
    jpeg_set_defaults(&c);
    jpeg_start_compress(&c, TRUE);
    while (c.next_scanline < c.image_height) {
        JSAMPROW row = im->rgb + (size_t)c.next_scanline * W * 3;
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    return out;
}

int main(void) {
    image im = {W, H, mem_alloc((size_t)W * H * 3)}, out;
    size_t n = (size_t)64 << 20;
    char *text = mem_alloc(n);
    if (!im.rgb || !text) return 1;
    for (size_t i = 0; i < (size_t)W * H * 3; i++)
        im.rgb[i] = (uint8_t)((i / 3 % W) / 16 + (i / 3 / W) / 12 + (i * 2654435761u >> 29));
    for (size_t i = 0; i < n; i++) text[i] = "AZaz09+/"[i * 2654435761u >> 7 & 7];
    double best = 1e9, t;
    buf b = {0};
    for (int i = 0; i < 5; i++) {
        buf_clear(&b);
        t = time_now_s();
        if (!base64_decode(text, n, &b)) return 1;
        t = time_now_s() - t;
        best = t < best ? t : best;
    }
    printf("base64 decode               %7.2f GB/s\n", (double)n / best / 1e9);
    unsigned long jn;
    unsigned char *file = jpeg(&im, &jn);
    best = 1e9;
    status st = {0};
    for (int i = 0; i < 3; i++) {
        t = time_now_s();
        if (!image_decode_bytes(file, jn, &IMAGE_LIMITS_DEFAULT, &out, &st)) return 1;
        t = time_now_s() - t;
        best = t < best ? t : best;
        image_fini(&out);
    }
    printf("JPEG decode, 12 MP          %7.1f MP/s\n", W * H / best / 1e6);
    static const struct {
        const char *name;
        resample filter;
    } filters[] = {
        {"bilinear", RESAMPLE_BILINEAR}, {"bicubic", RESAMPLE_BICUBIC}, {"lanczos", RESAMPLE_LANCZOS}};
    for (size_t f = 0; f < ARRAY_LEN(filters); f++) {
        best = 1e9;
        for (int i = 0; i < 3; i++) {
            t = time_now_s();
            if (!image_resize_crop(&im, 448, 336, filters[f].filter, 56, 0, 336, 336, &out, &st)) return 1;
            t = time_now_s() - t;
            best = t < best ? t : best;
            image_fini(&out);
        }
        printf("resize to 336, %-9s    %7.1f MP/s of source\n", filters[f].name, W * H / best / 1e6);
    }
    free(file);
    buf_fini(&b);
    mem_free(text);
    image_fini(&im);
    return 0;
}
