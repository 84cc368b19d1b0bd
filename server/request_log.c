/* request_log.c - see request_log.h. Any thread; the line is made in a buf of its own. */
#include "server/request_log.h"

#include "server/reply.h"

/* A path may hold anything: in text nothing of it may look like a field of ours. */
static void put_plain(buf *b, const char *s) {
    for (; *s; s++) buf_putc(b, *s > 0x20 && *s < 0x7F ? *s : '?');
}

static const char *finish_of(const outbox_summary *j) {
    if (!j->end.ended) return "abort";
    if (j->end.failed) return "error";
    return j->end.mixed ? "mixed" : reply_finish_name(j->end.finish);
}

static void put_text(buf *b, const request_line *l) {
    buf_printf(b, "%s ", l->method);
    put_plain(b, l->path);
    buf_printf(b, " %d id=%s", l->http, l->id);
    if (l->job)
        buf_printf(b, " prompt=%d cached=%d completion=%d pictures=%d finish=%s queue=%.1fms ttft=%.1fms",
                   l->prompt_tokens, l->job->end.cached_tokens, l->job->n_tokens, l->n_images,
                   finish_of(l->job), 1e3 * l->job->queue_s, 1e3 * l->job->first_s);
    buf_printf(b, " total=%.1fms", 1e3 * l->total_s);
    if (l->refusal) buf_printf(b, " refused=%s", l->refusal);
    if (l->left) buf_puts(b, " (client left)");
}

static void put_fields(buf *b, const request_line *l) {
    buf_printf(b, "\"event\":\"request\",\"method\":\"%s\",\"path\":", l->method);
    json_put_cstring(b, l->path);
    buf_puts(b, ",\"id\":");
    json_put_cstring(b, l->id);
    buf_printf(b, ",\"status\":%d", l->http);
    if (l->job)
        buf_printf(b,
                   ",\"prompt_tokens\":%d,\"cached_tokens\":%d,\"completion_tokens\":%d,\"pictures\":%d,"
                   "\"finish_reason\":\"%s\",\"queue_ms\":%.3f,\"ttft_ms\":%.3f",
                   l->prompt_tokens, l->job->end.cached_tokens, l->job->n_tokens, l->n_images,
                   finish_of(l->job), 1e3 * l->job->queue_s, 1e3 * l->job->first_s);
    buf_printf(b, ",\"total_ms\":%.3f", 1e3 * l->total_s);
    if (l->refusal) buf_printf(b, ",\"refused\":\"%s\"", l->refusal);
    buf_printf(b, ",\"client_left\":%s", l->left ? "true" : "false");
}

void request_log(const request_line *l) {
    log_level level = l->quiet ? LOG_DEBUG : LOG_INFO;
    if (!log_wants(level)) return;
    buf b = {0};
    (log_is_json() ? put_fields : put_text)(&b, l);
    if (b.data && !b.failed) log_event(level, b.data);
    buf_fini(&b);
}
