/* tokfiles.c - see tokfiles.h. */
#include "engine/tokfiles.h"

#include <stdlib.h>
#include <string.h>

#include "engine/families/token_classes.h"
#include "kernels/json.h"

#define MAX_FILE_BYTES ((size_t)512 << 20)

static bool no_memory(status *st, const char *what) {
    return status_set(st, ST_NO_MEMORY, "no memory for %s", what);
}

/* A file as a whole; *missing: there is none. */
static bool read_text(const char *dir, const char *name, buf *out, bool *missing, status *st) {
    buf path = {0};
    status own = {0};
    bool ok = buf_printf(&path, "%s/%s", dir, name) || no_memory(st, name);
    bool read = ok && buf_read_file(out, path.data, MAX_FILE_BYTES, &own);
    buf_fini(&path);
    *missing = ok && !read && own.code == ST_NOT_FOUND;
    if (ok && !read && !*missing) status_set(st, own.code, "%s: %s", name, own.msg);
    return read;
}

bool tokfiles_object(const char *dir, const char *name, bool any_size, json_t **out, status *st) {
    json_error_t err;
    buf text = {0};
    bool missing;
    *out = NULL;
    json_t *j = NULL;
    if (read_text(dir, name, &text, &missing, st)) {
        j = json_parse(text.data, text.len, JSON_ALLOW_NUL | (any_size ? JSON_DECODE_INT_AS_REAL : 0), &err);
        if (!j && json_no_memory(&err))
            no_memory(st, name);
        else if (!j)
            status_set(st, ST_INVALID, "%s: line %d: %s", name, err.line, err.text);
        else if (!json_is_object(j))
            status_set(st, ST_INVALID, "%s: expected an object", name);
    }
    buf_fini(&text);
    if (json_is_object(j))
        *out = j;
    else
        json_decref(j);
    return missing || *out;
}

/* ---- a model out of files of its vocabulary ---- */

/* Calls take for each line without its end; stops where that says no. */
static bool each_line(const buf *text, bool (*take)(json_t *to, const char *line, size_t n), json_t *to) {
    const char *p = text->data, *end = p ? p + text->len : NULL;
    while (p && p < end) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((nl ? nl : end) - p);
        if (!take(to, p, n && p[n - 1] == '\r' ? n - 1 : n)) return false;
        p = nl ? nl + 1 : end;
    }
    return true;
}

static bool take_merge(json_t *merges, const char *line, size_t n) {
    if (n == 0 || (n >= 8 && memcmp(line, "#version", 8) == 0)) return true;
    json_t *s = json_stringn(line, n);
    return s && json_array_append_new(merges, s) == 0;
}

/* A word's id is its line; of two alike the later counts. */
static bool take_word(json_t *vocab, const char *line, size_t n) {
    char *word = mem_strndup(line, n);
    json_t *count = json_object_get(vocab, ""); /* lines so far */
    json_int_t at = json_integer_value(count);
    bool ok = word && json_integer_set(count, at + 1) == 0 &&
              (n == 0 || json_object_set_new(vocab, word, json_integer(at)) == 0);
    mem_free(word);
    return ok;
}

static json_t *of_words(const buf *text) {
    json_t *vocab = json_pack("{s:i}", "", 0);
    bool ok = vocab && each_line(text, take_word, vocab) && json_object_del(vocab, "") == 0;
    json_t *j =
        ok ? json_pack("{s:[], s:{s:s, s:O}}", "added_tokens", "model", "type", "WordPiece", "vocab", vocab)
           : NULL;
    json_decref(vocab);
    return j;
}

static json_t *of_merges(json_t *vocab, const buf *text) {
    json_t *merges = json_array();
    bool ok = merges && each_line(text, take_merge, merges);
    json_t *j = ok ? json_pack("{s:[], s:{s:s, s:O, s:O}}", "added_tokens", "model", "type", "BPE", "vocab",
                               vocab, "merges", merges)
                   : NULL;
    json_decref(merges);
    return j;
}

/* NULL without an error: the files are not there. */
static json_t *from_vocabulary(const char *dir, status *st) {
    json_t *vocab = NULL, *j = NULL;
    buf text = {0};
    bool missing, read;
    if (!tokfiles_object(dir, "vocab.json", false, &vocab, st)) return NULL;
    read = read_text(dir, vocab ? "merges.txt" : "vocab.txt", &text, &missing, st);
    if (read && !(j = vocab ? of_merges(vocab, &text) : of_words(&text))) no_memory(st, "the tokenizer");
    buf_fini(&text);
    json_decref(vocab);
    return j;
}

