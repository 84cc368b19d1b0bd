/* test_resize.c - resizing against Pillow (tests/golden/image/resize.json), every pixel; crops; both inner
 * loops. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/image/codec.h"
#include "engine/image/resize.h"
#include "tests/engine/image/golden.h"

static void test_golden(void **state) {
    (void)state;
    json_t *all = golden_json("resize.json"), *c;
    size_t i;
    json_array_foreach(all, i, c) {
        const json_t *in = json_object_get(c, "in"), *to = json_object_get(c, "out"),
                     *crop = json_object_get(c, "crop");
        image im = golden_source(golden_int(in, 0), golden_int(in, 1), (uint32_t)golden_int(in, 2)), out;
        int w = golden_int(to, 0), h = golden_int(to, 1), f = golden_int(to, 2);
        char what[128];
        status st = {0};
        snprintf(what, sizeof what, "%dx%d to %dx%d filter %d", im.w, im.h, w, h, f);
        if (!image_resize_crop(&im, w, h, (resample)f, 0, 0, w, h, &out, &st))
            fail_msg("%s: %s", what, st.msg);
        golden_compare(what, &out, json_object_get(c, "samples"), json_object_get(c, "sum"));
        image_fini(&out);
        snprintf(what, sizeof what, "%dx%d to %dx%d filter %d, crop %d %d %d %d", im.w, im.h, w, h, f,
                 golden_int(crop, 0), golden_int(crop, 1), golden_int(crop, 2), golden_int(crop, 3));
        if (!image_resize_crop(&im, w, h, (resample)f, golden_int(crop, 0), golden_int(crop, 1),
                               golden_int(crop, 2), golden_int(crop, 3), &out, &st))
            fail_msg("%s: %s", what, st.msg);
        golden_compare(what, &out, NULL, json_object_get(c, "crop_sum"));
        image_fini(&out);
        image_fini(&im);
    }
    json_decref(all);
}

/* The vector loops give the bytes of the plain ones. */
static void test_loops_agree(void **state) {
    (void)state;
    if (!codec_has_avx2()) skip();
    uint64_t r = 3;
    enum { PX = 300, N = 40 };
    uint8_t *src = malloc(PX * 3), a[N * 3 + 3], b[N * 3 + 3];
    int32_t *k = malloc(N * PX * sizeof *k);
    for (int round = 0; round < 200; round++) {
        resize_tap taps[N];
        size_t off = 0;
        for (int i = 0; i < PX * 3; i++) src[i] = round % 3 ? (uint8_t)golden_random(&r) : 255;
        for (int i = 0; i < N; i++) {
            int count = (int)(golden_random(&r) % 20) + 1, first = (int)(golden_random(&r) % (PX - 20));
            if (i == N - 1) first = PX - count; /* the row's end */
            taps[i] = (resize_tap){first, count, off};
            for (int t = 0; t < count; t++)
                k[off++] = (int32_t)(golden_random(&r) % (1u << RESIZE_BITS)) / 14 -
                           (1 << 16); /* sums stay in 32 bits */
        }
        resize_row_c(src, taps, k, N, a);
        resize_row_avx2(src, taps, k, N, b);
        assert_memory_equal(a, b, N * 3);
        size_t bytes = golden_random(&r) % (N * 3) + 1;
        int rows = (int)(PX * 3 / bytes);
        if (rows > 20) rows = 20;
        resize_col_c(src, bytes, k, rows, a, bytes);
        resize_col_avx2(src, bytes, k, rows, b, bytes);
        assert_memory_equal(a, b, bytes);
    }
    free(src);
    free(k);
}

/* A padded view gives what resizing a really padded picture gives. */
static void test_padding(void **state) {
    (void)state;
    uint64_t r = 5;
    for (int round = 0; round < 300; round++) {
        int w = (int)(golden_random(&r) % 40) + 1, h = (int)(golden_random(&r) % 40) + 1;
        int x = (int)(golden_random(&r) % 30), y = (int)(golden_random(&r) % 30);
        image im = golden_source(w, h, 1), full, a, b;
        resize_view v = {.im = &im,
                         .w = w + x + (int)(golden_random(&r) % 30),
                         .h = h + y + (int)(golden_random(&r) % 30),
                         .x = x,
                         .y = y,
                         .pad = {122, 255, 3}};
        full = golden_source(v.w, v.h, 0);
        for (int i = 0; i < v.w * v.h; i++) memcpy(full.rgb + 3 * i, v.pad, 3);
        for (int i = 0; i < h; i++)
            memcpy(full.rgb + ((size_t)(y + i) * (size_t)v.w + (size_t)x) * 3,
                   im.rgb + (size_t)i * (size_t)w * 3, (size_t)w * 3);
        int ow = (int)(golden_random(&r) % 90) + 1, oh = (int)(golden_random(&r) % 90) + 1;
        status st = {0};
        for (int f = 0; f < 6; f++) {
            assert_true(resize_view_crop(&v, ow, oh, (resample)f, -2, 1, 50, 40, &a, &st));
            assert_true(image_resize_crop(&full, ow, oh, (resample)f, -2, 1, 50, 40, &b, &st));
            if (memcmp(a.rgb, b.rgb, 50 * 40 * 3) != 0)
                fail_msg("%dx%d at (%d, %d) in %dx%d to %dx%d filter %d", w, h, x, y, v.w, v.h, ow, oh, f);
            image_fini(&a);
            image_fini(&b);
        }
        image_fini(&im);
        image_fini(&full);
    }
}

/* Extreme ratios stay small and quick: only the kept box is computed. */
static void test_extreme(void **state) {
    (void)state;
    status st = {0};
    const int sizes[][4] = {{20000, 1, 6720000, 336}, {1, 20000, 336, 6720000}, {1000000, 1, 336000000, 336},
                            {1, 1000000, 336, 336},   {1000000, 1, 336, 336},   {1, 1000000, 336, 336000000}};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        image im = golden_source(sizes[i][0], sizes[i][1], 1), out;
        int w = sizes[i][2], h = sizes[i][3];
        assert_true(image_resize_crop(&im, w, h, RESAMPLE_BICUBIC, (w - 336) / 2, (h - 336) / 2, 336, 336,
                                      &out, &st));
        image_fini(&out);
        image_fini(&im);
    }
    image im = golden_source(3, 3, 1), out;
    assert_false(image_resize_crop(&im, 0, 5, RESAMPLE_BOX, 0, 0, 1, 1, &out, &st));
    assert_int_equal(st.code, ST_INVALID);
    memset(&st, 0, sizeof st);
    assert_true(image_resize_crop(&im, 5, 5, RESAMPLE_BOX, 5, -9, 2, 2, &out, &st)); /* nothing of it */
    for (int i = 0; i < 12; i++) assert_int_equal(out.rgb[i], 0);
    image_fini(&out);
    image_fini(&im);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden), cmocka_unit_test(test_loops_agree),
                                       cmocka_unit_test(test_padding), cmocka_unit_test(test_extreme)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
