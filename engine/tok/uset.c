/* uset.c - see uset.h. A set owns its ranges, a map its pages. */
#include "engine/tok/uset.h"

#include <stdlib.h>
#include <string.h>

void uset_fini(uset *s) {
    mem_free(s->v);
    *s = (uset){0};
}

void uset_add(uset *s, uint32_t first, uint32_t last) {
    if (s->failed) return;
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 8;
        void *p = mem_realloc(s->v, cap * sizeof *s->v);
        if (!p) {
            s->failed = true;
            return;
        }
        s->v = p;
        s->cap = cap;
    }
    s->v[s->n++] = (struct urange){first, last};
}

static int by_first(const void *a, const void *b) {
    uint32_t x = ((const struct urange *)a)->first, y = ((const struct urange *)b)->first;
    return x < y ? -1 : x > y;
}

void uset_tidy(uset *s) {
    bool sorted = true;
    for (size_t i = 1; i < s->n && sorted; i++) sorted = s->v[i].first > s->v[i - 1].last;
    if (sorted) return;
    qsort(s->v, s->n, sizeof *s->v, by_first);
    size_t k = 0;
    for (size_t i = 1; i < s->n; i++) {
        if (s->v[i].first <= s->v[k].last + 1) {
            if (s->v[i].last > s->v[k].last) s->v[k].last = s->v[i].last;
        } else {
            s->v[++k] = s->v[i];
        }
    }
    s->n = k + 1;
}

void uset_add_all(uset *s, const uset *other) {
    if (other->failed) s->failed = true;
    for (size_t i = 0; i < other->n; i++) uset_add(s, other->v[i].first, other->v[i].last);
    uset_tidy(s);
}

void uset_invert(uset *s) {
    uset_tidy(s);
    uset out = {.failed = s->failed};
    uint32_t at = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (s->v[i].first > at) uset_add(&out, at, s->v[i].first - 1);
        at = s->v[i].last + 1;
    }
    if (at <= CP_MAX) uset_add(&out, at, CP_MAX);
    uset_fini(s);
    *s = out;
}

void uset_intersect(uset *s, const uset *other) {
    uset_tidy(s);
    uset out = {.failed = s->failed || other->failed};
    for (size_t i = 0, j = 0; i < s->n && j < other->n;) {
        uint32_t lo = s->v[i].first > other->v[j].first ? s->v[i].first : other->v[j].first;
        uint32_t hi = s->v[i].last < other->v[j].last ? s->v[i].last : other->v[j].last;
        if (lo <= hi) uset_add(&out, lo, hi);
        if (s->v[i].last < other->v[j].last)
            i++;
        else
            j++;
    }
    uset_fini(s);
    *s = out;
}

bool uset_has(const uset *s, uint32_t cp) {
    size_t lo = 0, hi = s->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (s->v[mid].last < cp)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < s->n && s->v[lo].first <= cp;
}

/* ---- properties ---- */

static uint32_t leb(const unsigned char **p) {
    uint32_t v = 0;
    for (int shift = 0;; shift += 7) {
        unsigned char c = *(*p)++;
        v |= (uint32_t)(c & 127) << shift;
        if (c < 128) return v;
    }
}

static bool add_table_set(uset *s, const char *name) {
    for (size_t i = 0; i < unicode_sets_len; i++) {
        if (strcmp(unicode_sets[i].name, name) != 0) continue;
        const unsigned char *p = unicode_ranges + unicode_sets[i].at;
        uint32_t at = 0;
        for (uint32_t k = 0; k < unicode_sets[i].n; k++) {
            uint32_t first = at + leb(&p), last = first + leb(&p);
            uset_add(s, first, last);
            at = last + 1;
        }
        uset_tidy(s);
        return true;
    }
    return false;
}

