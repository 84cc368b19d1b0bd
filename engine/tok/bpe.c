/* bpe.c - byte pair encoding over characters, with byte fallback, as the tokenizers library does it.
 *
 * The model is read-only after bpe_load; a bpe_work belongs to one encode. Merging keeps the pairs of a long
 * word in a heap (n log n) and looks through short words directly; words met before in the same text come
 * from a small table. Source: Sennrich et al. 2016 (BPE); the order of merges and the treatment of unknown
 * characters follow the library's models/bpe. Tested by tests/engine/tok/test_tok.c. */
#include "engine/tok/tok_int.h"

#include <stdio.h>
#include <string.h>

#define SHORT_WORD 32  /* symbols up to which looking through all pairs beats a heap */
#define CACHE_WORD 128 /* bytes of the longest word that is remembered */
#define CACHE_TEXT 512 /* bytes of text from which remembering pays */

typedef struct pair_slot {
    uint64_t pair; /* left id << 32 | right id; EMPTY: none */
    uint32_t rank;
    int32_t id;
} pair_slot;
#define EMPTY UINT64_MAX

typedef struct bpe {
    tok_model base;
    pair_slot *pairs;
    size_t mask;
    char *prefix, *suffix, *unk; /* NULL: none */
    size_t prefix_n, suffix_n;
    int32_t unk_id; /* -1: not in the vocabulary */
    bool fuse_unk, byte_fallback, ignore_merges;
    int32_t ascii[128];    /* the id of each one-character token, or -1 */
    int32_t byte_ids[256]; /* the ids of <0x00> .. <0xFF>, or -1 */
    /* A text without pre-tokenizer is one word. No merge reaches over a U+2581 that follows a character whose
     * last byte is not in joins[], so such a word is cut there first. */
    bool cut;
    bool joins[256];
} bpe;

typedef struct symbol {
    int32_t id, prev, next; /* next -1: the last one */
    bool dead;
} symbol;
typedef struct heap_item {
    uint32_t rank, pos;
    int32_t id;
} heap_item;
typedef struct cached { /* key: bytes of the text being encoded, which stays in place */
    const char *key;
    uint32_t len, hash, at, n; /* at, n: in the pool of ids */
} cached;
typedef struct bpe_work {
    symbol *sym;
    heap_item *heap;
    size_t sym_cap, heap_n, heap_cap;
    uint32_t *ranks; /* of short words */
    cached *cache;
    size_t cache_mask;
    tok_ids pool;
} bpe_work;

static inline const pair_slot *pair_find(const bpe *m, int32_t a, int32_t b) {
    uint64_t key = (uint64_t)(uint32_t)a << 32 | (uint32_t)b;
    uint64_t h = key * 0x9E3779B97F4A7C15u;
    for (size_t k = (h >> 32) & m->mask;; k = (k + 1) & m->mask) {
        const pair_slot *s = &m->pairs[k];
        if (s->pair == key) return s;
        if (s->pair == EMPTY) return NULL;
    }
}

/* ---- merging ---- */

static bool no_memory(status *st) {
    return status_set(st, ST_NO_MEMORY, "no memory to tokenize a text");
}

static bool room_for_symbols(bpe_work *w, size_t n) {
    if (n <= w->sym_cap) return true;
    size_t cap = w->sym_cap ? w->sym_cap : 64;
    while (cap < n) cap *= 2;
    void *p = mem_realloc(w->sym, cap * sizeof *w->sym);
    if (!p) return false;
    w->sym = p;
    w->sym_cap = cap;
    return true;
}

static inline bool before(const heap_item *a, const heap_item *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->pos < b->pos;
}

static bool heap_push(bpe_work *w, heap_item x) {
    if (w->heap_n == w->heap_cap) {
        size_t cap = w->heap_cap ? 2 * w->heap_cap : 128;
        void *p = mem_realloc(w->heap, cap * sizeof *w->heap);
        if (!p) return false;
        w->heap = p;
        w->heap_cap = cap;
    }
    size_t i = w->heap_n++;
    while (i) {
        size_t up = (i - 1) / 4;
        if (!before(&x, &w->heap[up])) break;
        w->heap[i] = w->heap[up];
        i = up;
    }
    w->heap[i] = x;
    return true;
}

