/* test_plans.c - what families make of pictures of some hundred sizes each, at published shapes, against the reference's
 * processors (tests/golden/families/plans.json): the grid, the sizes on the way, the rows; and that the text and the packing
 * hold as many. Pixels: tests/engine/image/test_cut.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>

#include "engine/families/registry.h"
#include "tests/tools/folder.h"

static void write_configs(const json_t *c) {
    folder_put_json("config.json", json_object_get(c, "config"));
    folder_put_json("preprocessor_config.json", json_object_get(c, "prep"));
}

static void read_spec(const json_t *c, model_spec *s) {
    const name_sheet *sheet;
    status st = {0};
    write_configs(c);
    if (!family_read(folder, s, &sheet, &st)) fail_msg("%s", st.msg);
}

static int at(const json_t *row, size_t i) {
    return (int)json_integer_value(json_array_get(row, i));
}

/* The step that resizes the picture to what is cut into tiles, or to what the tiles' canvas is made of. */
static const prep_step *resizing(const model_spec *s, const prep_plan *p) {
    return &p->steps[s->prep.cut.kind == PREP_CUT_POINTS && p->n_steps > 1 ? 1 : 0];
}

static void check_tiles(const model_spec *s, const prep_plan *p, const char *what) {
    for (int i = 0; i < p->n_tiles; i++) {
        tile t = prep_plan_tile(p, i);
        if (t.w != s->tower.image_size || t.h != t.w) fail_msg("%s: tile %d is %d x %d", what, i, t.w, t.h);
    }
}

/* Every row of the result is made of rows that there are, with weights of 1 in all. */
static void check_pack(const model_spec *s, const prep_plan *p, int rows, const char *what) {
    tile one = prep_plan_tile(p, 0);
    int joined = p->n_tiles * spec_rows_of_tile(s, &one) + (s->newline ? 1 : 0), ends = 0;
    if (!s->pack) {
        assert_int_equal(joined, rows);
        return;
    }
    pack_row *r = mem_calloc((size_t)rows + 1, sizeof *r);
    memset(&r[rows], 77, sizeof *r);
    s->pack(s, p, r);
    for (int i = 0; i < rows; i++) {
        float sum = 0;
        for (int k = 0; k < SPEC_PACK_TAPS; k++) {
            if (r[i].from[k] < -1 || r[i].from[k] >= joined)
                fail_msg("%s: row %d is made of %d, of %d", what, i, (int)r[i].from[k], joined);
            if (r[i].from[k] >= 0) sum += r[i].weight[k];
            ends += r[i].from[k] == joined - 1 && s->newline;
        }
        if (!(sum > 0.99999f && sum < 1.00001f)) fail_msg("%s: row %d weighs %g", what, i, (double)sum);
    }
    assert_true(ends > 0 || rows == spec_rows_of_tile(s, &one));
    assert_int_equal(r[rows].from[0], 77 * 0x1010101);
    mem_free(r);
}

static void check_text(const model_spec *s, const prep_plan *p, int rows) {
    buf text = {0};
    image_text t = {.text = &text, .row_token = "<row>"};
    int n = 0;
    spec_write_image(s, p, &t);
    assert_false(t.failed);
    for (int i = 0; i < t.n_runs; i++) n += t.runs[i].n;
    assert_int_equal(n, rows);
    image_text_fini(&t);
    buf_fini(&text);
}

static void test_golden(void **state) {
    (void)state;
    json_error_t e;
    json_t *all = json_load_file("tests/golden/families/plans.json", 0, &e), *c, *row;
    size_t i, k;
    if (!all) fail_msg("%s", e.text);
    log_set_level(LOG_ERROR);
    json_array_foreach(all, i, c) {
        model_spec s;
        read_spec(c, &s);
        json_array_foreach(json_object_get(c, "sizes"), k, row) {
            char what[120];
            image_ask ask = {at(row, 0), at(row, 1), at(row, 2)};
            snprintf(what, sizeof what, "case %zu (%s), %d x %d, %d pictures", i, s.family, ask.w, ask.h,
                     ask.n_images);
            prep_plan p;
            status st = {0};
            if (!spec_plan_image(&s, &ask, &IMAGE_LIMITS_DEFAULT, &p, &st)) fail_msg("%s: %s", what, st.msg);
            int columns, rows, n = s.image_rows(&s, &p);
            prep_plan_grid(&p, &columns, &rows);
            if (columns != at(row, 3) || rows != at(row, 4))
                fail_msg("%s: expected %d x %d tiles, found %d x %d", what, at(row, 3), at(row, 4), columns,
                         rows);
            const prep_step *r = resizing(&s, &p);
            if (r->rw != at(row, 5) || r->rh != at(row, 6))
                fail_msg("%s: expected %d x %d pixels, found %d x %d", what, at(row, 5), at(row, 6), r->rw,
                         r->rh);
            if (n != at(row, 7)) fail_msg("%s: expected %d rows, found %d", what, at(row, 7), n);
            check_tiles(&s, &p, what);
            check_pack(&s, &p, n, what);
            check_text(&s, &p, n);
        }
        assert_true(k >= 200);
    }
    assert_int_equal(i, 9);
    json_decref(all);
}

