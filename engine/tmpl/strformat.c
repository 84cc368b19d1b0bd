/* strformat.c - "{0} {name:>8}".format(...): fields, conversions and format specs. Text taken from an
 * argument keeps its origin. Memory is the env's. Source: Python's str.format inside Jinja's sandbox. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/tmpl/value.h"

typedef struct fspec {
    str *fill;
    char align, sign, conv; /* 0: not given */
    bool alt, zero;
    char group; /* 0, ',' or '_' */
    int64_t width, prec;
} fspec;

static int64_t number_at(env *e, const str *s, size_t *i) {
    if (*i >= s->n || s->p[*i] < '0' || s->p[*i] > '9') return -1;
    int64_t n = 0;
    while (*i < s->n && s->p[*i] >= '0' && s->p[*i] <= '9') {
        n = n * 10 + (s->p[(*i)++] - '0');
        if (n > INT32_MAX) fail(e, "Too many decimal digits in format string");
    }
    return n;
}

static fspec parse_spec(env *e, str *s) {
    fspec f = {.fill = NULL, .width = -1, .prec = -1};
    size_t i = 0;
    uint32_t cp;
    if (s->n) {
        size_t k = (size_t)str_char(s, 0, &cp);
        if (k < s->n && strchr("<>=^", s->p[k]) && s->p[k]) {
            f.fill = str_sub(e, s, 0, k);
            f.align = s->p[k];
            i = k + 1;
        } else if (strchr("<>=^", s->p[0]) && s->p[0])
            f.align = s->p[i++];
    }
    if (i < s->n && (s->p[i] == '+' || s->p[i] == '-' || s->p[i] == ' ')) f.sign = s->p[i++];
    if (i < s->n && s->p[i] == 'z') fail(e, "the z option of a format is not supported");
    if (i < s->n && s->p[i] == '#') f.alt = ++i;
    if (i < s->n && s->p[i] == '0') {
        f.zero = true;
        i++;
    }
    f.width = number_at(e, s, &i);
    if (i < s->n && (s->p[i] == ',' || s->p[i] == '_')) f.group = s->p[i++];
    if (i < s->n && s->p[i] == '.') {
        i++;
        f.prec = number_at(e, s, &i);
        if (f.prec < 0) fail(e, "Format specifier missing precision");
    }
    if (i < s->n) f.conv = s->p[i++];
    if (i < s->n) fail(e, "Invalid format specifier '%.*s'", (int)(s->n < 50 ? s->n : 50), s->p);
    return f;
}

static void put_padded(sb *out, str *sign, str *body, const fspec *f, char default_align) {
    env *e = out->e;
    size_t len = str_len(e, body) + sign->n, more = f->width > (int64_t)len ? (size_t)f->width - len : 0;
    char align = f->align ? f->align : f->zero && default_align != '<' ? '=' : default_align;
    str *fill = f->fill ? f->fill : str_lit(e, f->zero ? "0" : " ");
    size_t left = align == '>' ? more : align == '^' ? more / 2 : 0;
    sb_repeat(out, fill, left);
    sb_str(out, sign);
    if (align == '=') sb_repeat(out, fill, more);
    sb_str(out, body);
    if (align == '<' || align == '^') sb_repeat(out, fill, more - left);
}

/* Digits of t up to its point, grouped by three (or four for hex and the like). */
static void put_grouped(sb *b, const char *t, char sep, size_t every) {
    size_t n = strspn(t, "0123456789abcdefABCDEF");
    if (strchr(t, 'e') && every == 3) n = strspn(t, "0123456789");
    if (!sep) n = 0;
    for (size_t i = 0; i < n; i++) {
        if (i && (n - i) % every == 0) sb_add(b, &sep, 1, false);
        sb_add(b, t + i, 1, false);
    }
    sb_puts(b, t + n);
}

static str *sign_of(env *e, bool negative, const fspec *f, const char *prefix) {
    sb b = sb_new(e);
    if (negative)
        sb_puts(&b, "-");
    else if (f->sign == '+' || f->sign == ' ')
        sb_add(&b, &f->sign, 1, false);
    sb_puts(&b, prefix);
    return sb_done(&b);
}

static void need_no_zero_group(env *e, const fspec *f) {
    if (f->group && f->zero && f->width > 0)
        fail(e, "a format with both zero padding and a thousands separator is not supported");
}

