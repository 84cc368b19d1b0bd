/* filters.c - filters over text and single values, and the table of all filters. Memory is the env's.
 * Source: Jinja 3.1's filters; tojson as transformers defines it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/tmpl/filters.h"

static val no_args(env *e, const char *fn, const args *a) {
    bind_pos(e, fn, a, 0, 0, NULL);
    return NONE_VAL;
}

#define CASE_FILTER(name, op)                                                                                \
    static val f_##name(env *e, val v, const args *a) {                                                      \
        no_args(e, #name, a);                                                                                \
        return str_val(str_case(e, val_str(e, v), op));                                                      \
    }
CASE_FILTER(upper, CASE_UPPER)
CASE_FILTER(lower, CASE_LOWER)
CASE_FILTER(capitalize, CASE_CAPITALIZE)

/* Words begin after blanks and brackets only, unlike str.title. */
static val f_title(env *e, val v, const args *a) {
    no_args(e, "title", a);
    str *s = val_str(e, v);
    sb b = sb_new(e);
    env_step(e, s->n / 8);
    for (size_t i = 0; i < s->n;) {
        uint32_t cp;
        size_t from = i, k;
        bool sep = false;
        for (; i < s->n; i += k) {
            k = (size_t)str_char(s, i, &cp);
            bool is_sep = uc_space(cp) || cp == '-' || cp == '(' || cp == '{' || cp == '[' || cp == '<';
            if (i == from)
                sep = is_sep;
            else if (is_sep != sep)
                break;
        }
        size_t first = (size_t)str_char(s, from, &cp);
        sb_str(&b, str_case(e, str_sub(e, s, from, from + first), CASE_UPPER));
        sb_str(&b, str_case(e, str_sub(e, s, from + first, i), CASE_LOWER));
    }
    return str_val(sb_done(&b));
}

static val f_trim(env *e, val v, const args *a) {
    static const char *const names[] = {"chars"};
    val c;
    bind_args(e, "trim", a, names, 0, 1, &c);
    const str *chars = c.t == V_MISSING || c.t == V_NONE ? NULL : need_str(e, c, "chars");
    return str_val(str_strip(e, val_str(e, v), chars, true, true));
}

static val f_replace(env *e, val v, const args *a) {
    static const char *const names[] = {"old", "new", "count"};
    val x[3];
    bind_args(e, "replace", a, names, 2, 3, x);
    int64_t max = x[2].t == V_MISSING || x[2].t == V_NONE ? -1 : need_int(e, x[2], "count");
    return str_val(str_replace(e, val_str(e, v), val_str(e, x[0]), val_str(e, x[1]), max));
}

static val f_string(env *e, val v, const args *a) {
    no_args(e, "string", a);
    return str_val(val_str(e, v));
}

static val f_safe(env *e, val v, const args *a) {
    no_args(e, "safe", a);
    str *s = env_alloc(e, sizeof *s);
    *s = *val_str(e, v);
    s->markup = true;
    s->own = NULL;
    return str_val(s);
}

static val f_escape(env *e, val v, const args *a) {
    no_args(e, "escape", a);
    if (v.t == V_STR && v.s->markup) return v;
    return str_val(str_html_escape(e, val_str(e, v)));
}

static val f_forceescape(env *e, val v, const args *a) {
    no_args(e, "forceescape", a);
    return str_val(str_html_escape(e, val_str(e, v)));
}

static val f_default(env *e, val v, const args *a) {
    static const char *const names[] = {"default_value", "boolean"};
    val x[2];
    bind_args(e, "default", a, names, 0, 2, x);
    if (v.t == V_UNDEF || (val_truth(e, x[1]) && !val_truth(e, v)))
        return x[0].t == V_MISSING ? lit_val(e, "") : x[0];
    return v;
}

static val call_str_method(env *e, str *s, const char *name, size_t n, val *v) {
    args a = {.v = v, .n = n};
    return str_method(str_lit(e, name))->fn(e, str_val(s), &a);
}

static val f_center(env *e, val v, const args *a) {
    static const char *const names[] = {"width"};
    val w;
    bind_args(e, "center", a, names, 0, 1, &w);
    if (w.t == V_MISSING) w = int_val(80);
    return call_str_method(e, val_str(e, v), "center", 1, &w);
}

