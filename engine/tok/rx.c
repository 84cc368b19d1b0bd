/* rx.c - see rx.h. An rx owns its compiled pattern and table; an rx_work belongs to the caller's thread. */
#include "engine/tok/rx.h"
#include "engine/tok/rx_parse.h"

#include <stdio.h>
#include <string.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define WINDOW        64 /* starts tried in one call of PCRE2, so that the clock is looked at in between */
#define MATCH_LIMIT   1000000 /* PCRE2's own count of steps, for one call */
#define SLOW_S        2.0     /* time that slow searches of one encode may take, */
#define SLOW_S_BYTE   2e-6    /* and more for long texts */
#define JIT_STACK_MAX (8u << 20)

struct rx {
    char *literal; /* plain text: no PCRE2 */
    size_t literal_n;
    pcre2_code *code;
    cpmap map;
    bool windows; /* false when \G ties matches to the start of the search */
};

void rx_free(rx *r) {
    if (!r) return;
    mem_free(r->literal);
    pcre2_code_free(r->code);
    cpmap_fini(&r->map);
    mem_free(r);
}

/* Writes the members of a set as classes: \xHH, or [\xHH\xHH-\xHH]. */
static void write_set(buf *out, const uset *s, const uint32_t *rep, size_t classes) {
    bool has[257] = {false};
    size_t count = 0, last = 0;
    for (size_t k = 0; k < classes; k++)
        if ((has[k] = uset_has(s, rep[k]))) {
            count++;
            last = k;
        }
    if (count == 0) {
        buf_puts(out, "(?:(?!))");
    } else if (count == 1) {
        buf_printf(out, "\\x%02zx", last);
    } else {
        buf_putc(out, '[');
        for (size_t k = 0; k < classes; k++) {
            if (!has[k]) continue;
            size_t e = k;
            while (e + 1 < classes && has[e + 1]) e++;
            buf_printf(out, "\\x%02zx", k);
            if (e > k) buf_printf(out, "-\\x%02zx", e);
            k = e;
        }
        buf_putc(out, ']');
    }
}

static bool compile(rx *r, const char *pattern, size_t n, status *st) {
    rx_parsed p = {0};
    buf text = {0};
    uint32_t rep[256];
    size_t classes = 0;
    bool ok = rx_parse(pattern, n, &p, st) && cpmap_classes(&r->map, p.sets, p.n, rep, &classes, st);
    r->windows = true;
    for (size_t i = 0; ok && i < p.out.len; i++) {
        const char *q = p.out.data + i;
        if (*q == RX_SET) {
            size_t index = (size_t)(unsigned char)q[1] | (size_t)(unsigned char)q[2] << 8;
            write_set(&text, &p.sets[index], rep, classes);
            i += 2;
        } else {
            if (q[0] == '\\' && q[1] == 'G') r->windows = false;
            buf_putc(&text, *q);
        }
    }
    if (ok && text.failed) ok = status_set(st, ST_NO_MEMORY, "no memory for a pattern");
    if (ok) {
        int err;
        PCRE2_SIZE at;
        r->code = pcre2_compile((PCRE2_SPTR)(text.data ? text.data : ""), text.len, PCRE2_USE_OFFSET_LIMIT,
                                &err, &at, NULL);
        if (!r->code) {
            char msg[128] = "";
            pcre2_get_error_message(err, (PCRE2_UCHAR *)msg, sizeof msg);
            ok = status_set(st, ST_UNSUPPORTED, "regular expression '%.200s': %s", pattern, msg);
        } else {
            pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE); /* where there is no JIT, the interpreter runs */
        }
    }
    buf_fini(&text);
    rx_parsed_fini(&p);
    return ok;
}

rx *rx_new(const char *pattern, size_t n, bool literal, status *st) {
    rx *r = mem_calloc(1, sizeof *r);
    if (!r) {
        status_set(st, ST_NO_MEMORY, "no memory for a pattern");
        return NULL;
    }
    if (literal) {
        r->literal = mem_strndup(pattern, n);
        r->literal_n = n;
        if (r->literal) return r;
        status_set(st, ST_NO_MEMORY, "no memory for a pattern");
    } else if (compile(r, pattern, n, st)) {
        return r;
    }
    rx_free(r);
    return NULL;
}

void rx_work_fini(rx_work *w) {
    mem_free(w->v);
    mem_free(w->codes);
    pcre2_match_data_free(w->match_data);
    pcre2_match_context_free(w->context);
    pcre2_jit_stack_free(w->stack);
    *w = (rx_work){0};
}

static bool push(rx_work *w, size_t begin, size_t end, status *st) {
    if (w->n == w->cap) {
        size_t cap = w->cap ? 2 * w->cap : 64;
        void *p = mem_realloc(w->v, cap * sizeof *w->v);
        if (!p) return status_set(st, ST_NO_MEMORY, "no memory to split a text");
        w->v = p;
        w->cap = cap;
    }
    w->v[w->n++] = (rx_match){begin, end};
    return true;
}

