/* vocab.c - a hash table of token strings, see tok_int.h. Owns its pool; read-only after vocab_index_ids. */
#include "engine/tok/tok_int.h"

#include <string.h>

#define ID_MAX (1 << 26)

uint32_t tok_hash(const char *s, size_t len) {
    uint64_t h = 0x9E3779B97F4A7C15u ^ len;
    for (; len >= 8; s += 8, len -= 8) {
        uint64_t w;
        memcpy(&w, s, 8);
        h = (h ^ w) * 0xFF51AFD7ED558CCDu;
        h ^= h >> 32;
    }
    uint64_t w = 0;
    for (size_t i = 0; i < len; i++) w |= (uint64_t)(unsigned char)s[i] << (8 * i);
    h = (h ^ w) * 0xC4CEB9FE1A85EC53u;
    h ^= h >> 29;
    h *= 0xFF51AFD7ED558CCDu;
    return (uint32_t)(h >> 32);
}

void vocab_fini(vocab *w) {
    mem_free(w->pool);
    mem_free(w->v);
    mem_free(w->slots);
    mem_free(w->by_id);
    *w = (vocab){0};
}

static bool no_memory(status *st) {
    return status_set(st, ST_NO_MEMORY, "no memory for a vocabulary");
}

static bool rehash(vocab *w, size_t want, status *st) {
    size_t size = 64;
    while (size < want * 2) size *= 2;
    uint32_t *slots = mem_calloc(size, sizeof *slots);
    if (!slots) return no_memory(st);
    mem_free(w->slots);
    w->slots = slots;
    w->mask = size - 1;
    for (size_t i = 0; i < w->n; i++) {
        size_t k = w->v[i].hash & w->mask;
        while (slots[k]) k = (k + 1) & w->mask;
        slots[k] = (uint32_t)i + 1;
    }
    return true;
}

static bool grow(vocab *w, size_t n, size_t bytes, status *st) {
    if (n > UINT32_MAX / 4 || bytes > UINT32_MAX / 2)
        return status_set(st, ST_UNSUPPORTED, "a vocabulary of %zu tokens and %zu bytes", n, bytes);
    if (n > w->cap) {
        void *v = mem_realloc(w->v, n * sizeof *w->v);
        if (!v) return no_memory(st);
        w->v = v;
        w->cap = n;
    }
    if (bytes > w->pool_cap) {
        void *p = mem_realloc(w->pool, bytes);
        if (!p) return no_memory(st);
        w->pool = p;
        w->pool_cap = bytes;
    }
    return true;
}

bool vocab_init(vocab *w, size_t n, size_t bytes, status *st) {
    *w = (vocab){0};
    return grow(w, n + 1, bytes + n + 1, st) && rehash(w, n + 1, st);
}

static uint32_t lookup(const vocab *w, const char *s, size_t len, uint32_t hash) {
    for (size_t k = hash & w->mask;; k = (k + 1) & w->mask) {
        uint32_t i = w->slots[k];
        if (!i) return 0;
        const vocab_entry *e = &w->v[i - 1];
        if (e->hash == hash && e->len == len && memcmp(w->pool + e->at, s, len) == 0) return i;
    }
}

bool vocab_put(vocab *w, const char *s, size_t len, int32_t id, status *st) {
    if (id < 0 || id > ID_MAX)
        return status_set(st, ST_INVALID, "token id %d: expected 0 to %d", (int)id, ID_MAX);
    uint32_t hash = tok_hash(s, len), at = lookup(w, s, len, hash);
    if (at) {
        w->v[at - 1].id = id;
        return true;
    }
    if (w->n == w->cap && !grow(w, 2 * w->cap, 0, st)) return false;
    if (w->pool_cap - w->pool_len < len + 1 && !grow(w, 0, 2 * (w->pool_cap + len + 1), st)) return false;
    if (2 * w->n > w->mask && !rehash(w, 2 * w->n, st)) return false;
    w->v[w->n] = (vocab_entry){(uint32_t)w->pool_len, (uint32_t)len, id, hash};
    memcpy(w->pool + w->pool_len, s, len);
    w->pool_len += len;
    w->pool[w->pool_len++] = 0;
    size_t k = hash & w->mask;
    while (w->slots[k]) k = (k + 1) & w->mask;
    w->slots[k] = (uint32_t)++w->n;
    return true;
}

bool vocab_index_ids(vocab *w, status *st) {
    size_t max = 0;
    for (size_t i = 0; i < w->n; i++)
        if ((size_t)w->v[i].id + 1 > max) max = (size_t)w->v[i].id + 1;
    /* Ids are rows of the embedding matrix: a few gaps are usual, a desert is a broken file. */
    if (max > 64 * w->n + (1 << 20))
        return status_set(st, ST_INVALID, "a vocabulary of %zu tokens with an id of %zu", w->n, max - 1);
    w->by_id = mem_alloc(max * sizeof *w->by_id);
    if (!w->by_id) return no_memory(st);
    w->n_id = max;
    memset(w->by_id, 0xFF, max * sizeof *w->by_id);
    for (size_t i = 0; i < w->n; i++) w->by_id[w->v[i].id] = (int32_t)i;
    return true;
}

int32_t vocab_find(const vocab *w, const char *s, size_t len) {
    if (!w->slots) return -1;
    uint32_t at = lookup(w, s, len, tok_hash(s, len));
    return at ? w->v[at - 1].id : -1;
}

const char *vocab_string(const vocab *w, int32_t id, size_t *len) {
    if (id < 0 || (size_t)id >= w->n_id || w->by_id[id] < 0) return NULL;
    const vocab_entry *e = &w->v[w->by_id[id]];
    if (len) *len = e->len;
    return w->pool + e->at;
}

bool vocab_from_json(vocab *w, const json_t *j, status *st) {
    if (!json_is_object(j))
        return status_set(st, ST_INVALID, "model.vocab: expected an object, found %s", jkind(j));
    json_t *v = (json_t *)j, *id;
    size_t n = json_object_size(v), bytes = 0, len;
    const char *key;
    json_object_keylen_foreach(v, key, len, id) bytes += len;
    if (!vocab_init(w, n, bytes, st)) return false;
    json_object_keylen_foreach(v, key, len, id) {
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            return status_set(st, ST_INVALID, "model.vocab['%.60s']: expected an id, found %s", key,
                              jkind(id));
        if (!vocab_put(w, key, len, (int32_t)json_integer_value(id), st)) return false;
    }
    return vocab_index_ids(w, st);
}
