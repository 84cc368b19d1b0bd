/* call.c - calling values, binding arguments, and the global functions. Source: Jinja 3.1 and what
 * transformers adds to its environment (raise_exception, strftime_now). Memory is the env's. */
#include <string.h>
#include <sys/time.h>
#include <time.h>

#include "engine/tmpl/eval.h"

void bind_args(env *e, const char *fn, const args *a, const char *const *names, size_t n_req, size_t n_max,
               val *out) {
    for (size_t i = 0; i < n_max; i++) out[i] = i < a->n ? a->v[i] : MISSING_VAL;
    if (a->n > n_max) fail(e, "%s() takes at most %zu argument(s), got %zu", fn, n_max, a->n);
    for (size_t k = 0; k < a->n_kw; k++) {
        size_t i = 0;
        while (names && i < n_max && !str_is(a->kw[k].name, names[i])) i++;
        if (!names || i == n_max)
            fail(e, "%s() got an unexpected keyword argument '%.*s'", fn, (int)a->kw[k].name->n,
                 a->kw[k].name->p);
        if (out[i].t != V_MISSING) fail(e, "%s() got multiple values for argument '%s'", fn, names[i]);
        out[i] = a->kw[k].v;
    }
    for (size_t i = 0; i < n_req; i++)
        if (out[i].t == V_MISSING) {
            if (names) fail(e, "%s() is missing its argument '%s'", fn, names[i]);
            fail(e, "%s() takes at least %zu argument(s), got %zu", fn, n_req, a->n);
        }
}

void bind_pos(env *e, const char *fn, const args *a, size_t n_req, size_t n_max, val *out) {
    bind_args(e, fn, a, NULL, n_req, n_max, out);
}

int64_t need_int(env *e, val v, const char *what) {
    if (v.t == V_UNDEF) fail_undef(e, v);
    if (!is_intlike(v)) fail(e, "%s must be an integer, not %s", what, type_name(v));
    return as_int(v);
}

str *need_str(env *e, val v, const char *what) {
    if (v.t != V_STR) fail(e, "%s must be a string, not %s", what, type_name(v));
    return v.s;
}

bool val_callable(val v) {
    switch (v.t) {
    case V_FUNC:
    case V_METHOD:
    case V_MACRO:
    case V_LOOP:
    case V_JOINER:
    case V_UNDEF: return true;
    default: return false;
    }
}

val call_value(env *e, val fn, const args *a) {
    env_enter(e);
    val v = NONE_VAL;
    switch (fn.t) {
    case V_UNDEF: fail_undef(e, fn);
    case V_FUNC: v = fn.fn->fn(e, MISSING_VAL, a); break;
    case V_METHOD: v = fn.method->fn->fn(e, fn.method->self, a); break;
    case V_MACRO: v = call_macro(e, fn.macro, a); break;
    case V_LOOP: v = call_loop(e, fn.loop, a); break;
    case V_JOINER:
        bind_pos(e, "joiner", a, 0, 0, NULL);
        v = fn.joiner->used ? str_val(fn.joiner->sep) : lit_val(e, "");
        fn.joiner->used = true;
        break;
    default: fail(e, "'%s' object is not callable", type_name(fn));
    }
    env_leave(e);
    return v;
}

/* ---- globals ---- */

#define MAX_RANGE 100000

static val fn_range(env *e, val self, const args *a) {
    (void)self;
    val v[3];
    bind_pos(e, "range", a, 1, 3, v);
    range *r = env_alloc(e, sizeof *r);
    int64_t x = need_int(e, v[0], "range() argument");
    *r = (range){.start = 0, .stop = x, .step = 1};
    if (v[1].t != V_MISSING) {
        r->start = x;
        r->stop = need_int(e, v[1], "range() argument");
    }
    if (v[2].t != V_MISSING) r->step = need_int(e, v[2], "range() argument");
    if (r->step == 0) fail(e, "range() arg 3 must not be zero");
    uint64_t gap = 0, by = r->step > 0 ? (uint64_t)r->step : 0 - (uint64_t)r->step;
    if (r->step > 0 && r->stop > r->start) gap = (uint64_t)r->stop - (uint64_t)r->start;
    if (r->step < 0 && r->stop < r->start) gap = (uint64_t)r->start - (uint64_t)r->stop;
    uint64_t n = gap ? (gap - 1) / by + 1 : 0;
    if (n > MAX_RANGE)
        fail(e, "Range too big. The sandbox blocks ranges larger than MAX_RANGE (%d).", MAX_RANGE);
    r->n = (size_t)n;
    return (val){.t = V_RANGE, .r = r};
}