bool uset_add_property(uset *s, const char *name, size_t len) {
    static const struct {
        const char *name, *parts[8];
    } groups[] = {
        {"l", {"lu", "ll", "lt", "lm", "lo"}},
        {"letter", {"lu", "ll", "lt", "lm", "lo"}},
        {"lc", {"lu", "ll", "lt"}},
        {"casedletter", {"lu", "ll", "lt"}},
        {"m", {"mn", "mc", "me"}},
        {"mark", {"mn", "mc", "me"}},
        {"combiningmark", {"mn", "mc", "me"}},
        {"n", {"nd", "nl", "no"}},
        {"number", {"nd", "nl", "no"}},
        {"p", {"pc", "pd", "ps", "pe", "pi", "pf", "po"}},
        {"punctuation", {"pc", "pd", "ps", "pe", "pi", "pf", "po"}},
        {"s", {"sm", "sc", "sk", "so"}},
        {"symbol", {"sm", "sc", "sk", "so"}},
        {"z", {"zs", "zl", "zp"}},
        {"separator", {"zs", "zl", "zp"}},
        {"c", {"cc", "cf", "co", "cn"}},
        {"other", {"cc", "cf", "co", "cn"}},
        {"uppercaseletter", {"lu"}},
        {"lowercaseletter", {"ll"}},
        {"titlecaseletter", {"lt"}},
        {"modifierletter", {"lm"}},
        {"otherletter", {"lo"}},
        {"nonspacingmark", {"mn"}},
        {"spacingmark", {"mc"}},
        {"enclosingmark", {"me"}},
        {"decimalnumber", {"nd"}},
        {"letternumber", {"nl"}},
        {"othernumber", {"no"}},
        {"connectorpunctuation", {"pc"}},
        {"dashpunctuation", {"pd"}},
        {"openpunctuation", {"ps"}},
        {"closepunctuation", {"pe"}},
        {"initialpunctuation", {"pi"}},
        {"finalpunctuation", {"pf"}},
        {"otherpunctuation", {"po"}},
        {"mathsymbol", {"sm"}},
        {"currencysymbol", {"sc"}},
        {"modifiersymbol", {"sk"}},
        {"othersymbol", {"so"}},
        {"spaceseparator", {"zs"}},
        {"lineseparator", {"zl"}},
        {"paragraphseparator", {"zp"}},
        {"control", {"cc"}},
        {"format", {"cf"}},
        {"privateuse", {"co"}},
        {"unassigned", {"cn"}},
        {"wspace", {"whitespace"}},
        {"alpha", {"posixalpha"}},
    };
    char key[64];
    size_t k = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c == ' ' || c == '-' || c == '_') continue;
        if (k + 6 >= sizeof key || c >= 128) return false;
        key[k++] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
    }
    key[k] = 0;
    if (!k) return false;
    if (strcmp(key, "any") == 0) {
        uset_add(s, 0, CP_MAX);
        uset_tidy(s);
        return true;
    }
    if (strcmp(key, "assigned") == 0) {
        uset cn = {0};
        add_table_set(&cn, "cn");
        uset_invert(&cn);
        uset_add_all(s, &cn);
        uset_fini(&cn);
        return true;
    }
    for (size_t i = 0; i < ARRAY_LEN(groups); i++) {
        if (strcmp(groups[i].name, key) != 0) continue;
        for (size_t j = 0; j < 8 && groups[i].parts[j]; j++) add_table_set(s, groups[i].parts[j]);
        return true;
    }
    if (add_table_set(s, key)) return true;
    for (size_t i = 0; i < unicode_aliases_len; i++)
        if (strcmp(unicode_aliases[i].name, key) == 0) return add_table_set(s, unicode_aliases[i].of);
    char posix[64 + 6] = "posix";
    memcpy(posix + 5, key, k + 1);
    return add_table_set(s, posix);
}

/* ---- case ---- */

