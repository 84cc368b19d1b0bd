/* test_grids.c - pictures that become grids of patches: sizes are the reference's (tests/golden/dual/grids.json), settings
 * and what is left out are read as its processor class does. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine/image/tiles.h"

#define CLASS "\"image_processor_type\":\"Siglip2ImageProcessorFast\""

static prep_spec spec_of(const char *text) {
    prep_spec p;
    status st = {0};
    json_t *j = json_loads(text, 0, NULL);
    assert_non_null(j);
    if (!prep_spec_from_json(j, &p, &st)) fail_msg("%s: %s", text, st.msg);
    json_decref(j);
    return p;
}

static void test_sizes(void **state) {
    (void)state;
    json_t *all = json_load_file("tests/golden/dual/grids.json", 0, NULL), *c;
    size_t i;
    assert_true(json_array_size(all) >= 400);
    json_array_foreach(all, i, c) {
        int v[6];
        char text[160];
        prep_plan plan;
        status st = {0};
        for (size_t k = 0; k < 6; k++) v[k] = (int)json_integer_value(json_array_get(c, k));
        snprintf(text, sizeof text, "{" CLASS ",\"patch_size\":%d,\"max_num_patches\":%d}", v[2], v[3]);
        prep_spec p = spec_of(text);
        assert_int_equal(p.size, PREP_SIZE_PATCHES);
        if (!prep_plan_one(&p, v[0], v[1], &IMAGE_LIMITS_DEFAULT, &plan, &st)) fail_msg("%s", st.msg);
        tile one = prep_plan_tile(&plan, 0);
        if (one.w != v[4] || one.h != v[5])
            fail_msg("%dx%d by %d, at most %d: expected %dx%d, found %dx%d", v[0], v[1], v[2], v[3], v[4],
                     v[5], one.w, one.h);
    }
    json_decref(all);
}

static void test_settings(void **state) {
    (void)state;
    prep_spec p = spec_of("{" CLASS "}");
    assert_true(p.size == PREP_SIZE_PATCHES && p.size_w == 256 && p.size_h == 16 &&
                p.filter == RESAMPLE_BILINEAR);
    assert_true(!p.crop && p.mean[0] == 0.5f && p.std[2] == 0.5f);
    p = spec_of("{" CLASS ",\"resample\":3,\"size\":{\"height\":5,\"width\":5}}");
    assert_true(p.size == PREP_SIZE_PATCHES && p.filter == RESAMPLE_BICUBIC);
    p = spec_of("{" CLASS ",\"do_resize\":false}");
    assert_int_equal(p.size, PREP_SIZE_NONE);
    static const char *const bad[] = {"{" CLASS ",\"patch_size\":0}", "{" CLASS ",\"max_num_patches\":\"x\"}",
                                      "{" CLASS ",\"resample\":9}"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        json_t *j = json_loads(bad[i], 0, NULL);
        status st = {0};
        assert_false(prep_spec_from_json(j, &p, &st));
        assert_int_equal(st.code, ST_INVALID);
        json_decref(j);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sizes), cmocka_unit_test(test_settings)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
