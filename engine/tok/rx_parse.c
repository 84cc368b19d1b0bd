/* rx_parse.c - recursive descent over Oniguruma's Ruby syntax (its doc/RE). One thread; owns what rx_parsed
 * owns. */
#include "engine/tok/rx_parse.h"

#include <stdio.h>
#include <string.h>

#define DEPTH_MAX   100
#define SETS_MAX    2000
#define PATTERN_MAX 65536

typedef struct parser {
    const char *s;
    size_t n, at;
    rx_parsed *p;
    status *st;
    int depth;
    bool icase, dotall, extended;
} parser;

static bool parse_alternatives(parser *ps, bool in_group);

void rx_parsed_fini(rx_parsed *p) {
    for (size_t i = 0; i < p->n; i++) uset_fini(&p->sets[i]);
    mem_free(p->sets);
    buf_fini(&p->out);
    *p = (rx_parsed){0};
}

static bool bad(parser *ps, const char *what) {
    return status_set(ps->st, ST_INVALID, "regular expression: %s at byte %zu of '%.200s'", what, ps->at,
                      ps->s);
}

static bool unsupported(parser *ps, const char *what) {
    return status_set(ps->st, ST_UNSUPPORTED, "regular expression: %s is not built (byte %zu of '%.200s')",
                      what, ps->at, ps->s);
}

static bool no_memory(parser *ps) {
    return status_set(ps->st, ST_NO_MEMORY, "no memory for a pattern");
}

static bool emit(parser *ps, const char *s) {
    return buf_puts(&ps->p->out, s) || no_memory(ps);
}

/* Takes over s's ranges. */
static bool emit_set(parser *ps, uset *s) {
    rx_parsed *p = ps->p;
    uset_tidy(s);
    if (s->failed) {
        uset_fini(s);
        return no_memory(ps);
    }
    size_t i = 0;
    while (i < p->n &&
           !(p->sets[i].n == s->n && (s->n == 0 || memcmp(p->sets[i].v, s->v, s->n * sizeof *s->v) == 0)))
        i++;
    if (i < p->n) {
        uset_fini(s);
    } else {
        if (p->n == SETS_MAX) {
            uset_fini(s);
            return unsupported(ps, "a pattern with so many different characters and classes");
        }
        if (p->n == p->cap) {
            size_t cap = p->cap ? 2 * p->cap : 16;
            void *q = mem_realloc(p->sets, cap * sizeof *p->sets);
            if (!q) {
                uset_fini(s);
                return no_memory(ps);
            }
            p->sets = q;
            p->cap = cap;
        }
        p->sets[p->n++] = *s;
        *s = (uset){0};
    }
    char code[3] = {RX_SET, (char)(i & 255), (char)(i >> 8)};
    return buf_append(&p->out, code, 3) || no_memory(ps);
}

static bool emit_char(parser *ps, uint32_t cp) {
    uset s = {0};
    if (cp <= CP_MAX) uset_add(&s, cp, cp);
    if (ps->icase) uset_fold(&s);
    return emit_set(ps, &s);
}

static bool emit_property(parser *ps, const char *name, bool invert) {
    uset s = {0};
    uset_add_property(&s, name, strlen(name));
    if (invert) uset_invert(&s);
    return emit_set(ps, &s);
}

/* A set of single characters that a C string lists. */
static bool emit_chars(parser *ps, const char *chars, bool invert) {
    uset s = {0};
    for (; *chars; chars++) uset_add(&s, (unsigned char)*chars, (unsigned char)*chars);
    if (invert) uset_invert(&s);
    return emit_set(ps, &s);
}

static bool more(const parser *ps) {
    return ps->at < ps->n;
}
static char peek(const parser *ps, size_t ahead) {
    return ps->at + ahead < ps->n ? ps->s[ps->at + ahead] : 0;
}

static bool take_char(parser *ps, uint32_t *cp) {
    int k = utf8_decode(ps->s + ps->at, ps->n - ps->at, cp);
    if (!k) return bad(ps, "not UTF-8");
    ps->at += (size_t)k;
    return true;
}

static int hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 32;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Up to max hex digits at the cursor; -1 when there is none. */
static int64_t take_hex(parser *ps, int max) {
    int64_t v = -1;
    for (int i = 0; i < max && more(ps) && hex(peek(ps, 0)) >= 0; i++, ps->at++)
        v = (v < 0 ? 0 : v) * 16 + hex(peek(ps, 0));
    return v;
}

