/* pretok.c - the pre-tokenizers of tokenizer.json: cut a normalized text into words, and write them as the
 * model's vocabulary has them. A pretok is read-only after pretok_load. Tested by
 * tests/engine/tok/test_tok.c. */
#include "engine/tok/tok_int.h"

#include <string.h>

#define DEPTH_MAX 16

typedef enum pretok_kind {
    PRE_SEQUENCE,
    PRE_BYTE_LEVEL,
    PRE_SPLIT,
    PRE_METASPACE,
    PRE_DIGITS,
    PRE_WHITESPACE,
    PRE_WHITESPACE_SPLIT,
    PRE_PUNCTUATION,
    PRE_BERT,
    PRE_DELIMITER,
    PRE_FIXED_LENGTH
} pretok_kind;
typedef enum behavior { REMOVED, ISOLATED, MERGED_PREVIOUS, MERGED_NEXT, CONTIGUOUS } behavior;
typedef enum prepend_scheme { ALWAYS, FIRST, NEVER } prepend_scheme;

struct pretok {
    pretok_kind kind;
    pretok **parts; /* of a sequence */
    size_t n;
    rx *pattern;
    behavior behavior;
    bool invert;                  /* Split */
    bool prefix_space, use_regex; /* ByteLevel */
    bool split, individual;       /* Metaspace; Digits */
    prepend_scheme scheme;        /* Metaspace */
    char rep[4];                  /* Metaspace, CharDelimiterSplit: a character */
    size_t rep_n, length;         /* length: FixedLength */
};

const char tok_gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

void pretok_free(pretok *p) {
    if (!p) return;
    for (size_t i = 0; i < p->n; i++) pretok_free(p->parts[i]);
    mem_free(p->parts);
    rx_free(p->pattern);
    mem_free(p);
}

bool pretok_needs_origin(const pretok *p) {
    if (!p) return false;
    for (size_t i = 0; i < p->n; i++)
        if (pretok_needs_origin(p->parts[i])) return true;
    return p->kind == PRE_METASPACE && p->scheme == FIRST;
}

/* ---- bytes as characters (GPT-2's encoder.py, bytes_to_unicode) ---- */

static bool shown_as_is(unsigned b) {
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
}

int tok_byte_char(unsigned char b, char out[2]) {
    unsigned cp = b;
    if (!shown_as_is(b)) { /* the others get 256, 257, ... in order */
        if (b <= 0x20)
            cp = 256u + b;
        else if (b <= 0xA0)
            cp = 256u + 33 + (b - 0x7Fu);
        else
            cp = 256u + 67;
    }
    if (cp < 128) {
        out[0] = (char)cp;
        return 1;
    }
    out[0] = (char)(0xC0 | cp >> 6);
    out[1] = (char)(0x80 | (cp & 63));
    return 2;
}

int tok_char_byte(uint32_t cp) {
    if (cp < 256) return shown_as_is(cp) ? (int)cp : -1;
    if (cp <= 256 + 32) return (int)cp - 256;
    if (cp < 256 + 67) return (int)cp - 256 - 33 + 0x7F;
    return cp == 256 + 67 ? 0xAD : -1;
}

/* ---- cutting ---- */

/* Takes alternating stretches (text between matches, matches) of one piece and cuts as the behavior says. */
typedef struct cutter {
    const tok_str *t;
    tok_build *out;
    behavior how;
    bool last_match, open; /* open: [begin, end) waits for what follows */
    uint32_t begin, end;
} cutter;

static void cut_flush(cutter *c) {
    if (c->open) tok_build_piece(c->out, tok_slice(c->t, c->begin, c->end));
    c->open = false;
}

/* [b, e) is a stretch; match: it is a delimiter. Empty matches come here too, as in the library. */
static void cut_add(cutter *c, size_t b, size_t e, bool match) {
    uint32_t begin = (uint32_t)b, end = (uint32_t)e;
    bool join = false;
    switch (c->how) {
    case REMOVED:
        if (!match) tok_build_piece(c->out, tok_slice(c->t, begin, end));
        return;
    case ISOLATED: tok_build_piece(c->out, tok_slice(c->t, begin, end)); return;
    case CONTIGUOUS: join = c->open && match == c->last_match; break;
    case MERGED_PREVIOUS: join = c->open && match && !c->last_match; break;
    case MERGED_NEXT: return; /* done from the end, see cut_backwards */
    }
    if (!join) {
        cut_flush(c);
        c->begin = begin;
        c->open = true;
    }
    c->end = end;
    c->last_match = match;
}

