/* unigram.c - the Unigram model: of all ways to cut a word into pieces, the one whose scores add up to the most.
 *
 * The model is read-only after unigram_load; its working memory belongs to one encode. One pass over the word keeps,
 * for every place, the best way to get there; from a place only the pieces of the vocabulary that begin there are
 * walked, in a trie, so the work is the word's length times the longest piece. Scores are added from left to right
 * in double precision and of equal sums the first found counts, as in the library (models/unigram, after
 * SentencePiece's EncodeOptimized). Source: Kudo 2018. Tested by tests/engine/tok/test_tok.c. */
#include "engine/tok/tok_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define UNK_PENALTY 10.0

typedef struct unigram {
    tok_model base;
    trie pieces; /* an end's value is the piece's id */
    double *scores;
    double unk_score;
    int32_t unk_id; /* -1: none */
    bool byte_fallback;
    int32_t byte_ids[256]; /* the ids of <0x00> .. <0xFF>, or -1 */
} unigram;

typedef struct place { /* the best way to the end of a piece */
    double score;
    uint32_t from; /* where the piece begins; NOWHERE: no way yet */
    int32_t id;
} place;
#define NOWHERE UINT32_MAX

typedef struct unigram_work {
    place *v;
    size_t cap;
    tok_ids starts; /* of the best cut, from its end */
} unigram_work;

static bool no_memory(status *st) {
    return status_set(st, ST_NO_MEMORY, "no memory to tokenize a text");
}

static void *work_new(const tok_model *m, size_t text_n) {
    (void)m;
    (void)text_n;
    return mem_calloc(1, sizeof(unigram_work));
}

static void work_free(void *work) {
    unigram_work *w = work;
    if (!w) return;
    mem_free(w->v);
    tok_ids_fini(&w->starts);
    mem_free(w);
}

static inline void offer(place *to, double score, size_t from, int32_t id) {
    if (to->from == NOWHERE || score > to->score) *to = (place){score, (uint32_t)from, id};
}

static bool no_unknown(status *st) {
    return status_set(st, ST_INVALID, "a character is not in the vocabulary and the model has no unk_id");
}

static bool search(const unigram *m, unigram_work *w, const char *s, size_t n, bool user, status *st) {
    if (n + 1 > w->cap) {
        size_t cap = 2 * (n + 1);
        mem_free(w->v);
        w->v = mem_alloc(cap * sizeof *w->v);
        w->cap = w->v ? cap : 0;
        if (!w->v) return no_memory(st);
    }
    place *v = w->v;
    for (size_t i = 0; i <= n; i++) v[i].from = NOWHERE;
    v[0].score = 0;
    for (size_t at = 0; at < n;) {
        uint32_t cp, node = 0;
        int k = utf8_decode(s + at, n - at, &cp);
        size_t one = k ? (size_t)k : 1;
        double here = v[at].score;
        bool single = false;
        for (size_t i = at; i < n;) {
            node = trie_child(&m->pieces, node, (uint8_t)s[i++]);
            if (!node) break;
            int32_t id = m->pieces.ends[node];
            if (id < 0 || tok_model_bars(&m->base, user, id)) continue;
            offer(&v[i], m->scores[id] + here, at, id);
            single = single || i - at == one;
        }
        if (!single) {
            place *to = &v[at + one];
            double score = m->unk_score + here;
            if (m->unk_id < 0 && (to->from == NOWHERE || score > to->score)) return no_unknown(st);
            offer(to, score, at, m->unk_id);
        }
        at += one;
    }
    return true;
}

/* A piece, or unknown characters that stand together: by its string, then by its bytes, then unknown. */
static bool emit(const unigram *m, const char *s, size_t n, bool user, tok_ids *out, status *st) {
    int32_t id = vocab_find(&m->base.vocab, s, n);
    if (id >= 0 && tok_model_bars(&m->base, user, id)) id = -1;
    bool bytes = id < 0 && m->byte_fallback;
    for (size_t i = 0; i < n && bytes; i++) bytes = m->byte_ids[(unsigned char)s[i]] >= 0;
    if (bytes) {
        for (size_t i = 0; i < n; i++)
            if (!tok_ids_push(out, m->byte_ids[(unsigned char)s[i]])) return no_memory(st);
        return true;
    }
    if (id < 0 && m->unk_id < 0) return no_unknown(st);
    return tok_ids_push(out, id >= 0 ? id : m->unk_id) || no_memory(st);
}

