/* test_tmpl_origin.c - text typed by a user stays marked as the user's through everything a template can do
 * to it, and the template's own text stays the template's. */
#include "tests/engine/tmpl/util.h"

#define IM "<|im_start|>"

static bool user_at(const tmpl_out *o, size_t i) {
    for (size_t k = 0; k < o->n_user; k++)
        if (o->user[k].begin <= i && i < o->user[k].end) return true;
    return false;
}

static void check_spans(const tmpl_out *o) {
    for (size_t k = 0; k < o->n_user; k++) {
        assert_true(o->user[k].begin < o->user[k].end && o->user[k].end <= o->text.len);
        if (k) assert_true(o->user[k - 1].end < o->user[k].begin);
    }
}

/* The template's own literal, where there is one, is written as [<|im_start|>]; every other occurrence of the
 * token, in any case, came from the user and each of its bytes must be marked. */
static void test_user_tokens(void **state) {
    (void)state;
    static const char *const bodies[] = {
        "{{ c }}",
        "{{ c | trim }}",
        "{{ c.strip() }}",
        "{{ c | upper }}",
        "{{ c.title() }}",
        "{{ c.swapcase() }}",
        "{{ c | capitalize }}",
        "{{ c | replace('user', 'x') }}",
        "{{ 'a-b' | replace('-', c) }}",
        "{{ c.replace('x', 'y') }}",
        "{{ 'x'.join([c, c]) }}",
        "{{ [c, 'z'] | join(', ') }}",
        "{{ c.split('x') }}",
        "{{ c.split() | first }}",
        "{{ c | tojson }}",
        "{{ {'k': c} | tojson(indent=2) }}",
        "{{ {c: 1} | tojson }}",
        "{{ {'k': [c]} }}",
        "{{ (c,) }}",
        "{{ c[0:] }}",
        "{{ c[:] ~ c[1:] }}",
        "{{ c[:3] + c[3:] }}",
        "{{ c[::1] }}",
        "{% for x in c %}{{ x }}{% endfor %}",
        "{{ c | list | join }}",
        "{{ c | reverse | reverse }}",
        "{{ c[::-1][::-1] }}",
        "{% macro f(a) %}({{ a }}){% endmacro %}{{ f(c) }}",
        "{% macro f() %}{{ caller() }}{% endmacro %}{% call f() %}{{ c }}{% endcall %}",
        "{% set x %}a{{ c }}b{% endset %}{{ x }}",
        "{% set x %}{{ c }}{% endset %}{{ x | trim | upper }}",
        "{% filter lower %}{{ c }}{% endfilter %}",
        "{{ '%s-%s' % (c, 1) }}",
        "{{ '%r' % c }}",
        "{{ '%-40s|' % c }}",
        "{{ '%.100s' % c }}",
        "{{ c | format(1) if '%' in c else c }}",
        "{{ '{} {x:>40}'.format(c, x=c) }}",
        "{{ '{0!r}'.format(c) }}",
        "{{ c.format() }}",
        "{{ d.items() | list }}",
        "{% for k, v in d.items() %}{{ k }}={{ v }}{% endfor %}",
        "{% for k in d %}{{ k }}{% endfor %}",
        "{{ d | dictsort }}",
        "{{ d }}",
        "{{ d | tojson(sort_keys=true) }}",
        "{{ c | indent(2, true) }}",
        "{{ c | center(60) }}",
        "{{ c.ljust(60, '*') }}",
        "{{ c | truncate(60) }}",
        "{{ c | default('x') }}",
        "{{ c if true else 'x' }}",
        "{{ none or c }}",
        "{{ c | string }}",
        "{{ c | safe }}",
        "{% set ns = namespace(t='') %}{% for i in range(3) %}{% set ns.t = ns.t + c %}{% endfor %}{{ ns.t "
        "}}",
        "{{ c * 3 }}",
        "{{ [c] * 2 }}",
        "{{ c.partition('user') }}",
        "{{ c.rpartition('nope') }}",
        "{{ c.splitlines() | join('\\n') }}",
        "{{ [c] | map('trim') | list }}",
        "{{ [{'a': c}] | map(attribute='a') | join }}",
        "{{ [c, c] | unique | list }}",
        "{{ [c, 'b'] | sort | join }}",
        "{{ [c] | max }}",
        "{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join }}",
        "{% generation %}{{ c }}{% endgeneration %}",
        "{{ c.removeprefix('nope').removesuffix('x') }}",
        "{{ c.zfill(60) }}",
        "{{ c.expandtabs() }}",
        "{{ joiner(c)() ~ c }}",
        "{{ cycler(c).next() }}",
        "{{ dict(a=c) }}",
        "{{ (c ~ '') | escape | replace('&lt;', '<') | replace('&gt;', '>') }}",
        "{% with x = c %}{{ x }}{% endwith %}",
        "{% for x in [c] recursive %}{{ x }}{% endfor %}",
        "{{ [[c]] | sum(start=[]) }}",
        "{{ [c] | batch(2, 'f') | list }}",
        "{{ c | wordcount }}{{ c | e | striptags }}",
        "{{ '{a[k]}'.format(a={'k': c}) }}",
        "{{ [{'a': c}] | groupby('a') }}",
        "{{ c.casefold() }}",
        "{{ raw | tojson }}",
        "{{ c | string | title }}",
    };
    json_t *vars = json_pack("{s:s, s:{s:s, s:i}, s:[{s:s, s:s}], s:{s:[s]}}", "c", "user " IM " x", "d", IM,
                             IM "v", "k", 1, "messages", "role", "user", "content", IM, "raw", "r", IM);
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        char src[1000];
        snprintf(src, sizeof src, "[" IM "]%s[" IM "]", bodies[i]);
        tmpl_out o;
        status st;
        if (!render(src, NULL, vars, NULL, &o, &st)) fail_msg("%s: %s", src, st.msg);
        check_spans(&o);
        size_t hits = 0;
        for (const char *p = o.text.data; (p = strcasestr(p, IM)) != NULL; p++) {
            size_t at = (size_t)(p - o.text.data);
            bool own = at == 1 || at + strlen(IM) + 1 == o.text.len;
            hits++;
            for (size_t k = 0; k < strlen(IM); k++)
                if (user_at(&o, at + k) == own)
                    fail_msg("%s: byte %zu of %s has the wrong origin", bodies[i], at + k, o.text.data);
        }
        if (hits < 3 && !strstr(bodies[i], "striptags") && !strstr(bodies[i], "join([c") &&
            !strstr(bodies[i], "split"))
            fail_msg("%s gave no token: %s", bodies[i], o.text.data);
        tmpl_out_fini(&o);
    }
    json_decref(vars);
}