/* \p{name}, \p{^name}; the cursor is at the brace (without one, \p is a p). */
static bool take_property(parser *ps, bool invert, uset *s) {
    const char *name = ps->s + ps->at + 1, *end = memchr(name, '}', ps->n - ps->at - 1);
    if (!end) return bad(ps, "\\p{ without }");
    size_t len = (size_t)(end - name);
    ps->at += len + 2;
    if (len && *name == '^') {
        invert = !invert;
        name++;
        len--;
    }
    uset one = {0};
    if (!uset_add_property(&one, name, len)) {
        uset_fini(&one);
        return status_set(ps->st, ST_UNSUPPORTED, "regular expression: unknown character property '%.*s'",
                          (int)(len < 60 ? len : 60), name);
    }
    if (invert) uset_invert(&one);
    uset_add_all(s, &one);
    uset_fini(&one);
    return true;
}

/* The escapes that mean a set in and out of brackets. 1: taken, 0: not such an escape, -1: error. */
static int take_set_escape(parser *ps, char c, bool bracket, uset *s) {
    static const struct {
        char c;
        const char *name;
    } props[] = {{'w', "escw"}, {'s', "escs"}, {'d', "escd"}, {'h', "esch"}};
    if ((c == 'p' || c == 'P') && peek(ps, 0) == '{') return take_property(ps, c == 'P', s) ? 1 : -1;
    for (size_t i = 0; i < ARRAY_LEN(props); i++) {
        if ((c | 32) != props[i].c) continue;
        uset one = {0};
        /* Out of brackets \w takes six Latin-1 signs (as U+00B2) that it does not take inside. */
        const char *name = bracket && props[i].c == 'w' ? "posixword" : props[i].name;
        uset_add_property(&one, name, strlen(name));
        if (c < 'a') uset_invert(&one);
        uset_add_all(s, &one);
        uset_fini(&one);
        return 1;
    }
    return 0;
}

/* The escapes that mean one character; the cursor is behind c, the character after the backslash. */
static bool take_char_escape(parser *ps, char c, uint32_t *cp) {
    int64_t v;
    switch (c) {
    case 't': *cp = '\t'; return true;
    case 'n': *cp = '\n'; return true;
    case 'r': *cp = '\r'; return true;
    case 'f': *cp = '\f'; return true;
    case 'v': *cp = '\v'; return true;
    case 'a': *cp = 7; return true;
    case 'e': *cp = 27; return true;
    case 'x':
        if (peek(ps, 0) == '{') {
            ps->at++;
            v = take_hex(ps, 8);
            if (v < 0 || peek(ps, 0) != '}') return bad(ps, "malformed \\x{...}");
            ps->at++;
        } else {
            v = take_hex(ps, 2);
            if (v < 0) v = 0;
            if (v >= 0x80) { /* bytes of one UTF-8 character, each as \x.. */
                char bytes[4] = {(char)v};
                size_t k = 1;
                uint32_t got;
                while (k < 4 && !utf8_decode(bytes, k, &got) && peek(ps, 0) == '\\' && peek(ps, 1) == 'x') {
                    ps->at += 2;
                    int64_t b = take_hex(ps, 2);
                    if (b < 0x80) break;
                    bytes[k++] = (char)b;
                }
                if (utf8_decode(bytes, k, &got) != (int)k) return bad(ps, "\\x bytes that are not UTF-8");
                *cp = got;
                return true;
            }
        }
        break;
    case 'u':
        v = take_hex(ps, 4);
        if (v < 0) return bad(ps, "malformed \\u");
        break;
    case 'c':
        if (!more(ps)) return bad(ps, "malformed \\c");
        v = peek(ps, 0) == '?' ? 127 : peek(ps, 0) & 0x1F;
        ps->at++;
        break;
    case 'C':
    case 'M': return unsupported(ps, "\\C- and \\M-");
    default:
        if (c >= '0' && c <= '7') {
            v = c - '0';
            for (int i = 0; i < 2 && peek(ps, 0) >= '0' && peek(ps, 0) <= '7'; i++)
                v = v * 8 + (ps->s[ps->at++] - '0');
            break;
        }
        ps->at--; /* anything else stands for itself */
        return take_char(ps, cp);
    }
    if (v > 0x7FFFFFFF || (v >= 0xD800 && v <= 0xDFFF)) return bad(ps, "no such character");
    *cp = (uint32_t)v; /* above CP_MAX: allowed, and never met */
    return true;
}

