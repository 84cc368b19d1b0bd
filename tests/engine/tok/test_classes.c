/* test_classes.c - tokenizer.json files as the reference's tokenizer classes rebuild them, against what AutoTokenizer
 * made of texts and ids (tests/golden/tok/make_classes.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/engine.h"
#include "engine/families/token_classes.h"
#include "engine/tok/tok.h"
#include "tests/tools/folder.h"

#define GOLDEN "tests/golden/tok/"

static json_t *load(const char *name) {
    char path[256];
    snprintf(path, sizeof path, GOLDEN "%s.json", name);
    json_t *j = json_load_file(path, JSON_ALLOW_NUL, NULL);
    assert_non_null(j);
    return j;
}

static int expect_ids(const tok *t, const char *name, const json_t *text, const json_t *want) {
    tok_ids ids = {0};
    status st = {0};
    bool ok = tok_encode(t, json_string_value(text), json_string_length(text), NULL, 0, true, &ids, &st) &&
              ids.n == json_array_size(want);
    for (size_t i = 0; i < ids.n && ok; i++) ok = ids.v[i] == json_integer_value(json_array_get(want, i));
    if (!ok) {
        print_error("%s: '%s' %s\n  got ", name, json_string_value(text), st.msg);
        for (size_t i = 0; i < ids.n; i++) print_error(" %d", (int)ids.v[i]);
        char *dump = json_dumps(want, 0);
        print_error("\n  want %s\n", dump);
        free(dump);
    }
    tok_ids_fini(&ids);
    return !ok;
}

static int expect_text(const tok *t, const char *name, const json_t *list, const json_t *want) {
    tok_ids ids = {0};
    buf b = {0};
    status st = {0};
    for (size_t i = 0; i < json_array_size(list); i++)
        assert_true(tok_ids_push(&ids, (int32_t)json_integer_value(json_array_get(list, i))));
    assert_true(tok_decode(t, ids.v, ids.n, true, &b, &st));
    bool ok =
        b.len == json_string_length(want) && (!b.len || memcmp(b.data, json_string_value(want), b.len) == 0);
    if (!ok)
        print_error("%s: decodes to '%s', not '%s'\n", name, b.data ? b.data : "", json_string_value(want));
    tok_ids_fini(&ids);
    buf_fini(&b);
    return !ok;
}

static void rebuilds_as_reference(void **state) {
    (void)state;
    json_t *cases = load("classes"), *c, *e;
    size_t i, k;
    int bad = 0;
    assert_true(json_array_size(cases) > 20);
    json_array_foreach(cases, i, c) {
        char file[64], name[200];
        const json_t *config = json_object_get(c, "config"), *tc = json_object_get(c, "tokenizer_config");
        const char *class = json_string_value(json_object_get(tc, "tokenizer_class"));
        const char *base = json_string_value(json_object_get(c, "tok"));
        snprintf(file, sizeof file, "%s.tok", base);
        snprintf(name, sizeof name, "%s as %s of %s", base, class ? class : "no class",
                 json_string_value(json_object_get(config, "model_type")));
        json_t *j = load(file);
        assert_true(token_class_apply(j, config, tc));
        status st = {0};
        tok *t = tok_from_json(j, &st);
        if (!t) fail_msg("%s: %s", name, st.msg);
        json_array_foreach(json_object_get(c, "texts"), k, e) bad +=
            expect_ids(t, name, json_array_get(e, 0), json_array_get(e, 1));
        json_array_foreach(json_object_get(c, "decodes"), k, e) bad +=
            expect_text(t, name, json_array_get(e, 0), json_array_get(e, 1));
        tok_free(t);
        json_decref(j);
    }
    json_decref(cases);
    assert_int_equal(bad, 0);
}

static void wants_its_model(void **state) {
    (void)state;
    json_t *j = load("t5.tok"), *same = json_deep_copy(j), *config = json_pack("{s:s}", "model_type", "clip");
    json_t *tc = json_pack("{s:s}", "tokenizer_class", "CLIPTokenizer");
    assert_true(token_class_apply(j, config, tc)); /* a Unigram is no CLIP */
    assert_true(json_equal(j, same));
    assert_true(token_class_apply(j, NULL, NULL));
    assert_true(json_equal(j, same));
    json_decref(j);
    json_decref(same);
    json_decref(config);
    json_decref(tc);
}

/* vlmd tokenize on a checkpoint's folder gives what the server would see. */
static void tool_takes_the_class(void **state) {
    (void)state;
    json_t *cases = load("classes"), *c = NULL;
    size_t i;
    json_array_foreach(cases, i, c) {
        const char *type = json_string_value(json_object_get(json_object_get(c, "config"), "model_type"));
        if (strcmp(type, "siglip2") == 0) break;
    }
    assert_non_null(c);
    char file[64], *out = NULL;
    size_t n = 0;
    folder_new();
    snprintf(file, sizeof file, "%s.tok", json_string_value(json_object_get(c, "tok")));
    json_t *j = load(file);
    folder_put_json("tokenizer.json", j);
    folder_put_json("config.json", json_object_get(c, "config"));
    folder_put_json("tokenizer_config.json", json_object_get(c, "tokenizer_config"));
    json_t *texts = json_object_get(c, "texts"), *last = json_array_get(texts, json_array_size(texts) - 2);
    char *input =
        json_dumps(json_array_get(last, 0), JSON_ENCODE_ANY); /* with capitals, which the class lowers */
    FILE *in = fmemopen(input, strlen(input), "rb"), *f = open_memstream(&out, &n);
    assert_non_null(in);
    assert_non_null(f);
    tool_tokenize_opts o = {.path = folder, .json_lines = true};
    status st = {0};
    if (!tool_tokenize(&o, in, f, &st)) fail_msg("%s", st.msg);
    fclose(in);
    fclose(f);
    json_t *got = json_loads(out, 0, NULL);
    assert_true(json_equal(got, json_array_get(last, 1)));
    json_decref(got);
    json_decref(j);
    json_decref(cases);
    free(input);
    free(out);
    folder_free();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rebuilds_as_reference),
        cmocka_unit_test(wants_its_model),
        cmocka_unit_test(tool_takes_the_class),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