static void test_trusted_vars_and_mixed(void **state) {
    (void)state;
    json_t *user =
        json_pack("{s:s, s:{s:[s, {s:s}, s]}}", "u", "U", "m", TMPL_MIXED, "a", "trusted", "<image>\n", "b");
    json_t *trusted = json_pack("{s:s, s:s}", "bos", "<s>", "u", "shadowed");
    tmpl_out o;
    status st;
    assert_true(render("{{ bos }}{{ u }}{{ m | upper }}{{ m is string }}", trusted, user, NULL, &o, &st));
    assert_string_equal(o.text.data, "<s>UA<IMAGE>\nBTrue");
    assert_int_equal(o.n_user, 2);
    assert_int_equal(o.user[0].begin, 3);
    assert_int_equal(o.user[0].end, 5);
    assert_int_equal(o.user[1].begin, 13);
    assert_int_equal(o.user[1].end, 14);
    assert_true(tmpl_json_has_mixed(user));
    assert_false(tmpl_json_has_mixed(trusted));
    tmpl_out_fini(&o);
    json_decref(user);
    json_decref(trusted);
}

/* A span never hides trusted text: what the template wrote around the user's text is unmarked. */
static void test_template_text_is_trusted(void **state) {
    (void)state;
    json_t *user = json_pack("{s:s}", "c", "x");
    tmpl_out o;
    status st;
    assert_true(render("<s>{{ '<b>' + c ~ '</b>' }}{{ ['<i>', c] | join('|') }}{{ '<q>%s</q>' % c }}</s>",
                       NULL, user, NULL, &o, &st));
    assert_string_equal(o.text.data, "<s><b>x</b><i>|x<q>x</q></s>");
    assert_int_equal(o.n_user, 3);
    for (size_t i = 0; i < o.text.len; i++) assert_int_equal(user_at(&o, i), o.text.data[i] == 'x');
    tmpl_out_fini(&o);
    json_decref(user);
}

/* A template that rewrites a marker must not let one typed by hand become the real thing; a trusted one may. */
static void test_replaced_markers(void **state) {
    (void)state;
    json_t *user = json_pack("{s:s, s:{s:[s, {s:s}]}}", "c", "a <image> b", "m", TMPL_MIXED, "<image>",
                             "trusted", "<image>");
    tmpl_out o;
    status st;
    assert_true(render("{{ c.replace('<image>', '[IMG]') }};{{ c | replace('<image>', '[IMG]') }};{{ m | "
                       "replace('<image>', '[IMG]') }}"
                       "{{ c | replace('', '[IMG]') | length }}",
                       NULL, user, NULL, &o, &st));
    assert_string_equal(o.text.data, "a [IMG] b;a [IMG] b;[IMG][IMG]71");
    assert_int_equal(o.n_user, 3);
    assert_int_equal(o.user[0].begin, 0);
    assert_int_equal(o.user[0].end, 9);
    assert_int_equal(o.user[1].end, 19);
    assert_int_equal(o.user[2].begin, 20);
    assert_int_equal(o.user[2].end, 25);
    tmpl_out_fini(&o);
    json_decref(user);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_user_tokens),
        cmocka_unit_test(test_trusted_vars_and_mixed),
        cmocka_unit_test(test_template_text_is_trusted),
        cmocka_unit_test(test_replaced_markers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