/* [[:name:]]: 1 taken, 0 not one, -1 error; the cursor is at the inner '['. */
static int take_posix(parser *ps, uset *s) {
    static const char *const names[] = {"alnum", "alpha", "blank", "cntrl", "digit",  "graph", "lower",
                                        "print", "punct", "space", "upper", "xdigit", "word",  "ascii"};
    size_t at = ps->at + 2;
    bool invert = at < ps->n && ps->s[at] == '^';
    at += invert;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        size_t len = strlen(names[i]);
        if (at + len + 2 > ps->n || memcmp(ps->s + at, names[i], len) != 0 ||
            memcmp(ps->s + at + len, ":]", 2) != 0)
            continue;
        char key[16] = "posix";
        memcpy(key + 5, names[i], len + 1);
        uset one = {0};
        uset_add_property(&one, key, strlen(key));
        if (invert) uset_invert(&one);
        uset_add_all(s, &one);
        uset_fini(&one);
        ps->at = at + len + 2;
        return 1;
    }
    return 0;
}

/* A bracket class; the cursor is behind '['. Only the outermost is folded, before it is inverted. */
static bool parse_class(parser *ps, uset *out, bool outermost) {
    if (++ps->depth > DEPTH_MAX) return unsupported(ps, "nesting this deep");
    bool invert = peek(ps, 0) == '^', have_and = false, first = true, closed = false;
    ps->at += invert;
    uset cur = {0}, both = {0};
    while (more(ps)) {
        char c = peek(ps, 0);
        if (c == ']' && !first) {
            ps->at++;
            closed = true;
            break;
        }
        first = false;
        if (c == '&' && peek(ps, 1) == '&') {
            ps->at += 2;
            uset_tidy(&cur);
            if (have_and) {
                uset_intersect(&both, &cur);
                uset_fini(&cur);
            } else {
                both = cur;
            }
            cur = (uset){0};
            have_and = true;
            continue;
        }
        if (c == '[') {
            int k = peek(ps, 1) == ':' ? take_posix(ps, &cur) : 0;
            if (k < 0) goto fail;
            if (k) continue;
            ps->at++;
            uset inner = {0};
            bool ok = parse_class(ps, &inner, false);
            if (ok) uset_add_all(&cur, &inner);
            uset_fini(&inner);
            if (!ok) goto fail;
            continue;
        }
        uint32_t lo, hi;
        if (c == '\\') {
            if (ps->at + 1 >= ps->n) break;
            char e = peek(ps, 1);
            ps->at += 2;
            int k = take_set_escape(ps, e, true, &cur);
            if (k < 0) goto fail;
            if (k) {
                if (peek(ps, 0) == '-' && peek(ps, 1) != ']' && peek(ps, 1) != 0) {
                    bad(ps, "a range that starts with a class");
                    goto fail;
                }
                continue;
            }
            if (e == 'b')
                lo = 8;
            else if (e == 'R' || e == 'X')
                lo = (uint32_t)e;
            else if (!take_char_escape(ps, e, &lo))
                goto fail;
        } else if (!take_char(ps, &lo)) {
            goto fail;
        }
        hi = lo;
        if (peek(ps, 0) == '-' && ps->at + 1 < ps->n && peek(ps, 1) != ']' &&
            !(peek(ps, 1) == '&' && peek(ps, 2) == '&')) {
            size_t dash = ps->at++;
            if (peek(ps, 0) == '[') {
                ps->at = dash + 1; /* "a-[b]": the dash is itself */
                uset_add(&cur, '-', '-');
            } else if (peek(ps, 0) == '\\') {
                char e = peek(ps, 1);
                ps->at += 2;
                uset probe = {0};
                int k = ps->at <= ps->n ? take_set_escape(ps, e, true, &probe) : -1;
                uset_fini(&probe);
                if (k) {
                    bad(ps, "a range that ends with a class");
                    goto fail;
                }
                if (e == 'b')
                    hi = 8;
                else if (!take_char_escape(ps, e, &hi))
                    goto fail;
            } else if (!take_char(ps, &hi)) {
                goto fail;
            }
        }
        if (hi < lo) {
            bad(ps, "a range in reverse order");
            goto fail;
        }
        if (lo <= CP_MAX) uset_add(&cur, lo, hi < CP_MAX ? hi : CP_MAX);
    }
    if (!closed) {
        bad(ps, "[ without ]");
        goto fail;
    }
    uset_tidy(&cur);
    if (have_and) {
        uset_intersect(&both, &cur);
        uset_fini(&cur);
        cur = both;
    }
    if (outermost && ps->icase) uset_fold(&cur);
    if (invert) uset_invert(&cur);
    uset_fini(out);
    *out = cur;
    ps->depth--;
    return true;
fail:
    uset_fini(&cur);
    uset_fini(&both);
    return false;
}