typedef struct stretch {
    uint32_t begin, end;
    bool match;
} stretch;

/* MergedWithNext in the library: the fold of MergedWithPrevious over the stretches in reverse. */
static bool cut_backwards(const tok_str *t, const rx_match *m, size_t n, size_t begin, size_t end,
                          bool invert, tok_build *out) {
    stretch *v = mem_alloc((2 * n + 1) * sizeof *v);
    if (!v) return false;
    size_t k = 0, at = 0, len = end - begin;
    for (size_t i = 0; i < n; i++) {
        if (m[i].begin != at)
            v[k++] = (stretch){(uint32_t)(begin + at), (uint32_t)(begin + m[i].begin), invert};
        v[k++] = (stretch){(uint32_t)(begin + m[i].begin), (uint32_t)(begin + m[i].end), !invert};
        at = m[i].end;
    }
    if (at != len) v[k++] = (stretch){(uint32_t)(begin + at), (uint32_t)end, invert};
    size_t w = k; /* v[w, k) are the joined ones */
    bool previous = false;
    for (size_t i = k; i-- > 0;) {
        stretch s = v[i];
        if (s.match && !previous && w < k)
            v[w].begin = s.begin;
        else
            v[--w] = s;
        previous = s.match;
    }
    for (size_t i = w; i < k; i++) tok_build_piece(out, tok_slice(t, v[i].begin, v[i].end));
    mem_free(v);
    return true;
}

static bool split_piece(const tok_str *t, uint32_t begin, uint32_t end, const rx_match *m, size_t n,
                        behavior how, bool invert, tok_build *out) {
    if (how == MERGED_NEXT) return cut_backwards(t, m, n, begin, end, invert, out);
    cutter c = {.t = t, .out = out, .how = how};
    size_t at = 0, len = end - begin;
    for (size_t i = 0; i < n; i++) {
        if (m[i].begin != at) cut_add(&c, begin + at, begin + m[i].begin, invert);
        cut_add(&c, begin + m[i].begin, begin + m[i].end, !invert);
        at = m[i].end;
    }
    if (at != len) cut_add(&c, begin + at, end, invert);
    cut_flush(&c);
    return true;
}

static bool no_memory(status *st) {
    return status_set(st, ST_NO_MEMORY, "no memory to split a text");
}

/* One pass of a pattern over the pieces of t (x's text, or its new one). */
static bool split_rx(const rx *pattern, behavior how, bool invert, const tok_str *t, tok_piece p,
                     tok_build *b, status *st) {
    rx_work *w = &b->x->rx;
    if (!rx_find(pattern, w, t->s.data + p.begin, p.end - p.begin, st)) return false;
    return split_piece(t, p.begin, p.end, w->v, w->n, how, invert, b) || no_memory(st);
}

static bool apply_split(const pretok *p, tok_text *x, status *st) {
    tok_build b = {.x = x};
    for (size_t i = 0; i < x->n; i++) {
        if (x->v[i].id >= 0)
            tok_build_piece(&b, x->v[i]);
        else if (!split_rx(p->pattern, p->behavior, p->invert, &x->t, x->v[i], &b, st))
            return false;
    }
    return tok_build_done(&b, false, st);
}

/* Each character for which flags & mask is a match (one: that character instead, when mask is 0). */
static bool apply_chars(const cpmap *cps, unsigned mask, const char *one, size_t one_n, behavior how,
                        tok_text *x, status *st) {
    tok_build b = {.x = x};
    for (size_t i = 0; i < x->n; i++) {
        tok_piece p = x->v[i];
        if (p.id >= 0) {
            tok_build_piece(&b, p);
            continue;
        }
        cutter c = {.t = &x->t, .out = &b, .how = how};
        size_t done = p.begin;
        const char *s = x->t.s.data;
        for (size_t at = p.begin; at < p.end;) {
            uint32_t cp = 0xFFFD;
            int k = utf8_decode(s + at, p.end - at, &cp);
            if (k == 0) k = 1;
            bool hit = mask ? (cpmap_get(cps, cp) & mask) != 0
                            : (size_t)k == one_n && memcmp(s + at, one, one_n) == 0;
            if (hit) {
                if (at > done) cut_add(&c, done, at, false);
                cut_add(&c, at, at + (size_t)k, true);
                done = at + (size_t)k;
            }
            at += (size_t)k;
        }
        if (done < p.end) cut_add(&c, done, p.end, false);
        cut_flush(&c);
    }
    return tok_build_done(&b, false, st);
}

