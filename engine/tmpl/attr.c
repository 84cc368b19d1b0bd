/* attr.c - obj.name, obj[key], obj[a:b:c], and which methods values have. The sandbox's rules: names that
 * begin with an underscore and methods that would change a list or dict give an undefined value that explains
 * itself on use. Source: Jinja's ImmutableSandboxedEnvironment. */
#include <string.h>

#include "engine/tmpl/eval.h"

static val bind_method(env *e, val self, const func *fn) {
    method *m = env_alloc(e, sizeof *m);
    *m = (method){self, fn};
    return (val){.t = V_METHOD, .method = m};
}

/* What Python's getattr(obj, name) would find. */
static val python_attr(env *e, val obj, str *name) {
    if (obj.t == V_UNDEF && !(name->n >= 2 && name->p[0] == '_' && name->p[1] == '_')) fail_undef(e, obj);
    if (obj.t == V_NS) {
        val *v = dict_find(e, obj.d, str_val(name));
        return v ? *v : MISSING_VAL;
    }
    if (obj.t == V_LOOP) return loop_attr(e, obj.loop, name);
    if (obj.t == V_MACRO) {
        const node *d = obj.macro->def;
        if (str_is(name, "name")) return d->name ? str_val(d->name) : NONE_VAL;
        if (str_is(name, "catch_kwargs")) return bool_val(d->uses_kwargs);
        if (str_is(name, "catch_varargs")) return bool_val(d->uses_varargs);
        if (str_is(name, "caller")) return bool_val(d->uses_caller);
        if (str_is(name, "arguments")) {
            list *l = list_new(e, 0);
            for (int i = 0; i < d->params.n; i++)
                list_push(e, l, str_val(e->run->t->syms[d->params.v[i]->sym]));
            return tuple_val(l);
        }
        return MISSING_VAL;
    }
    if (obj.t == V_CYCLER && str_is(name, "current")) return obj.cycler->items->v[obj.cycler->pos];
    if (obj.t == V_TUPLE && obj.l->group) {
        if (str_is(name, "grouper")) return obj.l->v[0];
        if (str_is(name, "list")) return obj.l->v[1];
    }
    if (obj.t == V_RANGE) {
        if (str_is(name, "start")) return int_val(obj.r->start);
        if (str_is(name, "stop")) return int_val(obj.r->stop);
        if (str_is(name, "step")) return int_val(obj.r->step);
    }
    if (is_intlike(obj) && (str_is(name, "real") || str_is(name, "numerator"))) return int_val(as_int(obj));
    if (is_intlike(obj) && str_is(name, "imag")) return int_val(0);
    if (is_intlike(obj) && str_is(name, "denominator")) return int_val(1);
    if (is_mutator(obj.t, name))
        return undef_val(e, "access to attribute '%.*s' of '%s' object is unsafe.", (int)name->n, name->p,
                         type_name(obj));
    const func *fn = obj.t == V_STR ? str_method(name) : seq_method(obj.t, name);
    return fn ? bind_method(e, obj, fn) : MISSING_VAL;
}

static val no_attr(env *e, val obj, const str *name) {
    int n = (int)(name->n < 100 ? name->n : 100);
    if (name->n && name->p[0] == '_')
        return undef_val(e, "access to attribute '%.*s' of '%s' object is unsafe.", n, name->p,
                         type_name(obj));
    return undef_val(e, "'%s object' has no attribute '%.*s'", type_name(obj), n, name->p);
}

/* obj[key] when that works in Python; V_MISSING on TypeError, IndexError or KeyError. */
static val python_item(env *e, val obj, val key) {
    if (obj.t == V_UNDEF) fail_undef(e, obj);
    if (obj.t == V_DICT) {
        if (!val_hashable(key)) return MISSING_VAL;
        val *v = dict_find(e, obj.d, key);
        return v ? *v : MISSING_VAL;
    }
    if (!is_intlike(key)) return MISSING_VAL;
    size_t n;
    if (obj.t != V_STR && obj.t != V_LIST && obj.t != V_TUPLE && obj.t != V_RANGE) return MISSING_VAL;
    val_len(e, obj, &n);
    int64_t i = as_int(key);
    if (i < 0) i += (int64_t)n;
    if (i < 0 || i >= (int64_t)n) return MISSING_VAL;
    if (obj.t == V_RANGE) return int_val(obj.r->start + i * obj.r->step);
    if (obj.t != V_STR) return obj.l->v[i];
    size_t b = str_offset(e, obj.s, (size_t)i);
    uint32_t cp;
    return str_val(str_sub(e, obj.s, b, b + (size_t)str_char(obj.s, b, &cp)));
}