static void format_as_float(sb *out, double x, fspec *f) {
    env *e = out->e;
    char conv = f->conv ? f->conv : 'r';
    if (f->prec > 1000) fail(e, "the precision of a format is larger than 1000");
    need_no_zero_group(e, f);
    sb b = sb_new(e);
    double mag = isnan(x) ? x : fabs(x);
    if (conv == 'r' && f->prec < 0)
        put_float(&b, mag);
    else if (conv == '%') {
        put_float_fixed(&b, mag * 100, 'f', f->prec < 0 ? 6 : (int)f->prec, f->alt);
        sb_puts(&b, "%");
    } else if (conv == 'r' || conv == 'n' || strchr("eEfFgG", conv)) {
        if (conv == 'n') conv = 'g';
        put_float_fixed(&b, mag, conv == 'r' ? 'g' : conv,
                        f->prec < 0                           ? 6
                        : f->prec == 0 && strchr("gGr", conv) ? 1
                                                              : (int)f->prec,
                        f->alt);
        if (conv == 'r' && isfinite(mag)) { /* no type: like g, but a float always shows it is one */
            str *t = sb_done(&b);
            if (!memchr(t->p, '.', t->n) && !memchr(t->p, 'e', t->n)) sb_puts(&b, ".0");
        }
    } else
        fail(e, "Unknown format code '%c' for object of type 'float'", conv);
    str *t = sb_done(&b);
    sb g = sb_new(e);
    char *z = env_alloc(e, t->n + 1);
    memcpy(z, t->p, t->n);
    z[t->n] = 0;
    put_grouped(&g, z, f->group, 3);
    put_padded(out, sign_of(e, signbit(x) && !isnan(x), f, ""), sb_done(&g), f, '>');
}

static void format_as_int(sb *out, int64_t i, fspec *f) {
    env *e = out->e;
    uint64_t mag = i < 0 ? 0 - (uint64_t)i : (uint64_t)i;
    char t[80];
    const char *prefix = "";
    size_t every = 4;
    switch (f->conv) {
    case 'x': snprintf(t, sizeof t, "%llx", (unsigned long long)mag), prefix = "0x"; break;
    case 'X': snprintf(t, sizeof t, "%llX", (unsigned long long)mag), prefix = "0X"; break;
    case 'o': snprintf(t, sizeof t, "%llo", (unsigned long long)mag), prefix = "0o"; break;
    case 'b': {
        size_t n = 0;
        for (int bit = 63; bit >= 0; bit--)
            if (n || (mag >> bit & 1) || bit == 0) t[n++] = (char)('0' + (mag >> bit & 1));
        t[n] = 0;
        prefix = "0b";
        break;
    }
    case 'c':
        if (i < 0 || i > 0x10FFFF || (i >= 0xD800 && i < 0xE000)) fail(e, "%%c arg not in range(0x110000)");
        t[utf8_encode((uint32_t)i, t)] = 0;
        break;
    case 0:
    case 'd':
    case 'n':
        snprintf(t, sizeof t, "%llu", (unsigned long long)mag);
        every = 3;
        break;
    default: format_as_float(out, (double)i, f); return;
    }
    if (f->prec >= 0) fail(e, "Precision not allowed in integer format specifier");
    need_no_zero_group(e, f);
    sb b = sb_new(e);
    if (f->conv == 'c')
        sb_puts(&b, t);
    else
        put_grouped(&b, t, f->group, every);
    put_padded(out, sign_of(e, i < 0, f, f->alt ? prefix : ""), sb_done(&b), f, '>');
}

static void format_value(sb *out, val v, str *spec) {
    env *e = out->e;
    if (spec->n == 0) {
        put_str(out, v);
        return;
    }
    if (v.t != V_STR && !is_number(v))
        fail(e, "unsupported format string passed to %s.__format__", type_name(v));
    fspec f = parse_spec(e, spec);
    if (v.t == V_STR) {
        if (f.conv && f.conv != 's') fail(e, "Unknown format code '%c' for object of type 'str'", f.conv);
        if (f.sign || f.alt || f.group || f.align == '=')
            fail(e, "this format specifier is not allowed for a string");
        str *s = v.s;
        if (f.prec >= 0 && (size_t)f.prec < str_len(e, s))
            s = str_sub(e, s, 0, str_offset(e, s, (size_t)f.prec));
        put_padded(out, str_lit(e, ""), s, &f, '<');
    } else if (v.t == V_FLOAT)
        format_as_float(out, v.f, &f);
    else
        format_as_int(out, as_int(v), &f);
}

/* ---- fields ---- */

typedef struct fmt_state {
    env *e;
    const args *a;
    val map;      /* V_MISSING, or what format_map was given */
    int64_t next; /* -1: fields are numbered by hand */
} fmt_state;

static bool all_digits(const str *s) {
    for (size_t i = 0; i < s->n; i++)
        if (s->p[i] < '0' || s->p[i] > '9') return false;
    return s->n > 0;
}