/* MergedWithNext on single characters, for Punctuation. */
static bool apply_chars_next(const cpmap *cps, unsigned mask, tok_text *x, status *st) {
    tok_build b = {.x = x};
    rx_match *m = NULL;
    size_t cap = 0;
    bool ok = true;
    for (size_t i = 0; i < x->n && ok; i++) {
        tok_piece p = x->v[i];
        if (p.id >= 0) {
            tok_build_piece(&b, p);
            continue;
        }
        size_t n = 0, len = p.end - p.begin;
        if (cap < len) {
            rx_match *q = mem_realloc(m, len * sizeof *m);
            if (!q) {
                ok = no_memory(st);
                break;
            }
            m = q;
            cap = len;
        }
        for (size_t at = 0; at < len;) {
            uint32_t cp = 0xFFFD;
            int k = utf8_decode(x->t.s.data + p.begin + at, len - at, &cp);
            if (k == 0) k = 1;
            if (cpmap_get(cps, cp) & mask) m[n++] = (rx_match){at, at + (size_t)k};
            at += (size_t)k;
        }
        ok = cut_backwards(&x->t, m, n, p.begin, p.end, false, &b) || no_memory(st);
    }
    mem_free(m);
    return ok && tok_build_done(&b, false, st);
}

/* \w+|[^\w\s]+ of the regex crate: stretches of words, stretches of other signs, no spaces. */
static bool apply_whitespace(const cpmap *cps, tok_text *x, status *st) {
    tok_build b = {.x = x};
    for (size_t i = 0; i < x->n; i++) {
        tok_piece p = x->v[i];
        if (p.id >= 0) {
            tok_build_piece(&b, p);
            continue;
        }
        int kind = 0; /* of the open stretch: 0 spaces, 1 word, 2 signs */
        size_t from = p.begin;
        for (size_t at = p.begin; at < p.end;) {
            uint32_t cp = 0xFFFD;
            int k = utf8_decode(x->t.s.data + at, p.end - at, &cp);
            if (k == 0) k = 1;
            unsigned f = cpmap_get(cps, cp);
            int now = f & CP_WORD ? 1 : f & CP_SPACE ? 0 : 2;
            if (now != kind) {
                if (kind) tok_build_piece(&b, tok_slice(&x->t, (uint32_t)from, (uint32_t)at));
                from = at;
                kind = now;
            }
            at += (size_t)k;
        }
        if (kind) tok_build_piece(&b, tok_slice(&x->t, (uint32_t)from, p.end));
    }
    return tok_build_done(&b, false, st);
}

static bool apply_fixed(const pretok *p, tok_text *x, status *st) {
    tok_build b = {.x = x};
    for (size_t i = 0; i < x->n; i++) {
        tok_piece q = x->v[i];
        if (q.id >= 0) {
            tok_build_piece(&b, q);
            continue;
        }
        size_t from = q.begin, count = 0;
        for (size_t at = q.begin; at < q.end; at++) {
            if (((unsigned char)x->t.s.data[at] & 0xC0) == 0x80) continue;
            if (count == p->length) {
                tok_build_piece(&b, tok_slice(&x->t, (uint32_t)from, (uint32_t)at));
                from = at;
                count = 0;
            }
            count++;
        }
        tok_build_piece(&b, tok_slice(&x->t, (uint32_t)from, q.end));
    }
    return tok_build_done(&b, false, st);
}

/* ---- rewriting ---- */

static const tok_align nowhere = {0, 0};
static inline tok_align origin(const tok_str *t, size_t i) {
    return t->track ? t->al[i] : nowhere;
}

