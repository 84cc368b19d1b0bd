/* charsmap.c - the normalizer that SentencePiece compiles into its models (precompiled_charsmap): a trie of what is
 * replaced, and the strings that take its place.
 *
 * The blob is a count of bytes, that many bytes of a double array (Aoe 1989, as the darts-clone library lays it out)
 * and strings that end in NUL. A charsmap is read-only after charsmap_load and owns its parts. What is looked up and
 * when follows the library's normalizers/precompiled and the spm_precompiled crate, oddities included: a grapheme
 * under six bytes whose beginning is in the trie is replaced as a whole. Tested by tests/engine/tok/test_tok.c. */
#include "engine/tok/tok_int.h"

#include <string.h>

#include "engine/image/base64.h"
#include "engine/tok/grapheme.h"

struct charsmap {
    uint8_t *blob;
    const uint8_t *units; /* little-endian words, in blob */
    size_t n_units;
    const char *strings; /* in blob; valid UTF-8 */
    size_t strings_n;
    cpmap graphemes;
};

void charsmap_free(charsmap *m) {
    if (!m) return;
    mem_free(m->blob);
    cpmap_fini(&m->graphemes);
    mem_free(m);
}

static inline uint32_t word_at(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint32_t offset_of(uint32_t unit) {
    return (unit >> 10) << ((unit & 1u << 9) >> 6);
}

/* What takes the place of s[0..n): the string for the shortest of its beginnings that is in the trie; NULL: none is.
 * An array that leads outside itself leads nowhere. */
static const char *find(const charsmap *m, const char *s, size_t n, size_t *len) {
    size_t pos = offset_of(word_at(m->units));
    for (size_t i = 0; i < n && s[i]; i++) {
        pos ^= (uint8_t)s[i];
        if (pos >= m->n_units) return NULL;
        uint32_t unit = word_at(m->units + 4 * pos);
        if ((unit & (1u << 31 | 0xFF)) != (uint8_t)s[i]) return NULL;
        pos ^= offset_of(unit);
        if (!(unit >> 8 & 1)) continue;
        if (pos >= m->n_units) return NULL;
        size_t at = word_at(m->units + 4 * pos) & 0x7FFFFFFF;
        if (at > m->strings_n || (at < m->strings_n && ((uint8_t)m->strings[at] & 0xC0) == 0x80)) return NULL;
        const char *to = m->strings + at, *end = memchr(to, 0, m->strings_n - at);
        *len = end ? (size_t)(end - to) : m->strings_n - at;
        return to;
    }
    return NULL;
}

/* ---- applying, with the library's bookkeeping of where characters come from ---- */

static inline size_t char_len(unsigned char lead) {
    return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

/* The library writes a list of characters, each with a count: 1 for one that is new, otherwise one that takes the
 * place of the next old one and, when negative, of so many more. The last one waits, because a replacement by fewer
 * characters changes it after the fact; where there is none yet, the change is lost. */
typedef struct writer {
    const tok_str *in;
    tok_str *out;
    size_t at; /* old bytes that have their place */
    const char *c;
    size_t c_n; /* the one that waits; 0: none */
    long change;
} writer;

static void skip_old(writer *w) {
    if (w->at < w->in->s.len) w->at += char_len((unsigned char)w->in->s.data[w->at]);
    if (w->at > w->in->s.len) w->at = w->in->s.len;
}

static void flush(writer *w) {
    if (!w->c_n) return;
    tok_align al = {0, 0};
    if (w->in->track) {
        if (w->change <= 0 && w->at < w->in->s.len)
            al = w->in->al[w->at];
        else if (w->at)
            al = w->in->al[w->at - 1];
    }
    tok_str_add_one(w->out, w->c, w->c_n, al);
    for (long k = w->change; k <= 0; k++) skip_old(w);
    w->c_n = 0;
}

static void put(writer *w, const char *c, size_t n, long change) {
    flush(w);
    w->c = c;
    w->c_n = n;
    w->change = change;
}

static long count_chars(const char *s, size_t n) {
    long k = 0;
    for (size_t i = 0; i < n; i++) k += ((unsigned char)s[i] & 0xC0) != 0x80;
    return k;
}

static void put_instead(writer *w, const char *old, size_t old_n, const char *to, size_t n) {
    long was = count_chars(old, old_n), now = count_chars(to, n), k = 0;
    for (size_t i = 0; i < n; k++) {
        size_t len = char_len((unsigned char)to[i]);
        put(w, to + i, len, k < was ? 0 : 1);
        i += len;
    }
    if (now < was && w->c_n) w->change += now - was;
}

void charsmap_apply(const charsmap *m, const tok_str *in, tok_str *out) {
    writer w = {.in = in, .out = out};
    const char *s = in->s.data;
    size_t n = in->s.len, len;
    for (size_t at = 0; at < n && !out->s.failed;) {
        size_t g = grapheme_next(&m->graphemes, s + at, n - at), end = at + g;
        const char *to = g < 6 ? find(m, s + at, g, &len) : NULL;
        if (to) {
            put_instead(&w, s + at, g, to, len);
            at = end;
        }
        while (at < end) {
            size_t k = char_len((unsigned char)s[at]);
            if (k > end - at) k = end - at;
            to = find(m, s + at, k, &len);
            if (to)
                put_instead(&w, s + at, k, to, len);
            else
                put(&w, s + at, k, 0);
            at += k;
        }
    }
    flush(&w);
}

/* ---- loading ---- */

static bool load(charsmap *m, const char *text, size_t text_n, status *st) {
    static const char what[] = "normalizer Precompiled: precompiled_charsmap";
    size_t cap = text_n / 4 * 3 + 3, n = 0, got;
    m->blob = mem_alloc(cap);
    if (!m->blob) return status_set(st, ST_NO_MEMORY, "no memory for a normalizer");
    base64_state b;
    base64_begin(&b, text, text_n);
    while (cap - n >= 3 && (got = base64_some(&b, m->blob + n, cap - n)) > 0) n += got;
    if (b.bad) return status_set(st, ST_INVALID, "%s: not base64", what);
    size_t trie_n = n >= 4 ? word_at(m->blob) / 4 * 4 : 0;
    if (n < 4 || trie_n < 4 || trie_n > n - 4)
        return status_set(st, ST_INVALID, "%s: expected a trie and strings, found %zu bytes", what, n);
    m->units = m->blob + 4;
    m->n_units = trie_n / 4;
    m->strings = (const char *)m->blob + 4 + trie_n;
    m->strings_n = n - 4 - trie_n;
    if (!utf8_valid(m->strings, m->strings_n))
        return status_set(st, ST_INVALID, "%s: strings are not UTF-8", what);
    return grapheme_init(&m->graphemes, st);
}

charsmap *charsmap_load(const json_t *j, status *st) {
    size_t n;
    const char *text = jfield_string(j, "precompiled_charsmap", &n, "normalizer Precompiled", st);
    charsmap *m = text ? mem_calloc(1, sizeof *m) : NULL;
    if (text && !m) status_set(st, ST_NO_MEMORY, "no memory for a normalizer");
    if (m && load(m, text, n, st)) return m;
    charsmap_free(m);
    return NULL;
}
