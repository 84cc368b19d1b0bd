/* test_embed.c - inputs of jobs for vectors: ids as the reference's processors give them (tests/golden/dual), truncation
 * that keeps the end token, padding on either side, the row that stands for a text, refusals; vectors and the rule that
 * judges pairs. */
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/embed.h"
#include "engine/families/registry.h"

#define GOLDEN "tests/golden/dual"
static const char *const NAMES[] = {"clip_base", "clip_old", "siglip_base", "siglip2_naflex",
                                    "siglip2_large_grid"};

typedef struct fixture {
    model_spec spec;
    promptkit kit;
} fixture;

static bool open_dir(fixture *f, const char *dir, int max_len, status *st) {
    const name_sheet *sheet;
    if (!family_read(dir, &f->spec, &sheet, st)) return false;
    return promptkit_load(&f->kit, dir, NULL, &f->spec, max_len ? max_len : f->spec.text.max_pos,
                          &IMAGE_LIMITS_DEFAULT, st);
}

static void setup(fixture *f, const char *name, int max_len) {
    char dir[128];
    status st = {0};
    log_set_level(LOG_ERROR);
    snprintf(dir, sizeof dir, GOLDEN "/%s", name);
    if (!open_dir(f, dir, max_len, &st)) fail_msg("%s", st.msg);
}

static engine_embed_input text(const char *s) {
    return (engine_embed_input){.text = s, .n_text = strlen(s), .param = "input[0]"};
}

static void test_reference_ids(void **state) {
    (void)state;
    for (size_t k = 0; k < ARRAY_LEN(NAMES); k++) {
        char path[128];
        fixture f;
        setup(&f, NAMES[k], 0);
        snprintf(path, sizeof path, GOLDEN "/%s/golden.json", NAMES[k]);
        json_t *all = json_load_file(path, 0, NULL), *c;
        size_t i;
        engine_embed_input in[16];
        const json_t *texts = json_object_get(all, "texts");
        int n = (int)json_array_size(texts);
        assert_in_range(n, 8, 16);
        json_array_foreach(texts, i, c) in[i] = text(json_string_value(json_object_get(c, "text")));
        status st = {0};
        embed *x = embed_new(&f.kit, in, n, &(engine_embed_options){.truncate = true}, &st);
        if (!x) fail_msg("%s", st.msg);
        json_array_foreach(texts, i, c) {
            const json_t *ids = json_object_get(c, "ids");
            const embed_item *it = &x->items[i];
            if (it->n != (int)json_array_size(ids))
                fail_msg("%s: %s: %d ids, expected %zu", NAMES[k], in[i].text, it->n, json_array_size(ids));
            for (int j = 0; j < it->n; j++)
                assert_int_equal(x->prompt->ids.v[it->from + j],
                                 json_integer_value(json_array_get(ids, (size_t)j)));
        }
        embed_free(x);
        json_decref(all);
        promptkit_fini(&f.kit);
    }
}

static embed *one(const fixture *f, engine_embed_input in, bool truncate, status *st) {
    *st = (status){0};
    return embed_new(&f->kit, &in, 1, &(engine_embed_options){.truncate = truncate}, st);
}

static void test_truncation(void **state) {
    (void)state;
    fixture f;
    status st;
    setup(&f, "clip_base", 5);
    embed *x = one(&f, text("a photo of a cat"), true, &st);
    assert_non_null(x);
    assert_int_equal(x->items[0].n, 5);
    assert_int_equal(x->prompt->ids.v[0], 622);
    assert_int_equal(x->prompt->ids.v[4], 623);
    assert_int_equal(x->items[0].pick, 4);
    assert_int_equal(embed_tokens(x), 5);
    embed_free(x);
    assert_null(one(&f, text("a photo of a cat"), false, &st));
    assert_int_equal(st.code, ST_INVALID);
    assert_string_equal(st.param, "input[0]");
    assert_non_null(strstr(st.msg, "5 tokens"));
    assert_non_null(strstr(st.msg, "has 7"));
    static const int32_t ids[] = {7, 8, 9, 10, 11, 12};
    engine_embed_input in = {.ids = ids, .n_ids = 6, .param = "input"};
    assert_null(one(&f, in, false, &st));
    x = one(&f, in, true, &st);
    assert_int_equal(x->items[0].n, 5);
    assert_memory_equal(x->prompt->ids.v, ids, 5 * sizeof *ids);
    embed_free(x);
    promptkit_fini(&f.kit);
}

