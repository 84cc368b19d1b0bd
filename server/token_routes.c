/* token_routes.c - POST /tokenize and /detokenize, with vLLM's bodies and replies. HTTP threads. */
#include <string.h>

#include "server/app.h"
#include "server/chat_request.h"
#include "server/fields.h"
#include "server/reply.h"
#include "server/routes.h"

static bool put_strings(engine *e, const int32_t *ids, size_t n, buf *out, status *st) {
    buf one = {0};
    bool ok = true;
    buf_putc(out, '[');
    for (size_t i = 0; i < n && ok; i++) {
        buf_clear(&one);
        ok = engine_token_string(e, ids[i], &one);
        if (i) buf_putc(out, ',');
        json_put_string(out, one.data ? one.data : "", one.len);
    }
    buf_putc(out, ']');
    buf_fini(&one);
    return ok || status_set(st, ST_INTERNAL, "a token of the vocabulary has no text");
}

static bool reply_tokens(engine *e, const int32_t *ids, size_t n, bool strings, buf *out, status *st) {
    buf_printf(out, "{\"count\":%zu,\"max_model_len\":%d,\"tokens\":", n, engine_get_info(e)->max_model_len);
    reply_ids(out, ids, n);
    buf_puts(out, ",\"token_strs\":");
    if (!strings)
        buf_puts(out, "null");
    else if (!put_strings(e, ids, n, out, st))
        return false;
    buf_puts(out, "}\n");
    return true;
}

static bool tokenize_text(engine *e, const chat_request *q, bool strings, buf *out, status *st) {
    bool special = true;
    const json_t *text = field_get(q->root, "prompt");
    if (!json_is_string(text)) return field_wrong(st, text, "text (or messages)", "prompt");
    if (!field_bool(q->root, "add_special_tokens", &special, st)) return false;
    int32_t *ids = NULL;
    size_t n = 0;
    if (!engine_tokenize(e, json_string_value(text), json_string_length(text), special, &ids, &n, st))
        return false;
    bool ok = reply_tokens(e, ids, n, strings, out, st);
    mem_free(ids);
    return ok;
}

static bool tokenize_chat(engine *e, chat_request *q, bool strings, buf *out, status *st) {
    bool special = false, generate = true, go_on = false;
    const json_t *kw = field_get(q->root, "chat_template_kwargs"), *tools = field_get(q->root, "tools");
    if (kw && !json_is_object(kw)) return field_wrong(st, kw, "an object", "chat_template_kwargs");
    if (!field_bool(q->root, "add_special_tokens", &special, st) ||
        !field_bool(q->root, "add_generation_prompt", &generate, st) ||
        !field_bool(q->root, "continue_final_message", &go_on, st))
        return false;
    if (tools && !json_is_array(tools)) return field_wrong(st, tools, "a list", "tools");
    const char *unbuilt = special ? "add_special_tokens: only false is supported with messages"
                          : go_on ? "continue_final_message: only false is supported"
                          : json_array_size(tools) ? "tools: only [] is supported"
                          : field_get(q->root, "chat_template")
                              ? "chat_template: only the model's own is supported"
                              : NULL;
    if (unbuilt) {
        status_set(st, ST_UNSUPPORTED, "%s", unbuilt);
        return status_param(st, "%.*s", (int)strcspn(unbuilt, ":"), unbuilt);
    }
    if (!chat_request_messages(q, st)) return false;
    q->chat.template_kwargs = kw;
    q->chat.no_generation_prompt = !generate;
    prompt *p = engine_prompt_chat(e, &q->chat, st);
    if (!p) return false;
    size_t n;
    const int32_t *ids = prompt_ids(p, &n);
    bool ok = reply_tokens(e, ids, n, strings, out, st);
    prompt_free(p);
    return ok;
}

static bool tokenize(app *a, engine *e, buf *json, buf *out, status *st) {
    chat_request q = {0};
    const char *model = NULL;
    bool strings = false, ok;
    ok = body_scan_run(&q.scan, json->data, json->len, st) &&
         chat_request_text_fits(&q.scan, engine_get_info(e)->max_model_len, st) &&
         (q.root = body_parse(q.scan.json, q.scan.n_json, !q.scan.n_spans, st)) &&
         field_string(q.root, "model", &model, st) && app_model(a, model, st) &&
         field_bool(q.root, "return_token_strs", &strings, st);
    if (ok && field_get(q.root, "messages"))
        ok = tokenize_chat(e, &q, strings, out, st);
    else if (ok)
        ok = tokenize_text(e, &q, strings, out, st);
    chat_request_fini(&q);
    return ok;
}

static bool detokenize(app *a, engine *e, buf *json, buf *out, status *st) {
    const char *model = NULL;
    int32_t *ids = NULL;
    buf text = {0};
    json_t *root = body_parse(json->data ? json->data : "", json->len, true, st);
    bool ok = root && field_string(root, "model", &model, st) && app_model(a, model, st);
    const json_t *list = ok ? field_get(root, "tokens") : NULL;
    if (ok && !json_is_array(list)) ok = field_wrong(st, list, "a list of token ids", "tokens");
    size_t n = json_array_size(list);
    int vocab = engine_get_info(e)->vocab_size;
    if (ok && !(ids = mem_alloc(n * sizeof *ids)))
        ok = status_set(st, ST_NO_MEMORY, "no memory for the request");
    for (size_t i = 0; i < n && ok; i++) {
        int64_t id = 0;
        const json_t *v = json_array_get(list, i);
        if (!json_whole(v, &id)) {
            ok = field_wrong(st, v, "a token id", "tokens[%zu]", i);
        } else if (id < 0 || id >= vocab) {
            status_set(st, ST_INVALID, "tokens[%zu]: the vocabulary holds ids from 0 to %d, found %lld", i,
                       vocab - 1, (long long)id);
            ok = status_param(st, "tokens[%zu]", i);
        } else {
            ids[i] = (int32_t)id;
        }
    }
    ok = ok && engine_detokenize(e, ids, n, &text, st);
    if (ok) {
        buf_puts(out, "{\"prompt\":");
        json_put_string(out, text.data ? text.data : "", text.len);
        buf_puts(out, "}\n");
        if (text.failed) out->failed = true;
    }
    buf_fini(&text);
    mem_free(ids);
    json_decref(root);
    return ok;
}

static void answer(http_req *r, bool (*work)(app *, engine *, buf *, buf *, status *)) {
    app *a = http_app(r);
    status st = {0};
    buf out = {0}, *json = &http_body(r)->bytes;
    engine *e = app_enter(a, &st);
    bool ok = false;
    if (e) {
        if (!json->data) buf_putc(json, ' ');
        ok = json->data ? work(a, e, json, &out, &st)
                        : status_set(&st, ST_NO_MEMORY, "no memory for the request");
        app_leave(a);
    }
    if (ok) {
        http_reply(r, 200, "application/json", &out);
        return;
    }
    buf_fini(&out);
    http_reply_status(r, &st);
}

void tokenize_handler(http_req *r) {
    answer(r, tokenize);
}

void detokenize_handler(http_req *r) {
    answer(r, detokenize);
}