static inline size_t char_len(unsigned char lead) {
    return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

static bool find_literal(const rx *r, rx_work *w, const char *text, size_t n, status *st) {
    if (r->literal_n == 0) { /* the empty pattern matches between all characters */
        size_t i = 0;
        for (; i < n; i += char_len((unsigned char)text[i]))
            if (!push(w, i, i, st)) return false;
        return push(w, n, n, st);
    }
    const char *p = text, *end = text + n;
    while ((p = memmem(p, (size_t)(end - p), r->literal, r->literal_n))) {
        if (!push(w, (size_t)(p - text), (size_t)(p - text) + r->literal_n, st)) return false;
        p += r->literal_n;
    }
    return true;
}

static bool prepare(rx_work *w, size_t n, status *st) {
    if (!w->match_data) w->match_data = pcre2_match_data_create(1, NULL);
    if (!w->context) {
        w->context = pcre2_match_context_create(NULL);
        if (w->context) {
            pcre2_set_match_limit(w->context, MATCH_LIMIT);
            pcre2_set_heap_limit(w->context, 65536); /* KiB */
        }
    }
    if (w->codes_cap < n) {
        void *p = mem_realloc(w->codes, n);
        if (p) {
            w->codes = p;
            w->codes_cap = n;
        }
    }
    if (!w->match_data || !w->context || w->codes_cap < n)
        return status_set(st, ST_NO_MEMORY, "no memory to split a text");
    return true;
}

/* One search from code `from`; 1: found (in the match data), 0: none, -1: error. */
static int search(const rx *r, rx_work *w, size_t n, size_t from, size_t text_n, status *st) {
    double started = 0;
    for (size_t at = from;; at += WINDOW) {
        bool last = !r->windows || n - at < WINDOW;
        pcre2_set_offset_limit(w->context, last ? n : at + WINDOW - 1);
        int rc = pcre2_match(r->code, w->codes, n, at, 0, w->match_data, w->context);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT && !w->stack) {
            w->stack = pcre2_jit_stack_create(64 << 10, JIT_STACK_MAX, NULL);
            if (!w->stack) {
                status_set(st, ST_NO_MEMORY, "no memory to split a text");
                return -1;
            }
            pcre2_jit_stack_assign(w->context, NULL, w->stack);
            rc = pcre2_match(r->code, w->codes, n, at, 0, w->match_data, w->context);
        }
        if (rc == PCRE2_ERROR_NOMEMORY) {
            status_set(st, ST_NO_MEMORY, "no memory to split a text");
            return -1;
        }
        if (rc < 0 && rc != PCRE2_ERROR_NOMATCH) {
            char msg[128] = "";
            pcre2_get_error_message(rc, (PCRE2_UCHAR *)msg, sizeof msg);
            status_set(st, ST_INVALID, "the tokenizer's regular expression gives up on this text (%s)", msg);
            return -1;
        }
        if (rc >= 0) {
            if (started != 0) w->spent_s += time_now_s() - started;
            return 1;
        }
        if (last) {
            if (started != 0) w->spent_s += time_now_s() - started;
            return 0;
        }
        double now = time_now_s();
        if (started == 0) started = now;
        if (w->spent_s + now - started > SLOW_S + SLOW_S_BYTE * (double)text_n) {
            status_set(st, ST_INVALID, "the tokenizer's regular expression needs too long on this text");
            return -1;
        }
    }
}

bool rx_find(const rx *r, rx_work *w, const char *text, size_t n, status *st) {
    w->n = 0;
    if (n == 0) return true;
    if (r->literal) return find_literal(r, w, text, n, st);
    if (!prepare(w, n, st)) return false;
    size_t count = 0;
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)text[i];
        if (c < 128) {
            w->codes[count++] = r->map.ascii[c];
            i++;
        } else {
            uint32_t cp = 0xFFFD;
            int k = utf8_decode(text + i, n - i, &cp);
            w->codes[count++] = cpmap_get(&r->map, cp);
            i += k ? (size_t)k : 1;
        }
    }
    size_t at = 0, byte = 0, last_end = 0, search_from = 0; /* code `at` begins at byte `byte` */
    bool any = false;
    while (search_from <= count) {
        int k = search(r, w, count, search_from, n, st);
        if (k < 0) return false;
        if (k == 0) break;
        const PCRE2_SIZE *o = pcre2_get_ovector_pointer(w->match_data);
        size_t b = o[0], e = o[1];
        if (e < b) b = e;                     /* \K in a look-around */
        if (b == e && any && e == last_end) { /* no empty match right behind a match */
            search_from++;
            continue;
        }
        any = true;
        last_end = search_from = e;
        size_t begin, end;
        if (count == n) {
            begin = b;
            end = e;
        } else {
            if (b < at) at = byte = 0;
            for (; at < b; at++) byte += char_len((unsigned char)text[byte]);
            begin = byte;
            for (; at < e; at++) byte += char_len((unsigned char)text[byte]);
            end = byte;
        }
        if (!push(w, begin, end, st)) return false;
    }
    return true;
}
