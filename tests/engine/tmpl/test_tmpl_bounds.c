/* test_tmpl_bounds.c - hostile templates and variables end in ST_INVALID with a message, soon and without a crash. */
#include "tests/engine/tmpl/util.h"

static void refused(const char *src, json_t *vars, const tmpl_limits *l, const char *part) {
    tmpl_out out;
    status st;
    if (render(src, NULL, vars, l, &out, &st)) fail_msg("%.80s was rendered", src);
    assert_int_equal(st.code, ST_INVALID);
    if (!strstr(st.msg, part)) fail_msg("%.80s: expected '%s' in '%s'", src, part, st.msg);
    tmpl_out_fini(&out);
}

static const tmpl_limits SMALL = {.max_output_bytes = 1 << 20, .max_steps = 2000000, .max_depth = 100};

static void test_growth(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"{{ 'a' * 10**9 }}", "grows beyond"},
        {"{{ 'a' * 10**15 }}", "grows beyond"},
        {"{{ [0] * 10**12 }}", "steps"},
        {"{{ range(10**9) | list }}", "Range too big"},
        {"{% set ns = namespace(s='abcdefgh') %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% "
         "endfor %}",
         "grows beyond"},
        {"{% set ns = namespace(s='x') %}{% for i in range(1000) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
         "grows beyond"},
        {"{% set ns = namespace(l=[1]) %}{% for i in range(100) %}{% set ns.l = ns.l + ns.l %}{% endfor %}",
         "m"},
        {"{% set ns = namespace(l=1) %}{% for i in range(100) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ "
         "ns.l }}",
         "m"},
        {"{% set ns = namespace(l=1) %}{% for i in range(5000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l "
         "}}",
         "nested too deeply"},
        {"{% set ns = namespace(l=1) %}{% for i in range(5000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l "
         "| tojson }}",
         "nested too deeply"},
        {"{% set a = namespace(l=1) %}{% set b = namespace(l=1) %}{% for i in range(5000) %}{% set a.l = "
         "[a.l] %}{% set b.l = [b.l] %}"
         "{% endfor %}{{ a.l == b.l }}",
         "nested too deeply"},
        {"{% set a = namespace() %}{% set a.x = a %}{{ a }}", "nested too deeply"},
        {"{% set a = namespace(t=()) %}{% for i in range(5000) %}{% set a.t = (a.t,) %}{% endfor %}{{ {a.t: "
         "1} }}",
         "nested too deeply"},
        {"{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% "
         "endfor %}{% endfor %}",
         "steps"},
        {"{% for a in range(99999) %}{% for b in range(99999) %}xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx{% "
         "endfor %}{% endfor %}",
         "grows beyond"},
        {"{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "deep"},
        {"{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}", "deep"},
        {"{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
         "steps"},
        {"{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}", "deep"},
        {"{% macro f() %}{% call f() %}{{ caller() }}{% endcall %}{% endmacro %}{% call f() %}x{% endcall %}",
         "deep"},
        {"{{ '%1000000000d' % 1 }}", "grows beyond"},
        {"{{ '%.1000000d' % 1 }}{{ '%.10000000d' % 1 }}", "grows beyond"},
        {"{{ '{:>1000000000}'.format(1) }}", "grows beyond"},
        {"{{ '%.100000f' % 1.5 }}", "precision"},
        {"{{ 'x'.center(10**12) }}", "grows beyond"},
        {"{{ 'a\nb' | indent(10**9) }}", "grows beyond"},
        {"{{ ('a' * 900000).replace('', 'x' * 900000) }}", "grows beyond"},
        {"{{ ('a' * 9000).replace('a', 'a' * 9000) }}", "grows beyond"},
        {"{{ ['x' * 900000] | batch(10**9, 'y') | list }}", "m"},
        {"{{ [1] | slice(10**12) | list }}", "m"},
        {"{{ 10 ** 10 ** 10 }}", "64 bits"},
        {"{{ strftime_now('%c' * 100000) }}", "strftime_now"},
        {"{{ ([1,2] | map('list') | list) }}", "not iterable"},
        {"{{ [range(99999)] | sum(start=[]) }}", "unsupported"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) refused(cases[i][0], NULL, &SMALL, cases[i][1]);
}

/* n times a, then b, then n times c. */
static char *nested(const char *a, const char *b, const char *c, size_t n) {
    buf t = {0};
    for (size_t i = 0; i < n; i++) buf_puts(&t, a);
    buf_puts(&t, b);
    for (size_t i = 0; i < n; i++) buf_puts(&t, c);
    return t.data;
}

