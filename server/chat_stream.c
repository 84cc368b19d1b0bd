/* chat_stream.c - see chat_stream.h. */
#include "server/chat_stream.h"

static void open_chunk(const chat_stream *s, buf *b) {
    buf_puts(b, "data: {\"id\":");
    json_put_cstring(b, s->head.id);
    buf_printf(b, ",\"object\":\"chat.completion.chunk\",\"created\":%ld,\"model\":", s->head.created);
    json_put_cstring(b, s->head.model);
}

static void close_choice(const chat_stream *s, buf *b) {
    buf_puts(b, "}]");
    if (s->include_usage) buf_puts(b, ",\"usage\":null"); /* as OpenAI: every chunk but the last has none */
    buf_puts(b, "}\n\n");
}

static void put_role(chat_stream *s, buf *b) {
    if (s->role_sent) return;
    s->role_sent = true;
    open_chunk(s, b);
    if (s->prompt_ids) {
        buf_puts(b, ",\"prompt_token_ids\":");
        reply_ids(b, s->prompt_ids, s->n_prompt_ids);
    }
    buf_puts(
        b, ",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
           "\"finish_reason\":null");
    close_choice(s, b);
}

static void put_delta(const chat_stream *s, const outbox_batch *batch, buf *b) {
    bool tokens = batch->n_tokens && (s->logprobs || s->token_ids);
    if (!batch->text.len && !tokens) return;
    open_chunk(s, b);
    buf_puts(b, ",\"choices\":[{\"index\":0,\"delta\":{\"content\":");
    json_put_string(b, batch->text.data, batch->text.len);
    buf_puts(b, "},\"logprobs\":");
    if (s->logprobs && batch->n_tokens)
        reply_logprobs(b, batch);
    else
        buf_puts(b, "null");
    buf_puts(b, ",\"finish_reason\":null");
    if (s->token_ids) {
        buf_puts(b, ",\"token_ids\":");
        reply_batch_ids(b, batch);
    }
    close_choice(s, b);
}

static void put_end(const chat_stream *s, const outbox_end *end, buf *b) {
    if (end->failed) {
        buf_puts(b, "data: ");
        reply_error_status(b, &end->error);
        buf_puts(b, "\n\n");
    } else {
        open_chunk(s, b);
        buf_printf(b, ",\"choices\":[{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"%s\"",
                   reply_finish_name(end->finish));
        close_choice(s, b);
        if (s->include_usage) {
            open_chunk(s, b);
            buf_puts(b, ",\"choices\":[],\"usage\":");
            reply_usage(b, end->prompt_tokens, end->completion_tokens, end->cached_tokens);
            buf_puts(b, "}\n\n");
        }
    }
    buf_puts(b, "data: [DONE]\n\n");
}

void chat_stream_render(chat_stream *s, const outbox_batch *batch, const outbox_end *end, buf *out) {
    if (batch->n_comments) buf_puts(out, ": keep-alive\n\n");
    if (batch->text.len || batch->n_tokens || (end->ended && !end->failed)) put_role(s, out);
    put_delta(s, batch, out);
    if (end->ended) put_end(s, end, out);
}
