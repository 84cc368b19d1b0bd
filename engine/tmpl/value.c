/* value.c - lists, dicts, truth, equality, order and membership, as Python has them. See value.h.
 * Memory is the env's. Depth of nested values is bounded, since a template can nest without end. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/tmpl/value.h"

static const char *const TYPE_NAMES[] = {
    [V_MISSING] = "missing", [V_UNDEF] = "Undefined", [V_NONE] = "NoneType", [V_BOOL] = "bool",
    [V_INT] = "int",         [V_FLOAT] = "float",     [V_STR] = "str",       [V_LIST] = "list",
    [V_TUPLE] = "tuple",     [V_DICT] = "dict",       [V_RANGE] = "range",   [V_VIEW] = "dict_items",
    [V_ITER] = "generator",  [V_NS] = "namespace",    [V_LOOP] = "loop",     [V_MACRO] = "macro",
    [V_FUNC] = "function",   [V_METHOD] = "method",   [V_JOINER] = "joiner", [V_CYCLER] = "cycler",
};

const char *type_name(val v) {
    if (v.t == V_VIEW) {
        static const char *const views[] = {"dict_keys", "dict_values", "dict_items"};
        return views[v.view->kind];
    }
    return TYPE_NAMES[v.t];
}

val undef_val(env *e, const char *fmt, ...) {
    char msg[256];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    if (n >= (int)sizeof msg) n = sizeof msg - 1;
    char *copy = env_alloc(e, (size_t)n + 1);
    memcpy(copy, msg, (size_t)n + 1);
    undef *u = env_alloc(e, sizeof *u);
    u->msg = copy;
    return (val){.t = V_UNDEF, .u = u};
}

_Noreturn void fail_undef(env *e, val v) {
    fail(e, "%s", v.u ? v.u->msg : "an undefined value is used");
}

/* ---- list ---- */

list *list_new(env *e, size_t cap) {
    list *l = env_alloc(e, sizeof *l);
    if (cap) {
        l->v = env_array(e, cap, sizeof *l->v);
        l->cap = cap;
    }
    return l;
}

void list_push(env *e, list *l, val v) {
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 4;
        val *p = env_array(e, cap, sizeof *p);
        if (l->n) memcpy(p, l->v, l->n * sizeof *p);
        env_step(e, l->n / 16);
        l->v = p;
        l->cap = cap;
    }
    l->v[l->n++] = v;
}

val tuple2(env *e, val a, val b) {
    list *l = list_new(e, 2);
    list_push(e, l, a);
    list_push(e, l, b);
    return tuple_val(l);
}

/* ---- dict ---- */

bool val_hashable(val v) {
    if (v.t == V_LIST || v.t == V_DICT || v.t == V_MISSING) return false;
    if (v.t == V_VIEW && v.view->kind != VIEW_VALUES) return false;
    if (v.t == V_TUPLE)
        for (size_t i = 0; i < v.l->n; i++)
            if (!val_hashable(v.l->v[i])) return false;
    return true;
}

static uint64_t mix(uint64_t h) {
    h ^= h >> 31;
    h *= 0x9E3779B97F4A7C15u;
    h ^= h >> 29;
    return h;
}

static uint64_t hash_of(env *e, val v) {
    env_step(e, 1);
    switch (v.t) {
    case V_STR: {
        uint64_t h = 14695981039346656037u ^ (uint64_t)(uintptr_t)e->mem; /* differs from run to run */
        for (size_t i = 0; i < v.s->n; i++) h = (h ^ (unsigned char)v.s->p[i]) * 1099511628211u;
        env_step(e, v.s->n / 64);
        return mix(h);
    }
    case V_BOOL:
    case V_INT: return mix((uint64_t)as_int(v));
    case V_FLOAT:
        if (v.f == floor(v.f) && fabs(v.f) < 9e18) return mix((uint64_t)(int64_t)v.f);
        uint64_t bits;
        memcpy(&bits, &v.f, sizeof bits);
        return mix(bits);
    case V_TUPLE: {
        env_enter(e);
        uint64_t h = 12345;
        for (size_t i = 0; i < v.l->n; i++) h = mix(h ^ hash_of(e, v.l->v[i]));
        env_leave(e);
        return h;
    }
    case V_NONE:
    case V_UNDEF: return mix((uint64_t)v.t);
    default: return mix((uint64_t)(uintptr_t)v.s);
    }
}

dict *dict_new(env *e) {
    return env_alloc(e, sizeof(dict));
}

#define SMALL_DICT 8

