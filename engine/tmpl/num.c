/* num.c - arithmetic and number parsing with Python's rules: floor division, string and list repetition, int
 * to float promotion. Integers are 64-bit; a result beyond that is refused. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/tmpl/value.h"

static _Noreturn void overflow(env *e) {
    fail(e, "an integer result does not fit 64 bits");
}

static _Noreturn void bad_operands(env *e, char op, val a, val b) {
    if (a.t == V_UNDEF) fail_undef(e, a);
    if (b.t == V_UNDEF) fail_undef(e, b);
    const char *name = op == 'f' ? "//" : op == 'p' ? "** or pow()" : (char[]){op, 0};
    if (op == '+' && a.t == V_STR) fail(e, "can only concatenate str (not \"%s\") to str", type_name(b));
    fail(e, "unsupported operand type(s) for %s: '%s' and '%s'", name, type_name(a), type_name(b));
}

static val int_power(env *e, int64_t a, int64_t b) {
    if (b < 0) {
        if (a == 0) fail(e, "0.0 cannot be raised to a negative power");
        return float_val(pow((double)a, (double)b));
    }
    int64_t r = 1, x = a;
    while (b > 0) {
        if ((b & 1) && __builtin_mul_overflow(r, x, &r)) overflow(e);
        b >>= 1;
        if (b && __builtin_mul_overflow(x, x, &x)) overflow(e);
    }
    return int_val(r);
}

static val int_op(env *e, char op, int64_t a, int64_t b) {
    int64_t r = 0;
    switch (op) {
    case '+':
        if (__builtin_add_overflow(a, b, &r)) overflow(e);
        return int_val(r);
    case '-':
        if (__builtin_sub_overflow(a, b, &r)) overflow(e);
        return int_val(r);
    case '*':
        if (__builtin_mul_overflow(a, b, &r)) overflow(e);
        return int_val(r);
    case '/':
        if (b == 0) fail(e, "division by zero");
        return float_val((double)a / (double)b);
    case 'f':
    case '%':
        if (b == 0) fail(e, "integer division or modulo by zero");
        if (b == -1) return op == '%' ? int_val(0) : a == INT64_MIN ? (overflow(e), NONE_VAL) : int_val(-a);
        r = a % b;
        if (op == '%') return int_val(r != 0 && (r < 0) != (b < 0) ? r + b : r);
        return int_val(a / b - (r != 0 && (r < 0) != (b < 0)));
    default: return int_power(e, a, b);
    }
}

static double float_mod(double a, double b) {
    double r = fmod(a, b);
    if (r == 0) return copysign(0.0, b);
    return (r < 0) != (b < 0) ? r + b : r;
}

static double float_floordiv(double a, double b) {
    double r = fmod(a, b), q = (a - r) / b;
    if (r != 0 && (r < 0) != (b < 0)) q -= 1;
    if (q == 0) return copysign(0.0, a / b);
    double whole = floor(q);
    return q - whole > 0.5 ? whole + 1 : whole;
}

static val float_op(env *e, char op, double a, double b) {
    switch (op) {
    case '+': return float_val(a + b);
    case '-': return float_val(a - b);
    case '*': return float_val(a * b);
    case '/':
        if (b == 0) fail(e, "float division by zero");
        return float_val(a / b);
    case 'f':
        if (b == 0) fail(e, "float floor division by zero");
        return float_val(float_floordiv(a, b));
    case '%':
        if (b == 0) fail(e, "float modulo by zero");
        return float_val(float_mod(a, b));
    default:
        if (a == 0 && b < 0) fail(e, "0.0 cannot be raised to a negative power");
        if (a < 0 && b != floor(b) && isfinite(a))
            fail(e, "a negative number to a fractional power is complex");
        double r = pow(a, b);
        if (isinf(r) && isfinite(a) && isfinite(b)) fail(e, "numerical result out of range");
        return float_val(r);
    }
}

static val repeat(env *e, val seq, int64_t times) {
    size_t n = times > 0 ? (size_t)times : 0;
    if (seq.t == V_STR) {
        sb b = sb_new(e);
        sb_repeat(&b, seq.s, n);
        return str_val(sb_done(&b));
    }
    list *l = list_new(e, 0);
    env_step(e, seq.l->n ? n : 0);
    for (size_t k = 0; k < n && seq.l->n; k++) {
        env_step(e, seq.l->n);
        for (size_t i = 0; i < seq.l->n; i++) list_push(e, l, seq.l->v[i]);
    }
    return seq.t == V_LIST ? list_val(l) : tuple_val(l);
}

static bool repeatable(val v) {
    return v.t == V_STR || v.t == V_LIST || v.t == V_TUPLE;
}

val num_binary(env *e, char op, val a, val b) {
    if (a.t == V_UNDEF) fail_undef(e, a);
    if (op == '%' && a.t == V_STR) return str_val(format_percent(e, a.s, b));
    if (b.t == V_UNDEF) fail_undef(e, b);
    if (is_intlike(a) && is_intlike(b)) return int_op(e, op, as_int(a), as_int(b));
    if (is_number(a) && is_number(b)) return float_op(e, op, as_float(a), as_float(b));
    if (op == '+') {
        if (a.t == V_STR && b.t == V_STR) {
            str *x = a.s, *y = b.s;
            if (x->markup && !y->markup)
                y = str_html_escape(e, y);
            else if (y->markup && !x->markup)
                x = str_html_escape(e, x);
            return str_val(str_concat(e, x, y));
        }
        if (a.t == b.t && (a.t == V_LIST || a.t == V_TUPLE)) {
            list *l = list_new(e, a.l->n + b.l->n);
            env_step(e, a.l->n + b.l->n);
            for (size_t i = 0; i < a.l->n; i++) list_push(e, l, a.l->v[i]);
            for (size_t i = 0; i < b.l->n; i++) list_push(e, l, b.l->v[i]);
            return a.t == V_LIST ? list_val(l) : tuple_val(l);
        }
    }
    if (op == '*' && repeatable(a) && is_intlike(b)) return repeat(e, a, as_int(b));
    if (op == '*' && repeatable(b) && is_intlike(a)) return repeat(e, b, as_int(a));
    bad_operands(e, op, a, b);
}

val num_neg(env *e, val a) {
    if (a.t == V_FLOAT) return float_val(-a.f);
    if (is_intlike(a)) return int_op(e, '-', 0, as_int(a));
    if (a.t == V_UNDEF) fail_undef(e, a);
    fail(e, "bad operand type for unary -: '%s'", type_name(a));
}

val num_pos(env *e, val a) {
    if (a.t == V_FLOAT) return a;
    if (is_intlike(a)) return int_val(as_int(a));
    if (a.t == V_UNDEF) fail_undef(e, a);
    fail(e, "bad operand type for unary +: '%s'", type_name(a));
}

/* ---- text to numbers ---- */

