/* chat_stream.h - a chat completion as server-sent events.
 *
 * Threads: one (the HTTP thread of the connection). Memory: borrows everything. The form is OpenAI's
 * chat.completion.chunk, token ids as vLLM adds them. Tested by tests/server/test_reply.c. */
#ifndef VLMD_SERVER_CHAT_STREAM_H
#define VLMD_SERVER_CHAT_STREAM_H

#include "server/reply.h"

typedef struct chat_stream {
    reply_head head;
    bool logprobs, token_ids, include_usage;
    const int32_t *prompt_ids; /* NULL: not asked for */
    size_t n_prompt_ids;
    bool role_sent;
} chat_stream;

/* Appends what the batch brings, and the end when there is one: finish, usage, [DONE], or an error event. */
void chat_stream_render(chat_stream *s, const outbox_batch *batch, const outbox_end *end, buf *out);

#endif
