/* text.c - a text cut into pieces, on its way to ids; see tok_int.h. One call's memory. */
#include "engine/tok/tok_int.h"

#include <string.h>

static bool room(tok_str *t, size_t n) {
    if (!buf_reserve(&t->s, n)) return false;
    if (!t->track || t->al_cap >= t->s.len + n) return true;
    size_t cap = t->s.cap;
    void *p = mem_realloc(t->al, cap * sizeof *t->al);
    if (!p) {
        t->s.failed = true;
        return false;
    }
    t->al = p;
    t->al_cap = cap;
    return true;
}

bool tok_str_add(tok_str *t, const char *p, size_t n, const tok_align *al) {
    if (!room(t, n)) return false;
    if (t->track && n) memcpy(t->al + t->s.len, al, n * sizeof *al);
    return buf_append(&t->s, p, n);
}

bool tok_str_add_one(tok_str *t, const char *p, size_t n, tok_align al) {
    if (!room(t, n)) return false;
    if (t->track)
        for (size_t i = 0; i < n; i++) t->al[t->s.len + i] = al;
    return buf_append(&t->s, p, n);
}

void tok_str_clear(tok_str *t) {
    buf_clear(&t->s);
}

void tok_str_fini(tok_str *t) {
    buf_fini(&t->s);
    mem_free(t->al);
    *t = (tok_str){0};
}

void tok_text_fini(tok_text *x) {
    tok_str_fini(&x->t);
    tok_str_fini(&x->spare);
    mem_free(x->v);
    mem_free(x->v_spare);
    rx_work_fini(&x->rx);
    *x = (tok_text){0};
}

tok_piece tok_slice(const tok_str *t, uint32_t begin, uint32_t end) {
    return (tok_piece){begin, end, -1, t->track && begin < end ? t->al[begin].begin : 0};
}

tok_build tok_build_begin(tok_text *x) {
    x->spare.track = x->t.track;
    tok_str_clear(&x->spare);
    return (tok_build){.x = x};
}

void tok_build_piece(tok_build *b, tok_piece p) {
    tok_text *x = b->x;
    if (p.end <= p.begin || b->failed) return;
    if (b->n == x->spare_cap) {
        size_t cap = x->spare_cap ? 2 * x->spare_cap : 32;
        void *q = mem_realloc(x->v_spare, cap * sizeof *x->v_spare);
        if (!q) {
            b->failed = true;
            return;
        }
        x->v_spare = q;
        x->spare_cap = cap;
    }
    x->v_spare[b->n++] = p;
}

bool tok_build_done(tok_build *b, bool new_text, status *st) {
    tok_text *x = b->x;
    if (b->failed || (new_text && x->spare.s.failed))
        return status_set(st, ST_NO_MEMORY, "no memory to tokenize a text");
    if (new_text && x->spare.s.len > UINT32_MAX / 2)
        return status_set(st, ST_TOO_LARGE, "the text grows over 2 GiB");
    tok_piece *v = x->v;
    size_t cap = x->cap;
    x->v = x->v_spare;
    x->cap = x->spare_cap;
    x->n = b->n;
    x->v_spare = v;
    x->spare_cap = cap;
    if (new_text) {
        tok_str t = x->t;
        x->t = x->spare;
        x->spare = t;
        tok_str_clear(&x->spare);
    }
    return true;
}

/* ---- JSON fields ---- */

const char *jkind(const json_t *j) {
    if (!j) return "nothing";
    switch (json_typeof(j)) {
    case JSON_OBJECT: return "an object";
    case JSON_ARRAY: return "an array";
    case JSON_STRING: return "a string";
    case JSON_INTEGER: return "an integer";
    case JSON_REAL: return "a number";
    case JSON_TRUE:
    case JSON_FALSE: return "a boolean";
    default: return "null";
    }
}

const char *jfield_string(const json_t *obj, const char *key, size_t *len, const char *what, status *st) {
    const json_t *v = json_object_get(obj, key);
    if (!json_is_string(v)) {
        status_set(st, ST_INVALID, "%s: %s: expected a string, found %s", what, key, jkind(v));
        return NULL;
    }
    if (len) *len = json_string_length(v);
    return json_string_value(v);
}

bool jfield_bool(const json_t *obj, const char *key, bool absent, bool *out, const char *what, status *st) {
    const json_t *v = json_object_get(obj, key);
    *out = absent;
    if (!v || json_is_null(v)) return true;
    if (!json_is_boolean(v))
        return status_set(st, ST_INVALID, "%s: %s: expected true or false, found %s", what, key, jkind(v));
    *out = json_is_true(v);
    return true;
}

rx *jfield_pattern(const json_t *obj, const char *what, status *st) {
    const json_t *p = json_object_get(obj, "pattern");
    const json_t *s = json_object_get(p, "String"), *r = json_object_get(p, "Regex");
    const json_t *v = s ? s : r;
    if (!json_is_string(v)) {
        status_set(st, ST_INVALID, "%s: pattern: expected {\"String\": ...} or {\"Regex\": ...}", what);
        return NULL;
    }
    rx *out = rx_new(json_string_value(v), json_string_length(v), v == s, st);
    if (!out) status_prefix(st, "%s", what);
    return out;
}