val get_attr(env *e, val obj, str *name) {
    val v = MISSING_VAL;
    if (name->n == 0 || name->p[0] != '_')
        v = python_attr(e, obj, name);
    else if (obj.t == V_UNDEF)
        fail_undef(e, obj);
    if (v.t == V_MISSING) v = python_item(e, obj, str_val(name));
    return v.t == V_MISSING ? no_attr(e, obj, name) : v;
}

val get_item(env *e, val obj, val key) {
    val v = python_item(e, obj, key);
    if (v.t == V_MISSING && key.t == V_STR && !(key.s->n && key.s->p[0] == '_'))
        v = python_attr(e, obj, key.s);
    if (v.t != V_MISSING) return v;
    if (key.t == V_STR) return no_attr(e, obj, key.s);
    str *r = val_repr(e, key);
    return undef_val(e, "%s object has no element %.*s", type_name(obj), (int)(r->n < 100 ? r->n : 100),
                     r->p);
}

/* ---- slices ---- */

static bool slice_index(env *e, val v, int64_t *out) {
    if (v.t == V_NONE) return false;
    if (!is_intlike(v)) fail(e, "slice indices must be integers or None, not %s", type_name(v));
    *out = as_int(v);
    return true;
}

val get_slice(env *e, val obj, val start, val stop, val step) {
    size_t len;
    if (obj.t == V_UNDEF) fail_undef(e, obj);
    if (obj.t != V_STR && obj.t != V_LIST && obj.t != V_TUPLE && obj.t != V_RANGE)
        fail(e, "'%s' object cannot be sliced", type_name(obj));
    val_len(e, obj, &len);
    int64_t n = (int64_t)len, by = 1, a, b;
    slice_index(e, step, &by);
    if (by == 0) fail(e, "slice step cannot be zero");
    if (by < -INT64_MAX) by = -INT64_MAX;
    int64_t lo = by > 0 ? 0 : -1, hi = by > 0 ? n : n - 1;
    if (slice_index(e, start, &a)) {
        if (a < 0) a += n;
        a = a < lo ? lo : a > hi ? hi : a;
    } else
        a = by > 0 ? lo : hi;
    if (slice_index(e, stop, &b)) {
        if (b < 0) b += n;
        b = b < lo ? lo : b > hi ? hi : b;
    } else
        b = by > 0 ? hi : lo;
    size_t count = 0;
    if (by > 0 && a < b) count = (size_t)((b - a - 1) / by) + 1;
    if (by < 0 && a > b) count = (size_t)((a - b - 1) / -by) + 1;
    if (obj.t == V_RANGE) {
        range *r = env_alloc(e, sizeof *r);
        *r = (range){obj.r->start + a * obj.r->step, obj.r->start + b * obj.r->step, obj.r->step * by, count};
        return (val){.t = V_RANGE, .r = r};
    }
    if (obj.t == V_STR && (by == 1 || count == 0)) {
        size_t from = count ? str_offset(e, obj.s, (size_t)a) : 0;
        return str_val(str_sub(e, obj.s, from, count ? str_offset(e, obj.s, (size_t)b) : from));
    }
    env_step(e, count);
    if (obj.t == V_STR) {
        size_t *at = env_array(e, len + 1, sizeof *at); /* byte offset of each character */
        uint32_t cp;
        size_t k = 0;
        env_step(e, len);
        for (size_t i = 0; i < obj.s->n; k++) {
            at[k] = i;
            i += (size_t)str_char(obj.s, i, &cp);
        }
        at[k] = obj.s->n;
        sb out = sb_new(e);
        for (size_t i = 0; i < count; i++, a += by) sb_sub(&out, obj.s, at[a], at[a + 1]);
        return str_val(sb_done(&out));
    }
    list *l = list_new(e, count);
    for (size_t i = 0; i < count; i++, a += by) list_push(e, l, obj.l->v[a]);
    return obj.t == V_LIST ? list_val(l) : tuple_val(l);
}

/* ---- methods of dicts, lists, tuples and the engine's own objects ---- */

static val view_of(env *e, val self, const args *a, view_kind kind) {
    bind_pos(e, "this method", a, 0, 0, NULL);
    view *v = env_alloc(e, sizeof *v);
    *v = (view){self.d, kind};
    return (val){.t = V_VIEW, .view = v};
}
static val dict_keys(env *e, val self, const args *a) {
    return view_of(e, self, a, VIEW_KEYS);
}
static val dict_values(env *e, val self, const args *a) {
    return view_of(e, self, a, VIEW_VALUES);
}
static val dict_items(env *e, val self, const args *a) {
    return view_of(e, self, a, VIEW_ITEMS);
}

