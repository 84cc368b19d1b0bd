/* norm.c - the normalizers of tokenizer.json. A norm is read-only after norm_load and owns its parts.
 *
 * Normal forms come from utf8proc, held to the characters that the library's own tables know (CP_NORMAL): an
 * accent younger than those tables neither moves nor composes. Tested by tests/engine/tok/test_tok.c. */
#include "engine/tok/tok_int.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define DEPTH_MAX 16

typedef enum norm_kind {
    NORM_SEQUENCE,
    NORM_NFC,
    NORM_NFD,
    NORM_NFKC,
    NORM_NFKD,
    NORM_LOWERCASE,
    NORM_STRIP,
    NORM_STRIP_ACCENTS,
    NORM_PREPEND,
    NORM_REPLACE,
    NORM_NMT,
    NORM_BERT,
    NORM_BYTE_LEVEL,
    NORM_PRECOMPILED
} norm_kind;

struct norm {
    norm_kind kind;
    norm **parts; /* of a sequence */
    size_t n;
    char *text; /* what is prepended, or takes the place of matches */
    size_t text_n;
    rx *pattern;
    charsmap *map;
    bool left, right;                        /* strip */
    bool clean, chinese, accents, lowercase; /* BertNormalizer */
};

void norm_free(norm *m) {
    if (!m) return;
    for (size_t i = 0; i < m->n; i++) norm_free(m->parts[i]);
    mem_free(m->parts);
    mem_free(m->text);
    rx_free(m->pattern);
    charsmap_free(m->map);
    mem_free(m);
}

static bool no_memory(status *st) {
    return status_set(st, ST_NO_MEMORY, "no memory to normalize a text");
}

static const tok_align nowhere = {0, 0};
static inline tok_align origin(const tok_str *t, size_t i) {
    return t->track ? t->al[i] : nowhere;
}

static inline int next_char(const tok_str *t, size_t i, uint32_t *cp) {
    unsigned char c = (unsigned char)t->s.data[i];
    if (c < 128) {
        *cp = c;
        return 1;
    }
    int k = utf8_decode(t->s.data + i, t->s.len - i, cp);
    if (k) return k;
    *cp = 0xFFFD;
    return 1;
}

static void put_char(tok_str *out, uint32_t cp, tok_align al) {
    char c[4];
    tok_str_add_one(out, c, (size_t)utf8_encode(cp, c), al);
}

/* ---- normal forms (Unicode Standard Annex #15) ---- */

typedef struct form_char {
    int32_t cp;
    uint32_t ccc_order; /* combining class << 24 | place */
    uint32_t from;      /* byte of the text that it comes from */
} form_char;
typedef struct form_work {
    form_char *v;
    int32_t *cps;
    size_t n, cap;
} form_work;

static bool form_push(form_work *f, int32_t cp, unsigned ccc, size_t from) {
    if (f->n == f->cap) {
        size_t cap = f->cap ? 2 * f->cap : 64;
        void *p = mem_realloc(f->v, cap * sizeof *f->v);
        if (!p) return false;
        f->v = p;
        void *q = mem_realloc(f->cps, (cap + 1) * sizeof *f->cps);
        if (!q) return false;
        f->cps = q;
        f->cap = cap;
    }
    f->v[f->n] = (form_char){cp, (uint32_t)ccc << 24 | (uint32_t)(f->n & 0xFFFFFF), (uint32_t)from};
    f->n++;
    return true;
}

static int by_class(const void *a, const void *b) {
    uint32_t x = ((const form_char *)a)->ccc_order, y = ((const form_char *)b)->ccc_order;
    return x < y ? -1 : x > y;
}