static val f_indent(env *e, val v, const args *a) {
    static const char *const names[] = {"width", "first", "blank"};
    val x[3];
    bind_args(e, "indent", a, names, 0, 3, x);
    str *pad;
    if (x[0].t == V_STR)
        pad = x[0].s;
    else {
        sb p = sb_new(e);
        int64_t n = x[0].t == V_MISSING ? 4 : need_int(e, x[0], "the width");
        sb_repeat(&p, str_lit(e, " "), n > 0 ? (size_t)n : 0);
        pad = sb_done(&p);
    }
    bool first = val_truth(e, x[1]), blank = val_truth(e, x[2]);
    if (v.t == V_UNDEF) fail_undef(e, v);
    str *s = str_concat(e, need_str(e, v, "the value of indent"), str_lit(e, "\n"));
    list *lines = call_str_method(e, s, "splitlines", 0, NULL).l;
    sb b = sb_new(e);
    for (size_t i = 0; i < lines->n; i++) {
        str *line = lines->v[i].s;
        if (i) sb_puts(&b, "\n");
        if (i ? blank || line->n : first) sb_str(&b, pad);
        sb_str(&b, line);
    }
    return str_val(sb_done(&b));
}

static val f_truncate(env *e, val v, const args *a) {
    static const char *const names[] = {"length", "killwords", "end", "leeway"};
    val x[4];
    bind_args(e, "truncate", a, names, 0, 4, x);
    int64_t len = x[0].t == V_MISSING ? 255 : need_int(e, x[0], "the length");
    str *end = x[2].t == V_MISSING ? str_lit(e, "...") : need_str(e, x[2], "end");
    int64_t leeway = x[3].t == V_MISSING || x[3].t == V_NONE ? 5 : need_int(e, x[3], "leeway");
    if (len < (int64_t)str_len(e, end))
        fail(e, "expected length >= %zu, got %lld", str_len(e, end), (long long)len);
    if (leeway < 0) fail(e, "expected leeway >= 0, got %lld", (long long)leeway);
    size_t n;
    if (!val_len(e, v, &n)) fail(e, "object of type '%s' has no len()", type_name(v));
    if ((int64_t)n - leeway <= len) return v;
    str *s = need_str(e, v, "the value of truncate");
    str *head = str_sub(e, s, 0, str_offset(e, s, (size_t)len - str_len(e, end)));
    if (!val_truth(e, x[1])) {
        size_t i = str_rfind(e, head, str_lit(e, " "), 0, head->n);
        if (i != SIZE_MAX) head = str_sub(e, head, 0, i);
    }
    return str_val(str_concat(e, head, end));
}

static val f_wordcount(env *e, val v, const args *a) {
    no_args(e, "wordcount", a);
    str *s = val_str(e, v);
    int64_t n = 0;
    bool in = false;
    uint32_t cp;
    env_step(e, s->n / 16);
    for (size_t i = 0; i < s->n;) {
        i += (size_t)str_char(s, i, &cp);
        bool word = uc_word(cp);
        n += word && !in;
        in = word;
    }
    return int_val(n);
}

/* s without what stands from open to the next close, both included. */
static str *cut_between(env *e, const str *s, const char *open, const char *close) {
    const str *from = str_lit(e, open), *to = str_lit(e, close);
    size_t at = 0;
    sb b = sb_new(e);
    for (;;) {
        size_t i = str_find(e, s, from, at, s->n);
        size_t j = i == SIZE_MAX ? SIZE_MAX : str_find(e, s, to, i, s->n);
        if (j == SIZE_MAX) break;
        sb_sub(&b, s, at, i);
        at = j + to->n;
    }
    sb_sub(&b, s, at, s->n);
    return sb_done(&b);
}

