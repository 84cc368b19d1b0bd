/* repr.c - str() and repr() of values, as Python writes them. Text of a user's string stays the user's;
 * quotes, brackets and digits are the template's. Memory is the env's. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/tmpl/value.h"

/* The shortest decimal that reads back as f, laid out as Python's repr does. */
void put_float(sb *b, double f) {
    if (isnan(f)) {
        sb_puts(b, "nan");
        return;
    }
    if (isinf(f)) {
        sb_puts(b, f > 0 ? "inf" : "-inf");
        return;
    }
    char t[40];
    for (int prec = 0; prec <= 16; prec++) {
        snprintf(t, sizeof t, "%.*e", prec, f);
        if (strtod(t, NULL) == f) break;
    }
    char *ep = strchr(t, 'e');
    int exp10 = atoi(ep + 1);
    char digits[24];
    size_t n = 0;
    for (char *q = t; q < ep; q++)
        if (*q >= '0' && *q <= '9') digits[n++] = *q;
    while (n > 1 && digits[n - 1] == '0') n--;
    if (signbit(f)) sb_puts(b, "-");
    if (exp10 < -4 || exp10 >= 16) {
        sb_add(b, digits, 1, false);
        if (n > 1) {
            sb_puts(b, ".");
            sb_add(b, digits + 1, n - 1, false);
        }
        snprintf(t, sizeof t, "e%c%02d", exp10 < 0 ? '-' : '+', abs(exp10));
        sb_puts(b, t);
        return;
    }
    if (exp10 < 0) {
        sb_puts(b, "0.");
        for (int i = -1; i > exp10; i--) sb_puts(b, "0");
        sb_add(b, digits, n, false);
        return;
    }
    size_t whole = (size_t)exp10 + 1;
    for (size_t i = 0; i < whole; i++) sb_add(b, i < n ? &digits[i] : "0", 1, false);
    sb_puts(b, ".");
    if (n > whole)
        sb_add(b, digits + whole, n - whole, false);
    else
        sb_puts(b, "0");
}

static void escape_hex(char to[16], uint32_t cp) {
    snprintf(to, 16, cp < 0x100 ? "\\x%02x" : cp < 0x10000 ? "\\u%04x" : "\\U%08x", cp);
}

static void escape_repr(char to[16], uint32_t cp, int quote) {
    if (cp == (uint32_t)quote || cp == '\\')
        snprintf(to, 16, "\\%c", (int)cp);
    else if (cp == '\n')
        strcpy(to, "\\n");
    else if (cp == '\r')
        strcpy(to, "\\r");
    else if (cp == '\t')
        strcpy(to, "\\t");
    else if (!uc_printable(cp))
        escape_hex(to, cp);
}

static void escape_foreign(char to[16], uint32_t cp, int how) {
    (void)how;
    if (cp >= 0x80) escape_hex(to, cp);
}

str *val_ascii(env *e, val v) {
    sb b = sb_new(e);
    sb_escaped(&b, val_repr(e, v), escape_foreign, 0);
    return sb_done(&b);
}

static void put_str_repr(sb *b, const str *s) {
    bool single = memchr(s->p, '\'', s->n), dbl = memchr(s->p, '"', s->n);
    char quote = single && !dbl ? '"' : '\'';
    if (s->markup) sb_puts(b, "Markup(");
    sb_add(b, &quote, 1, false);
    sb_escaped(b, s, escape_repr, quote);
    sb_add(b, &quote, 1, false);
    if (s->markup) sb_puts(b, ")");
}

static void put_seq(sb *b, const list *l, const char *open, const char *close) {
    sb_puts(b, open);
    for (size_t i = 0; i < l->n; i++) {
        if (i) sb_puts(b, ", ");
        put_repr(b, l->v[i]);
    }
    if (l->n == 1 && open[0] == '(') sb_puts(b, ",");
    sb_puts(b, close);
}

static void put_dict(sb *b, const dict *d) {
    sb_puts(b, "{");
    for (size_t i = 0; i < d->n; i++) {
        if (i) sb_puts(b, ", ");
        put_repr(b, d->e[i].key);
        sb_puts(b, ": ");
        put_repr(b, d->e[i].value);
    }
    sb_puts(b, "}");
}

static void put_view(sb *b, val v) {
    sb_puts(b, type_name(v));
    sb_puts(b, "([");
    const dict *d = v.view->d;
    for (size_t i = 0; i < d->n; i++) {
        if (i) sb_puts(b, ", ");
        if (v.view->kind == VIEW_KEYS)
            put_repr(b, d->e[i].key);
        else if (v.view->kind == VIEW_VALUES)
            put_repr(b, d->e[i].value);
        else
            put_repr(b, tuple2(b->e, d->e[i].key, d->e[i].value));
    }
    sb_puts(b, "])");
}

void put_repr(sb *b, val v) {
    char t[96];
    env_step(b->e, 1);
    env_enter(b->e);
    switch (v.t) {
    case V_UNDEF: sb_puts(b, "Undefined"); break;
    case V_MISSING:
    case V_NONE: sb_puts(b, "None"); break;
    case V_BOOL: sb_puts(b, v.b ? "True" : "False"); break;
    case V_INT:
        snprintf(t, sizeof t, "%lld", (long long)v.i);
        sb_puts(b, t);
        break;
    case V_FLOAT: put_float(b, v.f); break;
    case V_STR: put_str_repr(b, v.s); break;
    case V_LIST: put_seq(b, v.l, "[", "]"); break;
    case V_TUPLE: put_seq(b, v.l, "(", ")"); break;
    case V_DICT: put_dict(b, v.d); break;
    case V_NS:
        sb_puts(b, "<Namespace ");
        put_dict(b, v.d);
        sb_puts(b, ">");
        break;
    case V_RANGE:
        if (v.r->step == 1)
            snprintf(t, sizeof t, "range(%lld, %lld)", (long long)v.r->start, (long long)v.r->stop);
        else
            snprintf(t, sizeof t, "range(%lld, %lld, %lld)", (long long)v.r->start, (long long)v.r->stop,
                     (long long)v.r->step);
        sb_puts(b, t);
        break;
    case V_VIEW: put_view(b, v); break;
    case V_LOOP:
        sb_puts(b, "<LoopContext ");
        put_repr(b, get_attr(b->e, v, str_lit(b->e, "index")));
        sb_puts(b, "/");
        put_repr(b, get_attr(b->e, v, str_lit(b->e, "length")));
        sb_puts(b, ">");
        break;
    default: /* Python prints an address here: nothing a prompt could rely on */
        sb_puts(b, "<");
        sb_puts(b, type_name(v));
        sb_puts(b, ">");
        break;
    }
    env_leave(b->e);
}

void put_str(sb *b, val v) {
    if (v.t == V_STR)
        sb_str(b, v.s);
    else if (v.t != V_UNDEF)
        put_repr(b, v);
}

str *val_str(env *e, val v) {
    if (v.t == V_STR) return v.s;
    sb b = sb_new(e);
    put_str(&b, v);
    return sb_done(&b);
}

str *val_repr(env *e, val v) {
    sb b = sb_new(e);
    put_repr(&b, v);
    return sb_done(&b);
}