static void test_picks(void **state) {
    (void)state;
    fixture f;
    status st;
    static const struct {
        const char *name;
        int32_t ids[5];
        int n, pick;
    } cases[] = {
        {"clip_base", {5, 623, 7, 623}, 4, 1},
        {"clip_base", {5, 6, 7}, 3, 0},
        {"clip_base", {623}, 1, 0},
        {"clip_old", {5, 600, 7, 600}, 4, 1},
        {"clip_old", {2, 600, 623, 3, 1}, 5, 2},
        {"siglip_base", {5, 6}, 2, 12},
        {"siglip2_naflex", {5, 6, 7}, 3, 63},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        setup(&f, cases[i].name, 0);
        engine_embed_input in = {.ids = cases[i].ids, .n_ids = (size_t)cases[i].n, .param = "input"};
        embed *x = one(&f, in, false, &st);
        if (!x) fail_msg("%s", st.msg);
        assert_int_equal(x->items[0].pick, cases[i].pick);
        assert_int_equal(embed_tokens(x), cases[i].n); /* padding is not counted */
        embed_free(x);
        promptkit_fini(&f.kit);
    }
}

/* Markup in a user's text is text; a token that stands for itself is only in lists of ids. */
static void test_specials_of_users(void **state) {
    (void)state;
    fixture f;
    status st;
    setup(&f, "clip_base", 0);
    embed *x = one(&f, text("<|endoftext|>"), false, &st);
    assert_non_null(x);
    assert_true(x->items[0].n > 3);
    assert_int_equal(x->items[0].pick, x->items[0].n - 1);
    embed_free(x);
    promptkit_fini(&f.kit);
}

static void test_refused(void **state) {
    (void)state;
    fixture f;
    status st;
    setup(&f, "clip_base", 0);
    static const int32_t big[] = {3, 624}, low[] = {-1};
    const engine_image no_picture = {"AAAA", 4, "input[3].image"};
    const engine_embed_input bad[] = {{.ids = big, .n_ids = 2, .param = "p"},
                                      {.ids = low, .n_ids = 1, .param = "p"},
                                      {.ids = big, .n_ids = 0, .param = "p"},
                                      {.image = &no_picture, .param = "p"}};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_null(one(&f, bad[i], true, &st));
        assert_int_equal(st.code, ST_INVALID);
        assert_string_equal(st.param, bad[i].image ? "input[3].image" : "p");
    }
    promptkit_fini(&f.kit);
}

/* ---- tokenizer settings ---- */

static char g_dir[64];

static void copy(const char *golden, const char *name) {
    char path[256];
    buf b = {0};
    status st = {0};
    snprintf(path, sizeof path, GOLDEN "/%s/%s", golden, name);
    assert_true(buf_read_file(&b, path, 1 << 24, &st));
    snprintf(path, sizeof path, "%s/%s", g_dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(b.data, 1, b.len, f), b.len);
    assert_int_equal(fclose(f), 0);
    buf_fini(&b);
}

static bool g_plain; /* the tokenizer's file loses its normalizer and pre-tokenizer */

static void make_plain(void) {
    char path[256];
    snprintf(path, sizeof path, "%s/tokenizer.json", g_dir);
    json_t *j = json_load_file(path, 0, NULL);
    assert_non_null(j);
    json_object_set_new(j, "normalizer", json_null());
    json_object_set_new(j, "pre_tokenizer", json_null());
    assert_int_equal(json_dump_file(j, path, 0), 0);
    json_decref(j);
}

static bool with_settings(fixture *f, const char *golden, const char *settings, int max_len, status *st) {
    static const char *const files[] = {"config.json", "tokenizer.json", "preprocessor_config.json"};
    char path[256];
    *st = (status){0};
    strcpy(g_dir, "/tmp/vlmd_embed_XXXXXX");
    assert_non_null(mkdtemp(g_dir));
    for (size_t i = 0; i < ARRAY_LEN(files); i++) copy(golden, files[i]);
    if (g_plain) make_plain();
    snprintf(path, sizeof path, "%s/tokenizer_config.json", g_dir);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    fputs(settings, out);
    fclose(out);
    bool ok = open_dir(f, g_dir, max_len, st);
    unlink(path);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        snprintf(path, sizeof path, "%s/%s", g_dir, files[i]);
        unlink(path);
    }
    rmdir(g_dir);
    return ok;
}

