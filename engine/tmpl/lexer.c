/* lexer.c - a template's text into tokens, with Jinja's whitespace control: trim_blocks and lstrip_blocks are
 * on, one trailing newline of the template is dropped, "-" strips and "+" keeps. Memory is the env's. Source:
 * Jinja 3.1's lexer rules. */
#include <stdlib.h>
#include <string.h>

#include "engine/tmpl/ast.h"

#define MAX_BALANCE 1000

typedef struct lexer {
    env *e;
    const char *p;
    size_t n, at;
    int line;
    bool line_starting;
    token *t;
    size_t n_t, cap_t;
    char balance[MAX_BALANCE];
    int n_balance;
} lexer;

static token *emit(lexer *x, token_type type) {
    if (x->n_t == x->cap_t) {
        size_t cap = x->cap_t ? 2 * x->cap_t : 256;
        token *t = env_array(x->e, cap, sizeof *t);
        if (x->n_t) memcpy(t, x->t, x->n_t * sizeof *t);
        x->t = t;
        x->cap_t = cap;
    }
    token *t = &x->t[x->n_t++];
    *t = (token){.type = type, .line = x->line};
    return t;
}

static _Noreturn void lex_fail(lexer *x, const char *what) {
    x->e->line = x->line;
    fail(x->e, "%s", what);
}

/* Moves on to byte `to`, counting lines. */
static void advance(lexer *x, size_t to) {
    if (to > x->at) x->line_starting = x->p[to - 1] == '\n';
    for (; x->at < to; x->at++) x->line += x->p[x->at] == '\n';
}

static bool starts(const lexer *x, size_t i, const char *z) {
    size_t k = strlen(z);
    return x->n - i >= k && memcmp(x->p + i, z, k) == 0;
}

static size_t skip_space(const lexer *x, size_t i) {
    str all = {.p = x->p, .n = x->n};
    uint32_t cp;
    while (i < x->n) {
        int k = str_char(&all, i, &cp);
        if (!uc_space(cp)) break;
        i += (size_t)k;
    }
    return i;
}

/* End of the tag end at i ("-%}" strips what follows, "%}" takes one newline, "+%}" keeps it); 0 if none is
 * there. */
static size_t tag_end(const lexer *x, size_t i, const char *close, bool trim) {
    if (i < x->n && x->p[i] == '-' && starts(x, i + 1, close)) return skip_space(x, i + 3);
    if (trim && i < x->n && x->p[i] == '+' && starts(x, i + 1, close)) return i + 3;
    if (!starts(x, i, close)) return 0;
    i += 2;
    return trim && i < x->n && x->p[i] == '\n' ? i + 1 : i;
}

/* "{%- raw -%}" at i: the end of the tag, or 0. word is raw or endraw. */
static size_t raw_tag(const lexer *x, size_t i, const char *word, char *sign) {
    if (!starts(x, i, "{%")) return 0;
    i += 2;
    *sign = 0;
    if (i < x->n && (x->p[i] == '-' || x->p[i] == '+')) *sign = x->p[i++];
    i = skip_space(x, i);
    if (!starts(x, i, word)) return 0;
    i = skip_space(x, i + strlen(word));
    if (word[0] == 'e') return tag_end(x, i, "%}", true);
    if (starts(x, i, "-%}")) return skip_space(x, i + 3);
    return starts(x, i, "%}") ? i + 2 : 0;
}

/* Text before a tag: [x->at, end), shortened as the tag's sign says. */
static void emit_data(lexer *x, size_t end, char sign, bool is_variable) {
    size_t b = x->at, n = end;
    if (sign == '-') {
        str part = {.p = x->p + b, .n = end - b, .n_cp = SIZE_MAX};
        n = b + str_strip(x->e, &part, NULL, false, true)->n;
    } else if (sign != '+' && !is_variable) {
        size_t l = end;
        while (l > b && x->p[l - 1] != '\n') l--;
        if ((l > b || x->line_starting) && l < end && skip_space(x, l) >= end) n = l;
    }
    if (n > b) emit(x, T_DATA)->s = str_new(x->e, x->p + b, n - b, false);
    advance(x, end);
}

/* ---- inside a tag ---- */

static bool word_byte(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           (unsigned char)c >= 0x80;
}
static bool digit(char c) {
    return c >= '0' && c <= '9';
}

/* End of (\d+_)*\d+ at i; i when there is none. */
static size_t digits_end(const lexer *x, size_t i) {
    while (i < x->n && (digit(x->p[i]) || (x->p[i] == '_' && i > 0 && digit(x->p[i - 1]) && i + 1 < x->n &&
                                           digit(x->p[i + 1]))))
        i++;
    return i;
}

static size_t based_end(const lexer *x, size_t i, int base) {
    size_t k = i;
    while (k < x->n) {
        size_t d = k + (x->p[k] == '_');
        if (d >= x->n) break;
        char c = x->p[d] | 0x20;
        int v = digit(x->p[d]) ? x->p[d] - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
        if (v >= base) break;
        k = d + 1;
    }
    return k;
}

