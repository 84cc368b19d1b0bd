/* reply.c - see reply.h. Any thread; owns nothing. */
#include "server/reply.h"

#include <math.h>
#include <string.h>

/* ---- JSON -----------------------------------------------------------------------------------------------
 */

/* Escapes what is known to be UTF-8. */
static void put_escaped(buf *b, const char *p, size_t n) {
    size_t from = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        buf_append(b, p + from, i - from);
        from = i + 1;
        if (c == '"')
            buf_puts(b, "\\\"");
        else if (c == '\\')
            buf_puts(b, "\\\\");
        else if (c == '\n')
            buf_puts(b, "\\n");
        else if (c == '\r')
            buf_puts(b, "\\r");
        else if (c == '\t')
            buf_puts(b, "\\t");
        else
            buf_printf(b, "\\u%04x", c);
    }
    buf_append(b, p + from, n - from);
}

void json_put_string(buf *b, const char *p, size_t n) {
    buf_putc(b, '"');
    if (utf8_valid(p, n)) {
        put_escaped(b, p, n);
    } else {
        buf clean = {0};
        buf_append_utf8(&clean, p, n);
        if (clean.failed)
            b->failed = true;
        else
            put_escaped(b, clean.data, clean.len);
        buf_fini(&clean);
    }
    buf_putc(b, '"');
}

void json_put_cstring(buf *b, const char *s) {
    if (s)
        json_put_string(b, s, strlen(s));
    else
        buf_puts(b, "null");
}

void json_put_real(buf *b, double v) {
    if (isnan(v)) v = 0;
    if (isinf(v)) v = v > 0 ? 9999 : -9999;
    char text[40];
    snprintf(text, sizeof text, "%.9g", v);
    buf_puts(b, text);
    if (!strpbrk(text, ".e")) buf_puts(b, ".0");
}

void reply_base64(buf *b, const void *bytes, size_t n) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *p = bytes;
    char *to = buf_reserve(b, (n + 2) / 3 * 4 + 1) ? b->data + b->len : NULL;
    for (size_t i = 0; to && i < n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16;
        if (i + 1 < n) v |= (uint32_t)p[i + 1] << 8;
        if (i + 2 < n) v |= p[i + 2];
        *to++ = digits[v >> 18];
        *to++ = digits[v >> 12 & 63];
        *to++ = i + 1 < n ? digits[v >> 6 & 63] : '=';
        *to++ = i + 2 < n ? digits[v & 63] : '=';
    }
    if (!to) return;
    *to = 0;
    b->len = (size_t)(to - b->data);
}

/* ---- errors ----------------------------------------------------------------------------------------------
 */

int reply_http_status(const status *st) {
    switch (st->code) {
    case ST_OK: return 200;
    case ST_INVALID:
    case ST_UNSUPPORTED:
    case ST_TOO_LARGE:
        return 400; /* a bound inside a body; the body's own is answered before anyone is asked */
    case ST_NOT_FOUND: return 404;
    case ST_BUSY: return 429;
    case ST_CANCELLED:
    case ST_NO_MEMORY: return 503;
    case ST_IO:
    case ST_INTERNAL:
    case ST_LOST: return 500;
    }
    return 500;
}

static const char *error_type(int http) {
    if (http == 429) return "rate_limit_error";
    if (http == 401) return "authentication_error";
    if (http >= 500) return "server_error";
    return "invalid_request_error";
}

void reply_error(buf *b, int http, const char *message, const char *param, const char *code) {
    buf_puts(b, "{\"error\":{\"message\":");
    json_put_cstring(b, message);
    buf_puts(b, ",\"type\":");
    json_put_cstring(b, error_type(http));
    buf_puts(b, ",\"param\":");
    json_put_cstring(b, param && *param ? param : NULL);
    buf_puts(b, ",\"code\":");
    json_put_cstring(b, code);
    buf_puts(b, "}}");
}

void reply_error_status(buf *b, const status *st) {
    const char *code = st->code == ST_UNSUPPORTED                                    ? "unsupported_value"
                       : st->code == ST_BUSY                                         ? "rate_limit_exceeded"
                       : st->code == ST_NOT_FOUND && strcmp(st->param, "model") == 0 ? "model_not_found"
                                                                                     : NULL;
    reply_error(b, reply_http_status(st), st->msg, st->param, code);
}

