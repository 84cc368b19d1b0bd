/* test_prep.c - preprocessing against transformers' Pillow classes (tests/golden/image/prep.json): sizes,
 * every pixel after the crop, normalised values within 1e-6 of their size; and configurations that must be
 * refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "tests/engine/image/golden.h"
#include "engine/image/tiles.h"

/* The one tile that a processor's settings make of im. */
static bool prep_run(const prep_spec *p, const image *im, image *out, status *st) {
    prep_plan plan;
    tiles t;
    if (!prep_plan_one(p, im->w, im->h, &IMAGE_LIMITS_DEFAULT, &plan, st) || !tiles_make(&plan, im, &t, st))
        return false;
    tile one = prep_plan_tile(&plan, 0);
    assert_int_equal(plan.n_tiles, 1);
    *out = (image){one.w, one.h, t.rgb};
    return true;
}

static void test_golden(void **state) {
    (void)state;
    json_t *all = golden_json("prep.json"), *c;
    size_t i;
    log_set_level(LOG_ERROR);
    json_array_foreach(all, i, c) {
        const json_t *in = json_object_get(c, "in"), *want = json_object_get(c, "samples");
        json_t *config = json_object_get(c, "config");
        image im = golden_source(golden_int(in, 0), golden_int(in, 1), (uint32_t)golden_int(in, 2)),
              out = {0};
        char *what = json_dumps(config, JSON_COMPACT);
        prep_spec p;
        status st = {0};
        bool ok = prep_spec_from_json(config, &p, &st) && prep_run(&p, &im, &out, &st);
        if (json_object_get(c, "error")) {
            if (ok) fail_msg("case %zu: %s: expected an error", i, what);
            assert_true(st.code == ST_INVALID && st.msg[0]);
        } else {
            if (!ok) fail_msg("case %zu: %s: %s", i, what, st.msg);
            int ww = (int)json_integer_value(json_object_get(c, "w")),
                wh = (int)json_integer_value(json_object_get(c, "h"));
            if (out.w != ww || out.h != wh)
                fail_msg("case %zu: %s: expected %dx%d, made %dx%d", i, what, ww, wh, out.w, out.h);
            golden_compare(what, &out, want, json_object_get(c, "sum"));
            size_t s;
            json_t *f;
            json_array_foreach(json_object_get(c, "floats"), s, f) {
                const json_t *at = json_array_get(want, s);
                for (size_t ch = 0; ch < 3; ch++) {
                    double v = json_number_value(json_array_get(f, ch));
                    float x = ((float)golden_int(at, 2 + ch) * p.rescale - p.mean[ch]) / p.std[ch];
                    if (fabs(x - v) > 1e-6 * fmax(1, fabs(v)))
                        fail_msg("case %zu: %s: channel %zu expected %.9g, found %.9g", i, what, ch, v,
                                 (double)x);
                }
            }
        }
        free(what);
        image_fini(&out);
        image_fini(&im);
    }
    json_decref(all);
}

static void test_files(void **state) {
    (void)state;
    /* the new file nests the object; the old one names a feature extractor, or nothing */
    const char *same[] = {
        "{\"image_processor\":{\"image_processor_type\":\"CLIPImageProcessorFast\",\"size\":96},"
        "\"processor_class\":\"LlavaProcessor\"}",
        "{\"feature_extractor_type\":\"CLIPFeatureExtractor\",\"size\":96}", "{\"size\":96}",
        "{\"image_processor_type\":\"CLIPImageProcessorPil\",\"size\":{\"shortest_edge\":96}}"};
    for (size_t i = 0; i < ARRAY_LEN(same); i++) {
        json_t *j = json_loads(same[i], 0, NULL);
        prep_spec p;
        status st = {0};
        if (!prep_spec_from_json(j, &p, &st)) fail_msg("%s: %s", same[i], st.msg);
        assert_true(p.size == PREP_SIZE_SHORTEST && p.size_w == 96 && !p.size_h &&
                    p.filter == RESAMPLE_BICUBIC);
        assert_true(p.crop && p.crop_w == 224 && p.crop_h == 224 && !p.pad_square);
        json_decref(j);
    }
}