static val dict_get(env *e, val self, const args *a) {
    val v[2];
    bind_pos(e, "get", a, 1, 2, v);
    val *hit = dict_find(e, self.d, v[0]);
    if (hit) return *hit;
    return v[1].t == V_MISSING ? NONE_VAL : v[1];
}

static val dict_copy(env *e, val self, const args *a) {
    bind_pos(e, "copy", a, 0, 0, NULL);
    dict *d = dict_new(e);
    for (size_t i = 0; i < self.d->n; i++) dict_put(e, d, self.d->e[i].key, self.d->e[i].value);
    return dict_val(d);
}

static val list_copy(env *e, val self, const args *a) {
    bind_pos(e, "copy", a, 0, 0, NULL);
    return list_val(val_list(e, self));
}

static val seq_count(env *e, val self, const args *a) {
    val v;
    bind_pos(e, "count", a, 1, 1, &v);
    iter *it = iter_of(e, self);
    val x;
    int64_t n = 0;
    while (iter_next(e, it, &x)) n += val_same(x, v) || val_eq(e, x, v);
    return int_val(n);
}

static val seq_index(env *e, val self, const args *a) {
    val v[3];
    size_t n;
    bind_pos(e, "index", a, 1, 3, v);
    val_len(e, self, &n);
    int64_t from = v[1].t == V_MISSING ? 0 : need_int(e, v[1], "start"), to = (int64_t)n;
    if (v[2].t != V_MISSING) to = need_int(e, v[2], "stop");
    if (from < 0) from += (int64_t)n;
    if (to < 0) to += (int64_t)n;
    iter *it = iter_of(e, self);
    val x;
    for (int64_t i = 0; iter_next(e, it, &x); i++)
        if (i >= from && i < to && (val_same(x, v[0]) || val_eq(e, x, v[0]))) return int_val(i);
    str *r = val_repr(e, v[0]);
    fail(e, "%.*s is not in %s", (int)(r->n < 100 ? r->n : 100), r->p, type_name(self));
}

static val cycler_next(env *e, val self, const args *a) {
    bind_pos(e, "next", a, 0, 0, NULL);
    cycler *c = self.cycler;
    val v = c->items->v[c->pos];
    c->pos = (c->pos + 1) % c->items->n;
    return v;
}

static val cycler_reset(env *e, val self, const args *a) {
    bind_pos(e, "reset", a, 0, 0, NULL);
    self.cycler->pos = 0;
    return NONE_VAL;
}

static val float_is_integer(env *e, val self, const args *a) {
    bind_pos(e, "is_integer", a, 0, 0, NULL);
    return bool_val(self.f == (double)(int64_t)self.f);
}

const func *seq_method(vtype t, const str *name) {
    static const func dicts[] = {{"get", dict_get},
                                 {"items", dict_items},
                                 {"keys", dict_keys},
                                 {"values", dict_values},
                                 {"copy", dict_copy}};
    static const func lists[] = {{"count", seq_count}, {"index", seq_index}, {"copy", list_copy}};
    static const func tuples[] = {{"count", seq_count}, {"index", seq_index}};
    static const func cyclers[] = {{"next", cycler_next}, {"reset", cycler_reset}};
    static const func floats[] = {{"is_integer", float_is_integer}};
    const func *f = NULL;
    size_t n = 0;
    switch (t) {
    case V_DICT: f = dicts, n = ARRAY_LEN(dicts); break;
    case V_LIST: f = lists, n = ARRAY_LEN(lists); break;
    case V_TUPLE:
    case V_RANGE: f = tuples, n = ARRAY_LEN(tuples); break;
    case V_CYCLER: f = cyclers, n = ARRAY_LEN(cyclers); break;
    case V_FLOAT: f = floats, n = ARRAY_LEN(floats); break;
    default: break;
    }
    for (size_t i = 0; i < n; i++)
        if (str_is(name, f[i].name)) return &f[i];
    return NULL;
}

bool is_mutator(vtype t, const str *name) {
    static const char *const dicts[] = {"clear", "pop", "popitem", "setdefault", "update"};
    static const char *const lists[] = {"append", "clear", "pop",    "reverse",
                                        "insert", "sort",  "extend", "remove"};
    if (t == V_DICT)
        for (size_t i = 0; i < ARRAY_LEN(dicts); i++)
            if (str_is(name, dicts[i])) return true;
    if (t == V_LIST)
        for (size_t i = 0; i < ARRAY_LEN(lists); i++)
            if (str_is(name, lists[i])) return true;
    return false;
}