/* Orders each run of marks by class; a run is sorted at once, so that long ones are not quadratic. */
static void form_order(form_work *f) {
    for (size_t i = 0; i < f->n;) {
        if (f->v[i].ccc_order >> 24 == 0) {
            i++;
            continue;
        }
        size_t e = i + 1;
        bool sorted = true;
        for (; e < f->n && f->v[e].ccc_order >> 24; e++)
            sorted = sorted && f->v[e].ccc_order >> 24 >= f->v[e - 1].ccc_order >> 24;
        for (size_t k = i; k < e; k++)
            f->v[k].ccc_order = (f->v[k].ccc_order & 0xFF000000u) | (uint32_t)((k - i) & 0xFFFFFF);
        if (!sorted) qsort(f->v + i, e - i, sizeof *f->v, by_class);
        i = e;
    }
}

/* May c compose with a character before it? Marks do, and the vowels and finals of Hangul. */
static bool joins_back(const cpmap *cps, const form_char *c) {
    if (!(cpmap_get(cps, (uint32_t)c->cp) & CP_NORMAL)) return false;
    if (c->ccc_order >> 24) return true;
    if (c->cp >= 0x1160 && c->cp <= 0x11FF) return true;
    utf8proc_category_t k = utf8proc_category(c->cp);
    return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_MC;
}

/* Decomposes in[b, e) into f, marks in order. */
static bool form_decompose(const cpmap *cps, const tok_str *in, size_t b, size_t e, bool compat,
                           form_work *f) {
    int options = compat ? UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT : UTF8PROC_DECOMPOSE;
    f->n = 0;
    for (size_t i = b; i < e;) {
        uint32_t cp;
        size_t from = i;
        i += (size_t)next_char(in, i, &cp);
        utf8proc_int32_t d[32] = {(utf8proc_int32_t)cp};
        utf8proc_ssize_t k = 1;
        int boundary = 0;
        bool known = cpmap_get(cps, cp) & CP_NORMAL;
        if (known) k = utf8proc_decompose_char(d[0], d, 32, (utf8proc_option_t)options, &boundary);
        if (k < 1 || k > 32) {
            d[0] = (utf8proc_int32_t)cp;
            k = 1;
        }
        for (utf8proc_ssize_t q = 0; q < k; q++) {
            bool moves = cpmap_get(cps, (uint32_t)d[q]) & CP_NORMAL;
            unsigned ccc = moves ? (unsigned)utf8proc_get_property(d[q])->combining_class : 0;
            if (!form_push(f, d[q], ccc, from)) return false;
        }
    }
    form_order(f);
    return true;
}

