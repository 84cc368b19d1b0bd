/* tok.c - see tok.h: loading a tokenizer.json, and a text's way through it. A tok owns all its parts. */
#include "engine/tok/tok_int.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "kernels/json.h"

#define FILE_MAX ((size_t)512 << 20)

/* ---- ids ---- */

bool tok_ids_push(tok_ids *ids, int32_t id) {
    if (ids->n == ids->cap) {
        size_t cap = ids->cap ? 2 * ids->cap : 64;
        void *p = mem_realloc(ids->v, cap * sizeof *ids->v);
        if (!p) return false;
        ids->v = p;
        ids->cap = cap;
    }
    ids->v[ids->n++] = id;
    return true;
}

void tok_ids_fini(tok_ids *ids) {
    mem_free(ids->v);
    *ids = (tok_ids){0};
}

/* ---- loading ---- */

void tok_free(tok *t) {
    if (!t) return;
    if (t->model) {
        mem_free(t->model->barred);
        t->model->ops->free(t->model);
    }
    added_fini(&t->added);
    norm_free(t->norm);
    pretok_free(t->pretok);
    post_free(t->post);
    decoder_free(t->decoder);
    cpmap_fini(&t->cps);
    mem_free(t);
}

static bool load_flags(cpmap *m, status *st) {
    static const char *const names[8] = {"rustword",    "whitespace", "rustnumeric", "rustpunct",
                                         "bertcontrol", "bertmn",     "accents",     "normal"};
    uset sets[8] = {0};
    for (int i = 0; i < 8; i++) CHECK(uset_add_property(&sets[i], names[i], strlen(names[i])));
    bool ok = cpmap_flags(m, sets, 8, st);
    for (int i = 0; i < 8; i++) uset_fini(&sets[i]);
    return ok;
}

static tok_model *load_model(const json_t *j, status *st) {
    if (!json_is_object(j)) {
        status_set(st, ST_INVALID, "model: expected an object, found %s", jkind(j));
        return NULL;
    }
    const json_t *type = json_object_get(j, "type");
    if (type && !json_is_string(type)) {
        status_set(st, ST_INVALID, "model.type: expected a string, found %s", jkind(type));
        return NULL;
    }
    /* Files older than the field: the library tries the models in this order. */
    const char *name = type                                             ? json_string_value(type)
                       : json_object_get(j, "merges")                   ? "BPE"
                       : json_object_get(j, "max_input_chars_per_word") ? "WordPiece"
                       : json_is_array(json_object_get(j, "vocab"))     ? "Unigram"
                       : json_object_get(j, "unk_token")                ? "WordLevel"
                                                                        : "without a type";
    static const struct {
        const char *name;
        tok_model *(*load)(const json_t *j, status *st);
    } models[] = {{"BPE", bpe_load},
                  {"WordPiece", wordpiece_load},
                  {"Unigram", unigram_load},
                  {"WordLevel", wordlevel_load}};
    for (size_t i = 0; i < ARRAY_LEN(models); i++)
        if (strcmp(name, models[i].name) == 0) return models[i].load(j, st);
    status_set(st, ST_UNSUPPORTED, "tokenizer model '%.60s' is not built", name);
    return NULL;
}

static void bar(tok *t, int32_t id) {
    if ((size_t)id < t->model->vocab.n_id) t->model->barred[id] = true;
}

static bool load_parts(tok *t, const json_t *j, status *st) {
    if (!json_is_object(j)) return status_set(st, ST_INVALID, "expected a JSON object, found %s", jkind(j));
    if (!load_flags(&t->cps, st)) return false;
    t->model = load_model(json_object_get(j, "model"), st);
    if (!t->model) return false;
    t->norm = norm_load(json_object_get(j, "normalizer"), st);
    t->pretok = pretok_load(json_object_get(j, "pre_tokenizer"), st);
    t->post = post_load(json_object_get(j, "post_processor"), st);
    t->decoder = decoder_load(json_object_get(j, "decoder"), st);
    if (st->code != ST_OK) return false;
    const json_t *pad = json_object_get(json_object_get(j, "padding"), "pad_id");
    t->pad_id = json_is_integer(pad) && json_integer_value(pad) >= 0 && json_integer_value(pad) <= INT32_MAX
                    ? (int32_t)json_integer_value(pad)
                    : -1;
    if (!added_load(&t->added, json_object_get(j, "added_tokens"), &t->model->vocab, t->norm, &t->cps, st))
        return false;
    t->model->barred = mem_calloc(t->model->vocab.n_id, sizeof *t->model->barred);
    if (!t->model->barred) return status_set(st, ST_NO_MEMORY, "no memory for a tokenizer");
    for (size_t i = 0; i < t->added.n; i++)
        if (t->added.v[i].special) bar(t, t->added.v[i].id);
    return true;
}

