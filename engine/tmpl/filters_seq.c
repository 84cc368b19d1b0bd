/* filters_seq.c - filters over sequences: map, select, sort, groupby and their kin. Those that Jinja writes
 * as generators are lazy here too, since templates can tell. Memory is the env's. Source: Jinja 3.1's
 * filters. */
#include <string.h>

#include "engine/tmpl/filters.h"

/* ---- attributes ---- */

list *attr_parts(env *e, val attribute) {
    list *l = list_new(e, 1);
    if (attribute.t == V_NONE || attribute.t == V_MISSING) return l;
    if (attribute.t != V_STR) {
        list_push(e, l, attribute);
        return l;
    }
    args a = {0};
    val dot = lit_val(e, ".");
    a.v = &dot;
    a.n = 1;
    list *parts = str_method(str_lit(e, "split"))->fn(e, attribute, &a).l;
    for (size_t i = 0; i < parts->n; i++) {
        str *s = parts->v[i].s;
        int64_t n;
        bool over, digits = s->n > 0;
        for (size_t k = 0; k < s->n; k++) digits &= s->p[k] >= '0' && s->p[k] <= '9';
        list_push(e, l, digits && parse_int_text(s, 10, &n, &over) ? int_val(n) : str_val(s));
    }
    return l;
}

val attr_walk(env *e, val item, const list *parts, val dflt) {
    for (size_t i = 0; i < parts->n; i++) {
        item = get_item(e, item, parts->v[i]);
        if (item.t == V_UNDEF && dflt.t != V_MISSING && dflt.t != V_NONE) item = dflt;
    }
    return item;
}

static val ignore_case(env *e, val v) {
    return v.t == V_STR ? str_val(str_case(e, v.s, CASE_LOWER)) : v;
}

/* The items of v to compare by: an attribute of each, in lower case unless asked otherwise. */
static val key_of(env *e, val item, const list *parts, val dflt, bool case_sensitive) {
    val k = attr_walk(e, item, parts, dflt);
    return case_sensitive ? k : ignore_case(e, k);
}

/* ---- lazy filters ---- */

typedef struct lazy {
    val src;
    args a;
    bool started, by_attr, negate;
    list *parts; /* of the attribute */
    str *name;   /* of the filter or test; NULL: truth */
    val dflt;
    dict *seen;
    bool case_sensitive;
    size_t count;
    val fill;
    list *all;
} lazy;

static iter *lazy_iter(env *e, bool (*next)(env *e, iter *it, val *out), val src, const args *a,
                       lazy **state) {
    lazy *z = env_alloc(e, sizeof *z);
    iter *it = env_alloc(e, sizeof *it);
    z->src = src;
    z->a = *a;
    *it = (iter){.next = next, .state = z};
    *state = z;
    return it;
}

static void drop_first(args *a, size_t n) {
    a->v += n;
    a->n -= n;
}

static bool map_start(env *e, iter *it) {
    lazy *z = it->state;
    z->started = true;
    if (!val_truth(e, z->src)) return false;
    z->dflt = MISSING_VAL;
    bool has_attr = false;
    for (size_t k = 0; k < z->a.n_kw; k++) has_attr |= str_is(z->a.kw[k].name, "attribute");
    if (z->a.n == 0 && has_attr) {
        for (size_t k = 0; k < z->a.n_kw; k++) {
            if (str_is(z->a.kw[k].name, "attribute"))
                z->parts = attr_parts(e, z->a.kw[k].v);
            else if (str_is(z->a.kw[k].name, "default"))
                z->dflt = z->a.kw[k].v;
            else
                fail(e, "Unexpected keyword argument '%.*s'", (int)z->a.kw[k].name->n, z->a.kw[k].name->p);
        }
    } else {
        if (z->a.n == 0) fail(e, "map requires a filter argument");
        z->name = need_str(e, z->a.v[0], "the filter's name");
        drop_first(&z->a, 1);
    }
    it->in = iter_of(e, z->src);
    return true;
}

static bool next_map(env *e, iter *it, val *out) {
    lazy *z = it->state;
    val v;
    if (!z->started && !map_start(e, it)) return false;
    if (!it->in || !iter_next(e, it->in, &v)) return false;
    env_enter(e);
    *out = z->parts ? attr_walk(e, v, z->parts, z->dflt) : call_filter(e, z->name, v, &z->a);
    env_leave(e);
    return true;
}

