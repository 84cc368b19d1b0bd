/* chat_stream.h - a chat completion as server-sent events.
 *
 * Threads: one (the HTTP thread of the connection). Memory: borrows everything. The form is OpenAI's
 * chat.completion.chunk, token ids as vLLM adds them. Tested by tests/server/test_reply.c. */
#ifndef VLMD_SERVER_CHAT_STREAM_H
#define VLMD_SERVER_CHAT_STREAM_H

#include "server/reply.h"

typedef struct chat_stream {
    reply_head head;
    bool include_usage;
    bool begun;         /* the first chunk was sent, which has the prompt's ids */
    unsigned role_sent; /* bits of choices */
} chat_stream;

/* Appends what the batch brings: of each choice its role, first of all, its text, its finish; and the end when there
 * is one: usage and [DONE], or an error event and [DONE]. */
void chat_stream_render(chat_stream *s, const outbox_batch *batch, const outbox_end *end, buf *out);

#endif