static entry *find_entry(env *e, const dict *d, val key, uint64_t h) {
    if (!d->index) {
        for (size_t i = 0; i < d->n; i++)
            if (d->e[i].hash == h && val_eq(e, d->e[i].key, key)) return &d->e[i];
        return NULL;
    }
    for (size_t i = h & (d->n_index - 1);; i = (i + 1) & (d->n_index - 1)) {
        uint32_t k = d->index[i];
        if (k == 0) return NULL;
        env_step(e, 1);
        if (d->e[k - 1].hash == h && val_eq(e, d->e[k - 1].key, key)) return &d->e[k - 1];
    }
}

static void need_hashable(env *e, val key) {
    if (!val_hashable(key)) fail(e, "unhashable type: '%s'", type_name(key));
}

val *dict_find(env *e, const dict *d, val key) {
    need_hashable(e, key);
    if (d->n == 0) return NULL;
    entry *x = find_entry(e, d, key, hash_of(e, key));
    return x ? &x->value : NULL;
}

val *dict_find_z(env *e, const dict *d, const char *z) {
    return dict_find(e, d, lit_val(e, z));
}

static void index_add(dict *d, size_t k) {
    size_t i = d->e[k].hash & (d->n_index - 1);
    while (d->index[i]) i = (i + 1) & (d->n_index - 1);
    d->index[i] = (uint32_t)k + 1;
}

void dict_put(env *e, dict *d, val key, val value) {
    need_hashable(e, key);
    uint64_t h = hash_of(e, key);
    entry *x = d->n ? find_entry(e, d, key, h) : NULL;
    if (x) {
        x->value = value;
        return;
    }
    if (d->n == d->cap) {
        size_t cap = d->cap ? 2 * d->cap : 4;
        if (cap > UINT32_MAX / 4) fail(e, "a dict of %zu items is too large", d->n);
        entry *p = env_array(e, cap, sizeof *p);
        if (d->n) memcpy(p, d->e, d->n * sizeof *p);
        d->e = p;
        d->cap = cap;
    }
    d->e[d->n++] = (entry){key, value, h};
    if (d->n <= SMALL_DICT) return;
    if (d->index && d->n * 2 <= d->n_index) {
        index_add(d, d->n - 1);
        return;
    }
    d->n_index = d->n_index ? 2 * d->n_index : 4 * SMALL_DICT;
    d->index = env_array(e, d->n_index, sizeof *d->index);
    memset(d->index, 0, d->n_index * sizeof *d->index);
    env_step(e, d->n / 4);
    for (size_t i = 0; i < d->n; i++) index_add(d, i);
}

/* ---- truth, length ---- */

bool val_len(env *e, val v, size_t *n) {
    switch (v.t) {
    case V_UNDEF: *n = 0; return true;
    case V_STR: *n = str_len(e, v.s); return true;
    case V_LIST:
    case V_TUPLE: *n = v.l->n; return true;
    case V_DICT: *n = v.d->n; return true;
    case V_RANGE: *n = v.r->n; return true;
    case V_VIEW: *n = v.view->d->n; return true;
    default: return false;
    }
}

bool val_truth(env *e, val v) {
    size_t n;
    switch (v.t) {
    case V_NONE:
    case V_MISSING:
    case V_UNDEF: return false;
    case V_BOOL: return v.b;
    case V_INT: return v.i != 0;
    case V_FLOAT: return v.f != 0;
    case V_STR: return v.s->n > 0;
    default: return val_len(e, v, &n) ? n > 0 : true;
    }
}

/* ---- equality and order ---- */

static bool dict_eq(env *e, const dict *a, const dict *b) {
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n; i++) {
        entry *x = find_entry(e, b, a->e[i].key, a->e[i].hash);
        if (!x || !val_eq(e, a->e[i].value, x->value)) return false;
    }
    return true;
}

static bool view_eq(env *e, val a, val b) {
    if (a.view->kind == VIEW_VALUES || b.view->kind != a.view->kind) return a.view == b.view;
    if (a.view->kind == VIEW_ITEMS) return dict_eq(e, a.view->d, b.view->d);
    if (a.view->d->n != b.view->d->n) return false;
    for (size_t i = 0; i < a.view->d->n; i++)
        if (!dict_find(e, b.view->d, a.view->d->e[i].key)) return false;
    return true;
}

static bool seq_eq(env *e, const list *a, const list *b) {
    if (a->n != b->n) return false;
    for (size_t i = 0; i < a->n; i++)
        if (!val_same(a->v[i], b->v[i]) && !val_eq(e, a->v[i], b->v[i])) return false;
    return true;
}

/* An int64 against a double, exactly. */
static int cmp_int_float(int64_t i, double f) {
    if (f >= 9223372036854775808.0) return -1;
    if (f < -9223372036854775808.0) return 1;
    double whole = floor(f);
    int64_t w = (int64_t)whole;
    if (i != w) return i < w ? -1 : 1;
    return f > whole ? -1 : 0;
}

