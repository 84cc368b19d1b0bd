/* embed_routes.c - POST /v1/embeddings and /v1/zero-shot: from a body to a job for vectors, from vectors to a reply.
 *
 * Runs on the connection's HTTP thread. Memory: the parsed request and the body live in the outbox until the engine has
 * read the pictures; embed_work lives until the HTTP request is over. */
#include <string.h>

#include "server/admit.h"
#include "server/embed_request.h"
#include "server/reply.h"
#include "server/routes.h"

typedef struct embed_work {
    outbox *ob; /* borrowed from the HTTP request */
    const char *model;
    bool base64;
    int width, n_tokens, n_images;
    engine_rule rule;
    char **labels; /* zero-shot; else NULL */
    int n_labels;
} embed_work;

/* What the engine reads in place. */
typedef struct embed_body {
    request_body body;
    embed_request req;
} embed_body;

static void body_drop(void *what) {
    embed_body *in = what;
    embed_request_fini(&in->req);
    body_free(&in->body);
    mem_free(in);
}

static void work_drop(void *state) {
    embed_work *w = state;
    for (int i = 0; i < w->n_labels; i++) mem_free(w->labels[i]);
    mem_free(w->labels);
    mem_free(w);
}

/* ---- replies ---- */

static void put_usage(buf *b, const embed_work *w) {
    buf_printf(b, ",\"model\":");
    json_put_cstring(b, w->model);
    buf_printf(b, ",\"usage\":{\"prompt_tokens\":%d,\"total_tokens\":%d}}\n", w->n_tokens, w->n_tokens);
}

static void put_vector(buf *b, const float *v, int n, bool base64) {
    if (base64) {
        buf_putc(b, '"');
        reply_base64(b, v, (size_t)n * sizeof *v);
        buf_putc(b, '"');
        return;
    }
    for (int i = 0; i < n; i++) {
        buf_putc(b, i ? ',' : '[');
        json_put_real(b, v[i]);
    }
    buf_putc(b, ']');
}

static void put_vectors(buf *b, const embed_work *w, const float *v, size_t n) {
    buf_puts(b, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < n; i++) {
        buf_printf(b, "%s{\"object\":\"embedding\",\"index\":%zu,\"embedding\":", i ? "," : "", i);
        put_vector(b, v + i * (size_t)w->width, w->width, w->base64);
        buf_putc(b, '}');
    }
    buf_putc(b, ']');
    put_usage(b, w);
}

static bool put_labels(buf *b, const embed_work *w, const float *v) {
    double *logits = mem_calloc((size_t)w->n_labels * 2, sizeof *logits);
    if (!logits) return false;
    double *probs = logits + w->n_labels;
    engine_judge(&w->rule, w->width, v, w->n_labels, logits, probs);
    buf_printf(b, "{\"object\":\"zero_shot\",\"rule\":\"%s\",\"data\":[",
               w->rule.sigmoid ? "sigmoid" : "softmax");
    for (int i = 0; i < w->n_labels; i++) {
        buf_printf(b, "%s{\"index\":%d,\"label\":", i ? "," : "", i);
        json_put_cstring(b, w->labels[i]);
        buf_puts(b, ",\"probability\":");
        json_put_real(b, probs[i]);
        buf_puts(b, ",\"logit\":");
        json_put_real(b, logits[i]);
        buf_putc(b, '}');
    }
    buf_putc(b, ']');
    put_usage(b, w);
    mem_free(logits);
    return true;
}

static void ready(http_req *r, void *state) {
    embed_work *w = state;
    outbox_batch batch = {0};
    outbox_end end;
    outbox_take(w->ob, &batch, &end);
    if (end.failed) {
        http_reply_status(r, &end.error);
    } else {
        buf b = {0};
        const buf *bytes = &batch.choices[0].bytes;
        const float *v = (const void *)bytes->data;
        if (!w->labels)
            put_vectors(&b, w, v, bytes->len / sizeof *v / (size_t)w->width);
        else if (!put_labels(&b, w, v))
            b.failed = true;
        http_reply(r, 200, "application/json", &b);
    }
    outbox_batch_fini(&batch);
}

