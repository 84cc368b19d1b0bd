/* format.c - printf-style formatting: "%s: %d" % (a, b). Text taken from an argument keeps its origin.
 * Memory is the env's. Source: Python's str % operator. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/tmpl/value.h"

/* %e, %f, %g as Python writes them; prec is within 0..1000. */
void put_float_fixed(sb *b, double f, char conv, int prec, bool alt) {
    if (!isfinite(f)) {
        bool up = conv < 'a';
        sb_puts(b, isnan(f) ? (up ? "NAN" : "nan") : f > 0 ? (up ? "INF" : "inf") : (up ? "-INF" : "-inf"));
        return;
    }
    char fmt[16];
    snprintf(fmt, sizeof fmt, alt ? "%%#.*%c" : "%%.*%c", conv);
    size_t cap = 2000;
    char *t = env_alloc(b->e, cap);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    int n = snprintf(t, cap, fmt, prec, f);
#pragma GCC diagnostic pop
    if (n > 0) sb_add(b, t, (size_t)n < cap ? (size_t)n : cap - 1, false);
}

typedef struct spec {
    bool minus, plus, space, zero, alt;
    int64_t width, prec; /* prec -1: none */
} spec;

/* The next positional argument of the tuple, or the single value. */
typedef struct source {
    env *e;
    val arg;
    size_t next;
    bool used_mapping;
} source;

static val next_arg(source *s) {
    size_t n = s->arg.t == V_TUPLE ? s->arg.l->n : 1;
    if (s->next >= n) fail(s->e, "not enough arguments for format string");
    val v = s->arg.t == V_TUPLE ? s->arg.l->v[s->next] : s->arg;
    s->next++;
    return v;
}

static void pad_out(sb *out, str *body, const spec *sp, size_t sign_n, bool zero_ok) {
    env *e = out->e;
    int64_t len = (int64_t)str_len(e, body);
    size_t more = sp->width > len ? (size_t)(sp->width - len) : 0;
    if (more && sp->zero && zero_ok && !sp->minus) {
        sb_sub(out, body, 0, sign_n);
        sb_repeat(out, str_lit(e, "0"), more);
        sb_sub(out, body, sign_n, body->n);
        return;
    }
    if (!sp->minus) sb_repeat(out, str_lit(e, " "), more);
    sb_str(out, body);
    if (sp->minus) sb_repeat(out, str_lit(e, " "), more);
}

static void put_sign(sb *b, bool negative, const spec *sp) {
    if (negative)
        sb_puts(b, "-");
    else if (sp->plus)
        sb_puts(b, "+");
    else if (sp->space)
        sb_puts(b, " ");
}

static void format_int(sb *out, val v, char conv, const spec *sp) {
    env *e = out->e;
    if (v.t == V_FLOAT && (conv == 'd' || conv == 'i' || conv == 'u')) v = float_to_int(e, v.f);
    if (!is_intlike(v)) fail(e, "%%%c format: a real number is required, not %s", conv, type_name(v));
    int64_t i = as_int(v);
    uint64_t mag = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    char t[80];
    const char *prefix = "";
    if (conv == 'x')
        snprintf(t, sizeof t, "%llx", (unsigned long long)mag), prefix = "0x";
    else if (conv == 'X')
        snprintf(t, sizeof t, "%llX", (unsigned long long)mag), prefix = "0X";
    else if (conv == 'o')
        snprintf(t, sizeof t, "%llo", (unsigned long long)mag), prefix = "0o";
    else
        snprintf(t, sizeof t, "%llu", (unsigned long long)mag);
    sb b = sb_new(e);
    put_sign(&b, i < 0, sp);
    if (sp->alt) sb_puts(&b, prefix);
    size_t sign_n = b.n;
    if (sp->prec > (int64_t)strlen(t)) sb_repeat(&b, str_lit(e, "0"), (size_t)sp->prec - strlen(t));
    sb_puts(&b, t);
    pad_out(out, sb_done(&b), sp, sign_n, true);
}

static void format_float(sb *out, val v, char conv, const spec *sp) {
    env *e = out->e;
    double f;
    if (v.t == V_UNDEF) fail_undef(e, v);
    if (is_number(v))
        f = as_float(v);
    else
        fail(e, "must be real number, not %s", type_name(v));
    if (sp->prec > 1000) fail(e, "the precision of a format is larger than 1000");
    sb b = sb_new(e);
    put_sign(&b, signbit(f) && !isnan(f), sp);
    size_t sign_n = b.n;
    put_float_fixed(&b, isnan(f) ? f : fabs(f), conv, sp->prec < 0 ? 6 : (int)sp->prec, sp->alt);
    pad_out(out, sb_done(&b), sp, sign_n, true);
}