static val f_map(env *e, val v, const args *a) {
    lazy *z;
    return iter_val(lazy_iter(e, next_map, v, a, &z));
}

static bool select_start(env *e, iter *it) {
    lazy *z = it->state;
    z->started = true;
    if (!val_truth(e, z->src)) return false;
    z->parts = list_new(e, 0);
    if (z->by_attr) {
        if (z->a.n == 0) fail(e, "Missing parameter for attribute name");
        z->parts = attr_parts(e, z->a.v[0]);
        drop_first(&z->a, 1);
    }
    if (z->a.n) {
        z->name = need_str(e, z->a.v[0], "the test's name");
        drop_first(&z->a, 1);
    }
    it->in = iter_of(e, z->src);
    return true;
}

static bool next_select(env *e, iter *it, val *out) {
    lazy *z = it->state;
    if (!z->started && !select_start(e, it)) return false;
    if (!it->in) return false;
    while (iter_next(e, it->in, out)) {
        env_enter(e);
        val v = attr_walk(e, *out, z->parts, MISSING_VAL);
        bool hit = z->name ? call_test(e, z->name, v, &z->a) : val_truth(e, v);
        env_leave(e);
        if (hit != z->negate) return true;
    }
    return false;
}

static val select_with(env *e, val v, const args *a, bool by_attr, bool negate) {
    lazy *z;
    iter *it = lazy_iter(e, next_select, v, a, &z);
    z->by_attr = by_attr;
    z->negate = negate;
    return iter_val(it);
}
static val f_select(env *e, val v, const args *a) {
    return select_with(e, v, a, false, false);
}
static val f_reject(env *e, val v, const args *a) {
    return select_with(e, v, a, false, true);
}
static val f_selectattr(env *e, val v, const args *a) {
    return select_with(e, v, a, true, false);
}
static val f_rejectattr(env *e, val v, const args *a) {
    return select_with(e, v, a, true, true);
}

static bool next_unique(env *e, iter *it, val *out) {
    lazy *z = it->state;
    if (!it->in) it->in = iter_of(e, z->src);
    while (iter_next(e, it->in, out)) {
        val k = key_of(e, *out, z->parts, MISSING_VAL, z->case_sensitive);
        if (dict_find(e, z->seen, k)) continue;
        dict_put(e, z->seen, k, NONE_VAL);
        return true;
    }
    return false;
}

static val f_unique(env *e, val v, const args *a) {
    static const char *const names[] = {"case_sensitive", "attribute"};
    val x[2];
    lazy *z;
    bind_args(e, "unique", a, names, 0, 2, x);
    iter *it = lazy_iter(e, next_unique, v, a, &z);
    z->case_sensitive = val_truth(e, x[0]);
    z->parts = attr_parts(e, x[1]);
    z->seen = dict_new(e);
    return iter_val(it);
}

static bool next_batch(env *e, iter *it, val *out) {
    lazy *z = it->state;
    val v;
    if (!it->in) it->in = iter_of(e, z->src);
    list *l = z->all ? z->all : list_new(e, 0);
    z->all = NULL;
    while (iter_next(e, it->in, &v)) {
        if (l->n == z->count && !(z->count == 0 && !z->started)) {
            z->all = list_new(e, 0);
            list_push(e, z->all, v);
            *out = list_val(l);
            z->started = true;
            return true;
        }
        if (z->count == 0 && !z->started) { /* Jinja yields the empty list first */
            z->started = true;
            z->all = list_new(e, 0);
            list_push(e, z->all, v);
            *out = list_val(l);
            return true;
        }
        list_push(e, l, v);
    }
    if (l->n == 0) return false;
    if (z->fill.t != V_NONE && z->fill.t != V_MISSING)
        while (l->n < z->count) {
            env_step(e, 1);
            list_push(e, l, z->fill);
        }
    *out = list_val(l);
    return true;
}

