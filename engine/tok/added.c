/* added.c - added tokens: cut out of a text before anything else sees it, as the library's AddedVocabulary
 * does. Owns contents, patterns and tries; read-only after added_load. Tested by tests/engine/tok/test_tok.c.
 */
#include "engine/tok/tok_int.h"

#include <string.h>

#define CONTENT_MAX 4096 /* bounds the work a position of a text can take */

struct added_trie {
    trie t;          /* an end's value is the token's index in v */
    bool first[256]; /* bytes that some token begins with */
};

static void trie_free(added_trie *t) {
    if (!t) return;
    trie_fini(&t->t);
    mem_free(t);
}

static added_trie *trie_new(const added *a, bool normalized, status *st) {
    size_t bytes = 0, count = 0;
    for (size_t i = 0; i < a->n; i++)
        if (a->v[i].normalized == normalized && a->v[i].pattern_n) {
            bytes += a->v[i].pattern_n;
            count++;
        }
    if (!count) return NULL;
    added_trie *t = mem_calloc(1, sizeof *t);
    if (!t || !trie_init(&t->t, bytes)) {
        trie_free(t);
        status_set(st, ST_NO_MEMORY, "no memory for added tokens");
        return NULL;
    }
    for (size_t i = 0; i < a->n; i++) {
        const added_token *k = &a->v[i];
        if (k->normalized != normalized || !k->pattern_n) continue;
        t->first[(unsigned char)k->pattern[0]] = true;
        int32_t *end = trie_put(&t->t, k->pattern, k->pattern_n);
        if (*end < 0) *end = (int32_t)i;
    }
    return t;
}

/* ---- matching ---- */

typedef struct user_spans {
    const tok_span *v;
    size_t n, at; /* spans before `at` end before what is asked next */
} user_spans;

static bool overlaps(user_spans *u, size_t begin, size_t end) {
    while (u->at < u->n && u->v[u->at].end <= begin) u->at++;
    for (size_t i = u->at; i < u->n && u->v[i].begin < end; i++)
        if (u->v[i].end > begin && u->v[i].begin < u->v[i].end) return true;
    return false;
}

/* Does text [b, e) come from a user, in bytes of the original? */
static bool from_user(const tok_str *t, user_spans *u, size_t b, size_t e) {
    if (!u->n) return false;
    if (!t->track) return overlaps(u, b, e);
    size_t lo = t->al[b].begin, hi = t->al[e - 1].end;
    u->at = 0; /* origins need not rise */
    return hi > lo ? overlaps(u, lo, hi) : overlaps(u, lo, lo + 1);
}

static uint32_t last_char(const char *s, size_t begin, size_t end, size_t *at) {
    size_t i = end - 1;
    while (i > begin && ((unsigned char)s[i] & 0xC0) == 0x80) i--;
    uint32_t cp = 0xFFFD;
    utf8_decode(s + i, end - i, &cp);
    *at = i;
    return cp;
}

static bool split_piece(const added *a, const added_trie *t, const cpmap *cps, const tok_str *text,
                        tok_piece p, user_spans *u, tok_build *out) {
    const char *s = text->s.data;
    size_t done = p.begin;
    for (size_t i = p.begin; i < p.end;) {
        if (!t->first[(unsigned char)s[i]]) {
            i++;
            continue;
        }
        uint32_t node = 0;
        const added_token *k = NULL;
        size_t stop = i;
        for (size_t e = i; e < p.end;) {
            node = trie_child(&t->t, node, (uint8_t)s[e++]);
            if (!node) break;
            if (t->t.ends[node] < 0) continue;
            const added_token *c = &a->v[t->t.ends[node]];
            if ((c->special || c->guarded) && from_user(text, u, i, e)) continue;
            k = c;
            stop = e;
        }
        if (!k) {
            i++;
            continue;
        }
        size_t start = i, at;
        uint32_t cp = 0;
        i = stop;
        if (k->single_word) {
            bool before = start > p.begin && (cpmap_get(cps, last_char(s, p.begin, start, &at)) & CP_WORD);
            bool after =
                stop < p.end && utf8_decode(s + stop, p.end - stop, &cp) && (cpmap_get(cps, cp) & CP_WORD);
            if (before || after) continue;
        }
        if (k->lstrip) {
            while (start > p.begin && (cpmap_get(cps, last_char(s, p.begin, start, &at)) & CP_SPACE))
                start = at;
            if (start < done) start = done;
        }
        if (k->rstrip) {
            int len;
            while (stop < p.end && (len = utf8_decode(s + stop, p.end - stop, &cp)) > 0 &&
                   (cpmap_get(cps, cp) & CP_SPACE))
                stop += (size_t)len;
        }
        if (done < start) tok_build_piece(out, tok_slice(text, (uint32_t)done, (uint32_t)start));
        tok_piece token = tok_slice(text, (uint32_t)start, (uint32_t)stop);
        token.id = k->id;
        tok_build_piece(out, token);
        done = stop;
    }
    if (done != p.end) tok_build_piece(out, tok_slice(text, (uint32_t)done, p.end));
    return !out->failed;
}

bool added_split(const added *a, const added_trie *t, const cpmap *cps, tok_text *x, const tok_span *user,
                 size_t n_user, status *st) {
    tok_build b = {.x = x};
    user_spans u = {user, n_user, 0};
    for (size_t i = 0; i < x->n; i++) {
        if (x->v[i].id >= 0)
            tok_build_piece(&b, x->v[i]);
        else if (t)
            split_piece(a, t, cps, &x->t, x->v[i], &u, &b);
        else
            tok_build_piece(&b, tok_slice(&x->t, x->v[i].begin, x->v[i].end));
    }
    return tok_build_done(&b, false, st);
}

/* ---- loading ---- */