static void format_one(sb *out, val v, char conv, const spec *sp) {
    env *e = out->e;
    str *s;
    switch (conv) {
    case 's':
    case 'r':
    case 'a':
        s = conv == 's' ? val_str(e, v) : conv == 'r' ? val_repr(e, v) : val_ascii(e, v);
        if (sp->prec >= 0 && (size_t)sp->prec < str_len(e, s))
            s = str_sub(e, s, 0, str_offset(e, s, (size_t)sp->prec));
        pad_out(out, s, sp, 0, false);
        return;
    case 'c':
        if (v.t == V_STR && str_len(e, v.s) == 1) {
            pad_out(out, v.s, sp, 0, false);
            return;
        }
        if (!is_intlike(v)) fail(e, "%%c requires int or char");
        if (as_int(v) < 0 || as_int(v) > 0x10FFFF || (as_int(v) >= 0xD800 && as_int(v) < 0xE000))
            fail(e, "%%c arg not in range(0x110000)");
        sb b = sb_new(e);
        sb_cp(&b, (uint32_t)as_int(v), false);
        pad_out(out, sb_done(&b), sp, 0, false);
        return;
    case 'd':
    case 'i':
    case 'u':
    case 'o':
    case 'x':
    case 'X': format_int(out, v, conv, sp); return;
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G': format_float(out, v, conv, sp); return;
    default: fail(e, "unsupported format character '%c'", conv < 32 || conv > 126 ? '?' : conv);
    }
}

static int64_t width_at(source *src, str *fmt, size_t *i) {
    env *e = src->e;
    if (*i < fmt->n && fmt->p[*i] == '*') {
        ++*i;
        val v = next_arg(src);
        if (!is_intlike(v)) fail(e, "* wants int");
        if (as_int(v) > INT32_MAX || as_int(v) < -INT32_MAX) fail(e, "width too big");
        return as_int(v);
    }
    int64_t w = 0;
    while (*i < fmt->n && fmt->p[*i] >= '0' && fmt->p[*i] <= '9') {
        w = w * 10 + (fmt->p[(*i)++] - '0');
        if (w > INT32_MAX) fail(e, "width too big");
    }
    return w;
}

str *format_percent(env *e, str *fmt, val arg) {
    source src = {.e = e, .arg = arg};
    bool mapping = arg.t == V_DICT || arg.t == V_LIST || arg.t == V_UNDEF ||
                   arg.t == V_RANGE; /* what has [] and is no tuple or str */
    sb out = sb_new(e);
    for (size_t i = 0; i < fmt->n;) {
        const char *hit = memchr(fmt->p + i, '%', fmt->n - i);
        size_t at = hit ? (size_t)(hit - fmt->p) : fmt->n;
        sb_sub(&out, fmt, i, at);
        if (!hit) break;
        env_step(e, 1);
        i = at + 1;
        spec sp = {.prec = -1};
        val v = MISSING_VAL;
        if (i < fmt->n && fmt->p[i] == '(') {
            size_t depth = 1, b = ++i;
            while (i < fmt->n && depth) depth += (fmt->p[i] == '(') - (fmt->p[i] == ')'), i++;
            if (depth) fail(e, "incomplete format key");
            if (arg.t != V_DICT) fail(e, "format requires a mapping");
            val *found = dict_find(e, arg.d, str_val(str_sub(e, fmt, b, i - 1)));
            if (!found)
                fail(e, "the format's key '%.*s' is not in the mapping", (int)(i - 1 - b), fmt->p + b);
            v = *found;
            src.used_mapping = true;
        }
        for (; i < fmt->n && strchr("-+ #0", fmt->p[i]) && fmt->p[i]; i++) {
            char c = fmt->p[i];
            sp.minus |= c == '-';
            sp.plus |= c == '+';
            sp.space |= c == ' ';
            sp.alt |= c == '#';
            sp.zero |= c == '0';
        }
        sp.width = width_at(&src, fmt, &i);
        if (sp.width < 0) {
            sp.minus = true;
            sp.width = -sp.width;
        }
        if (i < fmt->n && fmt->p[i] == '.') {
            i++;
            sp.prec = width_at(&src, fmt, &i);
            if (sp.prec < 0) sp.prec = 0;
        }
        if (i < fmt->n && (fmt->p[i] == 'l' || fmt->p[i] == 'h' || fmt->p[i] == 'L')) i++;
        if (i >= fmt->n) fail(e, "incomplete format");
        char conv = fmt->p[i++];
        if (conv == '%') {
            sb_sub(&out, fmt, i - 1, i);
            continue;
        }
        if (v.t == V_MISSING) v = next_arg(&src);
        format_one(&out, v, conv, &sp);
    }
    size_t n = arg.t == V_TUPLE ? arg.l->n : 1;
    if (src.next < n && !src.used_mapping && !(mapping && arg.t != V_TUPLE))
        fail(e, "not all arguments converted during string formatting");
    return sb_done(&out);
}