static int num_cmp(val a, val b, bool *nan) {
    if (a.t == V_FLOAT && b.t == V_FLOAT) {
        if (isnan(a.f) || isnan(b.f)) return *nan = true, 1;
        return (a.f > b.f) - (a.f < b.f);
    }
    if (a.t == V_FLOAT) {
        if (isnan(a.f)) return *nan = true, 1;
        return -cmp_int_float(as_int(b), a.f);
    }
    if (b.t == V_FLOAT) {
        if (isnan(b.f)) return *nan = true, 1;
        return cmp_int_float(as_int(a), b.f);
    }
    return (as_int(a) > as_int(b)) - (as_int(a) < as_int(b));
}

bool val_same(val a, val b) {
    if (a.t != b.t) return false;
    switch (a.t) {
    case V_NONE: return true;
    case V_BOOL: return a.b == b.b;
    case V_INT: return a.i == b.i;
    case V_FLOAT: return false;
    default: return a.s == b.s;
    }
}

bool val_eq(env *e, val a, val b) {
    if (is_number(a) && is_number(b)) {
        bool nan = false;
        return num_cmp(a, b, &nan) == 0 && !nan;
    }
    if (a.t != b.t) return false;
    env_step(e, 1);
    bool r;
    switch (a.t) {
    case V_UNDEF:
    case V_NONE: return true;
    case V_STR: env_step(e, a.s->n / 64); return str_eq(a.s, b.s);
    case V_LIST:
    case V_TUPLE:
        if (a.l == b.l) return true;
        env_enter(e);
        r = seq_eq(e, a.l, b.l);
        env_leave(e);
        return r;
    case V_DICT:
        if (a.d == b.d) return true;
        env_enter(e);
        r = dict_eq(e, a.d, b.d);
        env_leave(e);
        return r;
    case V_RANGE:
        return a.r->n == b.r->n &&
               (a.r->n == 0 || (a.r->start == b.r->start && (a.r->n == 1 || a.r->step == b.r->step)));
    case V_VIEW: return view_eq(e, a, b);
    case V_METHOD: return a.method->fn == b.method->fn && val_same(a.method->self, b.method->self);
    default: return a.s == b.s;
    }
}

int val_cmp(env *e, val a, val b, const char *op, bool *nan) {
    env_step(e, 1);
    if (is_number(a) && is_number(b)) return num_cmp(a, b, nan);
    if (a.t == V_UNDEF) fail_undef(e, a);
    if (b.t == V_UNDEF) fail_undef(e, b);
    if (a.t == V_STR && b.t == V_STR) {
        env_step(e, (a.s->n < b.s->n ? a.s->n : b.s->n) / 64);
        return str_cmp(a.s, b.s);
    }
    if (a.t == b.t && (a.t == V_LIST || a.t == V_TUPLE)) {
        env_enter(e);
        int r = 2;
        for (size_t i = 0; r == 2 && i < a.l->n && i < b.l->n; i++) {
            val x = a.l->v[i], y = b.l->v[i];
            if (!val_same(x, y) && !val_eq(e, x, y)) r = val_cmp(e, x, y, op, nan);
        }
        env_leave(e);
        return r != 2 ? r : (a.l->n > b.l->n) - (a.l->n < b.l->n);
    }
    fail(e, "'%s' not supported between instances of '%s' and '%s'", op, type_name(a), type_name(b));
}

static bool range_has(const range *r, val v) {
    if (v.t == V_FLOAT) {
        if (v.f != floor(v.f) || fabs(v.f) > 9e18) return false;
        v = int_val((int64_t)v.f);
    }
    if (!is_intlike(v) || r->n == 0) return false;
    int64_t x = as_int(v), last = r->start + (int64_t)(r->n - 1) * r->step;
    int64_t lo = r->step > 0 ? r->start : last, hi = r->step > 0 ? last : r->start;
    return x >= lo && x <= hi && (x - r->start) % r->step == 0;
}

bool val_in(env *e, val needle, val hay) {
    switch (hay.t) {
    case V_STR:
        if (needle.t != V_STR)
            fail(e, "'in <string>' requires string as left operand, not %s", type_name(needle));
        return str_find(e, hay.s, needle.s, 0, hay.s->n) != SIZE_MAX;
    case V_DICT: return dict_find(e, hay.d, needle) != NULL;
    case V_RANGE: return range_has(hay.r, needle);
    case V_VIEW:
        if (hay.view->kind == VIEW_KEYS) return dict_find(e, hay.view->d, needle) != NULL;
        break;
    default: break;
    }
    if (!val_iterable(hay)) fail(e, "argument of type '%s' is not iterable", type_name(hay));
    iter *it = iter_of(e, hay);
    val v;
    while (iter_next(e, it, &v))
        if (val_same(v, needle) || val_eq(e, v, needle)) return true;
    return false;
}