json_t *tokfiles_read(const char *dir, bool *bare, status *st) {
    json_t *file;
    *bare = false;
    if (!tokfiles_object(dir, "tokenizer.json", false, &file, st) || file) return file;
    *bare = true;
    if ((file = from_vocabulary(dir, st)) || st->code != ST_OK) return file;
    status_set(
        st, ST_NOT_FOUND,
        "%s: there is no tokenizer.json, nor vocab.json and merges.txt, nor vocab.txt (other files of a "
        "tokenizer, such as tokenizer.model, are not read)",
        dir);
    return NULL;
}

/* ---- names of tokens ---- */

json_t *tokfiles_config(const char *dir, status *st) {
    json_t *config = NULL, *map = NULL;
    /* the newer form keeps its tokens in the config alone */
    bool ok = tokfiles_object(dir, "tokenizer_config.json", true, &config, st) &&
              (json_object_get(config, "added_tokens_decoder") ||
               tokfiles_object(dir, "special_tokens_map.json", true, &map, st));
    if (ok && !config && !(config = json_object())) ok = no_memory(st, "the tokenizer's settings");
    if (ok && map && json_object_update(config, map) != 0) ok = no_memory(st, "the tokenizer's settings");
    json_decref(map);
    if (ok) return config;
    json_decref(config);
    return NULL;
}

static const char *const FLAGS[] = {"single_word", "lstrip", "rstrip", "normalized", "special"};

/* An added token as tokenizer.json has it, without an id; normalized is otherwise what special is not. */
static json_t *added_token(const char *text, const json_t *from, bool special) {
    const json_t *is = json_object_get(from, "special");
    if (json_is_boolean(is)) special = json_is_true(is);
    json_t *t = json_pack("{s:s, s:b, s:b, s:b, s:b, s:b}", "content", text, "single_word", 0, "lstrip", 0,
                          "rstrip", 0, "normalized", !special, "special", special);
    for (size_t i = 0; t && i < ARRAY_LEN(FLAGS) - 1; i++) {
        json_t *v = json_object_get(from, FLAGS[i]);
        if (json_is_boolean(v) && json_object_set(t, FLAGS[i], v) != 0) {
            json_decref(t);
            return NULL;
        }
    }
    return t;
}

typedef struct adding {
    json_t *added;       /* the tokenizer's list */
    const json_t *vocab; /* the model's */
    json_t *by_text;     /* added's entries by content: borrowed values, own references */
    json_int_t next;     /* id of the next new one */
} adding;

static json_int_t vocab_id(const adding *a, const char *text) {
    const json_t *v = json_object_get(a->vocab, text), *e;
    size_t i;
    if (json_is_integer(v)) return json_integer_value(v);
    json_array_foreach(a->vocab, i, e) { /* a Unigram's */
        const char *s = json_string_value(json_array_get(e, 0));
        if (s && strcmp(s, text) == 0) return (json_int_t)i;
    }
    return -1;
}

static bool begin(adding *a, json_t *tokenizer) {
    const json_t *model = json_object_get(tokenizer, "model");
    json_t *e;
    size_t i;
    a->vocab = json_object_get(model, "vocab");
    a->next = (json_int_t)(json_is_array(a->vocab) ? json_array_size(a->vocab) : json_object_size(a->vocab));
    a->by_text = json_object();
    json_array_foreach(a->added, i, e) {
        const char *text = json_string_value(json_object_get(e, "content"));
        json_int_t id = json_integer_value(json_object_get(e, "id"));
        if (text && a->by_text && json_object_set(a->by_text, text, e) != 0) return false;
        if (id >= a->next && id < INT32_MAX) a->next = id + 1;
    }
    return a->by_text != NULL;
}

/* A token joins; one that is there already takes its settings. */
static bool add(adding *a, const char *text, const json_t *like, bool special) {
    json_t *t = added_token(text, like, special), *was = json_object_get(a->by_text, text);
    json_int_t id = was ? json_integer_value(json_object_get(was, "id")) : vocab_id(a, text);
    bool ok = t != NULL;
    if (ok && was) {
        ok = json_object_update(was, t) == 0;
    } else if (ok) {
        if (id < 0) id = a->next;
        if (id >= a->next) a->next = id + 1;
        ok = json_object_set_new(t, "id", json_integer(id)) == 0 && json_array_append(a->added, t) == 0 &&
             json_object_set(a->by_text, text, t) == 0;
    }
    json_decref(t);
    return ok;
}