static str trimmed(const str *s) {
    size_t b = 0, n = s->n;
    uint32_t cp;
    while (b < n) {
        int k = str_char(s, b, &cp);
        if (!uc_space(cp)) break;
        b += (size_t)k;
    }
    while (n > b) {
        size_t at = n - 1;
        while (at > b && ((unsigned char)s->p[at] & 0xC0) == 0x80) at--;
        str_char(s, at, &cp);
        if (!uc_space(cp)) break;
        n = at;
    }
    return (str){.p = s->p + b, .n = n - b};
}

bool parse_int_text(const str *s, int base, int64_t *out, bool *over) {
    str t = trimmed(s);
    const char *p = t.p, *end = t.p + t.n;
    *over = false;
    bool neg = false;
    if (p < end && (*p == '-' || *p == '+')) neg = *p++ == '-';
    int prefix = end - p > 2 && p[0] == '0' ? ((p[1] | 0x20) == 'x'   ? 16
                                               : (p[1] | 0x20) == 'o' ? 8
                                               : (p[1] | 0x20) == 'b' ? 2
                                                                      : 0)
                                            : 0;
    bool leading_zero = false;
    if (prefix && (base == prefix || base == 0)) {
        base = prefix;
        p += 2;
        if (p < end && *p == '_') p++;
    } else if (base == 0) {
        base = 10;
        leading_zero = p < end && *p == '0';
    }
    if (p >= end || base < 2 || base > 36) return false;
    uint64_t v = 0;
    bool last_digit = false;
    for (; p < end; p++) {
        if (*p == '_' && last_digit && p + 1 < end) {
            last_digit = false;
            continue;
        }
        char c = *p | 0x20;
        int d = *p >= '0' && *p <= '9' ? *p - '0' : c >= 'a' && c <= 'z' ? c - 'a' + 10 : 99;
        if (d >= base) return false;
        if (__builtin_mul_overflow(v, (uint64_t)base, &v) || __builtin_add_overflow(v, (uint64_t)d, &v))
            *over = true;
        last_digit = true;
    }
    if (leading_zero && v != 0) return false;
    if (!last_digit) return false;
    if (*over || v > (uint64_t)INT64_MAX + neg) {
        *over = true;
        return false;
    }
    *out = neg ? (int64_t)(0 - v) : (int64_t)v;
    return true;
}