static void lex_number(lexer *x) {
    size_t b = x->at, i = digits_end(x, b), end = i;
    bool is_float = false;
    if (b == 0 || x->p[b - 1] != '.') {
        if (i + 1 < x->n && x->p[i] == '.' && digit(x->p[i + 1])) {
            is_float = true;
            end = i = digits_end(x, i + 1);
        }
        if (i < x->n && (x->p[i] | 0x20) == 'e') {
            size_t k = i + 1;
            if (k < x->n && (x->p[k] == '+' || x->p[k] == '-')) k++;
            if (k < x->n && digit(x->p[k])) {
                is_float = true;
                end = digits_end(x, k);
            }
        }
    }
    int base = 10;
    if (!is_float && x->p[b] == '0') {
        char c = b + 1 < x->n ? x->p[b + 1] | 0x20 : 0;
        int of = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 0;
        if (of && based_end(x, b + 2, of) > b + 2) {
            base = of;
            end = based_end(x, b + 2, of);
        } else { /* zeros only: 012 is two numbers, which no rule accepts */
            end = b + 1;
            while (end < x->n &&
                   (x->p[end] == '0' || (x->p[end] == '_' && end + 1 < x->n && x->p[end + 1] == '0')))
                end++;
        }
    }
    char text[400];
    size_t n = 0;
    for (size_t k = base == 10 ? b : b + 2; k < end; k++) {
        if (n + 1 >= sizeof text) lex_fail(x, "a number has too many digits");
        if (x->p[k] != '_') text[n++] = x->p[k];
    }
    text[n] = 0;
    token *t = emit(x, is_float ? T_FLOAT : T_INT);
    if (is_float)
        t->f = strtod(text, NULL);
    else {
        str s = {.p = text, .n = n};
        bool overflow = false;
        if (!parse_int_text(&s, base, &t->i, &overflow)) lex_fail(x, "an integer does not fit 64 bits");
    }
    advance(x, end);
}

static int hex_value(const lexer *x, size_t i, int n, uint32_t *out) {
    *out = 0;
    for (int k = 0; k < n; k++) {
        if (i + (size_t)k >= x->n) return 0;
        char c = x->p[i + (size_t)k];
        int v = digit(c) ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : -1;
        if (v < 0) return 0;
        *out = *out << 4 | (uint32_t)v;
    }
    return 1;
}

/* A string literal at x->at with Python's escapes. */
static void lex_string(lexer *x) {
    char quote = x->p[x->at];
    size_t end = x->at + 1;
    while (end < x->n && x->p[end] != quote) end += x->p[end] == '\\' ? 2 : 1;
    if (end >= x->n) lex_fail(x, "a string literal is not closed");
    sb b = sb_new(x->e);
    for (size_t i = x->at + 1; i < end;) {
        if (x->p[i] != '\\') {
            size_t k = i;
            while (k < end && x->p[k] != '\\') k++;
            sb_add(&b, x->p + i, k - i, false);
            i = k;
            continue;
        }
        static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
        char c = x->p[++i];
        const char *hit = c ? strchr(from, c) : NULL;
        uint32_t cp = 0;
        if (hit) {
            sb_add(&b, &to[hit - from], 1, false);
            i++;
        } else if (c == '\n') {
            i++;
        } else if (c >= '0' && c <= '7') {
            for (int k = 0; k < 3 && i < end && x->p[i] >= '0' && x->p[i] <= '7'; k++)
                cp = cp * 8 + (uint32_t)(x->p[i++] - '0');
            sb_cp(&b, cp, false);
        } else if (c == 'x' || c == 'u' || c == 'U') {
            int n = c == 'x' ? 2 : c == 'u' ? 4 : 8;
            if (!hex_value(x, i + 1, n, &cp) || cp > 0x10FFFF)
                lex_fail(x, "a \\x, \\u or \\U escape is cut short");
            i += 1 + (size_t)n;
            uint32_t low;
            if (cp >= 0xD800 && cp < 0xDC00 && starts(x, i, "\\u") && hex_value(x, i + 2, 4, &low) &&
                low >= 0xDC00 && low < 0xE000) {
                cp = 0x10000 + ((cp - 0xD800) << 10) + (low - 0xDC00);
                i += 6;
            }
            if (cp >= 0xD800 && cp < 0xE000) lex_fail(x, "half a surrogate pair in a string literal");
            sb_cp(&b, cp, false);
        } else if (c == 'N') {
            lex_fail(x, "\\N{...} escapes are not supported");
        } else {
            sb_add(&b, "\\", 1, false);
        }
    }
    emit(x, T_STR)->s = sb_done(&b);
    advance(x, end + 1);
}

