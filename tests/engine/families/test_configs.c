/* test_configs.c - configs with a few keys, in older spellings and by other names give the same spec as what the reference
 * library's classes make of them (tests/golden/configs/make_configs.py). */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/families/registry.h"

static char g_dir[64];

static void put(const char *name, const json_t *j) {
    char path[128];
    snprintf(path, sizeof path, "%s/%s", g_dir, name);
    if (json_is_object(j))
        assert_int_equal(json_dump_file(j, path, 0), 0);
    else
        unlink(path);
}

static bool read_both(const json_t *config, const json_t *settings, model_spec *out, const name_sheet **sheet,
                      status *st) {
    put("config.json", config);
    put("preprocessor_config.json", settings);
    return family_read(g_dir, out, sheet, st);
}

/* What no forward pass looks at. */
static void forget(model_spec *s) {
    if (s->dual.on) s->bos = -1, s->n_eos = 0, memset(s->eos, 0, sizeof s->eos); /* nothing is generated */
    if (s->both_ways == BOTH_PROMPT) s->text.both_ways = false;                  /* so or so */
}

static void a_config_means_what_the_reference_makes_of_it(void **state) {
    (void)state;
    static model_spec a, b;
    json_error_t e;
    json_t *all = json_load_file("tests/golden/configs/cases.json", 0, &e);
    assert_non_null(all);
    size_t i;
    json_t *c;
    json_array_foreach(all, i, c) {
        const char *name = json_string_value(json_array_get(c, 0));
        const name_sheet *sheet = NULL, *filled = NULL;
        status st = {0};
        if (!read_both(json_array_get(c, 1), json_array_get(c, 3), &a, &sheet, &st))
            fail_msg("%s: %s", name, st.msg);
        if (!read_both(json_array_get(c, 2), json_array_get(c, 4), &b, &filled, &st))
            fail_msg("%s, filled in: %s", name, st.msg);
        forget(&a);
        forget(&b);
        const char *p = (const char *)&a, *q = (const char *)&b;
        for (size_t k = 0; k < sizeof a; k++)
            if (p[k] != q[k])
                fail_msg("%s: byte %zu (tower at %zu, join %zu, text %zu, prep %zu)", name, k,
                         offsetof(model_spec, tower), offsetof(model_spec, join), offsetof(model_spec, text),
                         offsetof(model_spec, prep));
        assert_ptr_equal(sheet, filled);
    }
    json_decref(all);
}

static void layers_of_their_own_are_refused(void **state) {
    (void)state;
    model_spec s;
    const name_sheet *sheet;
    status st = {0};
    json_error_t e;
    json_t *j = json_loads(
        "{\"model_type\":\"llama\",\"per_layer_config\":{\"1\":{\"intermediate_size\":8}}}", 0, &e);
    assert_false(read_both(j, NULL, &s, &sheet, &st));
    assert_int_equal(st.code, ST_UNSUPPORTED);
    assert_non_null(strstr(st.msg, "config.json: per_layer_config"));
    json_decref(j);
}

/* Words of one token and suppressed tokens; an end stays, as does what has no logit. */
static void tokens_are_banned(void **state) {
    (void)state;
    static model_spec s;
    const name_sheet *sheet;
    status st = {0};
    json_t *j = json_pack("{s:s, s:i}", "model_type", "llama", "vocab_size", 40);
    json_t *gen = json_loads("{\"eos_token_id\":[2,7],\"bad_words_ids\":[[32],[7],[40],[3,4]],"
                             "\"suppress_tokens\":[5]}",
                             0, NULL);
    put("generation_config.json", gen);
    assert_true(read_both(j, NULL, &s, &sheet, &st));
    assert_int_equal(s.n_banned, 2);
    assert_int_equal(s.banned[0], 32);
    assert_int_equal(s.banned[1], 5);
    put("generation_config.json", NULL);
    json_decref(gen);
    json_decref(j);
}

static int set_up(void **state) {
    (void)state;
    snprintf(g_dir, sizeof g_dir, "/tmp/vlmd-configs-XXXXXX");
    return mkdtemp(g_dir) ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    put("config.json", NULL);
    put("preprocessor_config.json", NULL);
    return rmdir(g_dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_config_means_what_the_reference_makes_of_it),
        cmocka_unit_test(layers_of_their_own_are_refused),
        cmocka_unit_test(tokens_are_banned),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