tok *tok_from_json(const json_t *j, status *st) {
    tok *t = mem_calloc(1, sizeof *t);
    if (!t) {
        status_set(st, ST_NO_MEMORY, "no memory for a tokenizer");
        return NULL;
    }
    if (load_parts(t, j, st)) return t;
    tok_free(t);
    return NULL;
}

static tok *load_bytes(const char *p, size_t n, status *st) {
    json_error_t err;
    json_t *j = json_parse(p, n, JSON_ALLOW_NUL, &err);
    if (!j) {
        status_set(st, json_no_memory(&err) ? ST_NO_MEMORY : ST_INVALID, "not JSON: %s (line %d)", err.text,
                   err.line);
        return NULL;
    }
    tok *t = tok_from_json(j, st);
    json_decref(j);
    return t;
}

tok *tok_load(const char *path, status *st) {
    status local = {0};
    if (!st) st = &local;
    if (st->code != ST_OK) return NULL;
    struct stat sb;
    buf file = {0}, name = {0};
    buf_puts(&name, path);
    if (stat(path, &sb) == 0 && S_ISDIR(sb.st_mode)) buf_puts(&name, "/tokenizer.json");
    tok *t = NULL;
    if (name.failed)
        status_set(st, ST_NO_MEMORY, "no memory for a path");
    else if (buf_read_file(&file, name.data, FILE_MAX, st))
        t = load_bytes(file.data ? file.data : "", file.len, st);
    if (!t) status_prefix(st, "%s", name.data ? name.data : path);
    buf_fini(&file);
    buf_fini(&name);
    return t;
}

/* ---- encoding ---- */

/* Replaces what is not UTF-8 and moves the spans along. A span that begins or ends inside a replaced sequence
 * takes all of it. */
static bool clean(const char *text, size_t n, buf *out, tok_span *spans, size_t n_spans, status *st) {
    size_t at = 0, b = 0, e = 0; /* spans[b] is the next to begin, spans[e] the next to end */
    while (at < n) {
        uint32_t cp;
        size_t from = out->len;
        int k = utf8_decode(text + at, n - at, &cp);
        size_t took = (size_t)k;
        if (k) {
            buf_append(out, text + at, took);
        } else { /* one U+FFFD stands for as many bytes as buf_append_utf8 makes it stand for */
            took = 1;
            while (took < 4 && at + took < n) {
                buf one = {0};
                bool single = buf_append_utf8(&one, text + at, took + 1) && one.len == 3;
                buf_fini(&one);
                if (!single) break;
                took++;
            }
            buf_append(out, "\xEF\xBF\xBD", 3);
        }
        while (b < n_spans && spans[b].begin < at + took) spans[b++].begin = from;
        while (e < n_spans && e < b && spans[e].end <= at + took) spans[e++].end = out->len;
        at += took;
    }
    for (; b < n_spans; b++) spans[b].begin = out->len;
    for (; e < n_spans; e++) spans[e].end = out->len;
    return !out->failed || status_set(st, ST_NO_MEMORY, "no memory to tokenize a text");
}

/* Normalizes each text piece on its own. */
static bool normalize(const tok *t, tok_text *x, status *st) {
    if (!t->norm) return true;
    tok_build b = tok_build_begin(x);
    tok_str one = {.track = x->t.track}, tmp = {0};
    tok_str *to = &x->spare;
    bool ok = true;
    for (size_t i = 0; i < x->n && ok; i++) {
        tok_piece p = x->v[i];
        uint32_t at = (uint32_t)to->s.len;
        tok_str_clear(&one);
        tok_str_add(&one, x->t.s.data + p.begin, p.end - p.begin, x->t.track ? x->t.al + p.begin : NULL);
        ok = !one.s.failed || status_set(st, ST_NO_MEMORY, "no memory to tokenize a text");
        if (ok && p.id < 0) ok = norm_apply(t->norm, &t->cps, &one, &tmp, &x->rx, st);
        if (ok) tok_str_add(to, one.s.data ? one.s.data : "", one.s.len, one.al);
        p.begin = at;
        p.end = (uint32_t)to->s.len;
        tok_build_piece(&b, p);
    }
    tok_str_fini(&one);
    tok_str_fini(&tmp);
    return ok && tok_build_done(&b, true, st);
}

static bool encode_pieces(const tok *t, tok_text *x, const tok_span *user, size_t n_user, tok_ids *out,
                          status *st) {
    if (!added_split(&t->added, t->added.raw, &t->cps, x, user, n_user, st) || !normalize(t, x, st))
        return false;
    if (!added_split(&t->added, t->added.normal, &t->cps, x, user, n_user, st)) return false;
    if (t->pretok && !pretok_apply(t->pretok, &t->cps, x, st)) return false;
    void *work = t->model->ops->work_new(t->model, x->t.s.len);
    bool ok = work != NULL;
    if (!ok) status_set(st, ST_NO_MEMORY, "no memory to tokenize a text");
    for (size_t i = 0; i < x->n && ok; i++) {
        tok_piece p = x->v[i];
        if (p.id < 0)
            ok = t->model->ops->encode(t->model, work, x->t.s.data + p.begin, p.end - p.begin, n_user > 0,
                                       out, st);
        else if (!tok_ids_push(out, p.id))
            ok = status_set(st, ST_NO_MEMORY, "no memory to tokenize a text");
    }
    t->model->ops->work_free(work);
    return ok;
}

