/* test_tmpl.c - the template engine against the reference's outputs (tests/golden/tmpl/make_goldens.py). */
#include "tests/engine/tmpl/util.h"

static int check(const json_t *c, const char *name, const char *src, json_t *vars) {
    tmpl_out out;
    status st;
    bool ok = render(src, NULL, vars, NULL, &out, &st);
    const json_t *want = json_object_get(c, "out"), *message = json_object_get(c, "message");
    int bad = 0;
    if (want && !ok)
        bad = 1;
    else if (want)
        bad = json_string_length(want) != out.text.len ||
              memcmp(json_string_value(want), out.text.data, out.text.len) != 0;
    else if (ok)
        bad = 1;
    else if (message)
        bad = strcmp(json_string_value(message), st.msg) != 0;
    if (bad)
        print_error("%s\n  %s\n  want %s\n  got  %s\n", name, src,
                    want ? json_string_value(want) : "an error", ok ? out.text.data : st.msg);
    if (!ok) assert_true(st.code == ST_INVALID || bad);
    tmpl_out_fini(&out);
    return bad;
}

static void test_chat_templates(void **state) {
    (void)state;
    json_t *all = load_json("tests/golden/tmpl/chat.json"), *templates = json_object_get(all, "templates"),
           *c;
    size_t i;
    int bad = 0;
    json_array_foreach(json_object_get(all, "cases"), i, c) {
        const char *t =
            json_string_value(json_object_get(templates, json_string_value(json_object_get(c, "template"))));
        bad += check(c, json_string_value(json_object_get(c, "name")), t, json_object_get(c, "vars"));
    }
    assert_int_equal(bad, 0);
    assert_true(i > 100);
    json_decref(all);
}

static void test_expressions(void **state) {
    (void)state;
    json_t *all = load_json("tests/golden/tmpl/expr.json"), *c;
    size_t i;
    int bad = 0;
    json_array_foreach(json_object_get(all, "cases"), i, c) bad +=
        check(c, "expression", json_string_value(json_object_get(c, "t")), json_object_get(all, "vars"));
    assert_int_equal(bad, 0);
    assert_true(i > 500);
    json_decref(all);
}

/* Errors say the line and what was expected. Texts: ours; which cases fail: the reference's. */
static void test_errors(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"a\n{% if x %}", "line 2"},
        {"{% for x in %}{% endfor %}", "expected an expression"},
        {"{{ x", "got end of template"},
        {"{{ 'x }}", "not closed"},
        {"{# x", "not closed"},
        {"{% raw %}x", "not closed"},
        {"{{ (1] }}", "unexpected ']', expected ')'"},
        {"{% frobnicate %}", "unknown tag"},
        {"{% if a %}{% endfor %}", "endif"},
        {"{{ x|nosuch }}", "no filter named 'nosuch'"},
        {"{{ x is nosuch }}", "no test named 'nosuch'"},
        {"{% break %}", "outside of a loop"},
        {"{% include 'x' %}", "not supported"},
        {"{% extends 'x' %}", "not supported"},
        {"{% import 'x' as y %}", "not supported"},
        {"\n\n{{ a.b.c }}", "line 3: 'a' is undefined"},
        {"{{ messages.x.y }}", "has no attribute 'x'"},
        {"{{ 1 + 'a' }}", "unsupported operand"},
        {"{{ lipsum() }}", "not supported"},
        {"{{ d.update({}) }}", "unsafe"},
        {"{% set x.y = 1 %}", "non-namespace"},
        {"{% macro f(a) %}{% endmacro %}{{ f(b=1) }}", "no keyword argument 'b'"},
        {"{{ 9223372036854775807 + 1 }}", "64 bits"},
        {"{{ 99999999999999999999 }}", "64 bits"},
    };
    json_t *vars = json_pack("{s:[], s:{s:i}}", "messages", "d", "a", 1);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        tmpl_out out;
        status st;
        assert_false(render(cases[i][0], NULL, vars, NULL, &out, &st));
        assert_int_equal(st.code, ST_INVALID);
        if (!strstr(st.msg, cases[i][1]))
            fail_msg("%s: expected '%s' in '%s'", cases[i][0], cases[i][1], st.msg);
        tmpl_out_fini(&out);
    }
    json_decref(vars);
}

static void test_strftime(void **state) {
    (void)state;
    tmpl_out out;
    status st;
    assert_true(render(
        "{{ strftime_now('%Y-%m-%d')|length }} {{ strftime_now('') == '' }} {{ strftime_now('%f')|length }}",
        NULL, NULL, NULL, &out, &st));
    assert_string_equal(out.text.data, "10 True 6");
    tmpl_out_fini(&out);
}

/* Expected values judged by hand from what each template does with a string and with a list of parts. */
static void test_forms(void **state) {
    (void)state;
    static const struct {
        const char *src;
        bool takes_string, takes_parts;
    } cases[] = {
        {"{% for m in messages %}{{ m.content }}{% endfor %}", true, false},
        {"{% for m in messages %}{{ m['role'] + m['content'] | trim }}{% endfor %}", true, false},
        {"{% for m in messages %}{% for c in m.content %}{{ c.text }}{% endfor %}{% endfor %}", false, true},
        {"{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content "
         "%}{{ c['text'] }}"
         "{% endfor %}{% endif %}{% endfor %}",
         true, true},
        {"{% macro show(c) %}{% for p in c %}{{ p.text }}{% endfor %}{% endmacro %}{% set ms = messages[1:] "
         "%}"
         "{% for m in ms %}{{ show(m.content) }}{% endfor %}",
         false, true},
        {"{% for m in messages %}{% set c = m.get('content') %}{% for p in c | selectattr('type', 'equalto', "
         "'text') %}{{ p.text }}"
         "{% endfor %}{% endfor %}",
         false, true},
        {"{% for m in messages %}{{ m.content[0].text }}{% endfor %}", false, true},
        {"{% for m in messages %}{{ m.content.strip() }}{% endfor %}", true, false},
        {"{% set ns = namespace(c='') %}{% for m in messages %}{% set ns.c = m.content %}{{ ns.c }}{% endfor "
         "%}",
         true, false},
        {"hello", true, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        status st = {0};
        tmpl *t = tmpl_parse(cases[i].src, strlen(cases[i].src), &st);
        assert_non_null(t);
        tmpl_forms f = tmpl_content_forms(t);
        if (f.takes_string != cases[i].takes_string || f.takes_parts != cases[i].takes_parts)
            fail_msg("%s: string %d, parts %d", cases[i].src, f.takes_string, f.takes_parts);
        tmpl_free(t);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chat_templates), cmocka_unit_test(test_expressions),
        cmocka_unit_test(test_errors),         cmocka_unit_test(test_strftime),
        cmocka_unit_test(test_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
