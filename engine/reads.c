/* reads.c - see reads.h. */
#include "engine/reads.h"

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