/* ---- admission ---- */

static embed_work *work_new(const embed_request *q, const engine_info *info, const char *model,
                            const embed *x, status *st) {
    embed_work *w = mem_calloc(1, sizeof *w);
    size_t n = json_array_size(q->labels);
    bool ok = w != NULL;
    if (ok) {
        *w = (embed_work){.model = model,
                          .base64 = q->base64,
                          .width = info->embed_width,
                          .n_tokens = embed_tokens(x),
                          .rule = info->rule};
        for (int i = 0; i < q->n; i++) w->n_images += q->in[i].image != NULL;
        if (q->labels) ok = (w->labels = mem_calloc(n, sizeof *w->labels)) != NULL;
        for (size_t i = 0; ok && q->labels && i < n; i++) {
            ok = (w->labels[i] = mem_strdup(json_string_value(json_array_get(q->labels, i)))) != NULL;
            w->n_labels += ok;
        }
    }
    if (ok) return w;
    if (w) work_drop(w);
    status_set(st, ST_NO_MEMORY, "no memory for the request");
    return NULL;
}

/* Hands the inputs to the engine. On success the outbox holds the body and the job's number. */
static bool submit(app *a, engine *e, embed_work *w, embed_body *in, embed *x, http_req *r, status *st) {
    outbox_options o = {
        .wake = http_wake, .arg = r, .t_start = http_arrived(r), .on_end = metrics_end, .observer = &a->m};
    w->ob = outbox_new(&o);
    if (!w->ob) {
        embed_free(x);
        body_drop(in);
        return status_set(st, ST_NO_MEMORY, "no memory for the request");
    }
    outbox_keep(w->ob, body_drop, in);
    outbox_engine_begin(w->ob);
    uint64_t job = engine_embed_submit(e, x, outbox_sink, w->ob, st);
    if (!job) {
        outbox_engine_refused(w->ob);
        outbox_unref(w->ob);
        return false;
    }
    if (outbox_set_job(w->ob, job)) engine_cancel(e, job);
    return true;
}

typedef bool parse_fn(embed_request *r, char *body, size_t n, const embed_context *ctx, status *st);

static bool admit(app *a, engine *e, request_body body, parse_fn *parse, http_req *r, http_work *work,
                  status *st) {
    const engine_info *info = engine_get_info(e);
    embed_context ctx = {info->embed_width, info->vocab_size, app_unknown_field, a};
    const char *model = NULL;
    embed *x = NULL;
    embed_work *w = NULL;
    embed_body *in = mem_calloc(1, sizeof *in);
    if (!in) {
        body_free(&body);
        return status_set(st, ST_NO_MEMORY, "no memory for the request");
    }
    in->body = body;
    if (!info->embed_width)
        status_set(st, ST_UNSUPPORTED,
                   "this model generates text and makes no embeddings; use /v1/chat/completions");
    else if (parse(&in->req, in->body.bytes.data, in->body.bytes.len, &ctx, st) &&
             (model = app_model(a, in->req.model, st)) &&
             (x = engine_embed_new(e, in->req.in, in->req.n, &in->req.o, st)))
        w = work_new(&in->req, info, model, x, st);
    if (!w) {
        embed_free(x);
        body_drop(in);
        return false;
    }
    if (!submit(a, e, w, in, x, r, st)) {
        work_drop(w);
        return false;
    }
    *work = (http_work){.ob = w->ob,
                        .state = w,
                        .prompt_tokens = w->n_tokens,
                        .n_images = w->n_images,
                        .drop = work_drop,
                        .ready = ready};
    return true;
}

static bool admit_embeddings(app *a, engine *e, request_body body, http_req *r, http_work *w, status *st) {
    return admit(a, e, body, embed_request_parse, r, w, st);
}

static bool admit_zero_shot(app *a, engine *e, request_body body, http_req *r, http_work *w, status *st) {
    return admit(a, e, body, zero_shot_request_parse, r, w, st);
}

void embeddings_handler(http_req *r) {
    admit_request(r, admit_embeddings);
}

void zero_shot_handler(http_req *r) {
    admit_request(r, admit_zero_shot);
}