static val f_striptags(env *e, val v, const args *a) {
    no_args(e, "striptags", a);
    /* comments first, then tags, as markupsafe does */
    str *s = cut_between(e, cut_between(e, val_str(e, v), "<!--", "-->"), "<", ">"), *cut = str_lit(e, "");
    list *words = call_str_method(e, s, "split", 0, NULL).l;
    sb b = sb_new(e);
    for (size_t i = 0; i < words->n; i++) {
        if (i) sb_puts(&b, " ");
        sb_str(&b, words->v[i].s);
    }
    s = sb_done(&b);
    static const char *const ents[][2] = {{"&lt;", "<"},    {"&gt;", ">"},  {"&#34;", "\""},
                                          {"&quot;", "\""}, {"&#39;", "'"}, {"&amp;", "&"}};
    for (size_t i = 0; i < ARRAY_LEN(ents); i++) {
        str *from = str_lit(e, ents[i][0]);
        if (str_find(e, s, from, 0, s->n) == SIZE_MAX) continue;
        /* what a user's entity becomes is the user's */
        cut = str_new(e, ents[i][1], 1, str_any_user(s));
        s = str_replace(e, s, from, cut, -1);
    }
    return str_val(s);
}

/* ---- numbers ---- */

static val f_int(env *e, val v, const args *a) {
    static const char *const names[] = {"default", "base"};
    val x[2];
    bind_args(e, "int", a, names, 0, 2, x);
    val dflt = x[0].t == V_MISSING ? int_val(0) : x[0];
    int64_t base = x[1].t == V_MISSING ? 10 : need_int(e, x[1], "base"), i;
    bool over = false;
    double f;
    if (v.t == V_UNDEF) fail_undef(e, v);
    if (is_intlike(v)) return int_val(as_int(v));
    if (v.t == V_FLOAT)
        return isfinite(v.f) ? float_to_int(e, v.f)
               : isnan(v.f)  ? dflt
                             : (fail(e, "cannot convert float infinity to integer"), dflt);
    if (v.t != V_STR) return dflt;
    if (base >= 0 && base != 1 && base <= 36 && parse_int_text(v.s, (int)base, &i, &over)) return int_val(i);
    if (over) fail(e, "an integer does not fit 64 bits");
    if (!parse_float_text(e, v.s, &f) || !isfinite(f)) return dflt;
    return float_to_int(e, f);
}

static val f_float(env *e, val v, const args *a) {
    static const char *const names[] = {"default"};
    val x;
    double f;
    bind_args(e, "float", a, names, 0, 1, &x);
    if (v.t == V_UNDEF) fail_undef(e, v);
    if (is_number(v)) return float_val(as_float(v));
    if (v.t == V_STR && parse_float_text(e, v.s, &f)) return float_val(f);
    return x.t == V_MISSING ? float_val(0) : x;
}

static val f_abs(env *e, val v, const args *a) {
    no_args(e, "abs", a);
    if (v.t == V_FLOAT) return float_val(fabs(v.f));
    if (!is_intlike(v)) fail(e, "bad operand type for abs(): '%s'", type_name(v));
    return as_int(v) < 0 ? num_neg(e, v) : int_val(as_int(v));
}

static val f_round(env *e, val v, const args *a) {
    static const char *const names[] = {"precision", "method"};
    val x[2];
    bind_args(e, "round", a, names, 0, 2, x);
    str *how = x[1].t == V_MISSING ? str_lit(e, "common") : need_str(e, x[1], "method");
    bool up = str_is(how, "ceil");
    if (!up && !str_is(how, "floor") && !str_is(how, "common"))
        fail(e, "method must be common, ceil or floor");
    if (str_is(how, "common") && x[0].t == V_NONE) return num_round(e, v, 0, false);
    int64_t prec = x[0].t == V_MISSING ? 0 : need_int(e, x[0], "precision");
    if (str_is(how, "common")) return num_round(e, v, prec, true);
    if (!is_number(v)) fail(e, "round needs a number, not %s", type_name(v));
    if (prec > 300 || prec < -300) fail(e, "precision of round out of range");
    val scale = num_binary(e, 'p', int_val(10), int_val(prec)), scaled = num_binary(e, '*', v, scale);
    double f = as_float(scaled);
    val whole = scaled.t == V_FLOAT ? float_to_int(e, up ? ceil(f) : floor(f)) : scaled;
    return num_binary(e, '/', whole, scale);
}