static val f_batch(env *e, val v, const args *a) {
    static const char *const names[] = {"linecount", "fill_with"};
    val x[2];
    lazy *z;
    bind_args(e, "batch", a, names, 1, 2, x);
    iter *it = lazy_iter(e, next_batch, v, a, &z);
    int64_t n = need_int(e, x[0], "linecount");
    z->count = n < 0 ? SIZE_MAX : (size_t)n;
    if (n < 0) x[1] = NONE_VAL;
    z->fill = x[1];
    return iter_val(it);
}

static bool next_slice(env *e, iter *it, val *out) {
    lazy *z = it->state;
    if (!z->all) z->all = val_list(e, z->src);
    if (z->count == 0) fail(e, "integer division or modulo by zero");
    if (it->i >= z->count) return false;
    size_t per = z->all->n / z->count, extra = z->all->n % z->count, k = it->i++;
    size_t from = k * per + (k < extra ? k : extra), n = per + (k < extra);
    list *l = list_new(e, n + 1);
    for (size_t i = 0; i < n; i++) list_push(e, l, z->all->v[from + i]);
    if (k >= extra && z->fill.t != V_NONE && z->fill.t != V_MISSING) list_push(e, l, z->fill);
    *out = list_val(l);
    return true;
}

static val f_slice(env *e, val v, const args *a) {
    static const char *const names[] = {"slices", "fill_with"};
    val x[2];
    lazy *z;
    bind_args(e, "slice", a, names, 1, 2, x);
    iter *it = lazy_iter(e, next_slice, v, a, &z);
    int64_t n = need_int(e, x[0], "slices");
    if (n < 0) {
        z->all = list_new(e, 0);
        it->i = SIZE_MAX;
        n = 1;
    }
    z->count = (size_t)n;
    z->fill = x[1];
    return iter_val(it);
}

static bool next_item(env *e, iter *it, val *out) {
    lazy *z = it->state;
    if (z->src.t == V_UNDEF) return false;
    if (z->src.t != V_DICT) fail(e, "Can only get item pairs from a mapping.");
    if (it->i >= z->src.d->n) return false;
    entry *x = &z->src.d->e[it->i++];
    *out = tuple2(e, x->key, x->value);
    return true;
}

static val f_items(env *e, val v, const args *a) {
    lazy *z;
    bind_pos(e, "items", a, 0, 0, NULL);
    return iter_val(lazy_iter(e, next_item, v, a, &z));
}

/* ---- first, last, list, reverse, length ---- */

static val f_first(env *e, val v, const args *a) {
    val x;
    bind_pos(e, "first", a, 0, 0, NULL);
    if (iter_next(e, iter_of(e, v), &x)) return x;
    return undef_val(e, "No first item, sequence was empty.");
}

static val f_last(env *e, val v, const args *a) {
    val x;
    bind_pos(e, "last", a, 0, 0, NULL);
    if (iter_next(e, iter_reversed(e, v), &x)) return x;
    return undef_val(e, "No last item, sequence was empty.");
}

static val f_list(env *e, val v, const args *a) {
    bind_pos(e, "list", a, 0, 0, NULL);
    return list_val(val_list(e, v));
}

static val f_reverse(env *e, val v, const args *a) {
    bind_pos(e, "reverse", a, 0, 0, NULL);
    if (v.t == V_STR) return get_slice(e, v, NONE_VAL, NONE_VAL, int_val(-1));
    if (!val_iterable(v)) fail(e, "argument must be iterable");
    if (v.t == V_ITER || v.t == V_UNDEF || v.t == V_LOOP) {
        list *l = val_list(e, v), *r = list_new(e, l->n);
        for (size_t i = l->n; i-- > 0;) list_push(e, r, l->v[i]);
        return list_val(r);
    }
    return iter_val(iter_reversed(e, v));
}

static val f_length(env *e, val v, const args *a) {
    size_t n;
    bind_pos(e, "length", a, 0, 0, NULL);
    if (v.t == V_LOOP) return get_attr(e, v, str_lit(e, "length"));
    if (!val_len(e, v, &n)) fail(e, "object of type '%s' has no len()", type_name(v));
    return int_val((int64_t)n);
}

/* ---- sorting ---- */

typedef struct keyed {
    val key, item;
} keyed;