static bool unigram_encode(const tok_model *base, void *work, const char *s, size_t n, bool user,
                           tok_ids *out, status *st) {
    const unigram *m = (const unigram *)base;
    unigram_work *w = work;
    if (n == 0) return true;
    if (n > INT32_MAX) return status_set(st, ST_TOO_LARGE, "a word of %zu bytes", n);
    if (!search(m, w, s, n, user, st)) return false;
    w->starts.n = 0;
    for (size_t end = n; end > 0; end = w->v[end].from)
        if (!tok_ids_push(&w->starts, (int32_t)end)) return no_memory(st);
    size_t at = 0, unknown = 0; /* [unknown, at): unknown characters that wait for what follows */
    for (size_t i = w->starts.n; i-- > 0;) {
        size_t end = (size_t)w->starts.v[i];
        bool known = w->v[end].id != m->unk_id || m->unk_id < 0;
        if (known) {
            if (at > unknown && !emit(m, s + unknown, at - unknown, user, out, st)) return false;
            if (!emit(m, s + at, end - at, user, out, st)) return false;
            unknown = end;
        }
        at = end;
    }
    return at == unknown || emit(m, s + unknown, at - unknown, user, out, st);
}

/* ---- loading ---- */

static void unigram_free(tok_model *base) {
    unigram *m = (unigram *)base;
    vocab_fini(&base->vocab);
    trie_fini(&m->pieces);
    mem_free(m->scores);
    mem_free(m);
}

static bool load_pieces(unigram *m, const json_t *list, status *st) {
    if (!json_is_array(list))
        return status_set(st, ST_INVALID, "model.vocab: expected an array, found %s", jkind(list));
    vocab *w = &m->base.vocab;
    size_t n = json_array_size(list), bytes = 0;
    double min = INFINITY;
    for (size_t i = 0; i < n; i++) bytes += json_string_length(json_array_get(json_array_get(list, i), 0));
    m->scores = mem_alloc(n * sizeof *m->scores);
    if (!m->scores || !trie_init(&m->pieces, bytes)) return no_memory(st);
    if (!vocab_init(w, n, bytes, st)) return false;
    for (size_t i = 0; i < n; i++) {
        const json_t *e = json_array_get(list, i), *s = json_array_get(e, 0), *score = json_array_get(e, 1);
        if (json_array_size(e) != 2 || !json_is_string(s) || !json_is_number(score))
            return status_set(st, ST_INVALID, "model.vocab[%zu]: expected a piece and its score, found %s", i,
                              jkind(e));
        m->scores[i] = json_number_value(score);
        if (m->scores[i] < min) min = m->scores[i];
        if (!vocab_put(w, json_string_value(s), json_string_length(s), (int32_t)i, st)) return false;
        *trie_put(&m->pieces, json_string_value(s), json_string_length(s)) = (int32_t)i;
    }
    m->pieces.ends[0] = -1; /* an empty piece matches nothing */
    m->unk_score = min - UNK_PENALTY;
    if (!vocab_index_ids(w, st)) return false;
    for (size_t i = 0; i < n;
         i++) { /* a piece that is there twice: texts get the later id, both stand for it */
        const json_t *s = json_array_get(json_array_get(list, i), 0);
        if (w->by_id[i] < 0)
            w->by_id[i] = w->by_id[vocab_find(w, json_string_value(s), json_string_length(s))];
    }
    return true;
}

tok_model *unigram_load(const json_t *j, status *st) {
    unigram *m = mem_calloc(1, sizeof *m);
    if (!m) {
        no_memory(st);
        return NULL;
    }
    static const tok_model_ops ops = {unigram_free, work_new, work_free, unigram_encode};
    m->base.ops = &ops;
    m->unk_id = -1;
    const json_t *list = json_object_get(j, "vocab"), *unk = json_object_get(j, "unk_id");
    bool ok =
        jfield_bool(j, "byte_fallback", false, &m->byte_fallback, "model", st) && load_pieces(m, list, st);
    if (ok && unk && !json_is_null(unk)) {
        json_int_t id = json_integer_value(unk);
        if (!json_is_integer(unk) || id < 0 || (size_t)id >= json_array_size(list))
            ok = status_set(st, ST_INVALID, "model.unk_id: expected 0 to %zu", json_array_size(list) - 1);
        else
            m->unk_id = (int32_t)id;
    }
    for (int b = 0; b < 256 && ok; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        m->byte_ids[b] = vocab_find(&m->base.vocab, name, 6);
    }
    if (ok) return &m->base;
    unigram_free(&m->base);
    return NULL;
}