/* ---- which tokens there are ---- */

static int by_number(const void *a, const void *b) {
    long long x = strtoll(*(const char *const *)a, NULL, 10), y = strtoll(*(const char *const *)b, NULL, 10);
    return (x > y) - (x < y);
}

static bool put(json_t *to, json_int_t id, json_t *token) {
    char key[32];
    snprintf(key, sizeof key, "%lld", (long long)id);
    return token && json_object_set_new(to, key, token) == 0;
}

/* The names that every tokenizer has. Others, "..._token" too, are a model's own. */
static const char *const NAMES[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                    "pad_token", "cls_token", "mask_token"};

static const char *text_of(const json_t *v) {
    return json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
}

static bool ends_as_token(const char *key) {
    size_t n = strlen(key);
    return n > 6 && strcmp(key + n - 6, "_token") == 0;
}

static bool is_special(const json_t *config, const char *text) {
    static const char *const groups[] = {"extra_special_tokens", "additional_special_tokens"};
    const json_t *v;
    size_t k;
    bool is = false;
    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++) {
        const char *s = text_of(json_object_get(config, NAMES[i]));
        is |= s && strcmp(s, text) == 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(groups); i++)
        json_array_foreach(json_object_get(config, groups[i]), k, v) is |=
            text_of(v) && strcmp(text_of(v), text) == 0;
    return is;
}

/* added_tokens.json, which names ids alone, with the tokenizer's own over it: what there was before a config had them. */
static json_t *of_before(const char *dir, const json_t *own, const json_t *config, status *st) {
    json_t *file = NULL, *out = NULL;
    const char *text;
    const json_t *e;
    size_t i;
    if (!tokfiles_object(dir, "added_tokens.json", false, &file, st)) return NULL;
    bool ok = (out = json_object()) != NULL;
    json_object_foreach(file, text, e) ok =
        ok && put(out, json_integer_value(e), added_token(text, NULL, is_special(config, text)));
    json_array_foreach(own, i, e) ok =
        ok && put(out, json_integer_value(json_object_get(e, "id")), json_copy((json_t *)(uintptr_t)e));
    json_decref(file);
    if (ok) return out;
    json_decref(out);
    no_memory(st, "the tokenizer's tokens");
    return NULL;
}

/* The token of a name: the config's, else the class's own. v (may be NULL): what the config has of it. */
static const char *name_text(const json_t *config, const char *class, const char *name, const json_t **v) {
    const class_token *c;
    *v = json_object_get(config, name);
    for (int k = 0; class && !*v && (c = class_token_at(k)); k++)
        if (class_token_of(c, class) && strcmp(c->name, name) == 0) return c->token;
    return text_of(*v);
}

/* A token that every tokenizer has a name for, or this model: what a config calls "..._token", beside others or apart. */
static bool has_name(const json_t *config, const char *class, const char *text) {
    const char *key, *s;
    const json_t *v, *group = json_object_get(config, "extra_special_tokens");
    bool is = false;
    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
        is |= (s = name_text(config, class, NAMES[i], &v)) && strcmp(s, text) == 0;
    json_object_foreach((json_t *)(uintptr_t)config, key, v) is |=
        ends_as_token(key) && (s = text_of(v)) && strcmp(s, text) == 0;
    if (json_is_object(group))
        json_object_foreach((json_t *)(uintptr_t)group, key, v) is |=
            (s = text_of(v)) && strcmp(s, text) == 0;
    return is;
}

static bool alike(const json_t *a, const json_t *b) {
    for (size_t i = 0; i < ARRAY_LEN(FLAGS); i++)
        if (json_is_true(json_object_get(a, FLAGS[i])) != json_is_true(json_object_get(b, FLAGS[i])))
            return false;
    return a != NULL;
}

/* The tokens of an object by id, in the order of ids. One that is new, or other than it was, is special if it has a name. */
static bool add_by_id(adding *a, const json_t *tokens, const json_t *config, const char *class) {
    size_t n = json_object_size(tokens), k = 0;
    const char **ids = mem_calloc(n + 1, sizeof *ids), *id;
    const json_t *v;
    if (!ids) return false;
    json_object_foreach((json_t *)(uintptr_t)tokens, id, v) ids[k++] = id;
    qsort(ids, k, sizeof *ids, by_number);
    bool ok = true;
    for (size_t i = 0; i < k && ok; i++) {
        v = json_object_get(tokens, ids[i]);
        const char *text = json_string_value(json_object_get(v, "content"));
        if (!text || alike(json_object_get(a->by_text, text), v)) continue;
        ok = add(a, text, v, false);
        if (ok && has_name(config, class, text))
            ok = json_object_set_new(json_object_get(a->by_text, text), "special", json_true()) == 0;
    }
    mem_free(ids);
    return ok;
}