bool parse_float_text(env *e, const str *s, double *out) {
    str t = trimmed(s);
    char *z = env_alloc(e, t.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < t.n; i++) {
        char c = t.p[i];
        if (c == '_') {
            bool ok = i > 0 && i + 1 < t.n && t.p[i - 1] >= '0' && t.p[i - 1] <= '9' && t.p[i + 1] >= '0' &&
                      t.p[i + 1] <= '9';
            if (!ok) return false;
            continue;
        }
        if (c == 'x' || c == 'X' || c == '(' || c == 0) return false; /* strtod would take hex and nan(...) */
        z[n++] = c;
    }
    z[n] = 0;
    if (n == 0) return false;
    char *end;
    *out = strtod(z, &end);
    return end == z + n && (unsigned char)z[0] > ' ';
}

val float_to_int(env *e, double f) {
    if (isnan(f)) fail(e, "cannot convert float NaN to integer");
    if (isinf(f)) fail(e, "cannot convert float infinity to integer");
    double t = trunc(f);
    if (t >= 9223372036854775808.0 || t < -9223372036854775808.0) overflow(e);
    return int_val((int64_t)t);
}

/* round(v, digits): to even, judged on the exact value, as Python does by printing and reading back. */
val num_round(env *e, val v, int64_t digits, bool has_digits) {
    if (is_intlike(v)) {
        if (!has_digits || digits >= 0) return int_val(as_int(v));
        if (digits < -18) return int_val(0);
        int64_t m = 1, x = as_int(v);
        for (int64_t i = digits; i < 0; i++) m *= 10;
        int64_t r = x % m;
        if (r < 0) r += m;
        int64_t base, up = r * 2 > m || (r * 2 == m && ((x - r) / m) % 2 != 0);
        if (r > INT64_MAX / 2) up = 1;
        if (__builtin_sub_overflow(x, r, &base) || __builtin_add_overflow(base, up ? m : 0, &base))
            overflow(e);
        return int_val(base);
    }
    if (v.t != V_FLOAT) {
        if (v.t == V_UNDEF) fail(e, "type Undefined doesn't define __round__ method");
        fail(e, "type %s doesn't define __round__ method", type_name(v));
    }
    if (!has_digits) return float_to_int(e, nearbyint(v.f));
    if (!isfinite(v.f) || digits > 323) return v;
    if (digits < -308) return float_val(copysign(0.0, v.f));
    if (digits >= 0) {
        char *t = env_alloc(e, 800);
        snprintf(t, 800, "%.*f", (int)digits, v.f);
        return float_val(strtod(t, NULL));
    }
    double m = pow(10, (double)-digits);
    return float_val(nearbyint(v.f / m) * m);
}
