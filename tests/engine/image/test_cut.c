/* test_cut.c - pictures that become several tiles, against the reference's Pillow classes (tests/golden/image/cut.json):
 * sizes and every pixel; and settings that must be refused. Grids of many sizes: tests/engine/families/test_plans.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/engine/image/golden.h"
#include "engine/image/tiles.h"

static void test_golden(void **state) {
    (void)state;
    json_t *all = golden_json("cut.json"), *c;
    size_t i, several = 0;
    log_set_level(LOG_ERROR);
    json_array_foreach(all, i, c) {
        const json_t *in = json_object_get(c, "in"), *want = json_object_get(c, "tiles");
        int w = golden_int(in, 0), h = golden_int(in, 1);
        image im = golden_source(w, h, (uint32_t)golden_int(in, 2));
        char *what = json_dumps(json_object_get(c, "config"), JSON_COMPACT);
        prep_spec p;
        prep_plan plan;
        tiles t = {0};
        status st = {0};
        if (!prep_spec_from_json(json_object_get(c, "config"), &p, &st) ||
            !prep_plan_cut(&p, w, h, &IMAGE_LIMITS_DEFAULT, &plan, &st) || !tiles_make(&plan, &im, &t, &st))
            fail_msg("case %zu: %s: %s", i, what, st.msg);
        if (plan.n_tiles != (int)json_array_size(want))
            fail_msg("case %zu: %s: %dx%d: expected %zu tiles, made %d", i, what, w, h, json_array_size(want),
                     plan.n_tiles);
        several += plan.n_tiles > 1;
        for (int k = 0; k < plan.n_tiles; k++) {
            tile at = prep_plan_tile(&plan, k);
            const json_t *size = json_array_get(want, (size_t)k);
            assert_true(at.w == golden_int(size, 0) && at.h == golden_int(size, 1));
        }
        image pixels = {(int)(plan.bytes / 3), 1, t.rgb};
        golden_compare(what, &pixels, NULL, json_object_get(c, "sum"));
        free(what);
        tiles_fini(&t);
        image_fini(&im);
    }
    assert_true(several > 30);
    json_decref(all);
}

static void test_refused(void **state) {
    (void)state;
    const struct {
        const char *json, *part;
        status_code code;
    } cases[] = {
        {"{\"image_processor_type\":\"LlavaNextImageProcessor\",\"image_grid_pinpoints\":[]}",
         "image_grid_pinpoints", ST_INVALID},
        {"{\"image_processor_type\":\"LlavaNextImageProcessor\",\"image_grid_pinpoints\":null}",
         "image_grid_pinpoints", ST_INVALID},
        {"{\"image_processor_type\":\"LlavaNextImageProcessor\",\"image_grid_pinpoints\":[[224,448],[224]]}",
         "image_grid_pinpoints[1]", ST_INVALID},
        {"{\"image_processor_type\":\"LlavaNextImageProcessor\",\"image_grid_pinpoints\":[[224,300]]}",
         "multiples", ST_UNSUPPORTED},
        {"{\"image_processor_type\":\"LlavaNextImageProcessor\",\"size\":{\"shortest_edge\":336}}",
         "crop_size", ST_UNSUPPORTED},
        {"{\"image_processor_type\":\"LlavaOnevisionImageProcessor\",\"size\":{\"height\":384,\"width\":392}"
         "}",
         "square", ST_UNSUPPORTED},
        {"{\"image_processor_type\":\"LlavaOnevisionImageProcessor\",\"do_resize\":false}", "do_resize",
         ST_UNSUPPORTED},
        {"{\"image_processor_type\":\"GotOcr2ImageProcessor\",\"max_patches\":0}", "max_patches", ST_INVALID},
        {"{\"image_processor_type\":\"GotOcr2ImageProcessor\",\"min_patches\":1.5}", "min_patches",
         ST_INVALID},
        {"{\"image_processor_type\":\"Idefics3ImageProcessor\",\"max_image_size\":{\"height\":3,\"width\":3}"
         "}",
         "max_image_size", ST_INVALID},
        {"{\"image_processor_type\":\"Idefics3ImageProcessor\",\"max_image_size\":null}", "max_image_size",
         ST_INVALID},
        {"{\"image_processor_type\":\"SmolVLMImageProcessor\",\"size\":{\"shortest_edge\":3}}", "size",
         ST_INVALID},
        {"{\"image_processor_type\":\"SmolVLMImageProcessor\",\"do_image_splitting\":\"no\"}",
         "do_image_splitting", ST_INVALID},
        {"{\"image_processor_type\":\"CLIPImageProcessor\",\"do_image_splitting\":true}",
         "do_image_splitting", ST_UNSUPPORTED},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        json_t *j = json_loads(cases[i].json, 0, NULL);
        prep_spec p;
        status st = {0};
        assert_non_null(j);
        if (prep_spec_from_json(j, &p, &st)) fail_msg("%s: accepted", cases[i].json);
        if (st.code != cases[i].code || !strstr(st.msg, cases[i].part))
            fail_msg("%s: code %d: %s", cases[i].json, (int)st.code, st.msg);
        json_decref(j);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden), cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
