/* chat_stream.c - see chat_stream.h. */
#include "server/chat_stream.h"

static void open_chunk(const chat_stream *s, buf *b) {
    buf_puts(b, "data: {\"id\":");
    json_put_cstring(b, s->head.id);
    buf_printf(b, ",\"object\":\"chat.completion.chunk\",\"created\":%ld,\"model\":", s->head.created);
    json_put_cstring(b, s->head.model);
}

/* What follows is the choice's delta. */
static void open_choice(const chat_stream *s, int index, buf *b) {
    open_chunk(s, b);
    buf_printf(b, ",\"choices\":[{\"index\":%d,\"delta\":", index);
}

static void close_choice(const chat_stream *s, buf *b) {
    buf_puts(b, "}]");
    if (s->include_usage) buf_puts(b, ",\"usage\":null"); /* as OpenAI: every chunk but the last has none */
    buf_puts(b, "}\n\n");
}

static void put_role(chat_stream *s, int index, buf *b) {
    if (s->role_sent >> index & 1) return;
    s->role_sent |= 1u << index;
    open_choice(s, index, b);
    buf_puts(b, "{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]");
    if (s->head.prompt_ids && !s->begun) {
        buf_puts(b, ",\"prompt_token_ids\":");
        reply_ids(b, s->head.prompt_ids, s->head.n_prompt_ids);
    }
    s->begun = true;
    if (s->include_usage) buf_puts(b, ",\"usage\":null");
    buf_puts(b, "}\n\n");
}

static void put_delta(const chat_stream *s, int index, const outbox_choice *c, buf *b) {
    bool tokens = c->n_tokens && (s->head.logprobs || s->head.token_ids);
    if (!c->text.len && !tokens) return;
    open_choice(s, index, b);
    buf_puts(b, "{\"content\":");
    json_put_string(b, c->text.data, c->text.len);
    buf_puts(b, "},\"logprobs\":");
    if (s->head.logprobs && c->n_tokens)
        reply_logprobs(b, c);
    else
        buf_puts(b, "null");
    buf_puts(b, ",\"finish_reason\":null");
    if (s->head.token_ids) {
        buf_puts(b, ",\"token_ids\":");
        reply_choice_ids(b, c);
    }
    close_choice(s, b);
}

static void put_choice(chat_stream *s, int index, const outbox_choice *c, buf *b) {
    if (!c->text.len && !c->n_tokens && !c->ended) return;
    put_role(s, index, b);
    put_delta(s, index, c, b);
    if (!c->ended) return;
    open_choice(s, index, b);
    buf_printf(b, "{},\"logprobs\":null,\"finish_reason\":\"%s\"", reply_finish_name(c->finish));
    close_choice(s, b);
}

static void put_end(const chat_stream *s, const outbox_end *end, buf *b) {
    if (end->failed) {
        buf_puts(b, "data: ");
        reply_error_status(b, &end->error);
        buf_puts(b, "\n\n");
    } else if (s->include_usage) {
        open_chunk(s, b);
        buf_puts(b, ",\"choices\":[],\"usage\":");
        reply_usage(b, end);
        buf_puts(b, "}\n\n");
    }
    buf_puts(b, "data: [DONE]\n\n");
}

void chat_stream_render(chat_stream *s, const outbox_batch *batch, const outbox_end *end, buf *out) {
    if (batch->n_comments) buf_puts(out, ": keep-alive\n\n");
    for (int i = 0; i < batch->n_choices; i++) put_choice(s, i, &batch->choices[i], out);
    if (end->ended) put_end(s, end, out);
}