static val first_value(fmt_state *st, str *name) {
    env *e = st->e;
    int64_t i = -1;
    bool over;
    if (name->n == 0) {
        if (st->next < 0)
            fail(e, "cannot switch from manual field specification to automatic field numbering");
        i = st->next++;
    } else if (all_digits(name)) {
        if (st->next > 0)
            fail(e, "cannot switch from automatic field numbering to manual field specification");
        st->next = -1;
        if (!parse_int_text(name, 10, &i, &over)) fail(e, "Too many decimal digits in format string");
    }
    if (i >= 0) {
        if (!st->a || (uint64_t)i >= st->a->n)
            fail(e, "Replacement index %lld out of range for positional args tuple", (long long)i);
        return st->a->v[i];
    }
    if (st->map.t != V_MISSING) {
        val *v = st->map.t == V_DICT ? dict_find(e, st->map.d, str_val(name)) : NULL;
        if (!v) fail(e, "format_map(): no key '%.*s'", (int)(name->n < 50 ? name->n : 50), name->p);
        return *v;
    }
    for (size_t k = 0; k < st->a->n_kw; k++)
        if (str_eq(st->a->kw[k].name, name)) return st->a->kw[k].v;
    fail(e, "format(): no argument named '%.*s'", (int)(name->n < 50 ? name->n : 50), name->p);
}

static val field_value(fmt_state *st, str *name) {
    env *e = st->e;
    size_t i = 0;
    while (i < name->n && name->p[i] != '.' && name->p[i] != '[') i++;
    val v = first_value(st, str_sub(e, name, 0, i));
    while (i < name->n) {
        bool attr = name->p[i] == '.';
        size_t b = ++i;
        if (attr)
            while (i < name->n && name->p[i] != '.' && name->p[i] != '[') i++;
        else
            while (i < name->n && name->p[i] != ']') i++;
        if (i == b) fail(e, "Empty attribute in format string");
        str *part = str_sub(e, name, b, i);
        int64_t n;
        bool over;
        if (attr)
            v = get_attr(e, v, part);
        else if (i >= name->n)
            fail(e, "Missing ']' in format string");
        else {
            v = get_item(
                e, v, all_digits(part) && parse_int_text(part, 10, &n, &over) ? int_val(n) : str_val(part));
            i++;
            if (i < name->n && name->p[i] != '.' && name->p[i] != '[')
                fail(e, "Only '.' or '[' may follow ']' in format field specifier");
        }
    }
    return v;
}

static void put_format(sb *out, fmt_state *st, str *f, int depth);

static void put_field(sb *out, fmt_state *st, str *field, int depth) {
    env *e = st->e;
    size_t i = 0, brackets = 0;
    while (i < field->n && ((field->p[i] != '!' && field->p[i] != ':') || brackets)) {
        brackets += field->p[i] == '[';
        if (field->p[i] == ']' && brackets) brackets--;
        i++;
    }
    str *name = str_sub(e, field, 0, i);
    char conv = 0;
    if (i < field->n && field->p[i] == '!') {
        if (i + 1 >= field->n) fail(e, "end of string while looking for conversion specifier");
        conv = field->p[i + 1];
        i += 2;
        if (i < field->n && field->p[i] != ':') fail(e, "expected ':' after conversion specifier");
    }
    val v = field_value(st, name);
    if (conv == 'r' || conv == 'a')
        v = str_val(val_repr(e, v));
    else if (conv == 's')
        v = str_val(val_str(e, v));
    else if (conv)
        fail(e, "Unknown conversion specifier '%c'", conv < 32 || conv > 126 ? '?' : conv);
    sb spec = sb_new(e);
    if (i < field->n) put_format(&spec, st, str_sub(e, field, i + 1, field->n), depth + 1);
    format_value(out, v, sb_done(&spec));
}

static void put_format(sb *out, fmt_state *st, str *f, int depth) {
    env *e = st->e;
    if (depth > 1) {
        if (memchr(f->p, '{', f->n)) fail(e, "Max string recursion exceeded");
    }
    for (size_t i = 0; i < f->n;) {
        char c = f->p[i];
        env_step(e, 1);
        if (c != '{' && c != '}') {
            size_t b = i;
            while (i < f->n && f->p[i] != '{' && f->p[i] != '}') i++;
            sb_sub(out, f, b, i);
            continue;
        }
        if (depth == 0 && i + 1 < f->n && f->p[i + 1] == c) {
            sb_sub(out, f, i, i + 1);
            i += 2;
            continue;
        }
        if (c == '}') fail(e, "Single '}' encountered in format string");
        size_t b = ++i, open = 1;
        while (i < f->n && open) {
            open += f->p[i] == '{';
            open -= f->p[i] == '}';
            i++;
        }
        if (open)
            fail(e,
                 b >= f->n ? "Single '{' encountered in format string" : "expected '}' before end of string");
        put_field(out, st, str_sub(e, f, b, i - 1), depth);
    }
}

str *format_braces(env *e, str *fmt, const args *a) {
    fmt_state st = {.e = e, .a = a, .map = MISSING_VAL};
    sb out = sb_new(e);
    put_format(&out, &st, fmt, 0);
    return sb_done(&out);
}

val format_map_args(env *e, str *fmt, val mapping) {
    fmt_state st = {.e = e, .map = mapping};
    sb out = sb_new(e);
    put_format(&out, &st, fmt, 0);
    return str_val(sb_done(&out));
}