/* Means of pictures that are not rescaled are no colours. What has none is padded by none: only that is refused. */
static void test_no_colour(void **state) {
    (void)state;
    static const char *const classes[] = {"LlavaNext", "LlavaOnevision", "GotOcr2"};
    for (size_t i = 0; i < ARRAY_LEN(classes); i++) {
        char text[256];
        snprintf(text, sizeof text,
                 "{\"image_processor_type\":\"%sImageProcessor\",\"do_rescale\":false,\"image_mean\":[100,"
                 "120,130],"
                 "\"size\":{\"height\":336,\"width\":336},\"crop_size\":336,\"do_center_crop\":false,"
                 "\"image_grid_pinpoints\":[[336,672]]}",
                 classes[i]);
        json_t *j = json_loads(text, 0, NULL);
        prep_spec p;
        prep_plan plan;
        status st = {0};
        if (!prep_spec_from_json(j, &p, &st)) fail_msg("%s: %s", text, st.msg);
        assert_true(prep_plan_cut(&p, 30, 20, &IMAGE_LIMITS_DEFAULT, &plan, &st));
        p.pad_square = true;
        assert_true(prep_plan_one(&p, 30, 30, &IMAGE_LIMITS_DEFAULT, &plan, &st));
        assert_false(prep_plan_one(&p, 30, 20, &IMAGE_LIMITS_DEFAULT, &plan, &st));
        assert_non_null(strstr(st.msg, "image_mean"));
        json_decref(j);
    }
}

static void test_refused(void **state) {
    (void)state;
    const struct {
        const char *json, *part;
        status_code code;
    } cases[] = {
        {"{\"image_processor_type\":\"FooImageProcessor\"}", "FooImageProcessor", ST_UNSUPPORTED},
        {"{\"image_processor_type\":\"VideoLlavaImageProcessorFast\"}", "VideoLlavaImageProcessorFast",
         ST_UNSUPPORTED},
        /* tiles are cut by the class's crop_size, cropped or not */
        {"{\"image_processor_type\":\"LlavaNextImageProcessor\",\"size\":{\"height\":336,\"width\":336},"
         "\"do_center_crop\":false,\"image_grid_pinpoints\":[[336,672]]}",
         "crop_size: only that of size, 336 x 336, is implemented for tiles, found 224 x 224",
         ST_UNSUPPORTED},
        {"[]", "object", ST_INVALID},
        {"{\"size\":0}", "1 to", ST_INVALID},
        {"{\"size\":-3}", "1 to", ST_INVALID},
        {"{\"size\":1e9}", "integer", ST_INVALID},
        {"{\"size\":99999999999}", "1 to", ST_INVALID},
        {"{\"size\":\"224\"}", "string", ST_INVALID},
        {"{\"size\":true}", "true", ST_INVALID},
        {"{\"size\":[1]}", "list of 1", ST_INVALID},
        {"{\"size\":{}}", "shortest_edge", ST_INVALID},
        {"{\"size\":{\"height\":3}}", "shortest_edge", ST_INVALID},
        {"{\"size\":{\"height\":3,\"width\":3,\"shortest_edge\":3}}", "shortest_edge", ST_INVALID},
        {"{\"size\":{\"min_pixels\":3,\"max_pixels\":3}}", "size.min_pixels", ST_UNSUPPORTED},
        {"{\"crop_size\":{\"shortest_edge\":3}}", "crop_size", ST_INVALID},
        {"{\"resample\":9}", "resample", ST_INVALID},
        {"{\"resample\":\"bicubic\"}", "resample", ST_INVALID},
        {"{\"do_resize\":\"yes\"}", "do_resize", ST_INVALID},
        {"{\"image_mean\":[0.5,0.5]}", "image_mean", ST_INVALID},
        {"{\"image_std\":[0.5,0,0.5]}", "image_std", ST_INVALID},
        {"{\"image_mean\":[0.5,\"x\",0.5]}", "image_mean[1]", ST_INVALID},
        {"{\"rescale_factor\":\"1/255\"}", "rescale_factor", ST_INVALID},
        {"{\"do_flip_channel_order\":true}", "do_flip_channel_order", ST_UNSUPPORTED},
        {"{\"image_processor_type\":\"CLIPImageProcessor\",\"do_pad\":true,\"pad_size\":{\"height\":9,"
         "\"width\":9}}",
         "pad", ST_UNSUPPORTED},
        {"{\"do_pad\":true,\"image_mean\":[2,2,2]}", "image_mean", ST_INVALID},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        json_t *j = json_loads(cases[i].json, 0, NULL);
        prep_spec p;
        status st = {0};
        if (prep_spec_from_json(j, &p, &st)) fail_msg("%s: accepted", cases[i].json);
        if (st.code != cases[i].code || !strstr(st.msg, cases[i].part))
            fail_msg("%s: code %d: %s", cases[i].json, (int)st.code, st.msg);
        json_decref(j);
    }
}

