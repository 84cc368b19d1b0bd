/* test_positions.c - where rows stand in a rope of picture, line and column: random prompts against get_rope_index of the
 * reference library (tests/golden/families/native/positions.json), the answer's rows included; and that a page's key holds what its
 * rows' positions depend on. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/prefix.h"
#include "tests/tools/one_tile.h"

static void test_reference(void **state) {
    (void)state;
    json_error_t e;
    json_t *all = json_load_file("tests/golden/families/native/positions.json", 0, &e), *c, *part;
    if (!all) fail_msg("%s", e.text);
    size_t i, k, cases = 0, pictures = 0;
    json_array_foreach(all, i, c) {
        prompt_rows runs[8];
        prompt_place places[8];
        prompt p = {.rows = runs, .places = places};
        int row = 0;
        json_array_foreach(json_object_get(c, "parts"), k, part) {
            int w = (int)json_integer_value(json_array_get(part, 0));
            if (json_array_size(part) == 1) {
                row += w;
                continue;
            }
            int h = (int)json_integer_value(json_array_get(part, 1));
            runs[p.n_rows] = (prompt_rows){.row = row, .n = w * h, .image = p.n_rows};
            p.n_rows++;
            prompt_place_last(&p, w, h);
            row += w * h;
            pictures++;
        }
        json_t *want = json_object_get(c, "at"), *one;
        assert_int_equal(json_array_size(want), row + 3); /* and three of the answer's */
        json_array_foreach(want, k, one) {
            int32_t got[ROPE_MAX_AXES];
            prompt_position(&p, (int)k, got);
            for (size_t a = 0; a < ROPE_MAX_AXES; a++)
                if (got[a] != json_integer_value(json_array_get(one, a)))
                    fail_msg("case %zu, row %zu, axis %zu: %d, the reference says %d", i, k, a, (int)got[a],
                             (int)json_integer_value(json_array_get(one, a)));
        }
        cases++;
    }
    assert_true(cases >= 50 && pictures >= 100);
    json_decref(all);
}

/* A page behind a picture: its rows stand further on behind a wide one than behind a square one. */
static page_key key_behind(int w, int h) {
    const prep_spec prep = {.rescale = 1, .std = {1, 1, 1}};
    int32_t ids[2 * KV_PAGE_TOK];
    for (int i = 0; i < 2 * KV_PAGE_TOK; i++) ids[i] = 5;
    tiles grey = one_tile(w, h, NULL);
    prompt_image im = {.n_rows = 4};
    image_key(&grey, w, h, &prep, im.key);
    prompt_rows run = {.row = 3, .n = 4};
    prompt p = {
        .ids = {.v = ids, .n = 2 * KV_PAGE_TOK}, .images = &im, .n_images = 1, .rows = &run, .n_rows = 1};
    page_key k;
    prefix_root(&k, NULL, 0);
    prefix_next(&k, &k, &p, 0);
    prefix_next(&k, &k, &p, KV_PAGE_TOK);
    tiles_fini(&grey);
    return k;
}

/* Pictures of the same bytes and as many rows, but other grids, have other keys; so have the pages behind them, whose tokens
 * are the same. */
static void test_keys(void **state) {
    (void)state;
    page_key square = key_behind(28, 28), again = key_behind(28, 28), wide = key_behind(56, 14),
             tall = key_behind(14, 56);
    assert_memory_equal(&square, &again, sizeof square);
    assert_memory_not_equal(&square, &wide, sizeof square);
    assert_memory_not_equal(&square, &tall, sizeof square);
    assert_memory_not_equal(&wide, &tall, sizeof square);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reference), cmocka_unit_test(test_keys)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