/* A named token: one that is not there yet joins as it says itself (v), else as a plain special one. plain: all are such. */
static bool add_named(adding *a, const json_t *v, const char *text, bool plain) {
    json_t *was = json_object_get(a->by_text, text);
    if (!was || plain) return add(a, text, plain || !json_is_object(v) ? NULL : v, true);
    return true;
}

static bool is_name(const char *key) {
    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
        if (strcmp(NAMES[i], key) == 0) return true;
    return false;
}

static bool add_names(adding *a, const json_t *config, const char *class) {
    static const char *const groups[] = {"extra_special_tokens", "additional_special_tokens"};
    bool plain = class && token_class_makes_plain(class);
    const char *key, *text;
    const json_t *v;
    size_t i;
    bool ok = true;
    for (i = 0; i < ARRAY_LEN(NAMES) && ok; i++) {
        text = name_text(config, class, NAMES[i], &v);
        ok = !text || add_named(a, v, text, plain);
    }
    json_object_foreach((json_t *)(uintptr_t)config, key, v) {
        if (ok && ends_as_token(key) && !is_name(key) && text_of(v)) ok = add_named(a, v, text_of(v), plain);
    }
    for (size_t g = 0; g < ARRAY_LEN(groups) && ok; g++) {
        const json_t *list = json_object_get(config, groups[g]);
        json_array_foreach(list, i, v) ok = ok && (!text_of(v) || add_named(a, v, text_of(v), plain));
        if (!json_is_object(list)) continue;
        json_object_foreach((json_t *)(uintptr_t)list, key, v) ok =
            ok && (!text_of(v) || add_named(a, v, text_of(v), plain));
    }
    return ok;
}

bool tokfiles_add_tokens(json_t *tokenizer, const char *dir, const json_t *config, const char *class,
                         status *st) {
    json_t *own = json_incref(json_object_get(tokenizer, "added_tokens")),
           *by_id = json_incref(json_object_get(config, "added_tokens_decoder"));
    adding a = {.added = class || !json_is_array(own) ? json_array() : json_incref(own)};
    if (!json_is_object(by_id)) {
        json_decref(by_id);
        by_id = of_before(dir, own, config, st);
    }
    bool ok = by_id && a.added && json_object_set(tokenizer, "added_tokens", a.added) == 0 &&
              begin(&a, tokenizer) && add_by_id(&a, by_id, config, class) && add_names(&a, config, class);
    json_decref(a.by_text);
    json_decref(a.added);
    json_decref(own);
    json_decref(by_id);
    return ok || (st->code != ST_OK ? false : no_memory(st, "the tokenizer's tokens"));
}

/* ---- around a text ---- */

static bool put_around(json_t *tokenizer, const json_t *config, const char *class, const char *switch_key,
                       const char *name, json_t *single, json_t *specials) {
    const json_t *e;
    const char *text = name_text(config, class, name, &e);
    size_t i;
    if (!text || !json_is_true(json_object_get(config, switch_key))) return true;
    json_array_foreach(json_object_get(tokenizer, "added_tokens"), i, e) {
        const char *s = json_string_value(json_object_get(e, "content"));
        if (s && strcmp(s, text) == 0)
            return json_array_append_new(single, json_pack("{s:{s:s}}", "SpecialToken", "id", text)) == 0 &&
                   json_object_set_new(specials, text,
                                       json_pack("{s:[O]}", "ids", json_object_get(e, "id"))) == 0;
    }
    return true;
}

bool tokfiles_surround(json_t *tokenizer, const json_t *config, const char *class) {
    json_t *single = json_array(), *specials = json_object();
    bool ok = single && specials &&
              put_around(tokenizer, config, class, "add_bos_token", "bos_token", single, specials) &&
              json_array_append_new(single, json_pack("{s:{s:s}}", "Sequence", "id", "A")) == 0 &&
              put_around(tokenizer, config, class, "add_eos_token", "eos_token", single, specials) &&
              json_object_set_new(tokenizer, "post_processor",
                                  json_pack("{s:s, s:O, s:O}", "type", "TemplateProcessing", "single", single,
                                            "special_tokens", specials)) == 0;
    json_decref(single);
    json_decref(specials);
    return ok;
}