/* Writes in[b, e), which no character around it can touch, in normal form. */
static bool form_stretch(const cpmap *cps, const tok_str *in, size_t b, size_t e, bool compose, bool compat,
                         form_work *f, tok_str *out) {
    if (!form_decompose(cps, in, b, e, compat, f)) return false;
    for (size_t i = 0; i < f->n;) {
        size_t k = i + 1; /* [i, k): what may become one */
        bool starts = compose && cpmap_get(cps, (uint32_t)f->v[i].cp) & CP_NORMAL;
        while (starts && k < f->n && joins_back(cps, &f->v[k])) k++;
        utf8proc_ssize_t n = (utf8proc_ssize_t)(k - i);
        for (size_t q = i; q < k; q++) f->cps[q - i] = f->v[q].cp;
        if (n > 1) {
            n = utf8proc_normalize_utf32(f->cps, n, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
            if (n < 0) return false;
        }
        tok_align al = nowhere;
        if (in->track) al = (tok_align){in->al[f->v[i].from].begin, in->al[f->v[k - 1].from].end};
        for (utf8proc_ssize_t q = 0; q < n; q++) put_char(out, (uint32_t)f->cps[q], al);
        i = k;
    }
    return !out->s.failed;
}

static bool form(const cpmap *cps, const tok_str *in, bool compose, bool compat, tok_str *out, status *st) {
    form_work f = {0};
    size_t n = in->s.len, plain = 0; /* in[plain, i) is to be copied as it is */
    bool ok = true;
    for (size_t i = 0; i < n && ok;) {
        uint32_t cp;
        int k = next_char(in, i, &cp);
        if (!(cpmap_get(cps, cp) & CP_NORMAL)) {
            i += (size_t)k;
            continue;
        }
        if (cp < 128) { /* may compose with what follows, but alone stays */
            i += (size_t)k;
            if (i >= n || (unsigned char)in->s.data[i] < 0xCC) continue;
            i -= (size_t)k;
        }
        /* A stretch: from here to the next character that the normal forms do not know, or plain ASCII. */
        size_t e = i + (size_t)k;
        while (e < n) {
            uint32_t c;
            int len = next_char(in, e, &c);
            if (c < 128 || !(cpmap_get(cps, c) & CP_NORMAL)) break;
            e += (size_t)len;
        }
        if (i > plain) tok_str_add(out, in->s.data + plain, i - plain, in->track ? in->al + plain : NULL);
        ok = form_stretch(cps, in, i, e, compose, compat, &f, out);
        plain = i = e;
    }
    if (ok && n > plain) tok_str_add(out, in->s.data + plain, n - plain, in->track ? in->al + plain : NULL);
    mem_free(f.v);
    mem_free(f.cps);
    return (ok && !out->s.failed) || no_memory(st);
}

/* ---- the others ---- */

static void lowercase(const tok_str *in, tok_str *out) {
    for (size_t i = 0; i < in->s.len;) {
        uint32_t cp;
        int k = next_char(in, i, &cp);
        tok_align al = origin(in, i);
        if (cp == 0x130) {
            put_char(out, 'i', al);
            put_char(out, 0x307, al);
        } else {
            put_char(out, unicode_to_lower(cp), al);
        }
        i += (size_t)k;
    }
}

static void drop_flagged(const cpmap *cps, unsigned flag, const tok_str *in, tok_str *out) {
    for (size_t i = 0; i < in->s.len;) {
        uint32_t cp;
        int k = next_char(in, i, &cp);
        if (!(cpmap_get(cps, cp) & flag))
            tok_str_add(out, in->s.data + i, (size_t)k, in->track ? in->al + i : NULL);
        i += (size_t)k;
    }
}

static void strip(const norm *m, const cpmap *cps, const tok_str *in, tok_str *out) {
    size_t b = 0, e = in->s.len;
    uint32_t cp;
    while (m->left && b < e) {
        int k = next_char(in, b, &cp);
        if (!(cpmap_get(cps, cp) & CP_SPACE)) break;
        b += (size_t)k;
    }
    while (m->right && e > b) {
        size_t i = e - 1;
        while (i > b && ((unsigned char)in->s.data[i] & 0xC0) == 0x80) i--;
        next_char(in, i, &cp);
        if (!(cpmap_get(cps, cp) & CP_SPACE)) break;
        e = i;
    }
    if (e > b) tok_str_add(out, in->s.data + b, e - b, in->track ? in->al + b : NULL);
}

static bool replace(const norm *m, const tok_str *in, tok_str *out, rx_work *w, status *st) {
    if (!rx_find(m->pattern, w, in->s.data, in->s.len, st)) return false;
    size_t at = 0;
    for (size_t i = 0; i < w->n; i++) {
        rx_match k = w->v[i];
        if (k.begin > at) tok_str_add(out, in->s.data + at, k.begin - at, in->track ? in->al + at : NULL);
        tok_str_add_one(out, m->text, m->text_n, k.end ? origin(in, k.end - 1) : nowhere);
        if (k.end > at) at = k.end;
    }
    if (in->s.len > at) tok_str_add(out, in->s.data + at, in->s.len - at, in->track ? in->al + at : NULL);
    return !out->s.failed || no_memory(st);
}

static void nmt(const tok_str *in, tok_str *out) {
    for (size_t i = 0; i < in->s.len;) {
        uint32_t c;
        int k = next_char(in, i, &c);
        bool drop =
            (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
        bool space = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                     (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                     c == 0xFEFF || c == 0xFFFD;
        if (!drop) put_char(out, space ? ' ' : c, origin(in, i));
        i += (size_t)k;
    }
}

static bool is_chinese(uint32_t c) {
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) ||
           (c >= 0x2B920 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

static void swap(tok_str *a, tok_str *b) {
    tok_str t = *a;
    *a = *b;
    *b = t;
    tok_str_clear(b);
}

static bool bert(const norm *m, const cpmap *cps, tok_str *x, tok_str *tmp, status *st) {
    for (size_t i = 0; i < x->s.len && (m->clean || m->chinese);) {
        uint32_t c;
        int k = next_char(x, i, &c);
        tok_align al = origin(x, i);
        i += (size_t)k;
        if (m->clean) {
            unsigned f = cpmap_get(cps, c);
            if (c == 0 || c == 0xFFFD || (f & CP_CONTROL)) continue;
            if (f & CP_SPACE) c = ' ';
        }
        bool spaced = m->chinese && is_chinese(c);
        if (spaced) put_char(tmp, ' ', al);
        put_char(tmp, c, al);
        if (spaced) put_char(tmp, ' ', al);
    }
    if (m->clean || m->chinese) swap(x, tmp);
    if (m->accents) {
        if (!form(cps, x, false, false, tmp, st)) return false;
        swap(x, tmp);
        drop_flagged(cps, CP_MN, x, tmp);
        swap(x, tmp);
    }
    if (m->lowercase) {
        lowercase(x, tmp);
        swap(x, tmp);
    }
    return (!x->s.failed && !tmp->s.failed) || no_memory(st);
}

bool norm_apply(const norm *m, const cpmap *cps, tok_str *x, tok_str *tmp, rx_work *w, status *st) {
    tmp->track = x->track;
    tok_str_clear(tmp);
    switch (m->kind) {
    case NORM_SEQUENCE:
        for (size_t i = 0; i < m->n; i++)
            if (!norm_apply(m->parts[i], cps, x, tmp, w, st)) return false;
        return true;
    case NORM_BERT: return bert(m, cps, x, tmp, st);
    case NORM_NFC:
    case NORM_NFD:
    case NORM_NFKC:
    case NORM_NFKD: {
        bool compose = m->kind == NORM_NFC || m->kind == NORM_NFKC,
             compat = m->kind == NORM_NFKC || m->kind == NORM_NFKD;
        if (!form(cps, x, compose, compat, tmp, st)) return false;
        break;
    }
    case NORM_LOWERCASE: lowercase(x, tmp); break;
    case NORM_STRIP: strip(m, cps, x, tmp); break;
    case NORM_STRIP_ACCENTS: drop_flagged(cps, CP_ACCENT, x, tmp); break;
    case NORM_NMT: nmt(x, tmp); break;
    case NORM_PRECOMPILED: charsmap_apply(m->map, x, tmp); break;
    case NORM_PREPEND:
        if (x->s.len) {
            tok_str_add_one(tmp, m->text, m->text_n, origin(x, 0));
            tok_str_add(tmp, x->s.data, x->s.len, x->al);
        }
        break;
    case NORM_REPLACE:
        if (!replace(m, x, tmp, w, st)) return false;
        break;
    case NORM_BYTE_LEVEL:
        for (size_t i = 0; i < x->s.len; i++) {
            char c[2];
            tok_str_add_one(tmp, c, (size_t)tok_byte_char((unsigned char)x->s.data[i], c), origin(x, i));
        }
        break;
    }
    if (tmp->s.failed || x->s.failed) return no_memory(st);
    if (tmp->s.len > UINT32_MAX / 2)
        return status_set(st, ST_TOO_LARGE, "the text grows over 2 GiB when normalized");
    swap(x, tmp);
    return true;
}

/* ---- loading ---- */

static bool load_text(norm *m, const json_t *j, const char *key, const char *what, status *st) {
    const char *s = jfield_string(j, key, &m->text_n, what, st);
    if (!s) return false;
    m->text = mem_strndup(s, m->text_n);
    return m->text || no_memory(st);
}

static bool load(norm *m, const json_t *j, int depth, status *st);

static norm *load_new(const json_t *j, int depth, status *st) {
    norm *m = mem_calloc(1, sizeof *m);
    if (!m) {
        no_memory(st);
        return NULL;
    }
    if (load(m, j, depth, st)) return m;
    norm_free(m);
    return NULL;
}

static bool load(norm *m, const json_t *j, int depth, status *st) {
    static const struct {
        const char *name;
        norm_kind kind;
    } kinds[] = {
        {"Sequence", NORM_SEQUENCE},
        {"NFC", NORM_NFC},
        {"NFD", NORM_NFD},
        {"NFKC", NORM_NFKC},
        {"NFKD", NORM_NFKD},
        {"Lowercase", NORM_LOWERCASE},
        {"Strip", NORM_STRIP},
        {"StripAccents", NORM_STRIP_ACCENTS},
        {"Prepend", NORM_PREPEND},
        {"Replace", NORM_REPLACE},
        {"Nmt", NORM_NMT},
        {"BertNormalizer", NORM_BERT},
        {"ByteLevel", NORM_BYTE_LEVEL},
        {"Precompiled", NORM_PRECOMPILED},
    };
    const char *type = jfield_string(j, "type", NULL, "normalizer", st);
    if (!type) return false;
    if (depth > DEPTH_MAX) return status_set(st, ST_UNSUPPORTED, "normalizer: sequences nested this deep");
    size_t i = 0;
    while (i < ARRAY_LEN(kinds) && strcmp(kinds[i].name, type) != 0) i++;
    if (i == ARRAY_LEN(kinds)) return status_set(st, ST_UNSUPPORTED, "normalizer '%.60s' is not built", type);
    m->kind = kinds[i].kind;
    switch (m->kind) {
    case NORM_SEQUENCE: {
        const json_t *list = json_object_get(j, "normalizers");
        if (!json_is_array(list))
            return status_set(st, ST_INVALID, "normalizer: normalizers: expected an array, found %s",
                              jkind(list));
        m->parts = mem_calloc(json_array_size(list), sizeof *m->parts);
        if (!m->parts) return no_memory(st);
        for (size_t k = 0; k < json_array_size(list); k++) {
            m->parts[m->n] = load_new(json_array_get(list, k), depth + 1, st);
            if (!m->parts[m->n]) return false;
            m->n++;
        }
        return true;
    }
    case NORM_STRIP:
        return jfield_bool(j, "strip_left", true, &m->left, "normalizer Strip", st) &&
               jfield_bool(j, "strip_right", true, &m->right, "normalizer Strip", st);
    case NORM_PRECOMPILED: return (m->map = charsmap_load(j, st)) != NULL;
    case NORM_PREPEND: return load_text(m, j, "prepend", "normalizer Prepend", st);
    case NORM_REPLACE:
        m->pattern = jfield_pattern(j, "normalizer Replace", st);
        return m->pattern && load_text(m, j, "content", "normalizer Replace", st);
    case NORM_BERT:
        if (!jfield_bool(j, "clean_text", true, &m->clean, "normalizer BertNormalizer", st) ||
            !jfield_bool(j, "handle_chinese_chars", true, &m->chinese, "normalizer BertNormalizer", st) ||
            !jfield_bool(j, "lowercase", true, &m->lowercase, "normalizer BertNormalizer", st))
            return false;
        return jfield_bool(j, "strip_accents", m->lowercase, &m->accents, "normalizer BertNormalizer", st);
    default: return true;
    }
}

norm *norm_load(const json_t *j, status *st) {
    if (!j || json_is_null(j)) return NULL;
    return load_new(j, 0, st);
}
