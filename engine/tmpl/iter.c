/* iter.c - walking over values. Memory is the env's; an iter is walked once. See value.h. */
#include <string.h>

#include "engine/tmpl/value.h"

static bool next_str(env *e, iter *it, val *out) {
    str *s = it->src.s;
    if (it->i >= s->n) return false;
    uint32_t cp;
    size_t k = (size_t)str_char(s, it->i, &cp);
    *out = str_val(str_sub(e, s, it->i, it->i + k));
    it->i += k;
    return true;
}

static bool next_list(env *e, iter *it, val *out) {
    (void)e;
    if (it->i >= it->src.l->n) return false;
    *out = it->src.l->v[it->i++];
    return true;
}

static bool next_key(env *e, iter *it, val *out) {
    (void)e;
    if (it->i >= it->src.d->n) return false;
    *out = it->src.d->e[it->i++].key;
    return true;
}

static val view_item(env *e, const view *v, size_t i) {
    entry *x = &v->d->e[i];
    if (v->kind == VIEW_KEYS) return x->key;
    if (v->kind == VIEW_VALUES) return x->value;
    return tuple2(e, x->key, x->value);
}

static bool next_view(env *e, iter *it, val *out) {
    if (it->i >= it->src.view->d->n) return false;
    *out = view_item(e, it->src.view, it->i++);
    return true;
}

static bool next_range(env *e, iter *it, val *out) {
    (void)e;
    range *r = it->src.r;
    if (it->i >= r->n) return false;
    *out = int_val(r->start + (int64_t)it->i++ * r->step);
    return true;
}

static bool next_none(env *e, iter *it, val *out) {
    (void)e;
    (void)it;
    (void)out;
    return false;
}

static bool next_loop(env *e, iter *it, val *out) {
    (void)it;
    (void)out;
    fail(e, "walking over 'loop' itself is not supported");
}

bool val_iterable(val v) {
    switch (v.t) {
    case V_UNDEF:
    case V_STR:
    case V_LIST:
    case V_TUPLE:
    case V_DICT:
    case V_RANGE:
    case V_VIEW:
    case V_ITER:
    case V_LOOP: return true;
    default: return false;
    }
}

iter *iter_of(env *e, val v) {
    if (v.t == V_ITER) return v.it;
    iter *it = env_alloc(e, sizeof *it);
    it->src = v;
    switch (v.t) {
    case V_UNDEF: it->next = next_none; break;
    case V_STR: it->next = next_str; break;
    case V_LIST:
    case V_TUPLE: it->next = next_list; break;
    case V_DICT: it->next = next_key; break;
    case V_RANGE: it->next = next_range; break;
    case V_VIEW: it->next = next_view; break;
    case V_LOOP: it->next = next_loop; break;
    default: fail(e, "'%s' object is not iterable", type_name(v));
    }
    return it;
}

iter *iter_list(env *e, list *l) {
    return iter_of(e, list_val(l));
}

list *val_list(env *e, val v) {
    iter *it = iter_of(e, v);
    list *l = list_new(e, v.t == V_LIST || v.t == V_TUPLE ? v.l->n : v.t == V_DICT ? v.d->n : 0);
    val x;
    while (iter_next(e, it, &x)) list_push(e, l, x);
    return l;
}

static bool next_reversed(env *e, iter *it, val *out) {
    if (it->i == 0) return false;
    size_t i = --it->i;
    switch (it->src.t) {
    case V_DICT: *out = it->src.d->e[i].key; break;
    case V_VIEW: *out = view_item(e, it->src.view, i); break;
    case V_RANGE: *out = int_val(it->src.r->start + (int64_t)i * it->src.r->step); break;
    default: *out = it->src.l->v[i]; break;
    }
    return true;
}

static bool next_str_reversed(env *e, iter *it, val *out) {
    if (it->i == 0) return false;
    str *s = it->src.s;
    size_t end = it->i, b = end - 1;
    while (b > 0 && ((unsigned char)s->p[b] & 0xC0) == 0x80) b--;
    *out = str_val(str_sub(e, s, b, end));
    it->i = b;
    return true;
}

iter *iter_reversed(env *e, val v) {
    size_t n = 0;
    if (v.t == V_STR || !val_len(e, v, &n)) {
        if (v.t != V_STR) fail(e, "'%s' object is not reversible", type_name(v));
        n = v.s->n;
    }
    iter *it = env_alloc(e, sizeof *it);
    it->src = v;
    it->i = n;
    it->next = v.t == V_STR ? next_str_reversed : next_reversed;
    return it;
}