static val f_filesizeformat(env *e, val v, const args *a) {
    static const char *const names[] = {"binary"};
    static const char unit[] = "kMGTPEZY";
    val x;
    bind_args(e, "filesizeformat", a, names, 0, 1, &x);
    double bytes;
    if (is_number(v))
        bytes = as_float(v);
    else if (v.t != V_STR || !parse_float_text(e, v.s, &bytes))
        fail(e, "could not convert to float");
    bool bin = val_truth(e, x);
    double base = bin ? 1024 : 1000, u = base;
    char t[400];
    if (bytes == 1) return lit_val(e, "1 Byte");
    if (bytes < base)
        snprintf(t, sizeof t, "%lld Bytes", (long long)bytes);
    else {
        size_t i = 0;
        for (u = base * base; i < 7 && bytes >= u; i++) u *= base;
        snprintf(t, sizeof t, "%.1f %c%s", base * bytes / u, bin && unit[i] == 'k' ? 'K' : unit[i],
                 bin ? "iB" : "B");
    }
    return str_val(str_copy(e, t, strlen(t), false));
}

/* ---- tojson, urlencode, xmlattr, format, attr ---- */

static val f_tojson(env *e, val v, const args *a) {
    static const char *const names[] = {"ensure_ascii", "indent", "separators", "sort_keys"};
    val x[4];
    bind_args(e, "tojson", a, names, 0, 4, x);
    json_style style = {.ensure_ascii = val_truth(e, x[0]),
                        .sort_keys = val_truth(e, x[3]),
                        .item_sep = str_lit(e, ", "),
                        .key_sep = str_lit(e, ": ")};
    if (x[1].t != V_MISSING && x[1].t != V_NONE) {
        if (x[1].t == V_STR)
            style.indent = x[1].s;
        else {
            sb p = sb_new(e);
            int64_t n = need_int(e, x[1], "indent");
            if (n > 1000) fail(e, "an indent of %lld is too large", (long long)n);
            sb_repeat(&p, str_lit(e, " "), n > 0 ? (size_t)n : 0);
            style.indent = sb_done(&p);
        }
        style.item_sep = str_lit(e, ",");
    }
    if (x[2].t != V_MISSING && x[2].t != V_NONE) {
        list *l = val_iterable(x[2]) ? val_list(e, x[2]) : NULL;
        if (!l || l->n != 2) fail(e, "separators must be a pair of strings");
        style.item_sep = need_str(e, l->v[0], "a separator");
        style.key_sep = need_str(e, l->v[1], "a separator");
    }
    sb b = sb_new(e);
    put_json(&b, v, &style);
    return str_val(sb_done(&b));
}

static void put_quoted(sb *b, const str *s, bool query) {
    for (size_t i = 0; i < s->n; i++) {
        char c = s->p[i], t[4];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     (c && strchr("_.-~", c)) || (c == '/' && !query);
        if (plain)
            sb_sub(b, s, i, i + 1);
        else if (c == ' ' && query)
            sb_add(b, "+", 1, str_user_at(s, i));
        else {
            snprintf(t, sizeof t, "%%%02X", (unsigned char)c);
            sb_add(b, t, 3, str_user_at(s, i));
        }
    }
    env_step(b->e, s->n / 4);
}

static val f_urlencode(env *e, val v, const args *a) {
    no_args(e, "urlencode", a);
    sb b = sb_new(e);
    if (v.t == V_STR || !val_iterable(v)) {
        put_quoted(&b, val_str(e, v), false);
        return str_val(sb_done(&b));
    }
    if (v.t == V_DICT) {
        view w = {v.d, VIEW_ITEMS};
        v = list_val(val_list(e, (val){.t = V_VIEW, .view = &w}));
    }
    iter *it = iter_of(e, v);
    val pair;
    for (bool first = true; iter_next(e, it, &pair); first = false) {
        if (!val_iterable(pair)) fail(e, "urlencode needs pairs");
        list *l = val_list(e, pair);
        if (l->n != 2) fail(e, "urlencode needs pairs, got %zu values", l->n);
        if (!first) sb_puts(&b, "&");
        put_quoted(&b, val_str(e, l->v[0]), true);
        sb_puts(&b, "=");
        put_quoted(&b, val_str(e, l->v[1]), true);
    }
    return str_val(sb_done(&b));
}