static heap_item heap_pop(bpe_work *w) {
    heap_item top = w->heap[0], x = w->heap[--w->heap_n];
    size_t i = 0;
    for (;;) {
        size_t c = 4 * i + 1, best = c, end = c + 4 < w->heap_n ? c + 4 : w->heap_n;
        if (c >= w->heap_n) break;
        for (size_t k = c + 1; k < end; k++)
            if (before(&w->heap[k], &w->heap[best])) best = k;
        if (!before(&w->heap[best], &x)) break;
        w->heap[i] = w->heap[best];
        i = best;
    }
    if (w->heap_n) w->heap[i] = x;
    return top;
}

static bool offer(const bpe *m, bpe_work *w, int32_t left, int32_t right) {
    const pair_slot *p = pair_find(m, w->sym[left].id, w->sym[right].id);
    return !p || heap_push(w, (heap_item){p->rank, (uint32_t)left, p->id});
}

static bool merge_long(const bpe *m, bpe_work *w, size_t n, status *st) {
    w->heap_n = 0;
    for (size_t i = 0; i < n; i++) {
        w->sym[i].prev = (int32_t)i - 1;
        w->sym[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
        w->sym[i].dead = false;
    }
    for (size_t i = 0; i + 1 < n; i++)
        if (!offer(m, w, (int32_t)i, (int32_t)i + 1)) return no_memory(st);
    while (w->heap_n) {
        heap_item top = heap_pop(w);
        symbol *s = &w->sym[top.pos];
        if (s->dead || s->next < 0) continue;
        symbol *r = &w->sym[s->next];
        const pair_slot *p = pair_find(m, s->id, r->id);
        if (!p || p->id != top.id) continue; /* the pair has gone since it was offered */
        s->id = top.id;
        s->next = r->next;
        r->dead = true;
        if (s->next >= 0) w->sym[s->next].prev = (int32_t)top.pos;
        if (s->prev >= 0 && !offer(m, w, s->prev, (int32_t)top.pos)) return no_memory(st);
        if (s->next >= 0 && !offer(m, w, (int32_t)top.pos, s->next)) return no_memory(st);
    }
    return true;
}

/* Merges sym[0..n) and appends what is left. */
static bool merge(const bpe *m, bpe_work *w, size_t n, tok_ids *out, status *st) {
    if (n > SHORT_WORD) {
        if (!merge_long(m, w, n, st)) return false;
        for (size_t i = 0; i < n; i++)
            if (!w->sym[i].dead && !tok_ids_push(out, w->sym[i].id)) return no_memory(st);
        return true;
    }
    int32_t id[SHORT_WORD], made[SHORT_WORD];
    uint32_t rank[SHORT_WORD]; /* of the pair (i, i + 1); UINT32_MAX: no merge */
    for (size_t i = 0; i < n; i++) id[i] = w->sym[i].id;
    for (size_t i = 0; i + 1 < n; i++) {
        const pair_slot *p = pair_find(m, id[i], id[i + 1]);
        rank[i] = p ? p->rank : UINT32_MAX;
        made[i] = p ? p->id : -1;
    }
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == UINT32_MAX) break;
        id[best] = made[best];
        n--;
        memmove(&id[best + 1], &id[best + 2], (n - best - 1) * sizeof *id);
        if (best + 1 < n) {
            memmove(&rank[best + 1], &rank[best + 2], (n - best - 2) * sizeof *rank);
            memmove(&made[best + 1], &made[best + 2], (n - best - 2) * sizeof *made);
            const pair_slot *p = pair_find(m, id[best], id[best + 1]);
            rank[best] = p ? p->rank : UINT32_MAX;
            made[best] = p ? p->id : -1;
        }
        if (best > 0) {
            const pair_slot *p = pair_find(m, id[best - 1], id[best]);
            rank[best - 1] = p ? p->rank : UINT32_MAX;
            made[best - 1] = p ? p->id : -1;
        }
    }
    for (size_t i = 0; i < n; i++)
        if (!tok_ids_push(out, id[i])) return no_memory(st);
    return true;
}