static void test_padding(void **state) {
    (void)state;
    static const struct {
        const char *golden, *settings;
        int n, first, pads_left;
        int32_t pad;
    } cases[] = {
        {"siglip2_naflex", "{\"padding_side\":\"left\",\"pad_token\":\"<pad>\"}", 64, 0, 1, 0},
        {"siglip2_naflex", "{\"padding_side\":\"right\",\"pad_token\":{\"content\":\"<mask>\"}}", 64, 0, 0,
         4},
        {"siglip2_naflex", "{\"tokenizer_class\":\"GemmaTokenizerFast\"}", 64, 0, 1, 0},
        {"siglip2_naflex", "{\"tokenizer_class\":\"GemmaTokenizer\",\"padding_side\":\"right\"}", 64, 0, 0,
         0},
        {"siglip2_naflex", "{\"model_max_length\":9,\"padding_side\":\"right\"}", 64, 0, 0,
         0}, /* the processor's own */
        {"siglip_base", "{\"model_max_length\":9,\"pad_token\":\"</s>\"}", 9, 0, 0, 1},
        {"siglip_base", "{\"model_max_length\":1000000000000000019884624838656}", 13, 0, 0, 1},
        {"siglip_base", "{}", 13, 0, 0, 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        fixture f;
        status st;
        if (!with_settings(&f, cases[i].golden, cases[i].settings, 0, &st)) fail_msg("%s", st.msg);
        embed *x = one(&f, text("a cat"), false, &st);
        if (!x) fail_msg("%s", st.msg);
        assert_int_equal(x->items[0].n, cases[i].n);
        assert_int_equal(x->items[0].pick, cases[i].n - 1);
        const int32_t *ids = x->prompt->ids.v;
        assert_int_equal(ids[cases[i].pads_left ? 0 : cases[i].n - 1], cases[i].pad);
        if (cases[i].pads_left) assert_int_equal(ids[cases[i].n - 1], 1); /* the end token */
        embed_free(x);
        promptkit_fini(&f.kit);
    }
    fixture f;
    status st;
    assert_false(with_settings(&f, "siglip_base",
                               "{\"model_input_names\":[\"input_ids\",\"attention_mask\"]}", 0, &st));
    assert_int_equal(st.code, ST_UNSUPPORTED);
    assert_non_null(strstr(st.msg, "model_input_names"));
    assert_true(
        with_settings(&f, "clip_base", "{\"model_input_names\":[\"input_ids\",\"attention_mask\"]}", 0, &st));
    promptkit_fini(&f.kit);
    assert_false(with_settings(&f, "clip_base", "{\"model_max_length\":1}", 0, &st));
    assert_non_null(strstr(st.msg, "at most 1 tokens"));
}

/* The reference builds this family's pipeline itself: its file's is not asked. */
static void test_own_pipeline(void **state) {
    (void)state;
    static const int32_t want[] = {38, 144, 127, 1}; /* AutoTokenizer's */
    fixture f;
    status st;
    g_plain = true;
    assert_true(with_settings(&f, "siglip2_naflex",
                              "{\"tokenizer_class\":\"GemmaTokenizerFast\",\"padding_side\":\"right\"}", 0,
                              &st));
    g_plain = false;
    embed *x = one(&f, text("Two SMALL"), false, &st);
    assert_non_null(x);
    assert_memory_equal(x->prompt->ids.v, want, sizeof want);
    embed_free(x);
    promptkit_fini(&f.kit);
}

/* ---- vectors ---- */

static void test_take(void **state) {
    (void)state;
    for (int raw = 0; raw < 2; raw++) {
        embed_item items[3] = {{.image = -1}, {.image = 0}, {.image = -1}};
        float vectors[6];
        embed x = {.items = items, .n_items = 3, .n_left = 3, .width = 2, .vectors = vectors, .raw = raw};
        assert_ptr_equal(embed_next_text(&x), &items[0]);
        assert_true(embed_take(&x, &items[0], (const float[]){3, -4}));
        assert_true(vectors[0] == (raw ? 3.0f : 0.6f) && vectors[1] == (raw ? -4.0f : -0.8f));
        assert_ptr_equal(embed_next_text(&x), &items[2]);
        assert_true(embed_take(&x, &items[2], (const float[]){0, 0}));
        assert_true(vectors[4] == 0 && vectors[5] == 0);
        assert_null(embed_next_text(&x));
        assert_int_equal(x.n_left, 1);
        assert_false(embed_take(&x, &items[1], (const float[]){NAN, 1}));
        assert_false(embed_take(&x, &items[1], (const float[]){INFINITY, 1}));
        assert_int_equal(x.n_left, 1);
    }
}

static void test_judge(void **state) {
    (void)state;
    static const float v[] = {3, 4, /* labels */ 6, 8, -3, -4, 4, -3, 0, 0};
    double logits[4], p[4], sum = 0;
    engine_judge(&(engine_rule){.scale = 10}, 2, v, 4, logits, p);
    static const double want[] = {10, -10, 0, 0};
    for (int i = 0; i < 4; i++) {
        assert_true(fabs(logits[i] - want[i]) < 1e-12);
        sum += exp(want[i]);
    }
    for (int i = 0; i < 4; i++) assert_true(fabs(p[i] - exp(want[i]) / sum) < 1e-12);
    engine_judge(&(engine_rule){.scale = 2, .bias = -1, .sigmoid = true}, 2, v, 4, logits, p);
    for (int i = 0; i < 4; i++) {
        double x = want[i] / 5 - 1;
        assert_true(fabs(logits[i] - x) < 1e-12 && fabs(p[i] - 1 / (1 + exp(-x))) < 1e-12);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_ids), cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_picks),         cmocka_unit_test(test_specials_of_users),
        cmocka_unit_test(test_refused),       cmocka_unit_test(test_padding),
        cmocka_unit_test(test_own_pipeline),  cmocka_unit_test(test_take),
        cmocka_unit_test(test_judge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
