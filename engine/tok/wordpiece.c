/* wordpiece.c - WordPiece: the longest token that begins a word, then the longest that goes on, and so forth; and
 * WordLevel, its simplest relative.
 *
 * The model is read-only after loading and has no working memory. A word is looked up in a trie, so that a step costs
 * at most the longest token and a word at most its own length times that. Source: Wu et al. 2016; the bounds and the
 * treatment of unknown words follow the library's models/wordpiece and models/wordlevel. Tested by
 * tests/engine/tok/test_tok.c. */
#include "engine/tok/tok_int.h"

#include <string.h>

typedef struct wordpiece {
    tok_model base;
    trie pieces;   /* of WordPiece: every token, its id at the end */
    uint32_t more; /* where the prefix of continuing tokens ends in it */
    bool no_more;  /* no token begins with the prefix */
    char *unk;
    size_t unk_n, chars_max;
    int32_t unk_id; /* -1: not in the vocabulary */
} wordpiece;

static bool no_memory(status *st) {
    return status_set(st, ST_NO_MEMORY, "no memory to tokenize a text");
}

static bool unknown(const wordpiece *m, tok_ids *out, status *st) {
    if (m->unk_id < 0)
        return status_set(st, ST_INVALID, "the unknown token '%.60s' is not in the vocabulary", m->unk);
    return tok_ids_push(out, m->unk_id) || no_memory(st);
}

static bool too_long(const wordpiece *m, const char *s, size_t n) {
    size_t chars = 0;
    for (size_t i = 0; i < n && chars <= m->chars_max; i++) chars += ((unsigned char)s[i] & 0xC0) != 0x80;
    return chars > m->chars_max;
}

static bool wordpiece_encode(const tok_model *base, void *work, const char *s, size_t n, bool user,
                             tok_ids *out, status *st) {
    (void)work;
    const wordpiece *m = (const wordpiece *)base;
    if (too_long(m, s, n)) return unknown(m, out, st);
    size_t from = out->n;
    for (size_t at = 0; at < n;) {
        uint32_t node = at ? m->more : 0;
        int32_t id = -1;
        size_t end = at;
        for (size_t i = at; i < n && !(at && m->no_more);) {
            node = trie_child(&m->pieces, node, (uint8_t)s[i++]);
            if (!node) break;
            if (m->pieces.ends[node] < 0 || tok_model_bars(base, user, m->pieces.ends[node])) continue;
            id = m->pieces.ends[node];
            end = i;
        }
        if (id < 0) { /* one piece that is unknown makes the word unknown */
            out->n = from;
            return unknown(m, out, st);
        }
        if (!tok_ids_push(out, id)) return no_memory(st);
        at = end;
    }
    return true;
}

static bool wordlevel_encode(const tok_model *base, void *work, const char *s, size_t n, bool user,
                             tok_ids *out, status *st) {
    (void)work;
    int32_t id = vocab_find(&base->vocab, s, n);
    if (id < 0 || tok_model_bars(base, user, id)) return unknown((const wordpiece *)base, out, st);
    return tok_ids_push(out, id) || no_memory(st);
}

static void *work_new(const tok_model *m, size_t text_n) {
    (void)text_n;
    return (void *)(uintptr_t)m; /* none, but not NULL */
}

static void work_free(void *work) {
    (void)work;
}

static void model_free(tok_model *base) {
    wordpiece *m = (wordpiece *)base;
    vocab_fini(&base->vocab);
    trie_fini(&m->pieces);
    mem_free(m->unk);
    mem_free(m);
}

/* ---- loading ---- */

static bool load_pieces(wordpiece *m, const json_t *j, status *st) {
    const vocab *w = &m->base.vocab;
    size_t prefix_n;
    const char *prefix = jfield_string(j, "continuing_subword_prefix", &prefix_n, "model", st);
    if (!prefix) return false;
    if (!trie_init(&m->pieces, w->pool_len)) return no_memory(st);
    for (size_t i = 0; i < w->n; i++) *trie_put(&m->pieces, w->pool + w->v[i].at, w->v[i].len) = w->v[i].id;
    m->pieces.ends[0] = -1; /* an empty token matches nothing */
    for (size_t i = 0; i < prefix_n && !m->no_more; i++) {
        m->more = trie_child(&m->pieces, m->more, (uint8_t)prefix[i]);
        m->no_more = m->more == 0;
    }
    const json_t *max = json_object_get(j, "max_input_chars_per_word");
    if (!json_is_integer(max) || json_integer_value(max) < 0)
        return status_set(st, ST_INVALID, "model.max_input_chars_per_word: expected a count, found %s",
                          jkind(max));
    m->chars_max = (size_t)json_integer_value(max);
    return true;
}

static tok_model *load(const json_t *j, const tok_model_ops *ops, bool pieces, status *st) {
    wordpiece *m = mem_calloc(1, sizeof *m);
    if (!m) {
        no_memory(st);
        return NULL;
    }
    m->base.ops = ops;
    const char *unk = jfield_string(j, "unk_token", &m->unk_n, "model", st);
    bool ok = unk != NULL;
    if (ok) {
        m->unk = mem_strndup(unk, m->unk_n);
        ok = m->unk || no_memory(st);
    }
    ok = ok && vocab_from_json(&m->base.vocab, json_object_get(j, "vocab"), st);
    if (ok) m->unk_id = vocab_find(&m->base.vocab, m->unk, m->unk_n);
    if (ok && pieces) ok = load_pieces(m, j, st);
    if (ok) return &m->base;
    model_free(&m->base);
    return NULL;
}

tok_model *wordpiece_load(const json_t *j, status *st) {
    static const tok_model_ops ops = {model_free, work_new, work_free, wordpiece_encode};
    return load(j, &ops, true, st);
}

tok_model *wordlevel_load(const json_t *j, status *st) {
    static const tok_model_ops ops = {model_free, work_new, work_free, wordlevel_encode};
    return load(j, &ops, false, st);
}