static bool map_find(const unicode_map *m, size_t n, uint32_t cp, uint32_t *to) {
    size_t lo = 0, hi = n;
    while (lo < hi) { /* the last run that starts at or before cp */
        size_t mid = lo + (hi - lo) / 2;
        if (m[mid].from <= cp)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (!lo) return false;
    const unicode_map *r = &m[lo - 1];
    uint32_t d = cp - r->from;
    if (d % r->stride == 0 && d / r->stride < r->count) {
        *to = r->to + d;
        return true;
    }
    return false;
}

uint32_t unicode_to_lower(uint32_t cp) {
    if (cp < 128) return cp >= 'A' && cp <= 'Z' ? cp + 32 : cp;
    uint32_t to;
    return map_find(unicode_lower, unicode_lower_len, cp, &to) ? to : cp;
}

void uset_fold(uset *s) {
    uset_tidy(s);
    uset keys = {0}, more = {0}; /* the smallest member of every orbit that s touches */
    for (size_t i = 0; i < unicode_fold_len; i++) {
        const unicode_map *m = &unicode_fold[i];
        for (uint32_t k = 0; k < m->count; k++)
            if (uset_has(s, m->from + k * m->stride)) {
                uint32_t t = m->to + k * m->stride;
                uset_add(&keys, t, t);
            }
    }
    uset_tidy(&keys);
    for (size_t i = 0; i < unicode_fold_len && keys.n; i++) {
        const unicode_map *m = &unicode_fold[i];
        for (uint32_t k = 0; k < m->count; k++)
            if (uset_has(&keys, m->to + k * m->stride)) {
                uint32_t c = m->from + k * m->stride;
                uset_add(&more, c, c);
            }
    }
    if (keys.failed) s->failed = true;
    uset_tidy(&more);
    uset_add_all(s, &more);
    uset_fini(&keys);
    uset_fini(&more);
}

/* ---- maps ---- */

void cpmap_fini(cpmap *m) {
    mem_free(m->pages);
    m->pages = NULL;
}

typedef struct sweep {
    const uset *sets;
    size_t n, words;
    size_t *at;    /* the range of each set that ends at or after the sweep */
    uint64_t *sig; /* which sets hold the current interval */
} sweep;

/* The end of the interval that starts at cp, within which no set changes; fills sig. */
static uint32_t sweep_interval(sweep *w, uint32_t cp) {
    uint32_t end = CP_MAX;
    memset(w->sig, 0, w->words * sizeof *w->sig);
    for (size_t i = 0; i < w->n; i++) {
        const uset *s = &w->sets[i];
        while (w->at[i] < s->n && s->v[w->at[i]].last < cp) w->at[i]++;
        if (w->at[i] == s->n) continue;
        const struct urange *r = &s->v[w->at[i]];
        if (r->first <= cp) {
            w->sig[i / 64] |= (uint64_t)1 << (i % 64);
            if (r->last < end) end = r->last;
        } else if (r->first - 1 < end) {
            end = r->first - 1;
        }
    }
    return end;
}

typedef struct pager { /* fills a map page by page, sharing pages that are equal */
    cpmap *m;
    uint8_t cur[256];
    uint32_t hash[512]; /* of page i, at i % 512 */
    size_t n_page, cap;
    bool failed;
} pager;

static void pager_flush(pager *p, uint32_t page_no) {
    /* Equal pages come in long rows or among the last few: looking at all would be slow, at some is enough. */
    size_t from = p->n_page > 512 ? p->n_page - 512 : 0;
    uint64_t h = 0;
    for (size_t i = 0; i < 256; i += 8) {
        uint64_t w;
        memcpy(&w, p->cur + i, 8);
        h = (h ^ w) * 0x9E3779B97F4A7C15u;
        h ^= h >> 32;
    }
    for (size_t i = p->n_page; i > from; i--)
        if (p->hash[(i - 1) % 512] == (uint32_t)h && memcmp(p->m->pages + (i - 1) * 256, p->cur, 256) == 0) {
            p->m->page[page_no] = (uint16_t)(i - 1);
            return;
        }
    if (p->n_page == p->cap) {
        size_t cap = p->cap ? 2 * p->cap : 64;
        void *q = mem_realloc(p->m->pages, cap * 256);
        if (!q) {
            p->failed = true;
            return;
        }
        p->m->pages = q;
        p->cap = cap;
    }
    memcpy(p->m->pages + p->n_page * 256, p->cur, 256);
    p->hash[p->n_page % 512] = (uint32_t)h;
    p->m->page[page_no] = (uint16_t)p->n_page++;
}

static bool fill(cpmap *m, const uset *sets, size_t n, bool flags, uint32_t rep[256], size_t *n_class,
                 status *st) {
    *m = (cpmap){0};
    sweep w = {.sets = sets, .n = n, .words = n / 64 + 1};
    w.at = mem_calloc(n, sizeof *w.at);
    w.sig = mem_calloc(w.words, sizeof *w.sig);
    uint64_t *seen = flags ? NULL : mem_calloc(256 * w.words, sizeof *seen);
    pager *pg = mem_calloc(1, sizeof *pg);
    bool ok = w.at && w.sig && pg && (flags || seen);
    for (size_t i = 0; i < n; i++) ok = ok && !sets[i].failed;
    size_t classes = 0;
    if (!ok) {
        status_set(st, ST_NO_MEMORY, "no memory for a table of characters");
        goto out;
    }
    pg->m = m;
    for (uint32_t cp = 0; cp <= CP_MAX;) {
        uint32_t end = sweep_interval(&w, cp);
        uint8_t value;
        if (flags) {
            value = (uint8_t)w.sig[0];
        } else {
            size_t k = 0;
            while (k < classes && memcmp(seen + k * w.words, w.sig, w.words * sizeof *w.sig) != 0) k++;
            if (k == classes) {
                if (classes == 256) {
                    ok = status_set(st, ST_UNSUPPORTED,
                                    "a pattern that tells more than 256 kinds of characters apart");
                    goto out;
                }
                memcpy(seen + k * w.words, w.sig, w.words * sizeof *w.sig);
                rep[classes++] = cp;
            }
            value = (uint8_t)k;
        }
        while (cp <= end) {
            uint32_t stop = (cp | 255) < end ? (cp | 255) : end;
            memset(pg->cur + (cp & 255), value, stop - cp + 1);
            if ((stop & 255) == 255) pager_flush(pg, stop >> 8);
            cp = stop + 1;
        }
    }
    if (pg->failed) {
        ok = status_set(st, ST_NO_MEMORY, "no memory for a table of characters");
        goto out;
    }
    memcpy(m->ascii, m->pages + (size_t)m->page[0] * 256, 128);
    if (n_class) *n_class = classes;
out:
    mem_free(w.at);
    mem_free(w.sig);
    mem_free(seen);
    mem_free(pg);
    if (!ok) cpmap_fini(m);
    return ok;
}

bool cpmap_classes(cpmap *m, const uset *sets, size_t n, uint32_t rep[256], size_t *n_class, status *st) {
    return fill(m, sets, n, false, rep, n_class, st);
}

bool cpmap_flags(cpmap *m, const uset *sets, size_t n, status *st) {
    CHECK(n <= 8);
    return fill(m, sets, n, true, NULL, NULL, st);
}