void added_fini(added *a) {
    for (size_t i = 0; i < a->n; i++) {
        if (a->v[i].pattern != a->v[i].content) mem_free(a->v[i].pattern);
        mem_free(a->v[i].content);
    }
    mem_free(a->v);
    trie_free(a->raw);
    trie_free(a->normal);
    vocab_fini(&a->contents);
    mem_free(a->by_id);
    *a = (added){0};
}

bool added_guard(added *a, int32_t id) {
    added_token *k = (added_token *)added_by_id(a, id);
    if (!k) return false;
    k->guarded = true;
    if (k->normalized) a->any_special_normalized = true;
    return true;
}

const added_token *added_by_id(const added *a, int32_t id) {
    return id >= 0 && (size_t)id < a->n_id && a->by_id[id] >= 0 ? &a->v[a->by_id[id]] : NULL;
}

static bool load_token(added_token *k, const json_t *j, const norm *nm, const cpmap *cps, status *st) {
    const char *content = jfield_string(j, "content", &k->content_n, "added_tokens", st);
    if (!content) return false;
    if (k->content_n > CONTENT_MAX)
        return status_set(st, ST_UNSUPPORTED, "added token of %zu bytes: at most %d", k->content_n,
                          CONTENT_MAX);
    bool ok = jfield_bool(j, "single_word", false, &k->single_word, "added_tokens", st) &&
              jfield_bool(j, "lstrip", false, &k->lstrip, "added_tokens", st) &&
              jfield_bool(j, "rstrip", false, &k->rstrip, "added_tokens", st) &&
              jfield_bool(j, "normalized", true, &k->normalized, "added_tokens", st) &&
              jfield_bool(j, "special", false, &k->special, "added_tokens", st);
    if (!ok) return false;
    k->content = k->pattern = mem_strndup(content, k->content_n);
    k->pattern_n = k->content_n;
    if (!k->content) return status_set(st, ST_NO_MEMORY, "no memory for added tokens");
    if (!k->normalized || !nm) return true;
    tok_str t = {0}, tmp = {0};
    rx_work work = {0};
    ok = tok_str_add(&t, k->content, k->content_n, NULL) ||
         status_set(st, ST_NO_MEMORY, "no memory for added tokens");
    ok = ok && norm_apply(nm, cps, &t, &tmp, &work, st);
    if (ok && t.s.len > CONTENT_MAX) ok = status_set(st, ST_UNSUPPORTED, "added token of %zu bytes", t.s.len);
    if (ok && (t.s.len != k->content_n || memcmp(t.s.data, k->content, t.s.len) != 0)) {
        k->pattern = mem_strndup(t.s.data ? t.s.data : "", t.s.len);
        k->pattern_n = t.s.len;
        if (!k->pattern) {
            k->pattern = k->content;
            ok = status_set(st, ST_NO_MEMORY, "no memory for added tokens");
        }
    }
    tok_str_fini(&t);
    tok_str_fini(&tmp);
    rx_work_fini(&work);
    return ok;
}

/* The library gives ids itself: a token of the vocabulary keeps its id there, others follow the largest. */
static bool add(added *a, added_token *k, const vocab *model, int32_t *next_id, status *st) {
    int32_t had = vocab_find(&a->contents, k->content, k->content_n);
    k->id = had >= 0 ? a->v[had].id : vocab_find(model, k->content, k->content_n);
    if (k->id < 0) k->id = (*next_id)++;
    if (had >= 0) { /* given twice: the later counts */
        added_token *old = &a->v[had];
        bool special = old->special || k->special;
        if (old->pattern != old->content) mem_free(old->pattern);
        mem_free(old->content);
        *old = *k;
        old->special = special;
        return true;
    }
    a->v[a->n++] = *k;
    return vocab_put(&a->contents, k->content, k->content_n, (int32_t)a->n - 1, st);
}

bool added_load(added *a, const json_t *j, const vocab *model, const norm *nm, const cpmap *cps, status *st) {
    *a = (added){0};
    if (!vocab_init(&a->contents, 16, 256, st)) return false;
    if (!j || json_is_null(j)) return true;
    if (!json_is_array(j))
        return status_set(st, ST_INVALID, "added_tokens: expected an array, found %s", jkind(j));
    size_t count = json_array_size(j);
    int32_t next_id = (int32_t)model->n, max = -1;
    a->v = mem_calloc(count, sizeof *a->v);
    if (!a->v) return status_set(st, ST_NO_MEMORY, "no memory for added tokens");
    for (size_t i = 0; i < count; i++) {
        added_token k = {0};
        bool ok = load_token(&k, json_array_get(j, i), nm, cps, st);
        if (ok && k.content_n) {
            ok = add(a, &k, model, &next_id, st);
            if (!ok) return false;
            continue;
        }
        if (k.pattern != k.content) mem_free(k.pattern);
        mem_free(k.content);
        if (!ok) return status_prefix(st, "added_tokens[%zu]", i);
    }
    for (size_t i = 0; i < a->n; i++)
        if (a->v[i].id > max) max = a->v[i].id;
    a->n_id = (size_t)(max + 1);
    a->by_id = mem_alloc(a->n_id * sizeof *a->by_id);
    if (!a->by_id) return status_set(st, ST_NO_MEMORY, "no memory for added tokens");
    memset(a->by_id, 0xFF, a->n_id * sizeof *a->by_id);
    for (size_t i = 0; i < a->n; i++) {
        a->by_id[a->v[i].id] = (int32_t)i;
        if (a->v[i].special && a->v[i].normalized) a->any_special_normalized = true;
    }
    status none = {0};
    a->raw = trie_new(a, false, &none);
    a->normal = trie_new(a, true, &none);
    if (none.code != ST_OK) return status_set(st, none.code, "%s", none.msg);
    return true;
}