static void copy(tok_str *to, const tok_str *from, size_t b, size_t e) {
    tok_str_add(to, from->s.data + b, e - b, from->track ? from->al + b : NULL);
}

/* Copies the added token p into the new text (its text is not needed any more, its place is). */
static void keep_token(tok_build *b, tok_piece p) {
    tok_str *to = &b->x->spare;
    uint32_t at = (uint32_t)to->s.len;
    copy(to, &b->x->t, p.begin, p.end);
    p.begin = at;
    p.end = (uint32_t)to->s.len;
    tok_build_piece(b, p);
}

static bool apply_metaspace(const pretok *p, tok_text *x, status *st) {
    tok_build b = tok_build_begin(x);
    tok_str *to = &x->spare;
    for (size_t i = 0; i < x->n; i++) {
        tok_piece q = x->v[i];
        if (q.id >= 0) {
            keep_token(&b, q);
            continue;
        }
        const char *s = x->t.s.data;
        uint32_t at = (uint32_t)to->s.len, shift = q.shift;
        bool marked =
            s[q.begin] == ' ' || (q.end - q.begin >= p->rep_n && memcmp(s + q.begin, p->rep, p->rep_n) == 0);
        if (!marked && (p->scheme == ALWAYS || (p->scheme == FIRST && shift == 0)))
            tok_str_add_one(to, p->rep, p->rep_n, origin(&x->t, q.begin));
        size_t from = q.begin;
        for (size_t k = q.begin; k < q.end; k++) {
            if (s[k] != ' ') continue;
            if (k > from) copy(to, &x->t, from, k);
            tok_str_add_one(to, p->rep, p->rep_n, origin(&x->t, k));
            from = k + 1;
        }
        if (q.end > from) copy(to, &x->t, from, q.end);
        if (to->s.failed) return no_memory(st);
        uint32_t end = (uint32_t)to->s.len;
        if (!p->split) {
            tok_build_piece(&b, (tok_piece){at, end, -1, shift});
            continue;
        }
        /* MergedWithNext on one character: each one begins a piece. */
        const char *d = to->s.data;
        uint32_t begin = at;
        for (uint32_t k = at; k + p->rep_n <= end;) {
            if (memcmp(d + k, p->rep, p->rep_n) != 0) {
                k++;
                continue;
            }
            if (k > begin) tok_build_piece(&b, tok_slice(to, begin, k));
            begin = k;
            k += (uint32_t)p->rep_n;
        }
        tok_build_piece(&b, tok_slice(to, begin, end));
    }
    return tok_build_done(&b, true, st);
}

static bool apply_prefix_space(tok_text *x, status *st) {
    tok_build b = tok_build_begin(x);
    tok_str *to = &x->spare;
    for (size_t i = 0; i < x->n; i++) {
        tok_piece q = x->v[i];
        if (q.id >= 0) {
            keep_token(&b, q);
            continue;
        }
        uint32_t at = (uint32_t)to->s.len;
        if (x->t.s.data[q.begin] != ' ') tok_str_add_one(to, " ", 1, origin(&x->t, q.begin));
        copy(to, &x->t, q.begin, q.end);
        tok_build_piece(&b, (tok_piece){at, (uint32_t)to->s.len, -1, q.shift});
    }
    return tok_build_done(&b, true, st);
}

static bool apply_byte_chars(tok_text *x, status *st) {
    tok_build b = tok_build_begin(x);
    tok_str *to = &x->spare;
    char chars[256][2];
    int lens[256];
    for (int c = 0; c < 256; c++) lens[c] = tok_byte_char((unsigned char)c, chars[c]);
    for (size_t i = 0; i < x->n; i++) {
        tok_piece q = x->v[i];
        if (q.id >= 0) {
            keep_token(&b, q);
            continue;
        }
        uint32_t at = (uint32_t)to->s.len;
        const unsigned char *s = (const unsigned char *)x->t.s.data;
        if (to->track) {
            for (uint32_t k = q.begin; k < q.end; k++)
                tok_str_add_one(to, chars[s[k]], (size_t)lens[s[k]], x->t.al[k]);
        } else if (buf_reserve(&to->s, 2 * (size_t)(q.end - q.begin))) {
            char *d = to->s.data + to->s.len;
            for (uint32_t k = q.begin; k < q.end; k++) {
                d[0] = chars[s[k]][0];
                if (lens[s[k]] == 2) d[1] = chars[s[k]][1];
                d += lens[s[k]];
            }
            *d = 0;
            to->s.len = (size_t)(d - to->s.data);
        }
        if (to->s.failed) return no_memory(st);
        tok_build_piece(&b, (tok_piece){at, (uint32_t)to->s.len, -1, q.shift});
    }
    return tok_build_done(&b, true, st);
}

