/* test_rx.c - regular expressions against what the tokenizers library matched (tests/golden/tok/make_rx.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "engine/tok/rx.h"
#include "engine/tok/uset.h"

static int check_pieces(const char *pattern, const rx_work *w, const char *text, size_t n,
                        const json_t *want) {
    size_t at = 0, k = 0, bad = 0, begins[2];
    for (size_t i = 0; i <= w->n; i++) {
        begins[0] = at;
        begins[1] = i < w->n ? w->v[i].begin : n;
        size_t end = i < w->n ? w->v[i].end : n;
        for (int part = 0; part < 2; part++) {
            size_t b = begins[part], e = part ? end : begins[1];
            if (i == w->n && part) break;
            if (e <= b) continue;
            const char *s = json_string_value(json_array_get(want, k));
            size_t len = json_string_length(json_array_get(want, k));
            k++;
            if (!s || len != e - b || memcmp(s, text + b, len) != 0) bad++;
        }
        at = end;
    }
    if (k != json_array_size(want)) bad++;
    if (bad) print_error("pattern %s on '%s': other pieces\n", pattern, text);
    return bad != 0;
}

static void equals_library(void **state) {
    (void)state;
    json_t *rows = json_load_file("tests/golden/tok/rx.json", JSON_ALLOW_NUL, NULL);
    assert_non_null(rows);
    size_t i, bad = 0, built = 0;
    json_t *row;
    json_array_foreach(rows, i, row) {
        json_t *p = json_object_get(row, "pattern");
        status st = {0};
        rx *r = rx_new(json_string_value(p), json_string_length(p), false, &st);
        if (json_object_get(row, "refused")) {
            if (r) print_error("pattern %s: the library refuses it\n", json_string_value(p));
            bad += r != NULL;
            rx_free(r);
            continue;
        }
        if (!r) {
            print_error("pattern %s: %s\n", json_string_value(p), st.msg);
            bad++;
            continue;
        }
        built++;
        rx_work w = {0};
        json_t *texts = json_object_get(row, "texts"), *pieces = json_object_get(row, "pieces");
        for (size_t k = 0; k < json_array_size(texts); k++) {
            json_t *t = json_array_get(texts, k);
            assert_true(rx_find(r, &w, json_string_value(t), json_string_length(t), &st));
            bad += (size_t)check_pieces(json_string_value(p), &w, json_string_value(t), json_string_length(t),
                                        json_array_get(pieces, k));
        }
        rx_work_fini(&w);
        rx_free(r);
    }
    json_decref(rows);
    assert_int_equal(bad, 0);
    assert_true(built > 100);
}

static void refuses_by_name(void **state) {
    (void)state;
    static const char *const patterns[] = {"(a)\\1", "(?<n>a)\\k<n>", "\\X",   "\\y",
                                           "(?~ab)", "(?(1)a|b)",     "\\g<1>"};
    for (size_t i = 0; i < ARRAY_LEN(patterns); i++) {
        status st = {0};
        assert_null(rx_new(patterns[i], strlen(patterns[i]), false, &st));
        assert_true(st.code == ST_UNSUPPORTED || st.code == ST_INVALID);
        assert_true(strlen(st.msg) > 10);
    }
    char deep[4000];
    memset(deep, '(', sizeof deep);
    status st = {0};
    assert_null(rx_new(deep, sizeof deep, false, &st));
    memset(deep, '[', sizeof deep);
    st = (status){0};
    assert_null(rx_new(deep, sizeof deep, false, &st));
}

/* Hostile patterns end in bounded time: with matches or an error, never a hang. */
static void gives_up(void **state) {
    (void)state;
    static const char *const patterns[] = {"(?:a*)*[bc]$",  "(?:a|aa)+[bc]",       "(a+)+$b|c",
                                           "(?:(?:a*)*)*x", "(?<x>a\\g<x>?)*[bc]", "(?:a?){50}[bc]{30}",
                                           "a*a*a*[bc]"};
    char text[20001];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = 0;
    for (size_t i = 0; i < ARRAY_LEN(patterns); i++) {
        status st = {0};
        rx *r = rx_new(patterns[i], strlen(patterns[i]), false, &st);
        if (!r) continue;
        rx_work w = {0};
        if (!rx_find(r, &w, text, sizeof text - 1, &st)) assert_int_equal(st.code, ST_INVALID);
        rx_work_fini(&w);
        rx_free(r);
    }
}

static void literals(void **state) {
    (void)state;
    status st = {0};
    rx_work w = {0};
    rx *r = rx_new("a.", 2, true, &st);
    assert_true(rx_find(r, &w, "a.ba.aba.", 9, &st));
    assert_int_equal(w.n, 3);
    assert_int_equal(w.v[2].begin, 7);
    rx_free(r);
    r = rx_new("", 0, true, &st);
    assert_true(rx_find(r, &w, "x\xC3\xA9y", 4, &st));
    assert_int_equal(w.n, 4);
    assert_int_equal(w.v[2].begin, 3);
    rx_free(r);
    rx_work_fini(&w);
}

static void sets(void **state) {
    (void)state;
    uset s = {0}, t = {0};
    uset_add(&s, 'd', 'f');
    uset_add(&s, 'a', 'b');
    uset_add(&s, 'c', 'c');
    uset_tidy(&s);
    assert_int_equal(s.n, 1);
    uset_invert(&s);
    assert_false(uset_has(&s, 'c'));
    assert_true(uset_has(&s, 'g') && uset_has(&s, 0) && uset_has(&s, CP_MAX));
    uset_add(&t, 'e', 'h');
    uset_intersect(&s, &t);
    assert_int_equal(s.n, 1);
    assert_int_equal(s.v[0].first, 'g');
    uset_fini(&s);
    uset_fini(&t);
    assert_int_equal(unicode_to_lower('A'), 'a');
    assert_int_equal(unicode_to_lower(0x100), 0x101);
    assert_int_equal(unicode_to_lower(0x101), 0x101);
    assert_int_equal(unicode_to_lower(0x1E900), 0x1E922);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_library), cmocka_unit_test(refuses_by_name),
        cmocka_unit_test(gives_up),       cmocka_unit_test(literals),
        cmocka_unit_test(sets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
