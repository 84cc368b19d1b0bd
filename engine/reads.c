/* reads.c - see reads.h. */
#include "engine/reads.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static bool no_memory(status *st) {
    return status_set(st, ST_NO_MEMORY, "no memory for the prompt");
}

static bool check(const reads_spec *r, const tok_ids *ids, status *st) {
    if (ids->n > (size_t)r->max_tok) {
        status_set(st, ST_INVALID,
                   "This model reads at most %d tokens of text together with a picture. However, your "
                   "messages resulted in %zu tokens. Please reduce the length of the messages.",
                   r->max_tok, ids->n);
        return status_param(st, "messages");
    }
    for (size_t i = 0; i < ids->n; i++)
        if (ids->v[i] < 0 || ids->v[i] >= r->vocab)
            return status_set(
                st, ST_INVALID,
                "token %zu of the text that is read with pictures is id %d; the model knows ids "
                "below %d there",
                i, (int)ids->v[i], r->vocab);
    return true;
}

static bool give(const promptkit *k, prompt_image *im, const tok_ids *ids, status *st) {
    int32_t *text = mem_alloc((ids->n + 1) * sizeof *text);
    if (!text) return no_memory(st);
    if (ids->n) memcpy(text, ids->v, ids->n * sizeof *text);
    im->pixels.text = text;
    im->pixels.plan.n_text = (int)ids->n;
    return prompt_size_image(k, im, st);
}

/* text[0, n), of which the spans are a user's. */
static bool take(const promptkit *k, const char *text, size_t n, const tok_span *spans, size_t n_spans,
                 prompt *p, status *st) {
    tok_ids ids = {0};
    bool ok =
        tok_encode(k->read_tok, text, n, spans, n_spans, true, &ids, st) && check(&k->spec->reads, &ids, st);
    for (int i = 0; ok && i < p->n_images; i++) ok = give(k, &p->images[i], &ids, st);
    tok_ids_fini(&ids);
    return ok;
}

/* text[0, n), which is no user's, without placeholders. */
static void put_trusted(const promptkit *k, const char *text, size_t n, buf *out) {
    size_t len = k->placeholder ? strlen(k->placeholder) : 0;
    const char *at;
    while (len && (at = memmem(text, n, k->placeholder, len))) {
        buf_append(out, text, (size_t)(at - text));
        n -= (size_t)(at - text) + len;
        text = at + len;
    }
    buf_append(out, text, n);
}

bool reads_rendered(const promptkit *k, const tmpl_out *text, prompt *p, status *st) {
    if (k->spec->reads.what != READS_PROMPT || p->n_images == 0) return true;
    buf all = {0};
    size_t at = 0;
    tok_span *spans = mem_alloc((text->n_user + 1) * sizeof *spans);
    for (size_t i = 0; spans && i < text->n_user; i++) {
        size_t begin = text->user[i].begin, end = text->user[i].end;
        put_trusted(k, text->text.data + at, begin - at, &all);
        spans[i].begin = all.len;
        buf_append(&all, text->text.data + begin, end - begin);
        spans[i].end = all.len;
        at = end;
    }
    if (text->text.len > at) put_trusted(k, text->text.data + at, text->text.len - at, &all);
    bool ok = spans && !all.failed ? take(k, all.data ? all.data : "", all.len, spans, text->n_user, p, st)
                                   : no_memory(st);
    buf_fini(&all);
    mem_free(spans);
    return ok;
}

/* ---- one picture, one question ---- */

static bool refuse(status *st, const char *param, const char *fmt, ...) PRINTF_LIKE(3, 4);
static bool refuse(status *st, const char *param, const char *fmt, ...) {
    char found[160];
    va_list args;
    va_start(args, fmt);
    vsnprintf(found, sizeof found, fmt, args);
    va_end(args);
    status_set(
        st, ST_INVALID,
        "this model answers one question about one picture: expected one user message with one picture "
        "and one text; found %s",
        found);
    return status_param(st, "%s", param);
}

static bool is_type(const json_t *part, const char *type) {
    const char *s = json_string_value(json_object_get(part, "type"));
    return s && strcmp(s, type) == 0;
}

/* The text of a message's content, where there is one alone; n: how many there are. */
static const json_t *text_of(const json_t *content, int *n) {
    const json_t *part, *text = NULL;
    size_t i;
    *n = 1;
    if (json_is_string(content)) return content;
    *n = 0;
    json_array_foreach((json_t *)content, i, part) {
        if (!is_type(part, "text")) continue;
        text = json_object_get(part, "text");
        ++*n;
    }
    return text;
}

/* NULL: refused. */
static const json_t *question_of(const engine_chat *c, status *st) {
    const json_t *m = json_array_get(c->messages, 0);
    const char *role = json_string_value(json_object_get(m, "role"));
    size_t n = json_array_size(c->messages);
    int texts = 0;
    const json_t *text = text_of(json_object_get(m, "content"), &texts);
    if (n != 1)
        refuse(st, "messages", "%zu messages", n);
    else if (!role || strcmp(role, "user") != 0)
        refuse(st, "messages[0].role", "one of role %.40s", role ? role : "null");
    else if (c->n_images != 1)
        refuse(st, c->n_images ? c->images[1].param : "messages", c->n_images ? "%d pictures" : "no picture",
               c->n_images);
    else if (texts != 1)
        refuse(st, "messages[0].content", texts ? "%d texts" : "no text", texts);
    else if (json_string_length(text) == 0)
        refuse(st, "messages[0].content", "an empty text");
    else if (c->no_generation_prompt)
        refuse(st, "add_generation_prompt", "a request for no answer");
    return st->code == ST_OK ? text : NULL;
}

bool reads_question(const promptkit *k, const engine_chat *c, prompt *p, status *st) {
    const json_t *text = question_of(c, st);
    if (!text || !prompt_take_images(k, c->images, c->n_images, p, st)) return false;
    size_t n = json_string_length(text);
    if (!take(k, json_string_value(text), n, &(tok_span){0, n}, 1, p, st)) return false;
    const tiles *read = &p->images[0].pixels;
    bool ok = tok_ids_push(&p->ids, k->spec->bos);
    for (int i = 0; ok && i < read->plan.n_text; i++) ok = tok_ids_push(&p->told, read->text[i]);
    return (ok && tok_ids_push(&p->told, k->spec->bos)) || no_memory(st);
}