static bool emit_word_edge(parser *ps, bool inside) {
    /* An edge lies where exactly one side is a word character. */
    const char *a = inside ? "(?:(?<=" : "(?:(?<=";
    return emit(ps, a) && emit_property(ps, "escw", false) && emit(ps, inside ? ")(?=" : ")(?!") &&
           emit_property(ps, "escw", false) && emit(ps, ")|(?<!") && emit_property(ps, "escw", false) &&
           emit(ps, inside ? ")(?!" : ")(?=") && emit_property(ps, "escw", false) && emit(ps, "))");
}

static bool parse_escape(parser *ps, bool *repeatable) {
    if (ps->at + 1 >= ps->n) return bad(ps, "a backslash at the end");
    char c = peek(ps, 1);
    ps->at += 2;
    uset s = {0};
    int k = take_set_escape(ps, c, false, &s);
    if (k < 0) {
        uset_fini(&s);
        return false;
    }
    if (k) return emit_set(ps, &s); /* (?i) does not fold a property outside brackets */
    switch (c) {
    case 'A': *repeatable = false; return emit(ps, "\\A");
    case 'z': *repeatable = false; return emit(ps, "\\z");
    case 'Z': *repeatable = false; return emit(ps, "(?=") && emit_chars(ps, "\n", false) && emit(ps, "?\\z)");
    case 'G': *repeatable = false; return emit(ps, "\\G");
    case 'K': *repeatable = false; return emit(ps, "\\K");
    case 'b': *repeatable = false; return emit_word_edge(ps, false);
    case 'B': *repeatable = false; return emit_word_edge(ps, true);
    case 'N': return emit_chars(ps, "\n", true);
    case 'O': return emit_chars(ps, "", true);
    case 'R': {
        uset nl = {0};
        uset_add(&nl, 10, 13);
        uset_add(&nl, 0x85, 0x85);
        uset_add(&nl, 0x2028, 0x2029);
        return emit(ps, "(?>") && emit_chars(ps, "\r", false) && emit_chars(ps, "\n", false) &&
               emit(ps, "|") && emit_set(ps, &nl) && emit(ps, ")");
    }
    case 'X': return unsupported(ps, "\\X");
    case 'y':
    case 'Y': return unsupported(ps, "\\y");
    case 'k': return unsupported(ps, "a back-reference");
    case 'g': {
        const char *end = memchr(ps->s + ps->at, '>', ps->n - ps->at);
        if (peek(ps, 0) != '<' || !end) return bad(ps, "malformed \\g<name>");
        char d = peek(ps, 1);
        if ((d >= '0' && d <= '9') || d == '-' || d == '+') return unsupported(ps, "\\g with a number");
        for (const char *q = ps->s + ps->at + 1; q < end; q++)
            if (!(*q == '_' || (*q >= '0' && *q <= '9') || ((*q | 32) >= 'a' && (*q | 32) <= 'z')))
                return unsupported(ps, "such a group name");
        bool ok =
            emit(ps, "(?:\\g") &&
            (buf_append(&ps->p->out, ps->s + ps->at, (size_t)(end + 1 - ps->s) - ps->at) || no_memory(ps));
        ps->at = (size_t)(end + 1 - ps->s);
        return ok && emit(ps, ")");
    }
    default: break;
    }
    if (c >= '1' && c <= '9') {
        /* Oniguruma: a number up to the count of groups (or below 10) refers back, else octal. */
        if (c >= '8' || !(peek(ps, 0) >= '0' && peek(ps, 0) <= '7'))
            return unsupported(ps, "a back-reference");
    }
    uint32_t cp;
    return take_char_escape(ps, c, &cp) && emit_char(ps, cp);
}