static bool less(env *e, val a, val b) {
    bool nan = false;
    return val_cmp(e, a, b, "<", &nan) < 0 && !nan;
}

static void merge_sort(env *e, keyed *v, keyed *tmp, size_t n, bool down) {
    if (n < 2) return;
    size_t h = n / 2, i = 0, j = h, k = 0;
    merge_sort(e, v, tmp, h, down);
    merge_sort(e, v + h, tmp, n - h, down);
    memcpy(tmp, v, n * sizeof *v);
    while (i < h && j < n) {
        bool right = down ? less(e, tmp[i].key, tmp[j].key) : less(e, tmp[j].key, tmp[i].key);
        v[k++] = right ? tmp[j++] : tmp[i++];
    }
    while (i < h) v[k++] = tmp[i++];
    while (j < n) v[k++] = tmp[j++];
}

static keyed *sort_keyed(env *e, list *l, val (*key)(env *e, val item, void *ctx), void *ctx, bool down) {
    keyed *v = env_array(e, l->n + 1, sizeof *v), *tmp = env_array(e, l->n + 1, sizeof *tmp);
    for (size_t i = 0; i < l->n; i++) v[i] = (keyed){key(e, l->v[i], ctx), l->v[i]};
    merge_sort(e, v, tmp, l->n, down);
    return v;
}

typedef struct sort_by {
    list *attrs; /* of lists of parts */
    bool case_sensitive;
    size_t pos; /* dictsort: 0 key, 1 value */
    val dflt;
} sort_by;

static val multi_key(env *e, val item, void *ctx) {
    sort_by *s = ctx;
    list *k = list_new(e, s->attrs->n);
    for (size_t i = 0; i < s->attrs->n; i++)
        list_push(e, k, key_of(e, item, s->attrs->v[i].l, MISSING_VAL, s->case_sensitive));
    return list_val(k);
}

static val f_sort(env *e, val v, const args *a) {
    static const char *const names[] = {"reverse", "case_sensitive", "attribute"};
    val x[3];
    bind_args(e, "sort", a, names, 0, 3, x);
    sort_by s = {.attrs = list_new(e, 1), .case_sensitive = val_truth(e, x[1])};
    if (x[2].t == V_STR) {
        val comma = lit_val(e, ",");
        args one = {.v = &comma, .n = 1};
        list *attrs = str_method(str_lit(e, "split"))->fn(e, x[2], &one).l;
        for (size_t i = 0; i < attrs->n; i++) list_push(e, s.attrs, list_val(attr_parts(e, attrs->v[i])));
    } else
        list_push(e, s.attrs, list_val(attr_parts(e, x[2])));
    list *l = val_list(e, v);
    keyed *k = sort_keyed(e, l, multi_key, &s, val_truth(e, x[0]));
    for (size_t i = 0; i < l->n; i++) l->v[i] = k[i].item;
    return list_val(l);
}

static val pair_key(env *e, val item, void *ctx) {
    sort_by *s = ctx;
    val v = item.l->v[s->pos];
    return s->case_sensitive ? v : ignore_case(e, v);
}

static val f_dictsort(env *e, val v, const args *a) {
    static const char *const names[] = {"case_sensitive", "by", "reverse"};
    val x[3];
    bind_args(e, "dictsort", a, names, 0, 3, x);
    sort_by s = {.case_sensitive = val_truth(e, x[0])};
    if (x[1].t != V_MISSING) {
        if (x[1].t == V_STR && str_is(x[1].s, "value"))
            s.pos = 1;
        else if (x[1].t != V_STR || !str_is(x[1].s, "key"))
            fail(e, "You can only sort by either \"key\" or \"value\"");
    }
    if (v.t == V_UNDEF) fail_undef(e, v);
    if (v.t != V_DICT) fail(e, "dictsort needs a dict, not %s", type_name(v));
    list *l = list_new(e, v.d->n);
    for (size_t i = 0; i < v.d->n; i++) list_push(e, l, tuple2(e, v.d->e[i].key, v.d->e[i].value));
    keyed *k = sort_keyed(e, l, pair_key, &s, val_truth(e, x[2]));
    for (size_t i = 0; i < l->n; i++) l->v[i] = k[i].item;
    return list_val(l);
}

