/* post.c - what is put around the ids of a text: TemplateProcessing and its relatives. Read-only after
 * post_load. */
#include "engine/tok/tok_int.h"

#include <string.h>

#define DEPTH_MAX 16
#define IDS_MAX   65536 /* ids that one processor adds */

/* A template is flat: ids, and TEXT where the text goes. */
#define TEXT INT32_MIN
struct post {
    tok_ids items;
    bool plain; /* adds nothing */
    post **parts;
    size_t n;
};

void post_free(post *p) {
    if (!p) return;
    for (size_t i = 0; i < p->n; i++) post_free(p->parts[i]);
    mem_free(p->parts);
    tok_ids_fini(&p->items);
    mem_free(p);
}

static bool no_memory(status *st) {
    return status_set(st, ST_NO_MEMORY, "no memory for the ids of a text");
}

bool post_apply(const post *p, bool add_special, tok_ids *out, size_t from, status *st) {
    for (size_t i = 0; i < p->n; i++)
        if (!post_apply(p->parts[i], add_special, out, from, st)) return false;
    if (p->plain || p->n) return true;
    size_t texts = 0;
    for (size_t i = 0; i < p->items.n; i++) texts += p->items.v[i] == TEXT;
    if (texts == 1 && !add_special) return true;
    tok_ids text = {0};
    bool ok = true;
    for (size_t i = from; i < out->n && ok; i++) ok = tok_ids_push(&text, out->v[i]);
    if (ok && out->v) out->n = from;
    for (size_t i = 0; i < p->items.n && ok; i++) {
        if (p->items.v[i] != TEXT) {
            if (add_special) ok = tok_ids_push(out, p->items.v[i]);
            continue;
        }
        for (size_t k = 0; k < text.n && ok; k++) ok = tok_ids_push(out, text.v[k]);
    }
    tok_ids_fini(&text);
    return ok || no_memory(st);
}

size_t post_added(const post *p) {
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++) n += post_added(p->parts[i]);
    for (size_t i = 0; i < p->items.n; i++) n += p->items.v[i] != TEXT;
    return n;
}

static bool push_id(post *p, const json_t *id, const char *what, status *st) {
    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
        return status_set(st, ST_INVALID, "post_processor: %s: expected a token id, found %s", what,
                          jkind(id));
    if (p->items.n >= IDS_MAX)
        return status_set(st, ST_UNSUPPORTED, "post_processor: adds over %d tokens", IDS_MAX);
    return tok_ids_push(&p->items, (int32_t)json_integer_value(id)) || no_memory(st);
}

static bool load_template(post *p, const json_t *j, status *st) {
    const json_t *single = json_object_get(j, "single"), *tokens = json_object_get(j, "special_tokens");
    if (!json_is_array(single))
        return status_set(st, ST_INVALID, "post_processor: single: expected an array, found %s",
                          jkind(single));
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *e = json_array_get(single, i);
        const json_t *text = json_object_get(e, "Sequence"), *special = json_object_get(e, "SpecialToken");
        if (text) {
            const char *id = jfield_string(text, "id", NULL, "post_processor: Sequence", st);
            if (!id) return false;
            if (strcmp(id, "A") != 0)
                return status_set(st, ST_INVALID,
                                  "post_processor: single: expected sequence A, found '%.20s'", id);
            if (p->items.n >= IDS_MAX)
                return status_set(st, ST_UNSUPPORTED, "post_processor: too long a template");
            if (!tok_ids_push(&p->items, TEXT)) return no_memory(st);
            continue;
        }
        const char *name = jfield_string(special, "id", NULL, "post_processor: SpecialToken", st);
        if (!name) return false;
        const json_t *ids = json_object_get(json_object_get(tokens, name), "ids");
        if (!json_is_array(ids))
            return status_set(st, ST_INVALID, "post_processor: special token '%.60s' has no ids", name);
        for (size_t k = 0; k < json_array_size(ids); k++)
            if (!push_id(p, json_array_get(ids, k), "special_tokens", st)) return false;
    }
    return true;
}

static bool load(post *p, const json_t *j, int depth, status *st) {
    const char *type = jfield_string(j, "type", NULL, "post_processor", st);
    if (!type) return false;
    if (depth > DEPTH_MAX)
        return status_set(st, ST_UNSUPPORTED, "post_processor: sequences nested this deep");
    if (strcmp(type, "ByteLevel") == 0) { /* moves offsets only */
        p->plain = true;
        return true;
    }
    if (strcmp(type, "TemplateProcessing") == 0) return load_template(p, j, st);
    if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0)
        return push_id(p, json_array_get(json_object_get(j, "cls"), 1), "cls", st) &&
               (tok_ids_push(&p->items, TEXT) || no_memory(st)) &&
               push_id(p, json_array_get(json_object_get(j, "sep"), 1), "sep", st);
    if (strcmp(type, "Sequence") != 0)
        return status_set(st, ST_UNSUPPORTED, "post_processor '%.60s' is not built", type);
    const json_t *list = json_object_get(j, "processors");
    if (!json_is_array(list))
        return status_set(st, ST_INVALID, "post_processor: processors: expected an array, found %s",
                          jkind(list));
    p->parts = mem_calloc(json_array_size(list), sizeof *p->parts);
    if (!p->parts) return no_memory(st);
    p->plain = json_array_size(list) == 0;
    for (size_t k = 0; k < json_array_size(list); k++) {
        post *part = p->parts[p->n] = mem_calloc(1, sizeof *part);
        if (!part) return no_memory(st);
        p->n++;
        if (!load(part, json_array_get(list, k), depth + 1, st)) return false;
    }
    return true;
}

post *post_load(const json_t *j, status *st) {
    if (!j || json_is_null(j)) return NULL;
    post *p = mem_calloc(1, sizeof *p);
    if (!p) {
        no_memory(st);
        return NULL;
    }
    if (load(p, j, 0, st)) return p;
    post_free(p);
    return NULL;
}