static void test_nesting(void **state) {
    (void)state;
    static const char *const cases[][3] = {
        {"(", "1", ")"},           {"[", "1", "]"},     {"{1:", "1", "}"},   {"-", "1", ""},
        {"not ", "1", ""},         {"1 + (", "1", ")"}, {"x(", "1", ")"},    {"x[", "1", "]"},
        {"1 if ", "1", " else 1"}, {"1 ** ", "1", ""},  {"", "x", ".a"},     {"", "x", "|trim"},
        {"", "x", " is defined"},  {"1 + ", "1", ""},   {"1 and ", "1", ""}, {"1 if 1 else ", "1", ""},
        {"x is in ", "x", ""},
    };
    static const size_t depths[] = {50, 1000, 100000};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        for (size_t k = 0; k < ARRAY_LEN(depths); k++) {
            char *e = nested(cases[i][0], cases[i][1], cases[i][2], depths[k]);
            buf t = {0};
            buf_printf(&t, "{{ %s }}", e);
            tmpl_out out;
            status st;
            bool ok = render(t.data, NULL, NULL, &SMALL, &out, &st);
            if (depths[k] > 500 && ok) fail_msg("%s nested %zu deep was rendered", cases[i][0], depths[k]);
            if (!ok) assert_int_equal(st.code, ST_INVALID);
            tmpl_out_fini(&out);
            buf_fini(&t);
            mem_free(e);
        }
    static const char *const blocks[][2] = {
        {"{% if 1 %}", "{% endif %}"},
        {"{% for x in [1] %}", "{% endfor %}"},
        {"{% filter trim %}", "{% endfilter %}"},
        {"{% set x %}", "{% endset %}"},
        {"{% macro x() %}", "{% endmacro %}"},
        {"{% with %}", "{% endwith %}"},
        {"{% generation %}", "{% endgeneration %}"},
        {"{% call x() %}", "{% endcall %}"},
    };
    for (size_t i = 0; i < ARRAY_LEN(blocks); i++) {
        char *t = nested(blocks[i][0], "x", blocks[i][1], 100000);
        refused(t, NULL, &SMALL, "nested too deeply");
        mem_free(t);
        t = nested(blocks[i][0], "x", "", 100);
        refused(t, NULL, &SMALL, "unexpected end");
        mem_free(t);
    }
    buf chain = {0}; /* a long elif chain is flat */
    buf_puts(&chain, "{% if x == 0 %}0");
    for (int i = 1; i < 3000; i++) buf_printf(&chain, "{%% elif x == %d %%}%d", i, i);
    buf_puts(&chain, "{% endif %}");
    json_t *vars = json_pack("{s:i}", "x", 2998);
    tmpl_out out;
    status st;
    assert_true(render(chain.data, NULL, vars, NULL, &out, &st));
    assert_string_equal(out.text.data, "2998");
    tmpl_out_fini(&out);
    buf_fini(&chain);
    json_decref(vars);
}

/* A long conversation joined piece by piece stays linear: far under the default bounds. */
static void test_accumulation(void **state) {
    (void)state;
    json_t *l = json_array(), *vars = json_object();
    char text[1001];
    memset(text, 'x', 1000);
    text[1000] = 0;
    for (int i = 0; i < 5000; i++) json_array_append_new(l, json_string(text));
    json_object_set_new(vars, "l", l);
    tmpl_out out;
    status st;
    if (!render(
            "{% set ns = namespace(t='') %}{% for x in l %}{% set ns.t = ns.t ~ x %}{% endfor %}{{ ns.t }}",
            NULL, vars, NULL, &out, &st))
        fail_msg("%s", st.msg);
    assert_int_equal(out.text.len, 5000000);
    assert_int_equal(out.n_user, 1);
    tmpl_out_fini(&out);
    json_decref(vars);
}

static void test_deep_json(void **state) {
    (void)state;
    json_t *v = json_array();
    for (int i = 0; i < 2040; i++) {
        json_t *w = json_array();
        json_array_append_new(w, v);
        v = w;
    }
    json_t *vars = json_object();
    json_object_set_new(vars, "v", v);
    refused("{{ v }}", vars, NULL, "nested too deeply");
    json_decref(vars);
}

static void test_not_utf8(void **state) {
    (void)state;
    refused("a\xff", NULL, NULL, "not UTF-8");
    refused("{{ '\xc3' }}", NULL, NULL, "not UTF-8");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_growth),       cmocka_unit_test(test_nesting),
        cmocka_unit_test(test_accumulation), cmocka_unit_test(test_deep_json),
        cmocka_unit_test(test_not_utf8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
