/* test_crops.c - pan and scan: the boxes of pictures of many sizes are the reference's (tests/golden/models/crops.json). */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/families/registry.h"

static int int_at(const json_t *list, size_t i) {
    return (int)json_integer_value(json_array_get(list, i));
}

static void check_case(const model_spec *s, const json_t *c) {
    const json_t *want = json_array_get(c, 2);
    image_ask ask = {int_at(c, 0), int_at(c, 1), 1};
    prep_plan plan;
    status st = {0};
    if (!spec_plan_image(s, &ask, &IMAGE_LIMITS_DEFAULT, &plan, &st))
        fail_msg("%d x %d: %s", ask.w, ask.h, st.msg);
    if (plan.n_steps != 1 + (int)json_array_size(want))
        fail_msg("%d x %d: %d crops, expected %d", ask.w, ask.h, plan.n_steps - 1,
                 (int)json_array_size(want));
    for (int i = 1; i < plan.n_steps; i++) {
        const prep_step *p = &plan.steps[i];
        const int got[4] = {p->x, p->y, p->w, p->h};
        for (size_t k = 0; k < 4; k++)
            if (got[k] != int_at(json_array_get(want, (size_t)i - 1), k))
                fail_msg("%d x %d: crop %d: number %zu is %d", ask.w, ask.h, i, k, got[k]);
        assert_int_equal(p->rw, s->tower.image_size);
        assert_int_equal(p->rh, s->tower.image_size);
    }
    assert_int_equal(s->image_rows(s, &plan), plan.n_tiles * s->span_rows);
}

static void boxes_are_the_references(void **state) {
    (void)state;
    model_spec s;
    const name_sheet *sheet;
    status st = {0};
    if (!family_read("tests/golden/models/both_ways_gemma3_crops", &s, &sheet, &st)) fail_msg("%s", st.msg);
    json_error_t e;
    json_t *all = json_load_file("tests/golden/models/crops.json", 0, &e), *group, *c;
    if (!all) fail_msg("%s", e.text);
    size_t i, k;
    json_array_foreach(all, i, group) {
        const json_t *set = json_object_get(group, "settings");
        s.prep.pan_min_side = int_at(set, 0);
        s.prep.pan_crops = int_at(set, 1);
        s.prep.pan_min_ratio = json_number_value(json_array_get(set, 2));
        json_array_foreach(json_object_get(group, "cases"), k, c) check_case(&s, c);
    }
    json_decref(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(boxes_are_the_references)};
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