static inline size_t char_len(unsigned char lead) {
    return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

/* One word to symbols, merged, appended to out. */
static bool word_to_ids(const bpe *m, bpe_work *w, const char *s, size_t n, tok_ids *out, status *st) {
    size_t per_char = m->suffix_n + m->prefix_n + 4, count = 0;
    if (!room_for_symbols(w, n + m->suffix_n + 2)) return no_memory(st);
    bool unk_pending = false;
    buf full = {0};
    bool ok = false;
    for (size_t i = 0; i < n;) {
        size_t k = char_len((unsigned char)s[i]);
        bool first = i == 0, last = i + k >= n;
        const char *c = s + i;
        size_t c_n = k;
        i += k;
        int32_t id;
        bool plain = (first || !m->prefix) && (!last || !m->suffix);
        if (plain && c_n == 1) {
            id = m->ascii[(unsigned char)*c];
        } else {
            if (!plain) {
                buf_clear(&full);
                if (!first && m->prefix) buf_append(&full, m->prefix, m->prefix_n);
                buf_append(&full, c, c_n);
                if (last && m->suffix) buf_append(&full, m->suffix, m->suffix_n);
                if (full.failed) goto out;
                c = full.data;
                c_n = full.len;
            }
            id = vocab_find(&m->base.vocab, c, c_n);
        }
        if (!room_for_symbols(w, count + per_char + 2)) goto out;
        if (id >= 0) {
            if (unk_pending) w->sym[count++].id = m->unk_id;
            unk_pending = false;
            w->sym[count++].id = id;
            continue;
        }
        if (m->byte_fallback) {
            bool all = true;
            for (size_t b = 0; b < c_n && all; b++) all = m->byte_ids[(unsigned char)c[b]] >= 0;
            if (all) { /* the library does not flush an unknown before bytes */
                for (size_t b = 0; b < c_n; b++) w->sym[count++].id = m->byte_ids[(unsigned char)c[b]];
                continue;
            }
        }
        if (!m->unk) continue;
        if (m->unk_id < 0) {
            status_set(st, ST_INVALID, "the unknown token '%.60s' is not in the vocabulary", m->unk);
            goto out;
        }
        if (unk_pending && !m->fuse_unk) w->sym[count++].id = m->unk_id;
        unk_pending = true;
    }
    if (unk_pending) w->sym[count++].id = m->unk_id;
    ok = count == 0 || merge(m, w, count, out, st);
out:
    buf_fini(&full);
    return ok || no_memory(st);
}

/* ---- words met before ---- */

static bool word_cached(const bpe *m, bpe_work *w, const char *s, size_t n, tok_ids *out, status *st) {
    if (!w->cache || n > CACHE_WORD) return word_to_ids(m, w, s, n, out, st);
    uint32_t hash = tok_hash(s, n);
    cached *c = &w->cache[hash & w->cache_mask];
    if (c->key && c->hash == hash && c->len == n && memcmp(c->key, s, n) == 0) {
        for (uint32_t i = 0; i < c->n; i++)
            if (!tok_ids_push(out, w->pool.v[c->at + i])) return no_memory(st);
        return true;
    }
    size_t from = out->n;
    if (!word_to_ids(m, w, s, n, out, st)) return false;
    if (w->pool.n + (out->n - from) < (1u << 22)) {
        *c = (cached){s, (uint32_t)n, hash, (uint32_t)w->pool.n, (uint32_t)(out->n - from)};
        for (size_t i = from; i < out->n; i++)
            if (!tok_ids_push(&w->pool, out->v[i])) return no_memory(st);
    }
    return true;
}

static bool bpe_encode(const tok_model *base, void *work, const char *s, size_t n, bool user, tok_ids *out,
                       status *st) {
    const bpe *m = (const bpe *)base;
    bpe_work *w = work;
    if (n == 0) return true;
    if (n > INT32_MAX) return status_set(st, ST_TOO_LARGE, "a word of %zu bytes", n);
    if (m->ignore_merges) {
        int32_t id = vocab_find(&base->vocab, s, n);
        if (id >= 0 && !tok_model_bars(base, user, id)) return tok_ids_push(out, id) || no_memory(st);
    }
    if (!m->cut) return word_cached(m, w, s, n, out, st);
    size_t from = 0;
    for (size_t i = 1; i + 3 <= n; i++) {
        const char *q = memchr(s + i, 0xE2, n - i);
        if (!q) break;
        i = (size_t)(q - s);
        if (i + 3 > n || memcmp(q, "\xE2\x96\x81", 3) != 0 || m->joins[(unsigned char)q[-1]]) continue;
        if (i >= 3 && memcmp(q - 3, "\xE2\x96\x81", 3) == 0) continue; /* a run of spaces stays whole */
        if (!word_cached(m, w, s + from, i - from, out, st)) return false;
        from = i;
    }
    return word_cached(m, w, s + from, n - from, out, st);
}

static void work_free(void *work) {
    bpe_work *w = work;
    if (!w) return;
    mem_free(w->sym);
    mem_free(w->heap);
    mem_free(w->cache);
    tok_ids_fini(&w->pool);
    mem_free(w);
}

static void *work_new(const tok_model *m, size_t text_n) {
    (void)m;
    bpe_work *w = mem_calloc(1, sizeof *w);
    if (!w || text_n < CACHE_TEXT) return w;
    size_t slots = 256;
    while (slots < text_n / 16 && slots < 16384) slots *= 2;
    w->cache = mem_calloc(slots, sizeof *w->cache);
    w->cache_mask = slots - 1;
    if (w->cache) return w;
    work_free(w);
    return NULL;
}

/* ---- loading ---- */

static void bpe_free(tok_model *base) {
    bpe *m = (bpe *)base;
    if (!m) return;
    vocab_fini(&base->vocab);
    mem_free(m->pairs);
    mem_free(m->prefix);
    mem_free(m->suffix);
    mem_free(m->unk);
    mem_free(m);
}

static const tok_model_ops bpe_ops = {bpe_free, work_new, work_free, bpe_encode};

/* A merge over a byte token or the unknown one joins what the text shows apart. */
static bool stands_for_other_text(const bpe *m, const char *s, size_t n) {
    return (n == 6 && memcmp(s, "<0x", 3) == 0) ||
           (m->unk && strlen(m->unk) == n && memcmp(m->unk, s, n) == 0);
}

static bool add_merge(bpe *m, size_t rank, const char *a, size_t a_n, const char *b, size_t b_n, buf *joined,
                      status *st) {
    const vocab *w = &m->base.vocab;
    int32_t ia = vocab_find(w, a, a_n), ib = vocab_find(w, b, b_n);
    if (ia < 0 || ib < 0)
        return status_set(st, ST_INVALID, "model.merges[%zu]: token '%.60s' is not in the vocabulary", rank,
                          ia < 0 ? a : b);
    if (b_n < m->prefix_n)
        return status_set(st, ST_INVALID, "model.merges[%zu]: '%.60s' is shorter than the prefix", rank, b);
    buf_clear(joined);
    buf_append(joined, a, a_n);
    if (!buf_append(joined, b + m->prefix_n, b_n - m->prefix_n)) return no_memory(st);
    int32_t id = vocab_find(w, joined->data, joined->len);
    if (id < 0)
        return status_set(st, ST_INVALID, "model.merges[%zu]: token '%.60s' is not in the vocabulary", rank,
                          joined->data);
    uint64_t key = (uint64_t)(uint32_t)ia << 32 | (uint32_t)ib;
    size_t k = ((key * 0x9E3779B97F4A7C15u) >> 32) & m->mask;
    while (m->pairs[k].pair != EMPTY && m->pairs[k].pair != key) k = (k + 1) & m->mask;
    m->pairs[k] = (pair_slot){key, (uint32_t)rank, id}; /* of two equal pairs the later counts */
    if (m->cut) {
        const char *s = joined->data;
        for (size_t i = 1; i + 3 <= joined->len; i++)
            if (memcmp(s + i, "\xE2\x96\x81", 3) == 0 &&
                !(i >= 3 && memcmp(s + i - 3, "\xE2\x96\x81", 3) == 0)) {
                m->joins[(unsigned char)s[i - 1]] = true;
                if (stands_for_other_text(m, a, a_n) || stands_for_other_text(m, b, b_n)) m->cut = false;
            }
    }
    return true;
}

static bool load_merges(bpe *m, const json_t *j, status *st) {
    json_t *list = json_object_get(j, "merges");
    if (!json_is_array(list))
        return status_set(st, ST_INVALID, "model.merges: expected an array, found %s", jkind(list));
    size_t n = json_array_size(list), size = 16;
    while (size < 2 * n) size *= 2;
    if (n >= UINT32_MAX / 2) return status_set(st, ST_UNSUPPORTED, "%zu merges", n);
    m->pairs = mem_alloc(size * sizeof *m->pairs);
    if (!m->pairs) return no_memory(st);
    m->mask = size - 1;
    for (size_t i = 0; i < size; i++) m->pairs[i].pair = EMPTY;
    buf joined = {0};
    bool ok = true;
    size_t rank = 0;
    for (size_t i = 0; i < n && ok; i++) {
        json_t *e = json_array_get(list, i);
        const char *a, *b;
        size_t a_n, b_n;
        if (json_is_string(e)) {
            a = json_string_value(e);
            size_t len = json_string_length(e);
            if (len >= 8 && memcmp(a, "#version", 8) == 0) continue;
            const char *gap = memchr(a, ' ', len);
            if (!gap || memchr(gap + 1, ' ', len - (size_t)(gap + 1 - a))) {
                ok = status_set(st, ST_INVALID,
                                "model.merges[%zu]: expected two tokens and one space, found '%.80s'", i, a);
                break;
            }
            a_n = (size_t)(gap - a);
            b = gap + 1;
            b_n = len - a_n - 1;
        } else {
            json_t *x = json_array_get(e, 0), *y = json_array_get(e, 1);
            if (json_array_size(e) != 2 || !json_is_string(x) || !json_is_string(y)) {
                ok = status_set(st, ST_INVALID,
                                "model.merges[%zu]: expected a string or a pair of strings, found %s", i,
                                jkind(e));
                break;
            }
            a = json_string_value(x);
            a_n = json_string_length(x);
            b = json_string_value(y);
            b_n = json_string_length(y);
        }
        ok = add_merge(m, rank++, a, a_n, b, b_n, &joined, st);
    }
    buf_fini(&joined);
    return ok;
}

static bool load_option(const json_t *j, const char *key, char **out, size_t *out_n, status *st) {
    const json_t *v = json_object_get(j, key);
    if (!v || json_is_null(v)) return true;
    if (!json_is_string(v))
        return status_set(st, ST_INVALID, "model.%s: expected a string, found %s", key, jkind(v));
    if (json_string_length(v) > 1024)
        return status_set(st, ST_INVALID, "model.%s: longer than 1024 bytes", key);
    *out_n = json_string_length(v);
    if (*out_n == 0) return true; /* adds nothing */
    *out = mem_strndup(json_string_value(v), *out_n);
    return *out || no_memory(st);
}

tok_model *bpe_load(const json_t *j, status *st) {
    bpe *m = mem_calloc(1, sizeof *m);
    if (!m) {
        no_memory(st);
        return NULL;
    }
    m->base.ops = &bpe_ops;
    const json_t *dropout = json_object_get(j, "dropout");
    size_t unk_n = 0;
    bool ok = true;
    if (json_is_number(dropout) && json_number_value(dropout) != 0)
        ok = status_set(st, ST_UNSUPPORTED, "model.dropout %g: ids would be random",
                        json_number_value(dropout));
    ok = ok && load_option(j, "continuing_subword_prefix", &m->prefix, &m->prefix_n, st) &&
         load_option(j, "end_of_word_suffix", &m->suffix, &m->suffix_n, st) &&
         load_option(j, "unk_token", &m->unk, &unk_n, st) &&
         jfield_bool(j, "fuse_unk", false, &m->fuse_unk, "model", st) &&
         jfield_bool(j, "byte_fallback", false, &m->byte_fallback, "model", st) &&
         jfield_bool(j, "ignore_merges", false, &m->ignore_merges, "model", st) &&
         vocab_from_json(&m->base.vocab, json_object_get(j, "vocab"), st);
    if (ok) {
        const vocab *w = &m->base.vocab;
        m->unk_id = m->unk ? vocab_find(w, m->unk, unk_n) : -1;
        for (int c = 0; c < 128; c++) {
            char one = (char)c;
            m->ascii[c] = vocab_find(w, &one, 1);
        }
        for (int b = 0; b < 256; b++) {
            char name[8];
            snprintf(name, sizeof name, "<0x%02X>", b);
            m->byte_ids[b] = vocab_find(w, name, 6);
        }
        m->cut = m->prefix_n + m->suffix_n == 0 && vocab_find(w, "\xE2\x96\x81", 3) >= 0;
        ok = load_merges(m, j, st);
    }
    if (ok) return &m->base;
    bpe_free(&m->base);
    return NULL;
}