static val group_key(env *e, val item, void *ctx) {
    sort_by *s = ctx;
    return key_of(e, item, s->attrs, s->dflt, s->case_sensitive);
}

static val f_groupby(env *e, val v, const args *a) {
    static const char *const names[] = {"attribute", "default", "case_sensitive"};
    val x[3];
    bind_args(e, "groupby", a, names, 1, 3, x);
    sort_by s = {.attrs = attr_parts(e, x[0]), .dflt = x[1], .case_sensitive = val_truth(e, x[2])};
    list *l = val_list(e, v), *out = list_new(e, 0);
    keyed *k = sort_keyed(e, l, group_key, &s, false);
    for (size_t i = 0; i < l->n;) {
        list *group = list_new(e, 0);
        size_t j = i;
        for (; j < l->n && val_eq(e, k[i].key, k[j].key); j++) list_push(e, group, k[j].item);
        val t = tuple2(e, attr_walk(e, k[i].item, s.attrs, s.dflt), list_val(group));
        t.l->group = true;
        list_push(e, out, t);
        i = j > i ? j : i + 1;
    }
    return list_val(out);
}

static val extreme(env *e, val v, const args *a, const char *fn, bool max) {
    static const char *const names[] = {"case_sensitive", "attribute"};
    val x[2], item, best = MISSING_VAL, best_key = MISSING_VAL;
    bind_args(e, fn, a, names, 0, 2, x);
    bool case_sensitive = val_truth(e, x[0]);
    list *parts = attr_parts(e, x[1]);
    iter *it = iter_of(e, v);
    while (iter_next(e, it, &item)) {
        val k = key_of(e, item, parts, MISSING_VAL, case_sensitive);
        if (best.t == V_MISSING || (max ? less(e, best_key, k) : less(e, k, best_key))) {
            best = item;
            best_key = k;
        }
    }
    return best.t == V_MISSING ? undef_val(e, "No aggregated item, sequence was empty.") : best;
}
static val f_min(env *e, val v, const args *a) {
    return extreme(e, v, a, "min", false);
}
static val f_max(env *e, val v, const args *a) {
    return extreme(e, v, a, "max", true);
}

static val f_sum(env *e, val v, const args *a) {
    static const char *const names[] = {"attribute", "start"};
    val x[2], item;
    bind_args(e, "sum", a, names, 0, 2, x);
    list *parts = attr_parts(e, x[0]);
    val total = x[1].t == V_MISSING ? int_val(0) : x[1];
    if (total.t == V_STR) fail(e, "sum() can't sum strings [use ''.join(seq) instead]");
    iter *it = iter_of(e, v);
    while (iter_next(e, it, &item)) total = num_binary(e, '+', total, attr_walk(e, item, parts, MISSING_VAL));
    return total;
}

static val f_join(env *e, val v, const args *a) {
    static const char *const names[] = {"d", "attribute"};
    val x[2], item;
    bind_args(e, "join", a, names, 0, 2, x);
    str *sep = x[0].t == V_MISSING ? str_lit(e, "") : val_str(e, x[0]);
    list *parts = attr_parts(e, x[1]);
    sb b = sb_new(e);
    iter *it = iter_of(e, v);
    for (bool first = true; iter_next(e, it, &item); first = false) {
        if (!first) sb_str(&b, sep);
        put_str(&b, attr_walk(e, item, parts, MISSING_VAL));
    }
    return str_val(sb_done(&b));
}

const filter SEQ_FILTERS[] = {
    {"map", f_map},
    {"select", f_select},
    {"reject", f_reject},
    {"selectattr", f_selectattr},
    {"unique", f_unique},
    {"batch", f_batch},
    {"slice", f_slice},
    {"rejectattr", f_rejectattr},
    {"items", f_items},
    {"first", f_first},
    {"last", f_last},
    {"list", f_list},
    {"reverse", f_reverse},
    {"length", f_length},
    {"count", f_length},
    {"sort", f_sort},
    {"groupby", f_groupby},
    {"min", f_min},
    {"dictsort", f_dictsort},
    {"max", f_max},
    {"sum", f_sum},
    {"join", f_join},
    {NULL, NULL},
};