/* (?imx-imx) and (?imx-imx:...); the cursor is behind "(?". */
static bool parse_options(parser *ps) {
    bool on = true, icase = ps->icase, dotall = ps->dotall, extended = ps->extended;
    bool was_icase = icase, was_dotall = dotall, was_extended = extended;
    for (;; ps->at++) {
        char c = peek(ps, 0);
        if (c == '-')
            on = false;
        else if (c == 'i')
            icase = on;
        else if (c == 'm')
            dotall = on;
        else if (c == 'x')
            extended = on;
        else if (c == ':' || c == ')')
            break;
        else
            return more(ps) ? unsupported(ps, "this kind of group") : bad(ps, "( without )");
    }
    bool colon = peek(ps, 0) == ':';
    ps->at++;
    ps->icase = icase;
    ps->dotall = dotall;
    ps->extended = extended;
    if (!emit(ps, "(?:") || !parse_alternatives(ps, true)) return false;
    ps->icase = was_icase;
    ps->dotall = was_dotall;
    ps->extended = was_extended;
    /* Without a colon the options hold to the end of the enclosing group, alternatives and all: its ')'
     * stays. */
    if (colon) {
        if (peek(ps, 0) != ')') return bad(ps, "( without )");
        ps->at++;
    }
    return emit(ps, ")");
}

static bool parse_group(parser *ps, bool *repeatable) {
    ps->at++;
    if (peek(ps, 0) == '?') {
        ps->at++;
        char c = peek(ps, 0), d = peek(ps, 1);
        if (c == '#') {
            const char *end = memchr(ps->s + ps->at, ')', ps->n - ps->at);
            if (!end) return bad(ps, "a comment without end");
            ps->at = (size_t)(end + 1 - ps->s);
            *repeatable = false;
            return true;
        }
        if (c == ':' || c == '=' || c == '!' || c == '>') {
            char open[4] = {'(', '?', c, 0};
            ps->at++;
            if (!emit(ps, open)) return false;
        } else if (c == '<' && (d == '=' || d == '!')) {
            char open[5] = {'(', '?', '<', d, 0};
            ps->at += 2;
            if (!emit(ps, open)) return false;
        } else if (c == '<' || c == '\'') {
            char close = c == '<' ? '>' : '\'';
            size_t from = ++ps->at;
            while (more(ps) && peek(ps, 0) != close) {
                char x = peek(ps, 0);
                if (!(x == '_' || (x >= '0' && x <= '9') || ((x | 32) >= 'a' && (x | 32) <= 'z')))
                    return unsupported(ps, "such a group name");
                ps->at++;
            }
            if (!more(ps) || ps->at == from || ps->at - from > 32) return bad(ps, "malformed group name");
            if (!emit(ps, "(?<") ||
                !(buf_append(&ps->p->out, ps->s + from, ps->at - from) || no_memory(ps)) || !emit(ps, ">"))
                return false;
            ps->at++;
        } else {
            return parse_options(ps);
        }
    } else if (!emit(ps, "(?:")) {
        return false;
    }
    bool icase = ps->icase, dotall = ps->dotall, extended = ps->extended;
    if (!parse_alternatives(ps, true)) return false;
    ps->icase = icase;
    ps->dotall = dotall;
    ps->extended = extended;
    if (peek(ps, 0) != ')') return bad(ps, "( without )");
    ps->at++;
    return emit(ps, ")");
}

/* "{n,m}" at the cursor, else false and the brace is itself. */
static bool take_interval(parser *ps, long *lo, long *hi) {
    size_t at = ps->at + 1;
    long v[2] = {-1, -1};
    int k = 0;
    for (; at < ps->n; at++) {
        char c = ps->s[at];
        if (c >= '0' && c <= '9') {
            v[k] = (v[k] < 0 ? 0 : v[k]) * 10 + (c - '0');
            if (v[k] > 100000) return false;
        } else if (c == ',' && k == 0) {
            k = 1;
        } else {
            break;
        }
    }
    if (at >= ps->n || ps->s[at] != '}' || (v[0] < 0 && v[1] < 0)) return false;
    *lo = v[0] < 0 ? 0 : v[0];
    *hi = k == 0 ? v[0] : v[1];
    ps->at = at + 1;
    return true;
}