/* ---- completions
 * ------------------------------------------------------------------------------------------- */

const char *reply_finish_name(engine_finish f) {
    return f == FINISH_STOP ? "stop" : "length";
}

void reply_ids(buf *b, const int32_t *ids, size_t n) {
    buf_putc(b, '[');
    for (size_t i = 0; i < n; i++) buf_printf(b, i ? ",%d" : "%d", ids[i]);
    buf_putc(b, ']');
}

void reply_choice_ids(buf *b, const outbox_choice *c) {
    buf_putc(b, '[');
    for (size_t i = 0; i < c->n_tokens; i++) buf_printf(b, i ? ",%d" : "%d", c->tokens[i].id);
    buf_putc(b, ']');
}

/* {"token":...,"bytes":[...],"logprob":...  without the closing brace. A special token is named, and has no bytes: the
 * text leaves it out. */
static void put_token(buf *b, float logprob, const char *bytes, size_t n, bool special) {
    buf_puts(b, "{\"token\":");
    json_put_string(b, bytes, n);
    buf_puts(b, ",\"bytes\":[");
    for (size_t i = 0; i < n && !special; i++) buf_printf(b, i ? ",%d" : "%d", (unsigned char)bytes[i]);
    buf_puts(b, "],\"logprob\":");
    json_put_real(b, logprob);
}

void reply_logprobs(buf *b, const outbox_choice *c) {
    buf_puts(b, "{\"content\":[");
    for (size_t i = 0; i < c->n_tokens; i++) {
        const outbox_token *t = &c->tokens[i];
        if (i) buf_putc(b, ',');
        put_token(b, t->logprob, c->bytes.data + t->bytes_at, t->n_bytes, t->special);
        buf_puts(b, ",\"top_logprobs\":[");
        for (size_t k = 0; k < t->n_top; k++) {
            const outbox_top *o = &c->tops[t->top_at + k];
            if (k) buf_putc(b, ',');
            put_token(b, o->logprob, c->bytes.data + o->bytes_at, o->n_bytes, o->special);
            buf_putc(b, '}');
        }
        buf_puts(b, "]}");
    }
    buf_puts(b, "],\"refusal\":null}");
}

void reply_usage(buf *b, const outbox_end *end) {
    buf_printf(b,
               "{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d,"
               "\"prompt_tokens_details\":{\"cached_tokens\":%d}}",
               end->prompt_tokens, end->completion_tokens, end->prompt_tokens + end->completion_tokens,
               end->cached_tokens);
}

static void put_choice(buf *b, const reply_head *h, int index, const outbox_choice *c) {
    buf_printf(b, "{\"index\":%d,\"message\":{\"role\":\"assistant\",\"content\":", index);
    json_put_string(b, c->text.data, c->text.len);
    buf_puts(b, ",\"refusal\":null},\"logprobs\":");
    if (h->logprobs)
        reply_logprobs(b, c);
    else
        buf_puts(b, "null");
    buf_printf(b, ",\"finish_reason\":\"%s\"", reply_finish_name(c->finish));
    if (h->token_ids) {
        buf_puts(b, ",\"token_ids\":");
        reply_choice_ids(b, c);
    }
    buf_putc(b, '}');
}

void reply_completion(buf *b, const reply_head *h, const outbox_batch *batch, const outbox_end *end) {
    buf_puts(b, "{\"id\":");
    json_put_cstring(b, h->id);
    buf_printf(b, ",\"object\":\"chat.completion\",\"created\":%ld,\"model\":", h->created);
    json_put_cstring(b, h->model);
    buf_puts(b, ",\"choices\":[");
    for (int i = 0; i < batch->n_choices; i++) {
        if (i) buf_putc(b, ',');
        put_choice(b, h, i, &batch->choices[i]);
    }
    buf_puts(b, "],\"usage\":");
    reply_usage(b, end);
    if (h->prompt_ids) {
        buf_puts(b, ",\"prompt_token_ids\":");
        reply_ids(b, h->prompt_ids, h->n_prompt_ids);
    }
    buf_putc(b, '}');
}