bool pretok_apply(const pretok *p, const cpmap *cps, tok_text *x, status *st) {
    switch (p->kind) {
    case PRE_SEQUENCE:
        for (size_t i = 0; i < p->n; i++)
            if (!pretok_apply(p->parts[i], cps, x, st)) return false;
        return true;
    case PRE_BYTE_LEVEL:
        if (p->prefix_space && !apply_prefix_space(x, st)) return false;
        if (p->use_regex && !apply_split(p, x, st)) return false;
        return apply_byte_chars(x, st);
    case PRE_SPLIT: return apply_split(p, x, st);
    case PRE_METASPACE: return apply_metaspace(p, x, st);
    case PRE_DIGITS:
        return apply_chars(cps, CP_NUMERIC, NULL, 0, p->individual ? ISOLATED : CONTIGUOUS, x, st);
    case PRE_WHITESPACE: return apply_whitespace(cps, x, st);
    case PRE_WHITESPACE_SPLIT: return apply_chars(cps, CP_SPACE, NULL, 0, REMOVED, x, st);
    case PRE_PUNCTUATION:
        if (p->behavior == MERGED_NEXT) return apply_chars_next(cps, CP_PUNCT, x, st);
        return apply_chars(cps, CP_PUNCT, NULL, 0, p->behavior, x, st);
    case PRE_BERT:
        return apply_chars(cps, CP_SPACE, NULL, 0, REMOVED, x, st) &&
               apply_chars(cps, CP_PUNCT, NULL, 0, ISOLATED, x, st);
    case PRE_DELIMITER: return apply_chars(cps, 0, p->rep, p->rep_n, REMOVED, x, st);
    case PRE_FIXED_LENGTH: return apply_fixed(p, x, st);
    }
    return false;
}

/* ---- loading ---- */

static bool load_behavior(pretok *p, const json_t *j, const char *what, status *st) {
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext",
                                        "Contiguous"};
    const char *s = jfield_string(j, "behavior", NULL, what, st);
    if (!s) return false;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(names[i], s) == 0) {
            p->behavior = (behavior)i;
            return true;
        }
    return status_set(st, ST_UNSUPPORTED, "%s: behavior '%.40s' is not built", what, s);
}

static bool load_char(pretok *p, const json_t *j, const char *key, const char *what, status *st) {
    size_t n;
    uint32_t cp;
    const char *s = jfield_string(j, key, &n, what, st);
    if (!s) return false;
    if (n == 0 || utf8_decode(s, n, &cp) != (int)n)
        return status_set(st, ST_INVALID, "%s: %s: expected one character, found '%.40s'", what, key, s);
    memcpy(p->rep, s, n);
    p->rep_n = n;
    return true;
}

static bool load_metaspace(pretok *p, const json_t *j, status *st) {
    static const char *const names[] = {"always", "first", "never"};
    const char *what = "pre_tokenizer Metaspace";
    bool prefix;
    if (!load_char(p, j, "replacement", what, st) || !jfield_bool(j, "split", true, &p->split, what, st) ||
        !jfield_bool(j, "add_prefix_space", true, &prefix, what, st))
        return false;
    p->scheme = ALWAYS;
    if (json_object_get(j, "prepend_scheme")) {
        const char *s = jfield_string(j, "prepend_scheme", NULL, what, st);
        if (!s) return false;
        size_t i = 0;
        while (i < ARRAY_LEN(names) && strcmp(names[i], s) != 0) i++;
        if (i == ARRAY_LEN(names))
            return status_set(st, ST_INVALID,
                              "%s: prepend_scheme: expected always, first or never, found '%.40s'", what, s);
        p->scheme = (prepend_scheme)i;
    }
    if (!prefix) p->scheme = NEVER;
    return true;
}

static bool load(pretok *p, const json_t *j, int depth, status *st);

