/* test_rope.c - rotary frequencies against values that transformers 5.23's modeling_rope_utils gave
 * (tests/golden/models/make_rope.py). */
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "engine/families/family.h"
#include "engine/model/impl.h"

static void test_against_reference(void **state) {
    (void)state;
    json_error_t e;
    json_t *g = json_load_file("tests/golden/models/rope.json", 0, &e), *c;
    if (!g) fail_msg("%s", e.text);
    size_t i;
    json_array_foreach(g, i, c) {
        status st = {0};
        text_spec t = {0};
        config cfg = config_of(json_object_get(c, "config"), "", &st);
        if (!family_read_text(&cfg, NULL, &t)) fail_msg("case %zu: %s", i, st.msg);
        const json_t *want = json_object_get(c, "inv_freq");
        float f[512], factor;
        rope_frequencies(&t.stack.rope, f, &factor);
        assert_int_equal(json_array_size(want), t.stack.rope.dims / 2);
        if (fabs(factor - json_number_value(json_object_get(c, "factor"))) > 1e-6)
            fail_msg("case %zu: factor %g", i, factor);
        for (size_t k = 0; k < json_array_size(want); k++) {
            double w = json_number_value(json_array_get(want, k));
            if (fabs(f[k] - w) > 1e-6 * fabs(w))
                fail_msg("case %zu: frequency %zu is %.9g, expected %.9g", i, k, f[k], w);
        }
    }
    json_decref(g);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_reference)};
    log_set_level(LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
