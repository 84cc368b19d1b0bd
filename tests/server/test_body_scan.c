/* test_body_scan.c - lifting pictures out of bodies. Expected: the URL as a JSON library would decode it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "server/body_scan.h"

static char *body_of(const char *part, size_t *n) {
    static char text[4096];
    *n = (size_t)snprintf(
        text, sizeof text,
        "{\"a\":[1,{\"b\":\"}\"}],\"messages\":[{\"role\":\"user\",\"content\":[%s]}],\"z\":\"\\\"\"}", part);
    return text;
}

static const char *url_of(json_t *root, bool object) {
    json_t *p =
        json_array_get(json_object_get(json_array_get(json_object_get(root, "messages"), 0), "content"), 0);
    p = json_object_get(p, "image_url");
    return json_string_value(object ? json_object_get(p, "url") : p);
}

/* Scans a part with `url` (JSON-escaped) in it; the lifted text must be what the JSON library reads from the
 * same. */
static void check_lift(const char *url, bool object) {
    char part[3000];
    size_t n;
    snprintf(part, sizeof part,
             object ? "{\"type\":\"image_url\",\"image_url\":{\"detail\":\"low\",\"url\" : \"%s\"}}"
                    : "{\"image_url\":\"%s\"}",
             url);
    char *body = body_of(part, &n);
    json_t *plain = json_loadb(body, n, 0, NULL);
    assert_non_null(plain);
    body_scan s;
    status st = {0};
    assert_true(body_scan_run(&s, body, n, &st));
    assert_int_equal(s.n_spans, 1);
    json_t *lifted = json_loadb(s.json, s.n_json, 0, NULL);
    assert_non_null(lifted);
    const char *placeholder = url_of(lifted, object), *expected = url_of(plain, object);
    const body_span *span = body_scan_find(&s, placeholder, strlen(placeholder));
    assert_non_null(span);
    assert_int_equal(span->n, strlen(expected));
    assert_memory_equal(span->p, expected, span->n);
    assert_string_equal(json_string_value(json_object_get(lifted, "z")), "\"");
    json_decref(plain);
    json_decref(lifted);
    body_scan_fini(&s);
}

static void test_lift(void **state) {
    (void)state;
    static const char *const urls[] = {"data:image/png;base64,AAAA",
                                       "data:image\\/png;base64,A\\/B+C\\/\\/D=",
                                       "DATA:;base64,x",
                                       "data:,",
                                       "data:\\u002f\\u002F\\u0041",
                                       "data:a\\n\\tb\\\"c\\\\",
                                       "data:\\/"};
    for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
        check_lift(urls[i], true);
        check_lift(urls[i], false);
    }
}

static int spans_in(const char *text) {
    char body[2048];
    snprintf(body, sizeof body, "%s", text);
    body_scan s;
    status st = {0};
    assert_true(body_scan_run(&s, body, strlen(body), &st));
    int n = s.n_spans;
    if (!n) {
        assert_ptr_equal(s.json, body);
        assert_int_equal(s.n_json, strlen(text));
        assert_memory_equal(body, text, strlen(text)); /* untouched */
    }
    body_scan_fini(&s);
    return n;
}

static void test_leave_alone(void **state) {
    (void)state;
    static const char *const texts[] = {
        "",
        "{",
        "\"",
        "\"\\",
        "{\"url\":\"data:x,y\"}",
        "data:",
        "[[[\"data:aaaa\"]]]",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"data:image/png;base64,AAAA\"}]}",
        "{\"messages\":[{\"content\":[{\"type\":\"text\",\"text\":\"data:image/png;base64,AA\"}]}]}",
        "{\"messages\":[{\"content\":[{\"image_url\":{\"other\":\"data:image/png;base64,AA\"}}]}]}",
        "{\"messages\":[{\"content\":[{\"image_url\":\"http://x/y.png\"}]}]}",
        "{\"messages\":[{\"content\":[{\"image_url\":\"data:\\ud83d\\ude00\"}]}]}",
        "{\"messages\":[{\"content\":[{\"image_url\":\"data:\\x\"}]}]}",
        "{\"messages\":[{\"content\":[{\"image_url\":\"data:\\u00\"}]}]}",
        "{\"messages\":[{\"content\":[{\"image_url\":\"data:\\u0000\"}]}]}",
        "{\"messages\":[{\"content\":[{\"image_url\":\"data:unterminated",
        "{\"messages\":[{\"content\":[{\"image_url\":\"data:\\\"",
        "}}}}]]]]{{{{",
        "{\"tools\":[{\"content\":[{\"image_url\":\"data:x\"}]}]}",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) assert_int_equal(spans_in(texts[i]), 0);
}

static void test_many(void **state) {
    (void)state;
    buf b = {0};
    buf_puts(&b, "\xEF\xBB\xBF{\"messages\":[{\"content\":[");
    for (int i = 0; i < 300; i++)
        buf_printf(&b, "%s{\"image_url\":{\"url\":\"data:;base64,%d\"}}", i ? "," : "", i);
    buf_puts(&b, "]}]}");
    body_scan s;
    status st = {0};
    assert_true(body_scan_run(&s, b.data, b.len, &st));
    assert_int_equal(s.n_spans, 300);
    json_t *root = json_loadb(s.json, s.n_json, 0, NULL);
    json_t *parts = json_object_get(json_array_get(json_object_get(root, "messages"), 0), "content");
    for (int i = 0; i < 300; i++) {
        json_t *u = json_object_get(json_object_get(json_array_get(parts, (size_t)i), "image_url"), "url");
        const body_span *span = body_scan_find(&s, json_string_value(u), json_string_length(u));
        char expected[40];
        snprintf(expected, sizeof expected, "data:;base64,%d", i);
        assert_non_null(span);
        assert_int_equal(span->n, strlen(expected));
        assert_memory_equal(span->p, expected, span->n);
    }
    assert_null(body_scan_find(&s, "vlmd:", 5));
    assert_null(body_scan_find(&s, "", 0));
    json_decref(root);
    body_scan_fini(&s);
    buf_fini(&b);
}

static void test_depth(void **state) {
    (void)state;
    char deep[2 * BODY_MAX_DEPTH + 10];
    body_scan s;
    for (int depth = BODY_MAX_DEPTH; depth <= BODY_MAX_DEPTH + 1; depth++) {
        memset(deep, '[', (size_t)depth);
        status st = {0};
        assert_int_equal(body_scan_run(&s, deep, (size_t)depth, &st), depth == BODY_MAX_DEPTH);
        assert_int_equal(st.code, depth == BODY_MAX_DEPTH ? ST_OK : ST_INVALID);
        body_scan_fini(&s);
    }
}

/* Escapes and quotes in any mixture must not make the walk quadratic; at 16 MB that would take hours. */
static void test_linear(void **state) {
    (void)state;
    size_t n = (size_t)16 << 20;
    char *p = mem_alloc(n);
    static const char *const fill[] = {"\\\\", "\"\"", "\\n\"x", "{}", "\\\"", "\"\\\\"};
    for (size_t k = 0; k < ARRAY_LEN(fill); k++) {
        size_t len = strlen(fill[k]);
        for (size_t i = 0; i < n; i++) p[i] = fill[k][i % len];
        p[0] = '"';
        body_scan s;
        status st = {0};
        assert_true(body_scan_run(&s, p, n, &st));
        body_scan_fini(&s);
    }
    mem_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lift),  cmocka_unit_test(test_leave_alone), cmocka_unit_test(test_many),
        cmocka_unit_test(test_depth), cmocka_unit_test(test_linear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