static void test_limits(void **state) {
    (void)state;
    prep_spec p = {.size = PREP_SIZE_SHORTEST, .size_w = 336, .filter = RESAMPLE_BICUBIC};
    status st = {0};
    prep_plan plan;
    assert_false(prep_plan_one(&p, 20000, 1, &IMAGE_LIMITS_DEFAULT, &plan, &st)); /* 6720000 x 336 */
    assert_int_equal(st.code, ST_TOO_LARGE);
    memset(&st, 0, sizeof st);
    p.crop = true;
    p.crop_w = p.crop_h = 336; /* only the box counts */
    assert_true(prep_plan_one(&p, 20000, 1, &IMAGE_LIMITS_DEFAULT, &plan, &st));
    assert_true(plan.steps[0].cw == 336 && plan.bytes == (size_t)336 * 336 * 3);
    p.size_w = 65536;
    assert_false(prep_plan_one(&p, 1000000, 1, &IMAGE_LIMITS_DEFAULT, &plan, &st));
    assert_int_equal(st.code, ST_TOO_LARGE);
    memset(&st, 0, sizeof st);
    p.size_w = 336;
    p.pad_square = true; /* a square of 20000: thought of, never held */
    image im = golden_source(1, 20000, 1), out;
    assert_true(prep_run(&p, &im, &out, &st));
    assert_true(out.w == 336 && out.h == 336);
    image_fini(&out);
    p.size = PREP_SIZE_NONE;
    p.crop = false;
    assert_false(prep_run(&p, &im, &out, &st));
    assert_int_equal(st.code, ST_TOO_LARGE);
    image_fini(&im);
}

/* Of /proc/self/status, in bytes. */
static size_t self_status(const char *field) {
    FILE *f = fopen("/proc/self/status", "r");
    char line[200];
    size_t kib = 0;
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, field, strlen(field)) == 0) kib = strtoul(line + strlen(field) + 1, NULL, 10);
    if (f) fclose(f);
    return kib << 10;
}

static bool forget_peak(void) {
    FILE *f = fopen("/proc/self/clear_refs", "w");
    bool ok = f && fputs("5", f) >= 0;
    return f && fclose(f) == 0 && ok;
}

/* What resizing really takes, by the kernel's count, lies below what is planned. */
static void test_work_bytes(void **state) {
    (void)state;
    static const int sizes[][2] = {{4000, 3000}, {3000, 4000}, {20000, 1},   {1, 20000},
                                   {60000, 60},  {60, 60000},  {6000, 1000}, {336, 336}};
    static const resample filters[] = {RESAMPLE_LANCZOS, RESAMPLE_NEAREST};
#ifdef __SANITIZE_ADDRESS__
    skip(); /* its memory is not ours */
#endif
    for (size_t i = 0; i < ARRAY_LEN(sizes) * ARRAY_LEN(filters) * 2; i++) {
        int w = sizes[i / 4][0], h = sizes[i / 4][1];
        prep_spec p = {.size = PREP_SIZE_SHORTEST, .size_w = 336, .crop = true, .crop_w = 336, .crop_h = 336};
        p.filter = filters[i / 2 % 2];
        p.pad_square = i % 2;
        image im = golden_source(w, h, 3), out = {0};
        status st = {0};
        prep_plan made;
        assert_true(prep_plan_one(&p, w, h, &IMAGE_LIMITS_DEFAULT, &made, &st));
        size_t plan = prep_work_bytes(&made, w, h) + (size_t)336 * 336 * 3;
        assert_true(plan < (size_t)80 << 20);
        if (!forget_peak()) skip();
        size_t before = self_status("VmRSS:");
        assert_true(prep_run(&p, &im, &out, &st));
        size_t peak = self_status("VmHWM:");
        if (peak > before + plan + (1 << 20))
            fail_msg("%dx%d, case %zu: took %zu bytes, planned %zu", w, h, i, peak - before, plan);
        image_fini(&out);
        image_fini(&im);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden),    cmocka_unit_test(test_files),
                                       cmocka_unit_test(test_no_colour), cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_limits),    cmocka_unit_test(test_work_bytes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