/* Cuts the ids of a text, so that max_ids are enough with what the post-processor adds. */
static bool truncate_ids(const tok *t, bool add_special, size_t max_ids, tok_ids *out, size_t from,
                         status *st) {
    size_t around = add_special && t->post ? post_added(t->post) : 0;
    if (around > max_ids)
        return status_set(st, ST_INVALID, "expected room for the %zu ids that surround a text, found %zu",
                          around, max_ids);
    if (out->n - from > max_ids - around) out->n = from + max_ids - around;
    return true;
}

bool tok_encode_max(const tok *t, const char *text, size_t n, const tok_span *user, size_t n_user,
                    bool add_special, size_t max_ids, tok_ids *out, status *st) {
    if (n > (size_t)INT32_MAX / 2) return status_set(st, ST_TOO_LARGE, "a text of %zu bytes", n);
    tok_text x = {0};
    tok_span *moved = NULL;
    size_t from = out->n;
    bool ok = true;
    if (!utf8_valid(text, n)) {
        moved = mem_alloc(n_user * sizeof *moved);
        ok = moved != NULL || status_set(st, ST_NO_MEMORY, "no memory to tokenize a text");
        if (ok && n_user) memcpy(moved, user, n_user * sizeof *moved);
        ok = ok && clean(text, n, &x.t.s, moved, n_user, st);
        user = moved;
    } else if (!buf_append(&x.t.s, text, n)) {
        ok = status_set(st, ST_NO_MEMORY, "no memory to tokenize a text");
    }
    bool origins = pretok_needs_origin(t->pretok) || (n_user && t->norm && t->added.any_special_normalized);
    if (ok && origins) {
        x.t.track = true;
        x.t.al_cap = x.t.s.len;
        x.t.al = mem_alloc(x.t.al_cap * sizeof *x.t.al);
        ok = x.t.al != NULL || status_set(st, ST_NO_MEMORY, "no memory to tokenize a text");
        for (size_t i = 0; ok && i < x.t.s.len;) { /* every byte of a character comes from all of it */
            uint32_t cp;
            int k = utf8_decode(x.t.s.data + i, x.t.s.len - i, &cp);
            for (int b = 0; b < k; b++)
                x.t.al[i + (size_t)b] = (tok_align){(uint32_t)i, (uint32_t)(i + (size_t)k)};
            i += (size_t)k;
        }
    }
    if (ok) {
        tok_build b = {.x = &x};
        tok_build_piece(&b, (tok_piece){0, (uint32_t)x.t.s.len, -1, 0});
        ok = tok_build_done(&b, false, st) && encode_pieces(t, &x, user, n_user, out, st);
    }
    ok = ok && truncate_ids(t, add_special, max_ids, out, from, st);
    ok = ok && (!t->post || post_apply(t->post, add_special, out, from, st));
    if (!ok) out->n = from;
    tok_text_fini(&x);
    mem_free(moved);
    return ok;
}

bool tok_encode(const tok *t, const char *text, size_t n, const tok_span *user, size_t n_user,
                bool add_special, tok_ids *out, status *st) {
    return tok_encode_max(t, text, n, user, n_user, add_special, SIZE_MAX, out, st);
}

/* ---- questions ---- */

const char *tok_emitted(const tok *t, int32_t id, size_t *len) {
    const added_token *k = added_by_id(&t->added, id);
    if (!k) return vocab_string(&t->model->vocab, id, len);
    *len = k->pattern_n;
    return k->pattern;
}

size_t tok_size(const tok *t) {
    size_t a = t->model->vocab.n_id, b = t->added.n_id;
    return a > b ? a : b;
}

int32_t tok_find(const tok *t, const char *token) {
    int32_t k = vocab_find(&t->added.contents, token, strlen(token));
    return k >= 0 ? t->added.v[k].id : vocab_find(&t->model->vocab, token, strlen(token));
}

const char *tok_id_string(const tok *t, int32_t id) {
    const added_token *k = added_by_id(&t->added, id);
    return k ? k->content : vocab_string(&t->model->vocab, id, NULL);
}

bool tok_guard(tok *t, int32_t id) {
    if (!added_guard(&t->added, id)) return false;
    bar(t, id);
    return true;
}

int32_t tok_pad_id(const tok *t) {
    return t->pad_id;
}

bool tok_is_special(const tok *t, int32_t id) {
    const added_token *k = added_by_id(&t->added, id);
    return k && k->special;
}