static pretok *load_new(const json_t *j, int depth, status *st) {
    pretok *p = mem_calloc(1, sizeof *p);
    if (!p) {
        no_memory(st);
        return NULL;
    }
    if (load(p, j, depth, st)) return p;
    pretok_free(p);
    return NULL;
}

static bool load(pretok *p, const json_t *j, int depth, status *st) {
    static const struct {
        const char *name;
        pretok_kind kind;
    } kinds[] = {
        {"Sequence", PRE_SEQUENCE},
        {"ByteLevel", PRE_BYTE_LEVEL},
        {"Split", PRE_SPLIT},
        {"Metaspace", PRE_METASPACE},
        {"Digits", PRE_DIGITS},
        {"Whitespace", PRE_WHITESPACE},
        {"WhitespaceSplit", PRE_WHITESPACE_SPLIT},
        {"Punctuation", PRE_PUNCTUATION},
        {"BertPreTokenizer", PRE_BERT},
        {"CharDelimiterSplit", PRE_DELIMITER},
        {"FixedLength", PRE_FIXED_LENGTH},
    };
    const char *type = jfield_string(j, "type", NULL, "pre_tokenizer", st);
    if (!type) return false;
    if (depth > DEPTH_MAX) return status_set(st, ST_UNSUPPORTED, "pre_tokenizer: sequences nested this deep");
    size_t i = 0;
    while (i < ARRAY_LEN(kinds) && strcmp(kinds[i].name, type) != 0) i++;
    if (i == ARRAY_LEN(kinds))
        return status_set(st, ST_UNSUPPORTED, "pre_tokenizer '%.60s' is not built", type);
    p->kind = kinds[i].kind;
    switch (p->kind) {
    case PRE_SEQUENCE: {
        const json_t *list = json_object_get(j, "pretokenizers");
        if (!json_is_array(list))
            return status_set(st, ST_INVALID, "pre_tokenizer: pretokenizers: expected an array, found %s",
                              jkind(list));
        p->parts = mem_calloc(json_array_size(list), sizeof *p->parts);
        if (!p->parts) return no_memory(st);
        for (size_t k = 0; k < json_array_size(list); k++) {
            p->parts[p->n] = load_new(json_array_get(list, k), depth + 1, st);
            if (!p->parts[p->n]) return false;
            p->n++;
        }
        return true;
    }
    case PRE_BYTE_LEVEL:
        p->behavior = ISOLATED;
        if (!jfield_bool(j, "add_prefix_space", true, &p->prefix_space, "pre_tokenizer ByteLevel", st) ||
            !jfield_bool(j, "use_regex", true, &p->use_regex, "pre_tokenizer ByteLevel", st))
            return false;
        if (p->use_regex) p->pattern = rx_new(tok_gpt2_pattern, strlen(tok_gpt2_pattern), false, st);
        return !p->use_regex || p->pattern;
    case PRE_SPLIT:
        p->pattern = jfield_pattern(j, "pre_tokenizer Split", st);
        return p->pattern && load_behavior(p, j, "pre_tokenizer Split", st) &&
               jfield_bool(j, "invert", false, &p->invert, "pre_tokenizer Split", st);
    case PRE_METASPACE: return load_metaspace(p, j, st);
    case PRE_DIGITS:
        return jfield_bool(j, "individual_digits", false, &p->individual, "pre_tokenizer Digits", st);
    case PRE_PUNCTUATION:
        p->behavior = ISOLATED;
        return !json_object_get(j, "behavior") || load_behavior(p, j, "pre_tokenizer Punctuation", st);
    case PRE_DELIMITER: return load_char(p, j, "delimiter", "pre_tokenizer CharDelimiterSplit", st);
    case PRE_FIXED_LENGTH: {
        const json_t *v = json_object_get(j, "length");
        json_int_t n = v ? json_integer_value(v) : 5;
        if (n < 1)
            return status_set(st, ST_INVALID,
                              "pre_tokenizer FixedLength: length: expected a positive integer");
        p->length = (size_t)n;
        return true;
    }
    default: return true;
    }
}

pretok *pretok_load(const json_t *j, status *st) {
    if (!j || json_is_null(j)) return NULL;
    return load_new(j, 0, st);
}