static void lex_op(lexer *x) {
    static const char two[][3] = {"//", "**", "==", "!=", ">=", "<="};
    char c = x->p[x->at];
    int op = 0;
    for (size_t i = 0; i < ARRAY_LEN(two); i++)
        if (starts(x, x->at, two[i])) op = OP2(two[i][0], two[i][1]);
    if (!op && c && strchr("+-/*%~[](){}><=.:|,;", c)) op = c;
    if (!op) {
        char msg[64] = "unexpected character '";
        uint32_t cp;
        str all = {.p = x->p, .n = x->n};
        strncat(msg, x->p + x->at, (size_t)str_char(&all, x->at, &cp));
        strcat(msg, "' in a tag");
        lex_fail(x, msg);
    }
    if (c == '{' || c == '(' || c == '[') {
        if (x->n_balance == MAX_BALANCE) lex_fail(x, "brackets are nested too deeply");
        x->balance[x->n_balance++] = c == '{' ? '}' : c == '(' ? ')' : ']';
    } else if (c == '}' || c == ')' || c == ']') {
        char msg[64] = "unexpected 'x'";
        msg[12] = c;
        if (x->n_balance == 0) lex_fail(x, msg);
        char want = x->balance[--x->n_balance];
        if (want != c) {
            strcat(msg, ", expected 'y'");
            msg[strlen(msg) - 2] = want;
            lex_fail(x, msg);
        }
    }
    emit(x, T_OP)->op = op;
    advance(x, x->at + (op > 255 ? 2 : 1));
}

/* The inside of {{ }} or {% %}, its end included. */
static void lex_tag(lexer *x, bool variable) {
    x->n_balance = 0;
    while (x->at < x->n) {
        if (x->n_balance == 0) {
            size_t end = tag_end(x, x->at, variable ? "}}" : "%}", !variable);
            if (end) {
                emit(x, variable ? T_VAR_END : T_BLOCK_END);
                advance(x, end);
                return;
            }
        }
        size_t sp = skip_space(x, x->at);
        char c = x->p[x->at];
        if (sp > x->at)
            advance(x, sp);
        else if (digit(c))
            lex_number(x);
        else if (word_byte(c)) {
            size_t i = x->at;
            while (i < x->n && word_byte(x->p[i])) i++;
            emit(x, T_NAME)->s = str_new(x->e, x->p + x->at, i - x->at, false);
            advance(x, i);
        } else if (c == '"' || c == '\'')
            lex_string(x);
        else
            lex_op(x);
    }
}

static void lex_comment(lexer *x, size_t body) {
    str all = {.p = x->p, .n = x->n}, close = {.p = "#}", .n = 2};
    size_t i = str_find(x->e, &all, &close, body, x->n);
    if (i == SIZE_MAX) lex_fail(x, "a comment is not closed (expected #})");
    if (i > body && (x->p[i - 1] == '-' || x->p[i - 1] == '+')) i--;
    advance(x, tag_end(x, i, "#}", true));
}

static void lex_raw(lexer *x, size_t body) {
    char sign;
    advance(x, body);
    for (size_t i = body; i < x->n; i++) {
        if (x->p[i] != '{') continue;
        size_t end = raw_tag(x, i, "endraw", &sign);
        if (!end) continue;
        emit_data(x, i, sign, false);
        advance(x, end);
        return;
    }
    lex_fail(x, "a raw block is not closed (expected {% endraw %})");
}

/* Newlines become \n; one at the very end goes. */
static void normalise(lexer *x, const char *src, size_t n) {
    char *p = env_alloc(x->e, n + 1);
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        if (src[i] == '\r') {
            p[k++] = '\n';
            if (i + 1 < n && src[i + 1] == '\n') i++;
        } else
            p[k++] = src[i];
    }
    if (k && p[k - 1] == '\n') k--;
    p[k] = 0;
    x->p = p;
    x->n = k;
}

token *lex(env *e, const char *src, size_t n) {
    lexer *x = env_alloc(e, sizeof *x);
    *x = (lexer){.e = e, .line = 1, .line_starting = true};
    normalise(x, src, n);
    while (x->at < x->n) {
        size_t i = x->at;
        while (i < x->n && !(x->p[i] == '{' && i + 1 < x->n &&
                             (x->p[i + 1] == '{' || x->p[i + 1] == '%' || x->p[i + 1] == '#')))
            i++;
        if (i >= x->n) {
            emit(x, T_DATA)->s = str_new(e, x->p + x->at, x->n - x->at, false);
            advance(x, x->n);
            break;
        }
        char kind = x->p[i + 1], sign = 0;
        size_t raw_end = raw_tag(x, i, "raw", &sign);
        if (!raw_end) {
            sign = i + 2 < x->n ? x->p[i + 2] : 0;
            if (sign != '-' && sign != '+') sign = 0;
        }
        emit_data(x, i, sign, kind == '{');
        size_t body = i + 2 + (sign != 0);
        if (raw_end)
            lex_raw(x, raw_end);
        else if (kind == '#')
            lex_comment(x, body);
        else {
            emit(x, kind == '{' ? T_VAR_BEGIN : T_BLOCK_BEGIN);
            advance(x, body);
            lex_tag(x, kind == '{');
        }
    }
    emit(x, T_EOF);
    e->line = 0;
    return x->t;
}