/* dict(mapping or pairs, **more): also the start of a namespace. */
static dict *dict_from(env *e, const args *a, const char *who) {
    if (a->n > 1) fail(e, "%s expected at most 1 argument, got %zu", who, a->n);
    dict *d = dict_new(e);
    if (a->n == 1 && a->v[0].t == V_DICT) {
        for (size_t i = 0; i < a->v[0].d->n; i++) dict_put(e, d, a->v[0].d->e[i].key, a->v[0].d->e[i].value);
    } else if (a->n == 1) {
        iter *it = iter_of(e, a->v[0]);
        val pair;
        while (iter_next(e, it, &pair)) {
            if (!val_iterable(pair))
                fail(e, "cannot convert dictionary update sequence element to a sequence");
            list *l = val_list(e, pair);
            if (l->n != 2) fail(e, "dictionary update sequence element has length %zu; 2 is required", l->n);
            dict_put(e, d, l->v[0], l->v[1]);
        }
    }
    for (size_t k = 0; k < a->n_kw; k++) dict_put(e, d, str_val(a->kw[k].name), a->kw[k].v);
    return d;
}

static val fn_dict(env *e, val self, const args *a) {
    (void)self;
    return dict_val(dict_from(e, a, "dict"));
}

static val fn_namespace(env *e, val self, const args *a) {
    (void)self;
    dict *d = dict_from(e, a, "namespace");
    for (size_t i = 0; i < d->n; i++)
        if (d->e[i].key.t == V_STR && d->e[i].key.s->n && d->e[i].key.s->p[0] == '_')
            fail(e, "names that begin with an underscore cannot be stored on a namespace");
    return (val){.t = V_NS, .d = d};
}

static val fn_joiner(env *e, val self, const args *a) {
    (void)self;
    static const char *const names[] = {"sep"};
    val v;
    bind_args(e, "joiner", a, names, 0, 1, &v);
    joiner *j = env_alloc(e, sizeof *j);
    j->sep = v.t == V_MISSING ? str_lit(e, ", ") : val_str(e, v);
    return (val){.t = V_JOINER, .joiner = j};
}

static val fn_cycler(env *e, val self, const args *a) {
    (void)self;
    if (a->n_kw) fail(e, "cycler() takes no keyword arguments");
    if (a->n == 0) fail(e, "at least one item has to be provided");
    cycler *c = env_alloc(e, sizeof *c);
    c->items = list_new(e, a->n);
    for (size_t i = 0; i < a->n; i++) list_push(e, c->items, a->v[i]);
    return (val){.t = V_CYCLER, .cycler = c};
}

static val fn_lipsum(env *e, val self, const args *a) {
    (void)self;
    (void)a;
    fail(e, "lipsum() is not supported");
}

static val fn_raise_exception(env *e, val self, const args *a) {
    (void)self;
    static const char *const names[] = {"message"};
    val v;
    bind_args(e, "raise_exception", a, names, 1, 1, &v);
    str *s = val_str(e, v);
    e->line = 0; /* the template's own words, nothing before them */
    fail(e, "%.*s", (int)(s->n < 100000 ? s->n : 100000), s->p);
}

static val fn_strftime_now(env *e, val self, const args *a) {
    (void)self;
    static const char *const names[] = {"format"};
    val v;
    bind_args(e, "strftime_now", a, names, 1, 1, &v);
    str *f = need_str(e, v, "strftime_now() argument");
    if (f->n > 1000) fail(e, "the format of strftime_now() has %zu bytes, more than 1000", f->n);
    struct timeval now;
    struct tm tm;
    gettimeofday(&now, NULL);
    localtime_r(&now.tv_sec, &tm);
    char fmt[8100], *q = fmt;
    for (size_t i = 0; i < f->n; i++) { /* Python's own: %f, and no zone for a naive time */
        char c = f->p[i], d = i + 1 < f->n ? f->p[i + 1] : 0;
        if (c == 0) fail(e, "embedded null character");
        if (c != '%' || !d) {
            *q++ = c;
            if (c == '%') *q++ = '%';
            continue;
        }
        i++;
        if (d == 'f') {
            long us = (long)now.tv_usec;
            for (int k = 5; k >= 0; k--, us /= 10) q[k] = (char)('0' + us % 10);
            q += 6;
        } else if (d != 'z' && d != 'Z') {
            *q++ = '%';
            *q++ = d;
        }
    }
    *q++ = '|'; /* so that an empty result is not taken for a full buffer */
    *q = 0;
    char *out = env_alloc(e, 65536);
    size_t n = strftime(out, 65536, fmt, &tm);
    if (n == 0) fail(e, "the result of strftime_now() is too long");
    return str_val(str_new(e, out, n - 1, str_any_user(f)));
}

const func *find_global(const str *name) {
    static const func all[] = {
        {"range", fn_range},
        {"dict", fn_dict},
        {"namespace", fn_namespace},
        {"joiner", fn_joiner},
        {"cycler", fn_cycler},
        {"lipsum", fn_lipsum},
        {"raise_exception", fn_raise_exception},
        {"strftime_now", fn_strftime_now},
    };
    for (size_t i = 0; i < ARRAY_LEN(all); i++)
        if (str_is(name, all[i].name)) return &all[i];
    return NULL;
}
