/* tests.c - what may stand after "is". Memory is the env's. Source: Jinja 3.1's tests. */
#include "engine/tmpl/value.h"

#define SIMPLE_TEST(name, expr)                                                                              \
    static val t_##name(env *e, val v, const args *a) {                                                      \
        bind_pos(e, #name, a, 0, 0, NULL);                                                                   \
        return bool_val(expr);                                                                               \
    }
static bool named(env *e, val v) {
    if (!val_hashable(v)) fail(e, "unhashable type: '%s'", type_name(v));
    return v.t == V_STR;
}

SIMPLE_TEST(defined, v.t != V_UNDEF)
SIMPLE_TEST(undefined, v.t == V_UNDEF)
SIMPLE_TEST(none, v.t == V_NONE)
SIMPLE_TEST(boolean, v.t == V_BOOL)
SIMPLE_TEST(true, v.t == V_BOOL && v.b)
SIMPLE_TEST(false, v.t == V_BOOL && !v.b)
SIMPLE_TEST(integer, v.t == V_INT)
SIMPLE_TEST(float, v.t == V_FLOAT)
SIMPLE_TEST(number, is_number(v))
SIMPLE_TEST(string, v.t == V_STR)
SIMPLE_TEST(mapping, v.t == V_DICT)
SIMPLE_TEST(iterable, val_iterable(v))
SIMPLE_TEST(callable, val_callable(v))
SIMPLE_TEST(escaped, v.t == V_STR && v.s->markup)
SIMPLE_TEST(lower, str_all_cased(e, val_str(e, v), false))
SIMPLE_TEST(upper, str_all_cased(e, val_str(e, v), true))
SIMPLE_TEST(filter, named(e, v) && find_filter(v.s) != NULL)
SIMPLE_TEST(test, named(e, v) && find_test(v.s) != NULL)

/* What has a length and can be indexed; an undefined value counts, views do not. */
static val t_sequence(env *e, val v, const args *a) {
    size_t n;
    bind_pos(e, "sequence", a, 0, 0, NULL);
    return bool_val(v.t != V_VIEW && val_len(e, v, &n));
}

static bool divides(env *e, val v, val by, int64_t want) {
    return val_eq(e, num_binary(e, '%', v, by), int_val(want));
}
static val t_odd(env *e, val v, const args *a) {
    bind_pos(e, "odd", a, 0, 0, NULL);
    return bool_val(divides(e, v, int_val(2), 1));
}
static val t_even(env *e, val v, const args *a) {
    bind_pos(e, "even", a, 0, 0, NULL);
    return bool_val(divides(e, v, int_val(2), 0));
}
static val t_divisibleby(env *e, val v, const args *a) {
    static const char *const names[] = {"num"};
    val x;
    bind_args(e, "divisibleby", a, names, 1, 1, &x);
    return bool_val(divides(e, v, x, 0));
}

static val t_in(env *e, val v, const args *a) {
    static const char *const names[] = {"seq"};
    val x;
    bind_args(e, "in", a, names, 1, 1, &x);
    return bool_val(val_in(e, v, x));
}
static val t_sameas(env *e, val v, const args *a) {
    static const char *const names[] = {"other"};
    val x;
    bind_args(e, "sameas", a, names, 1, 1, &x);
    return bool_val(val_same(v, x));
}

static val t_eq(env *e, val v, const args *a) {
    val x;
    bind_pos(e, "eq", a, 1, 1, &x);
    return bool_val(val_eq(e, v, x));
}
static val t_ne(env *e, val v, const args *a) {
    val x;
    bind_pos(e, "ne", a, 1, 1, &x);
    return bool_val(!val_eq(e, v, x));
}

static int order(env *e, val v, const args *a, const char *op, bool *nan) {
    val x;
    bind_pos(e, op, a, 1, 1, &x);
    return val_cmp(e, v, x, op, nan);
}
#define ORDER_TEST(name, op, cond)                                                                           \
    static val t_##name(env *e, val v, const args *a) {                                                      \
        bool nan = false;                                                                                    \
        int c = order(e, v, a, op, &nan);                                                                    \
        return bool_val(!nan && cond);                                                                       \
    }
ORDER_TEST(lt, "<", c < 0)
ORDER_TEST(le, "<=", c <= 0)
ORDER_TEST(gt, ">", c > 0)
ORDER_TEST(ge, ">=", c >= 0)

func_fn find_test(const str *name) {
    static const func all[] = {
        {"defined", t_defined},
        {"undefined", t_undefined},
        {"none", t_none},
        {"string", t_string},
        {"mapping", t_mapping},
        {"iterable", t_iterable},
        {"sequence", t_sequence},
        {"number", t_number},
        {"integer", t_integer},
        {"float", t_float},
        {"boolean", t_boolean},
        {"true", t_true},
        {"false", t_false},
        {"callable", t_callable},
        {"odd", t_odd},
        {"even", t_even},
        {"in", t_in},
        {"sameas", t_sameas},
        {"lower", t_lower},
        {"upper", t_upper},
        {"filter", t_filter},
        {"test", t_test},
        {"escaped", t_escaped},
        {"divisibleby", t_divisibleby},
        {"eq", t_eq},
        {"==", t_eq},
        {"equalto", t_eq},
        {"ne", t_ne},
        {"!=", t_ne},
        {"lt", t_lt},
        {"<", t_lt},
        {"lessthan", t_lt},
        {"le", t_le},
        {"<=", t_le},
        {"gt", t_gt},
        {">", t_gt},
        {"greaterthan", t_gt},
        {"ge", t_ge},
        {">=", t_ge},
    };
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (str_is(name, all[i].name)) return all[i].fn;
    return NULL;
}

bool call_test(env *e, const str *name, val v, const args *a) {
    func_fn f = find_test(name);
    if (!f) fail(e, "No test named '%.*s'", (int)(name->n < 100 ? name->n : 100), name->p);
    return f(e, v, a).b;
}
