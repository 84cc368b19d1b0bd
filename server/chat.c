/* chat.c - POST /v1/chat/completions: from a body to a job, from an outbox to a reply.
 *
 * Runs on the connection's HTTP thread. Memory: the parsed request and the body live in the outbox until the
 * engine has read the pictures; chat_job lives until the HTTP request is over. */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "server/admit.h"
#include "server/chat_request.h"
#include "server/chat_stream.h"
#include "server/reply.h"
#include "server/routes.h"

typedef struct chat_job {
    app *app;
    outbox *ob; /* borrowed from the HTTP request */
    chat_stream s;
    char id[48];
    int32_t *prompt_ids;
    int n_prompt, n_images;
} chat_job;

/* What the engine reads in place. */
typedef struct chat_input {
    request_body body;
    chat_request req;
} chat_input;

static void input_free(void *what) {
    chat_input *in = what;
    chat_request_fini(&in->req);
    body_free(&in->body);
    mem_free(in);
}

static void job_drop(void *state) {
    chat_job *j = state;
    mem_free(j->prompt_ids);
    mem_free(j);
}

static void ready(http_req *r, void *state) {
    chat_job *j = state;
    outbox_batch batch = {0};
    outbox_end end;
    outbox_take(j->ob, &batch, &end);
    if (end.failed) {
        http_reply_status(r, &end.error);
    } else {
        buf b = {0};
        reply_completion(&b, &j->s.head, &batch, &end);
        buf_putc(&b, '\n');
        http_reply(r, 200, "application/json", &b);
    }
    outbox_batch_fini(&batch);
}

static void render(void *state, const outbox_batch *batch, const outbox_end *end, buf *out) {
    chat_job *j = state;
    chat_stream_render(&j->s, batch, end, out);
}

/* ---- admission
 * --------------------------------------------------------------------------------------------- */

static chat_job *job_new(app *a, const chat_request *q, const char *model, const prompt *p, status *st) {
    chat_job *j = mem_calloc(1, sizeof *j);
    if (!j) return status_set(st, ST_NO_MEMORY, "no memory for the request"), NULL;
    uint64_t x[2] = {0};
    if (getrandom(x, sizeof x, GRND_NONBLOCK) != (ssize_t)sizeof x) {
        x[0] = (uint64_t)(time_now_s() * 1e9);
        x[1] = (uint64_t)(uintptr_t)j;
    }
    snprintf(j->id, sizeof j->id, "chatcmpl-%016llx%08llx", (unsigned long long)x[0],
             (unsigned long long)(x[1] & 0xFFFFFFFF));
    size_t n_prompt;
    prompt_ids(p, &n_prompt);
    j->app = a;
    j->n_prompt = (int)n_prompt;
    j->n_images = q->chat.n_images;
    j->s = (chat_stream){.include_usage = q->include_usage};
    j->s.head = (reply_head){.id = j->id,
                             .model = model,
                             .created = (long)time(NULL),
                             .logprobs = q->logprobs,
                             .token_ids = q->return_token_ids};
    if (q->return_token_ids) {
        const int32_t *ids = prompt_ids(p, &n_prompt);
        j->prompt_ids = mem_alloc(n_prompt * sizeof *ids);
        if (!j->prompt_ids) {
            mem_free(j);
            return status_set(st, ST_NO_MEMORY, "no memory for the request"), NULL;
        }
        memcpy(j->prompt_ids, ids, n_prompt * sizeof *ids);
        j->s.head.prompt_ids = j->prompt_ids;
        j->s.head.n_prompt_ids = n_prompt;
    }
    return j;
}

/* Hands a prompt to the engine. On success the outbox holds the input and the job's number. */
static bool submit(engine *e, chat_job *j, chat_input *in, prompt *p, http_req *r, status *st) {
    outbox_options o = {.n_choices = in->req.params.n,
                        .stream = in->req.stream,
                        .keep_tokens = in->req.logprobs || in->req.return_token_ids,
                        .wake = http_wake,
                        .arg = r,
                        .t_start = http_arrived(r),
                        .on_token = metrics_token,
                        .on_end = metrics_end,
                        .observer = &j->app->m};
    j->ob = outbox_new(&o);
    if (!j->ob) {
        prompt_free(p);
        input_free(in);
        return status_set(st, ST_NO_MEMORY, "no memory for the request");
    }
    engine_params params = in->req.params; /* the input may be gone before engine_submit returns */
    outbox_keep(j->ob, input_free, in);
    outbox_engine_begin(j->ob);
    uint64_t job = engine_submit(e, p, &params, outbox_sink, j->ob, st);
    if (!job) {
        outbox_engine_refused(j->ob);
        outbox_unref(j->ob);
        j->ob = NULL;
        return false;
    }
    if (outbox_set_job(j->ob, job)) engine_cancel(e, job);
    return true;
}

/* engine_check_params knows one name of the field only. */
static void rename_param(const chat_request *q, status *st) {
    if (q->max_tokens_name && strcmp(st->param, "max_tokens") == 0)
        snprintf(st->param, sizeof st->param, "%s", q->max_tokens_name);
}

static bool admit(app *a, engine *e, request_body body, http_req *r, http_work *w, status *st) {
    chat_input *in = mem_calloc(1, sizeof *in);
    if (!in) {
        body_free(&body);
        return status_set(st, ST_NO_MEMORY, "no memory for the request");
    }
    in->body = body;
    chat_context ctx = {.vocab_size = engine_get_info(e)->vocab_size,
                        .max_model_len = engine_get_info(e)->max_model_len,
                        .unknown = app_unknown_field,
                        .arg = a};
    engine_default_params(e, &ctx.defaults);
    prompt *p = NULL;
    const char *model = NULL;
    chat_job *j = NULL;
    if (chat_request_parse(&in->req, in->body.bytes.data, in->body.bytes.len, &ctx, st) &&
        (model = app_model(a, in->req.model, st)) && (p = engine_prompt_chat(e, &in->req.chat, st))) {
        if (engine_check_params(e, &in->req.params, p, st))
            j = job_new(a, &in->req, model, p, st);
        else
            rename_param(&in->req, st);
    }
    if (!j) {
        prompt_free(p);
        input_free(in);
        return false;
    }
    if (!submit(e, j, in, p, r, st)) {
        job_drop(j);
        return false;
    }
    *w = (http_work){.ob = j->ob,
                     .state = j,
                     .prompt_tokens = j->n_prompt,
                     .n_images = j->n_images,
                     .drop = job_drop,
                     .ready = ready,
                     .render = render};
    return true;
}

void chat_handler(http_req *r) {
    admit_request(r, admit);
}