static val f_xmlattr(env *e, val v, const args *a) {
    static const char *const names[] = {"autospace"};
    val x;
    bind_args(e, "xmlattr", a, names, 0, 1, &x);
    if (v.t != V_DICT) fail(e, "xmlattr needs a dict, not %s", type_name(v));
    bool space = x.t == V_MISSING || val_truth(e, x);
    sb b = sb_new(e);
    for (size_t i = 0; i < v.d->n; i++) {
        val k = v.d->e[i].key, w = v.d->e[i].value;
        if (w.t == V_NONE || w.t == V_UNDEF) continue;
        str *name = need_str(e, k, "an attribute name");
        for (size_t j = 0; j < name->n; j++)
            if (name->p[j] && strchr(" \t\n\r\f\v/>=", name->p[j]))
                fail(e, "Invalid character in attribute name");
        if (b.n || space) sb_puts(&b, " ");
        sb_str(&b, str_html_escape(e, name));
        sb_puts(&b, "=\"");
        sb_str(&b, w.t == V_STR && w.s->markup ? w.s : str_html_escape(e, val_str(e, w)));
        sb_puts(&b, "\"");
    }
    return str_val(sb_done(&b));
}

static val f_format(env *e, val v, const args *a) {
    if (a->n && a->n_kw) fail(e, "can't handle positional and keyword arguments at the same time");
    val arg;
    if (a->n_kw) {
        arg = dict_val(dict_new(e));
        for (size_t k = 0; k < a->n_kw; k++) dict_put(e, arg.d, str_val(a->kw[k].name), a->kw[k].v);
    } else {
        arg = tuple_val(list_new(e, a->n));
        for (size_t i = 0; i < a->n; i++) list_push(e, arg.l, a->v[i]);
    }
    return str_val(format_percent(e, val_str(e, v), arg));
}

static val f_attr(env *e, val v, const args *a) {
    static const char *const names[] = {"name"};
    val x;
    bind_args(e, "attr", a, names, 1, 1, &x);
    str *name = need_str(e, x, "the attribute's name");
    val r = get_attr(e, v, name);
    if (v.t == V_DICT && r.t != V_METHOD && r.t != V_UNDEF) /* only attributes, no items */
        return undef_val(e, "'dict object' has no attribute '%.*s'", (int)(name->n < 100 ? name->n : 100),
                         name->p);
    return r;
}

static val f_pprint(env *e, val v, const args *a) {
    no_args(e, "pprint", a);
    str *r = val_repr(e, v);
    if (str_len(e, r) > 80) fail(e, "pprint of a long value is not supported");
    return str_val(r);
}

static val f_refused(env *e, val v, const args *a) {
    (void)v;
    (void)a;
    fail(e, "this filter is not supported");
}

static const filter FILTERS[] = {
    {"trim", f_trim},
    {"tojson", f_tojson},
    {"default", f_default},
    {"d", f_default},
    {"upper", f_upper},
    {"lower", f_lower},
    {"replace", f_replace},
    {"string", f_string},
    {"safe", f_safe},
    {"escape", f_escape},
    {"e", f_escape},
    {"forceescape", f_forceescape},
    {"title", f_title},
    {"capitalize", f_capitalize},
    {"center", f_center},
    {"indent", f_indent},
    {"truncate", f_truncate},
    {"wordcount", f_wordcount},
    {"int", f_int},
    {"float", f_float},
    {"abs", f_abs},
    {"round", f_round},
    {"urlencode", f_urlencode},
    {"xmlattr", f_xmlattr},
    {"format", f_format},
    {"attr", f_attr},
    {"striptags", f_striptags},
    {"pprint", f_pprint},
    {"filesizeformat", f_filesizeformat},
    {"random", f_refused},
    {"urlize", f_refused},
    {"wordwrap", f_refused},
};

func_fn find_filter(const str *name) {
    for (size_t i = 0; i < ARRAY_LEN(FILTERS); i++)
        if (str_is(name, FILTERS[i].name)) return FILTERS[i].fn;
    for (size_t i = 0; SEQ_FILTERS[i].name; i++)
        if (str_is(name, SEQ_FILTERS[i].name)) return SEQ_FILTERS[i].fn;
    return NULL;
}

val call_filter(env *e, const str *name, val v, const args *a) {
    func_fn f = find_filter(name);
    if (!f) fail(e, "No filter named '%.*s'", (int)(name->n < 100 ? name->n : 100), name->p);
    return f(e, v, a);
}