static void test_text(void **state) {
    (void)state;
    json_error_t e;
    json_t *all = json_load_file("tests/golden/families/plans.json", 0, &e);
    static const struct {
        int which;
        const char *names, *want;
    } cases[] = {
        {2, NULL, "<img>R</img>"},
        {2, "{\"start_image_token\":\"<a>\",\"end_image_token\":\"<b>\"}", "<a>R<b>"},
        {4, NULL,
         "<fake_token_around_image><row_1_col_1>R<fake_token_around_image><row_1_col_2>R"
         "<fake_token_around_image><row_1_col_3>R<fake_token_around_image><row_1_col_4>R\n\n"
         "<fake_token_around_image><global-img>R<fake_token_around_image>"},
        {5, "{\"fake_image_token\":\"<f>\",\"global_image_token\":\"<g>\"}",
         "<f><row_1_col_1>R<f><row_1_col_2>R<f><row_1_col_3>R<f><row_1_col_4>R\n\n<f><g>R<f>"},
        {8, NULL, "<fake_token_around_image><global-img>R<fake_token_around_image>"},
    };
    if (!all) fail_msg("%s", e.text);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        model_spec s;
        read_spec(json_array_get(all, (size_t)cases[i].which), &s);
        json_t *names = cases[i].names ? json_loads(cases[i].names, 0, &e) : NULL;
        buf text = {0};
        image_text t = {.text = &text, .row_token = "R", .names = names};
        prep_plan p;
        status st = {0};
        assert_true(spec_plan_image(&s, &(image_ask){1000, 200, 1}, &IMAGE_LIMITS_DEFAULT, &p, &st));
        spec_write_image(&s, &p, &t);
        assert_string_equal(text.data, cases[i].want);
        image_text_fini(&t);
        buf_fini(&text);
        json_decref(names);
    }
    json_decref(all);
}

/* Config values that are not implemented, or that contradict each other, by name. */
static void test_refused(void **state) {
    (void)state;
    json_error_t e;
    json_t *all = json_load_file("tests/golden/families/plans.json", 0, &e);
    static const struct {
        int which;
        const char *config, *prep, *part;
    } cases[] = {
        {0, "{\"vision_feature_select_strategy\":\"full\"}", "{}", "vision_feature_select_strategy: full"},
        {0, "{\"image_grid_pinpoints\":[[336,672]]}", "{}", "image_grid_pinpoints: expected"},
        {0, "{\"image_grid_pinpoints\":[[672,336],[336,672],[672,672],[1008,336],[336,1008]]}", "{}",
         "image_grid_pinpoints"},
        {0, "{}", "{\"image_processor_type\":\"CLIPImageProcessor\"}", "image_grid_pinpoints"},
        {0, "{}", "{\"size\":{\"shortest_edge\":224},\"crop_size\":224}", "multiples of the tile"},
        {0, "{}", "{\"size\":{\"shortest_edge\":168},\"crop_size\":168}", "168 x 168, but config.json"},
        {0, "{\"mm_hidden\":3,\"projector_hidden_act\":\"mish\"}", "{}", "projector_hidden_act"},
        {0, "{\"vision_config\":{\"model_type\":\"internvl_vision\"}}", "{}", "internvl_vision"},
        {1, "{\"vision_aspect_ratio\":\"pad\"}", "{}", "vision_aspect_ratio"},
        {1, "{\"vision_aspect_ratio\":\"anyres_max_9x\"}", "{}", "vision_aspect_ratio"},
        {1, "{\"vision_feature_select_strategy\":\"default\"}", "{}", "no CLS"},
        {2, "{\"downsample_ratio\":0.3}", "{}", "downsample_ratio"},
        {2, "{\"downsample_ratio\":0.0625}", "{}", NULL}, /* 16 of 32 patches */
        {2, "{\"vision_feature_layer\":[1,2]}", "{}", "vision_feature_layer"},
        {2, "{\"vision_feature_select_strategy\":\"full\"}", "{}", "vision_feature_select_strategy"},
        {2, "{\"vision_config\":{\"norm_type\":\"batch_norm\"}}", "{}", "norm_type"},
        {2, "{\"vision_config\":{\"use_absolute_position_embeddings\":false}}", "{}",
         "use_absolute_position_embeddings"},
        {2, "{\"vision_config\":{\"image_size\":[448,224]}}", "{}", "image_size"},
        {2, "{}", "{\"size\":{\"height\":224,\"width\":224}}", "224 x 224"},
        {2, "{}",
         "{\"image_processor_type\":\"CLIPImageProcessor\",\"do_resize\":false,\"do_center_crop\":false}",
         "GotOcr2ImageProcessor"},
        {4, "{}",
         "{\"image_processor_type\":\"CLIPImageProcessor\",\"do_image_splitting\":false,\"do_resize\":false,"
         "\"do_center_crop\":false}",
         "Idefics3"},
        {4, "{\"scale_factor\":4}", "{}", "scale_factor"},
        {4, "{}", "{\"max_image_size\":{\"longest_edge\":378}}", "378 x 378"}, /* 27 patches, in twos */
        {4, "{}", "{\"max_image_size\":{\"longest_edge\":392}}", NULL},
    };
    if (!all) fail_msg("%s", e.text);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        json_t *c = json_deep_copy(json_array_get(all, (size_t)cases[i].which));
        json_t *config = json_loads(cases[i].config, 0, &e), *prep = json_loads(cases[i].prep, 0, &e);
        model_spec s;
        const name_sheet *sheet;
        status st = {0};
        assert_true(config && prep);
        json_object_update_recursive(json_object_get(c, "config"), config);
        json_object_update(json_object_get(c, "prep"), prep);
        write_configs(c);
        bool ok = family_read(folder, &s, &sheet, &st);
        if (cases[i].part && ok) fail_msg("case %zu: %s %s: accepted", i, cases[i].config, cases[i].prep);
        if (cases[i].part ? !strstr(st.msg, cases[i].part) : !ok)
            fail_msg("case %zu: %s %s: %s", i, cases[i].config, cases[i].prep, st.msg);
        json_decref(config);
        json_decref(prep);
        json_decref(c);
    }
    json_decref(all);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_golden), cmocka_unit_test(test_text),
                                       cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, folder_set_up, folder_tear_down);
}