/* Wraps what was written from mark on into a group of its own. */
static bool wrap(parser *ps, size_t mark) {
    buf *b = &ps->p->out;
    if (!buf_reserve(b, 4)) return no_memory(ps);
    memmove(b->data + mark + 3, b->data + mark, b->len - mark);
    memcpy(b->data + mark, "(?:", 3);
    b->len += 3;
    return emit(ps, ")");
}

static bool parse_quantifiers(parser *ps, size_t mark, bool repeatable) {
    for (int count = 0;; count++) {
        char c = peek(ps, 0), op[48];
        long lo, hi;
        bool optional = false;
        if (c == '{') {
            if (!take_interval(ps, &lo, &hi)) return true;
            if (hi >= 0 && hi < lo) { /* Ruby takes {5,2} as possessive {2,5} */
                long t = lo;
                lo = hi;
                hi = t;
                snprintf(op, sizeof op, "{%ld,%ld}+", lo, hi);
            } else if (hi < 0) {
                snprintf(op, sizeof op, "{%ld,}", lo);
            } else {
                snprintf(op, sizeof op, "{%ld,%ld}", lo, hi);
            }
            if (peek(ps, 0) == '?') {
                ps->at++;
                if (lo == hi)
                    optional = true; /* X{n}? is (X{n})? */
                else
                    strcat(op, "?");
            }
        } else if (c == '*' || c == '+' || c == '?') {
            size_t k = 0;
            op[k++] = c;
            ps->at++;
            if (peek(ps, 0) == '?' || peek(ps, 0) == '+') op[k++] = ps->s[ps->at++];
            op[k] = 0;
        } else {
            return true;
        }
        if (!repeatable) return bad(ps, "nothing to repeat");
        if (count >= 8) return unsupported(ps, "so many repeats in a row");
        if (count > 0 && !wrap(ps, mark)) return false;
        if (!emit(ps, op)) return false;
        if (optional && (!wrap(ps, mark) || !emit(ps, "?"))) return false;
    }
}

static bool parse_alternatives(parser *ps, bool in_group) {
    if (++ps->depth > DEPTH_MAX) return unsupported(ps, "nesting this deep");
    while (more(ps)) {
        char c = peek(ps, 0);
        if (c == ')') {
            if (!in_group) return bad(ps, ") without (");
            break;
        }
        if (c == '|') {
            ps->at++;
            if (!emit(ps, "|")) return false;
            continue;
        }
        if (ps->extended && (c == ' ' || (c >= '\t' && c <= '\r'))) {
            ps->at++;
            continue;
        }
        if (ps->extended && c == '#') {
            while (more(ps) && peek(ps, 0) != '\n') ps->at++;
            continue;
        }
        size_t mark = ps->p->out.len;
        bool repeatable = true, ok;
        if (c == '\\') {
            ok = parse_escape(ps, &repeatable);
        } else if (c == '(') {
            ok = parse_group(ps, &repeatable);
        } else if (c == '[') {
            uset s = {0};
            ps->at++;
            ok = parse_class(ps, &s, true);
            if (ok)
                ok = emit_set(ps, &s);
            else
                uset_fini(&s);
        } else if (c == '.') {
            ps->at++;
            ok = ps->dotall ? emit_chars(ps, "", true) : emit_chars(ps, "\n", true);
        } else if (c == '^') { /* after a newline, but not at the very end */
            ps->at++;
            repeatable = false;
            ok = emit(ps, "(?:\\A|(?<=") && emit_chars(ps, "\n", false) && emit(ps, ")(?!\\z))");
        } else if (c == '$') {
            ps->at++;
            repeatable = false;
            ok = emit(ps, "(?=") && emit_chars(ps, "\n", false) && emit(ps, "|\\z)");
        } else if (c == '*' || c == '+' || c == '?') {
            return bad(ps, "nothing to repeat");
        } else {
            uint32_t cp;
            ok = take_char(ps, &cp) && emit_char(ps, cp);
        }
        if (!ok) return false;
        if (ps->p->out.len > mark && !parse_quantifiers(ps, mark, repeatable)) return false;
    }
    ps->depth--;
    return true;
}

bool rx_parse(const char *pattern, size_t n, rx_parsed *p, status *st) {
    if (n > PATTERN_MAX) return status_set(st, ST_UNSUPPORTED, "regular expression of %zu bytes", n);
    parser ps = {.s = pattern, .n = n, .p = p, .st = st};
    return parse_alternatives(&ps, false);
}
