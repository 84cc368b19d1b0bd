/* test_tiles.c - plans of several steps: the tiles hold the pixels that their boxes say, in order; refusals; memory. The
 * resizing itself is test_resize.c's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "engine/image/tiles.h"

/* A picture whose pixel (x, y) says so. */
static image numbered(int w, int h) {
    image im = {w, h, mem_alloc((size_t)w * (size_t)h * 3)};
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            uint8_t *p = im.rgb + ((size_t)y * (size_t)w + (size_t)x) * 3;
            p[0] = (uint8_t)x, p[1] = (uint8_t)y, p[2] = 200;
        }
    return im;
}

static void assert_pixel(const tiles *t, int i, int x, int y, int r, int g, int b) {
    tile at = prep_plan_tile(&t->plan, i);
    const uint8_t *p = t->rgb + at.at + ((size_t)y * (size_t)at.w + (size_t)x) * 3;
    if (p[0] != r || p[1] != g || p[2] != b)
        fail_msg("tile %d (%d, %d): expected %d %d %d, found %d %d %d", i, x, y, r, g, b, p[0], p[1], p[2]);
}

static void cut_padded_and_cropped(void **state) {
    (void)state;
    image im = numbered(10, 7);
    prep_plan p = {0};
    status st = {0};
    /* a canvas of 12 x 8 with the picture at (1, 0), in four tiles */
    prep_step *s = prep_plan_add(&p, -1, 0, 0, 10, 7, 10, 7, RESAMPLE_BICUBIC);
    s->cx = -1, s->cy = 0, s->cw = 12, s->ch = 8, s->tw = 6, s->th = 4;
    /* a box of that canvas, which only feeds the next; then its lower half */
    s = prep_plan_add(&p, 0, 2, 1, 4, 4, 4, 4, RESAMPLE_BICUBIC);
    s->tw = s->th = 0;
    prep_plan_add(&p, 1, 0, 2, 4, 2, 4, 2, RESAMPLE_BICUBIC);
    /* the picture in a square of blue */
    s = prep_plan_add(&p, -1, 0, -1, 10, 10, 10, 10, RESAMPLE_BICUBIC);
    s->pad_rgb[2] = 77;
    assert_true(prep_plan_finish(&p, 10, 7, &IMAGE_LIMITS_DEFAULT, &st));
    assert_int_equal(p.n_tiles, 6);
    assert_int_equal(p.bytes, (12 * 8 + 4 * 2 + 10 * 10) * 3);
    tiles t;
    assert_true(tiles_make(&p, &im, &t, &st));
    assert_pixel(&t, 0, 0, 0, 0, 0, 0); /* outside of what was resized: black */
    assert_pixel(&t, 0, 1, 0, 0, 0, 200);
    assert_pixel(&t, 0, 5, 3, 4, 3, 200);
    assert_pixel(&t, 1, 0, 0, 5, 0, 200);
    assert_pixel(&t, 1, 4, 2, 9, 2, 200);
    assert_pixel(&t, 1, 5, 2, 0, 0, 0);
    assert_pixel(&t, 2, 1, 0, 0, 4, 200);
    assert_pixel(&t, 3, 4, 2, 9, 6, 200);
    assert_pixel(&t, 3, 4, 3, 0, 0, 0);
    assert_pixel(&t, 4, 0, 0, 1, 3, 200); /* canvas (2, 1 + 2) is the picture's (1, 3) */
    assert_pixel(&t, 4, 3, 1, 4, 4, 200);
    assert_pixel(&t, 5, 0, 0, 0, 0, 77);
    assert_pixel(&t, 5, 3, 1, 3, 0, 200);
    assert_pixel(&t, 5, 3, 8, 0, 0, 77);
    assert_true(prep_work_bytes(&p, 10, 7) > p.bytes);
    tiles_fini(&t);
    assert_null(t.rgb);
    image_fini(&im);
}

static void refused(void **state) {
    (void)state;
    status st = {0};
    image_limits lim = {.max_pixels = 1000};
    prep_plan p = {0};
    prep_plan_add(&p, -1, 0, 0, 10, 10, 30, 34, RESAMPLE_BICUBIC);
    assert_false(prep_plan_finish(&p, 10, 10, &lim, &st));
    assert_int_equal(st.code, ST_TOO_LARGE);
    assert_non_null(strstr(st.msg, "30x34"));
    st = (status){0};
    p = (prep_plan){0}; /* each fits, both together do not */
    prep_plan_add(&p, -1, 0, 0, 10, 10, 30, 30, RESAMPLE_BICUBIC);
    prep_plan_add(&p, -1, 0, 0, 10, 10, 30, 30, RESAMPLE_BICUBIC);
    assert_false(prep_plan_finish(&p, 10, 10, &lim, &st));
    assert_int_equal(st.code, ST_TOO_LARGE);
    assert_non_null(strstr(st.msg, "2 tiles of 1800 pixels"));
    st = (status){0};
    p = (prep_plan){0};
    prep_plan_add(&p, -1, 0, 0, 1000, 1, 30, 0, RESAMPLE_BICUBIC);
    assert_false(prep_plan_finish(&p, 1000, 1, &lim, &st));
    assert_int_equal(st.code, ST_INVALID);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(cut_padded_and_cropped), cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
